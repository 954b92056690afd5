"""The graph between an answer's tokens, as a matrix of similarities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workbench.plots.theme import SEQUENTIAL, shown, styled, wrapped

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from workbench.token_graphs import TokenGraph

UNITS = {
    "mutual_information": "mutual information (bits)",
    "cosine": "cosine similarity",
    "uniform": "similarity",
}


def token_graph(graph: TokenGraph, *, weights: bool = False) -> go.Figure:
    """A heat map, tokens on both axes.

    Args:
        graph: from `token_graph`.
        weights: show the propagation weights instead of the similarities.
    """
    import plotly.graph_objects as go

    values = np.asarray(graph.weights if weights else graph.similarity, dtype=float)
    labels = [shown(text, 16) for text in graph.strings]
    unit = "weight" if weights else UNITS[graph.settings.similarity]
    count = len(labels)
    others = values[~np.eye(count, dtype=bool)] if count > 1 else values
    figure = go.Figure(
        go.Heatmap(
            z=values,
            zmin=others.min(),
            zmax=others.max(),
            colorscale=SEQUENTIAL,
            colorbar={"title": {"text": unit, "side": "right"}},
            hovertemplate="%{customdata}<br>" + unit + " %{z:.3f}<extra></extra>",
            customdata=[[f"{a} → {b}" for b in labels] for a in labels],
            texttemplate="%{z:.2f}" if count <= 14 else None,
            textfont={"size": 11},
            xgap=1,
            ygap=1,
        )
    )
    ticks = {
        "tickmode": "array",
        "tickvals": list(range(count)),
        "ticktext": labels,
        "showgrid": False,
        "tickfont": {"size": 12 if count <= 40 else 7},
    }
    figure.update_xaxes(**ticks, tickangle=-45, title_text="token")
    figure.update_yaxes(**ticks, autorange="reversed", title_text="token")
    where = f"layer {graph.layer}" + ("" if graph.head is None else f", head {graph.head}")
    size = min(1300, 300 + (46 if count <= 14 else 22) * count)
    sentence = wrapped("".join(graph.strings).strip(), 60)
    figure = styled(
        figure,
        f"Token graph, {where}, after {graph.round} rounds of propagation"
        f"<br><sup>{sentence} (colours span the values off the diagonal)</sup>",
        width=size + 120,
        height=size + 18 * sentence.count("<br>"),
        top=95 + 18 * sentence.count("<br>"),
    )
    figure.update_layout(margin={"l": 120, "b": 120})
    return figure
