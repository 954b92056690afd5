"""Where truth lives: validation accuracy of every head's probe, chosen heads marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.doors import door
from workbench.plots.theme import MARK, SEQUENTIAL, styled
from workbench.stages.directions import Directions

if TYPE_CHECKING:
    import plotly.graph_objects as go


@door
def head_accuracy(directions: Directions, chosen: Sequence[tuple[int, int]] = ()) -> go.Figure:
    """A map of layers × heads coloured by accuracy.

    Args:
        directions: from `fit_directions`; its `accuracy` [layer, head] and `chance` are shown,
            and how many questions they were measured on.
        chosen: (layer, head) pairs to mark, such as `edit.heads`.

    Example:
        >>> figure = wb.plots.head_accuracy(directions, chosen=edit.heads)
        >>> figure.data[0].z.shape
        (5, 8)
    """
    import plotly.graph_objects as go

    accuracy = 100 * np.asarray(directions.accuracy, dtype=float)
    layers, heads = accuracy.shape
    numbered = heads <= 16 and layers <= 48
    cell = (62, 52) if layers * heads <= 128 else (58, 26)
    heat: dict[str, Any] = {
        "z": accuracy,
        "colorscale": SEQUENTIAL,
        "colorbar": {"title": {"text": "accuracy (%)"}},
        "hovertemplate": "layer %{y}, head %{x}: %{z:.1f} %<extra></extra>",
        "xgap": 1,
        "ygap": 1,
    }
    if numbered:
        heat |= {"texttemplate": "%{z:.0f}", "textfont": {"size": 12}}
    figure = go.Figure(go.Heatmap(**heat))
    for number, (layer, head) in enumerate(chosen):
        figure.add_shape(
            type="rect", x0=head - 0.46, x1=head + 0.46, y0=layer - 0.46, y1=layer + 0.46,
            line={"color": MARK, "width": 3}, name=f"edited heads ({len(chosen)})",
            showlegend=number == 0,
        )  # fmt: skip
    figure.update_xaxes(title_text="head", dtick=1 if heads <= 16 else 4, showgrid=False)
    figure.update_yaxes(
        title_text="layer", dtick=1 if numbered or layers <= 16 else 4, showgrid=False
    )
    held, count = int(sum(directions.validation)), len(directions.validation)
    note = (
        f"<br><sup>on {held} of {count} training questions, which the probes did not see; always "
        f"guessing the commoner label: {100 * directions.chance:.0f} %</sup>"
    )
    figure.update_layout(
        legend={"x": 1, "xanchor": "right", "y": 1.01, "yanchor": "bottom", "orientation": "h"}
    )
    return styled(
        figure,
        f"Validation accuracy of truth probes{note}",
        width=min(1400, max(700, 230 + cell[0] * heads)) if numbered else 1000,
        height=min(1500, 215 + cell[1] * layers) if numbered else 940,
        top=115 if chosen else 90,
    )
