"""How strong an edit is token by token along a generation, and what its strength is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.doors import door
from workbench.editing.head_edits import Edit
from workbench.editing.token_trace import TokenTrace
from workbench.errors import WorkbenchError
from workbench.plots.theme import INK, shown, styled, wrapped
from workbench.plots.token_cells import (
    FEW,
    NAMES,
    OF_STATES,
    SHORT,
    Quantity,
    at_heads,
    columns,
    edited_heads,
    lines_of,
    mean_over,
    number,
    one_trace,
    ticks,
    written,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

PARTS = {"1": "#E4E4E4", "β·p̂": "#E69F00", "(1 − β)·u": "#56B4E9"}
HATCH = {"shape": "/", "fgcolor": INK, "bgcolor": "rgba(0, 0, 0, 0)", "size": 6, "solidity": 0.14}
"""Of the range of heads: seen over any colour, and in print."""
MOST = 50
"""Most tokens in one line."""


@door
def strength_over_generation(
    traces: Mapping[str, TokenTrace] | TokenTrace,
    quantity: Quantity = "strengths",
    *,
    beta: float | Edit | Mapping[str, float | Edit] | None = None,
    title: str = "",
) -> go.Figure:
    r"""A panel a method, long ones in several lines: the mean over edited heads and their range.

    With β, the strength is shown as the sum of its parts 1, β·p̂ and (1 − β)·u (TAE, eq. 9).

    Args:
        traces: of one sequence each, by the method's name.
        quantity: what to show; only strengths have parts.
        beta: β, or the edit to read it from; one for all, or by the method's name. Methods
            without one are shown without parts.
        title: shown above.

    Raises:
        WorkbenchError: no traces, nothing was edited, or strengths that are no such sum.

    Example:
        >>> with wb.edited(model, edit) as trace:
        ...     answers = wb.generate(model, "Q: What is the capital of Australia?\nA:")
        >>> figure = wb.plots.strength_over_generation(trace[0], beta=edit)
        >>> [part.name for part in figure.data]
        ['1', 'β·p̂', '(1 − β)·u', 'range of heads', 'mean s']
    """
    from plotly.subplots import make_subplots

    by_name = dict(traces) if isinstance(traces, Mapping) else {"": traces}
    if not by_name:
        raise WorkbenchError("no traces", "at least one")
    panels = [
        (name, line, _columns_of(name, one_trace(trace, quantity), quantity, beta))
        for name, trace in by_name.items()
        for line in lines_of(len(trace.strings), MOST)
    ]
    longest = max(len(line) for _, line, _ in panels)
    below = 50 + 7 * max(columns(label) for _, _, own in panels for label in own["labels"])
    inner = 190 * len(panels) + below * (len(panels) - 1)
    figure = make_subplots(
        rows=len(panels),
        cols=1,
        vertical_spacing=below / inner if len(panels) > 1 else 0,
        subplot_titles=[
            shown(name) if line.start == 0 and name else "" for name, line, _ in panels
        ],
    )
    told: set[str] = set()
    for row, (_, line, own) in enumerate(panels, start=1):
        for trace in _drawn(own, line, quantity, told):
            figure.add_trace(trace, row=row, col=1)
        figure.update_xaxes(
            row=row, col=1, range=[line.start - 0.5, line.start + longest - 0.5],
            **ticks(own["labels"], line, upright=longest > FEW),
        )  # fmt: skip
    figure.update_xaxes(title_text="token about to be written", row=len(panels), col=1)
    low, high = _reach([own for _, _, own in panels])
    unit = SHORT[quantity] if quantity in ("change", "moved") else NAMES[quantity]
    figure.update_yaxes(title_text=unit, range=[low, high], zeroline=True)
    figure.update_layout(barmode="overlay", bargap=0, legend={"x": 1.02, "y": 1, "xanchor": "left"})
    width = max(640, 270 + (46 if longest <= FEW else 18) * longest)
    head = wrapped(title or f"{NAMES[quantity].capitalize()} along the generation", width // 10)
    units = "layers" if quantity in OF_STATES else "heads"
    head += f"<br><sup>line: mean over the edited {units}; hatched: their range</sup>"
    room = 22 * head.count("<br>")
    styled(figure, head, width=width, height=inner + below + 110 + room, top=70 + room)
    return figure.update_layout(margin={"b": below + 20, "r": 160})


def _columns_of(name: str, trace: Any, quantity: str, beta: Any) -> dict[str, Any]:
    """Labels, mean, range and parts of one trace, a value a token."""
    heads = edited_heads(trace, quantity)
    values = at_heads(trace, quantity, heads)
    known = ~np.isnan(values).all(axis=1)
    low, high = (np.full(len(values), np.nan) for _ in range(2))
    low[known], high[known] = np.nanmin(values[known], axis=1), np.nanmax(values[known], axis=1)
    own = beta.get(name) if isinstance(beta, Mapping) else beta
    parts = _parts(trace, heads, values, own) if quantity == "strengths" and own is not None else {}
    return {
        "labels": written(trace), "mean": mean_over(values), "low": low, "high": high,
        "parts": parts,
    }  # fmt: skip


def _parts(trace: Any, heads: Any, strengths: Any, beta: Any) -> dict[str, Any]:
    """The means of the strength's parts; zero where p̂ or u plays no part."""
    of_p, of_u = getattr(beta, "factors", None) or (float(beta), 1 - float(beta))
    p = np.nan_to_num(of_p * at_heads(trace, "misalignment", heads))
    u = np.nan_to_num(of_u * at_heads(trace, "uncertainty", heads))
    if np.nanmax(np.abs(1 + p + u - strengths), initial=0) > 0.01:
        raise WorkbenchError(
            f"strengths that are not 1 + {of_p:g}·p̂ + {of_u:g}·u",
            "the β, or the edit, with which the trace was made",
        )
    alive = np.where(np.isnan(strengths), np.nan, 1.0)
    return dict(zip(PARTS, (mean_over(alive), mean_over(p * alive), mean_over(u * alive)),
                    strict=True))  # fmt: skip


