"""Kinds of edits, and what can be told of each token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from workbench.checks import is_number
from workbench.editing.head_edits import Edit
from workbench.editing.interventions import Intervention
from workbench.editing.state_edits import StateEdit
from workbench.editing.whole_edits import Foreword, WholeEdit
from workbench.errors import WorkbenchError, kind_of

EditKind = Literal["heads", "states", "whole"]
TIMES = (0.0, 0.5, 1.0, 1.5, 2.0)
"""By default α runs through so many times the edit's own."""


def edit_kind(edit: Intervention) -> EditKind:
    """What an edit is of: heads with p̂ and u, states, or the whole model."""
    if isinstance(edit, Edit):
        return "heads"
    return "states" if isinstance(edit, StateEdit) else "whole"


def column_names(edit: Intervention) -> tuple[str, ...]:
    """The edited layers of an edit of states, each with the points that are edited there."""
    if not isinstance(edit, StateEdit):
        return ()
    points = {own: [point for point, layer in edit.places if layer == own] for own in edit.layers}
    return tuple(f"{', '.join(named)} {layer}" for layer, named in points.items())


def what_it_lacks(edit: Intervention) -> str:
    """Why an edit has no p̂, u, s and β, in a sentence or two; empty where it has them."""
    if isinstance(edit, Foreword):
        return (
            "This edit is text before the prompt, which is not shown: there or, at α = 0, not. No "
            "token has a strength of its own; log-probabilities and greedy answers show what it "
            "does."
        )
    return {
        "heads": "",
        "states": "This edit changes whole states: it has no p̂, u, s or β, and no attention of "
        "edited heads.",
        "whole": "This edit changes the model for all tokens alike, those of the prompt too. No "
        "token has a strength of its own; log-probabilities and greedy answers show what it does.",
    }[edit_kind(edit)]


def require_explorable(edit: object) -> None:
    """Refuse what nothing can be told of token by token.

    Raises:
        WorkbenchError: no edit, one of heads with strengths other than TAE's, or goals that share
            heads.
    """
    if not isinstance(edit, Edit | StateEdit | WholeEdit):
        raise WorkbenchError(
            f"an exploration of {kind_of(edit)}",
            "a fitted edit of heads such as TokenAware's, of states such as CAA's, LoRA's or a "
            "prompt's, or several by name",
            "A saved one is read by load_edit(folder, model); several are {'TAE': edit, ...}.",
        )
    if isinstance(edit, Edit) and edit.shares_heads:
        raise WorkbenchError(
            "an exploration of an edit with goals that share heads", "one strength a head"
        )


def grid(alphas: Sequence[float] | None, edit: Intervention) -> tuple[float, ...]:
    """Different α's in ascending order, the edit's own among them; by default up to twice it.

    A foreword is there or not, so that by default it is run without and with it.
    """
    own = edit.alpha
    if alphas is None:
        times = (0.0, 1.0) if isinstance(edit, Foreword) else TIMES
        alphas = [one * (own or 1.0) for one in times]
    if not all(map(is_number, alphas)):
        raise WorkbenchError(f"alphas={alphas!r}", "numbers")
    return tuple(sorted({float(alpha) for alpha in (*alphas, own)}))
