"""What the plots of traces share: values of edited heads, tokens' labels, lines of tokens."""

from __future__ import annotations

import html
import math
import unicodedata
from typing import Any, Literal, get_args

import numpy as np

from workbench.editing.token_trace import TokenTrace
from workbench.editing.trace import Trace
from workbench.errors import WorkbenchError, kind_of
from workbench.plots.theme import shown

Quantity = Literal["strengths", "misalignment", "uncertainty", "change", "moved", "gate"]
NAMES = {
    "strengths": "strength s",
    "misalignment": "misalignment p̂",
    "uncertainty": "uncertainty u",
    "change": "change along θ (units of z)",
    "moved": "distance that a layer moved (its own units)",
    "gate": "gate: share of the change that a token gets",
}
OF_STATES = ("moved", "gate")
"""What edits of whole states have too."""
SHORT = {"strengths": "s", "misalignment": "p̂", "uncertainty": "u", "change": "change",
         "moved": "moved", "gate": "gate"}  # fmt: skip
FEW = 16
"""So many tokens have room for slanted labels and for numbers in their cells."""


def one_trace(trace: Trace | TokenTrace, quantity: str) -> Any:
    """The trace of one sequence, refusing what is none and unknown quantities."""
    if quantity not in get_args(Quantity):
        raise WorkbenchError(f"the quantity {quantity!r}", f"one of {', '.join(NAMES)}")
    one: Any = getattr(trace, "only", trace)
    if not hasattr(one, "strengths"):
        raise WorkbenchError(f"{kind_of(trace)}", "the trace that `edited` gives")
    return one


def edited_heads(trace: Any, quantity: str) -> list[tuple[int, int | None]]:
    """Layer and head of every place that was edited; head is None for edits of whole states."""
    strengths = np.asarray(trace.strengths, dtype=float)
    heads = np.argwhere((~np.isnan(strengths)).any(axis=0)).tolist()
    if heads:
        return [(layer, head) for layer, head in heads]
    moved = np.asarray(trace.moved, dtype=float)
    layers = np.flatnonzero((~np.isnan(moved)).any(axis=0)).tolist()
    if quantity not in OF_STATES or not layers:
        other = "; its `moved` can be shown, and its `gate`" if layers else ""
        raise WorkbenchError(
            f"a trace in which nothing was edited{' at heads' if other else ''}",
            f"a trace of an edit{other}",
        )
    return [(layer, None) for layer in layers]


def at_heads(trace: Any, quantity: str, heads: list[tuple[int, int | None]]) -> Any:
    """A quantity's values [token, edited]; those of a layer stand at each of its heads."""
    values = np.asarray(getattr(trace, quantity), dtype=float)
    if values.ndim == 3:
        nothing = np.full(len(values), np.nan)
        own = [nothing if head is None else values[:, layer, head] for layer, head in heads]
        return np.stack(own, axis=1)
    return np.stack([values[:, layer] for layer, _ in heads], axis=1)


def mean_over(values: Any) -> Any:
    """Means over the last axis of what is not NaN; NaN where nothing is left."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def written(trace: Any, width: int = 18) -> list[str]:
    """Labels of the tokens that are about to be written at each position."""
    return [shown(text, width) if text else "(next)" for text in trace.following]


def lines_of(count: int, most: int) -> list[range]:
    """Token numbers broken into lines of equal length, of at most so many."""
    lines = max(1, math.ceil(count / most))
    each = math.ceil(count / lines)
    return [range(start, min(start + each, count)) for start in range(0, count, max(1, each))]


def colour_limits(values: Any, limits: tuple[float, float] | None = None) -> tuple[float, float]:
    """The ends of a colour scale: those given, or the least and the greatest value."""
    if limits is not None:
        low, high = limits
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise WorkbenchError(f"limits={limits}", "two numbers, the lower one first")
        return float(low), float(high)
    known = np.asarray(values, dtype=float)
    known = known[np.isfinite(known)]
    if not known.size:
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def number(value: float) -> str:
    """A number for hovering; a dash for NaN."""
    return "—" if math.isnan(value) else f"{value:.3f}"


def columns(text: str) -> int:
    """How many columns a shown text takes, letters of double width counted twice."""
    return sum(
        2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in html.unescape(text)
        if not unicodedata.combining(one) and unicodedata.category(one) != "Cf"
    )


def ticks(
    names: list[str], places: range | None = None, *, upright: bool | None = None
) -> dict[str, Any]:
    """Tick labels of tokens at whole numbers; upright where there are many, or as told."""
    upright = len(names) > FEW if upright is None else upright
    shown_at = range(len(names)) if places is None else places
    return {
        "tickmode": "array",
        "tickvals": list(shown_at),
        "ticktext": [names[k] for k in shown_at],
        "tickangle": -90 if upright else -45,
        "tickfont": {"size": 12},
        "showgrid": False,
        "zeroline": False,
    }