def _drawn(own: dict[str, Any], line: range, quantity: str, told: set[str]) -> list[Any]:
    """The parts as stacked columns, the range as a band, the mean as a stepped line.

    The line alone would end in the middle of the first and the last token; half a token on either
    side of every point is drawn as its error bar.
    """
    import plotly.graph_objects as go

    part = slice(line.start, line.stop)
    common = {"x": list(line), "hoverinfo": "skip", "width": 1, "marker_line_width": 0}
    drawn: list[Any] = []
    base = np.zeros(len(line))
    for name, values in own["parts"].items():
        drawn.append(go.Bar(y=values[part], base=base, marker_color=PARTS[name], name=name,
                            **common))  # fmt: skip
        base = base + values[part]
    low, high, mean = own["low"][part], own["high"][part], own["mean"][part]
    drawn.append(
        go.Bar(
            y=high - low,
            base=low,
            name=f"range of {'layers' if quantity in OF_STATES else 'heads'}",
            marker_color="rgba(0, 0, 0, 0)",
            marker_pattern=HATCH,
            **common,
        )
    )
    hover = [
        "<br>".join(
            [own["labels"][k], f"{SHORT[quantity]} {number(own['mean'][k])} "
             f"({number(own['low'][k])} to {number(own['high'][k])})",
             *[f"{name} {number(values[k])}" for name, values in own["parts"].items()]]
        )
        for k in line
    ]  # fmt: skip
    drawn.append(
        go.Scatter(
            x=list(line),
            y=mean,
            mode="lines+markers",
            line={"color": INK, "width": 1.5, "shape": "hvh"},
            error_x={"type": "constant", "value": 0.5, "color": INK, "thickness": 1.5, "width": 0},
            marker={"size": 4, "color": INK},
            text=hover,
            hovertemplate="%{text}<extra></extra>",
            name=f"mean {SHORT[quantity]}",
        )
    )
    for trace in drawn:
        trace.legendgroup, trace.showlegend = trace.name, trace.name not in told
        told.add(trace.name)
    return drawn


def _reach(panels: list[dict[str, Any]]) -> tuple[float, float]:
    """The same vertical range for all panels; from 0 on where parts are stacked from there."""
    ends = np.concatenate([own[name] for own in panels for name in ("low", "high")])
    ends = ends[np.isfinite(ends)]
    low, high = (float(ends.min()), float(ends.max())) if ends.size else (0.0, 1.0)
    low = min(low, 0.0) if any(own["parts"] for own in panels) else low
    room = 0.06 * ((high - low) or 1.0)
    return low - (room if low else 0.0), high + room
