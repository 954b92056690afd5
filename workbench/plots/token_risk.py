"""Which tokens are risky: a sentence with its tokens coloured by the strength of the edit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from workbench.errors import WorkbenchError
from workbench.plots.theme import SEQUENTIAL, shown, styled, wrapped

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from workbench.trace import TokenTrace, Trace

Quantity = Literal["strengths", "misalignment", "uncertainty", "change"]
NAMES = {
    "strengths": "strength s",
    "misalignment": "misalignment p̂",
    "uncertainty": "uncertainty u",
    "change": "change along θ (units of z)",
}


def token_risk(
    trace: Trace | TokenTrace, quantity: Quantity = "strengths", *, title: str = ""
) -> go.Figure:
    """A heat map with a row for each edited layer and a column for each token.

    Heads of a layer are averaged over the edited ones; hovering shows every number. A column is
    the position at which the model is about to write the next token, which its label names after
    the arrow.

    Args:
        trace: of one sequence.
        quantity: what colours the cells.
        title: the figure's title, shown as typed; a sentence may be long.

    Raises:
        WorkbenchError: no trace, no such quantity, or nothing was edited.
    """
    import plotly.graph_objects as go

    if quantity not in NAMES:
        raise WorkbenchError(f"the quantity {quantity!r}", f"one of {', '.join(NAMES)}")
    one: Any = getattr(trace, "only", trace)
    if not hasattr(one, "strengths"):
        raise WorkbenchError(f"a {type(trace).__name__}", "the trace that `edited` gives")
    values = np.asarray(getattr(one, quantity), dtype=float)
    edited = ~np.isnan(np.asarray(one.strengths, dtype=float))
    layers = np.flatnonzero(edited.any(axis=(0, 2)))
    if not layers.size:
        raise WorkbenchError("a trace in which nothing was edited", "a trace of an edit")
    if values.ndim == 3:
        chosen = np.where(edited, values, 0.0).sum(axis=2) / np.maximum(edited.sum(axis=2), 1)
    else:
        chosen = values
    chosen = chosen[:, layers].T
    strings = [shown(text, 18) for text in one.strings]
    following = [shown(text, 18) if text else "(next)" for text in one.following]
    count = len(strings)
    figure = go.Figure(
        go.Heatmap(
            z=chosen,
            x=list(range(count)),
            y=[f"layer {layer}" for layer in layers],
            colorscale=SEQUENTIAL,
            colorbar={"title": {"text": NAMES[quantity], "side": "right"}},
            customdata=[[f"{a} → {b}" for a, b in zip(strings, following, strict=True)]]
            * len(layers),
            hovertemplate="%{y}, %{customdata}<br>" + NAMES[quantity] + " %{z:.3f}<extra></extra>",
            texttemplate="%{z:.2f}" if count <= 24 else None,
            textfont={"size": 11},
            xgap=1,
            ygap=1,
        )
    )
    figure.update_xaxes(
        tickmode="array",
        tickvals=list(range(count)),
        ticktext=following,
        tickangle=-45,
        tickfont={"size": 13 if count <= 40 else 8},
        title_text="token about to be written",
        showgrid=False,
    )
    figure.update_yaxes(showgrid=False)
    width = max(560, min(1800, 260 + 52 * count))
    head = wrapped(title, width // 10) if title else NAMES[quantity].capitalize()
    head += "<br><sup>mean over the edited heads of each layer</sup>"
    lines = head.count("<br>")
    room = 22 * lines
    return styled(figure, head, width=width, height=230 + 44 * len(layers) + room, top=80 + room)
