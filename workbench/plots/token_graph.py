"""The graph between an answer's tokens, as a matrix of similarities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.doors import door
from workbench.errors import WorkbenchError
from workbench.plots.theme import SEQUENTIAL, shown, styled, wrapped
from workbench.plots.token_cells import colour_limits
from workbench.stages.token_graph import TokenGraph

if TYPE_CHECKING:
    import plotly.graph_objects as go


@door
def token_graph(graph: TokenGraph | Sequence[TokenGraph], *, weights: bool = False) -> go.Figure:
    """A heat map, tokens on both axes; of several graphs one at a time, chosen with a slider.

    Args:
        graph: from `token_graph`, or several of the same answer, of other layers or rounds. They
            share one colour scale.
        weights: show the propagation weights instead of the similarities.

    Raises:
        WorkbenchError: no graphs, or those of different answers or measures.

    Example:
        >>> figure = wb.plots.token_graph(wb.token_graph(acts[0], layer=2))
        >>> figure.data[0].z.shape
        (5, 5)
    """
    import plotly.graph_objects as go

    graphs = list(graph) if isinstance(graph, Sequence) else [graph]
    _require_alike(graphs)
    values = [values_of(one, weights=weights) for one in graphs]
    labels = [shown(text, 16) for text in graphs[0].strings]
    unit = unit_of(graphs[0], weights=weights)
    count = len(labels)
    apart = ~np.eye(count, dtype=bool) if count > 1 else np.ones((1, 1), dtype=bool)
    low, high = colour_limits(np.stack(values)[:, apart])
    figure = go.Figure(
        [
            go.Heatmap(
                z=own,
                x=list(range(count)),
                y=list(range(count)),
                text=[[f"{a} → {b}" for b in labels] for a in labels],
                hovertemplate="%{text}<br>" + unit + " %{z:.3f}<extra></extra>",
                hoverongaps=False,
                texttemplate="%{z:.2f}" if count <= 14 else None,
                textfont={"size": 11},
                xgap=1,
                ygap=1,
                visible=number == 0,
                coloraxis="coloraxis",
            )
            for number, own in enumerate(values)
        ]
    )
    cell, font = (46, 12) if count <= 14 else (22, 12) if count <= 60 else (14, 10)
    size = 300 + cell * count
    axis = {
        "tickmode": "array",
        "tickvals": list(range(count)),
        "ticktext": labels,
        "showgrid": False,
        "zeroline": False,
        "tickfont": {"size": font},
    }
    figure.update_xaxes(**axis, tickangle=-45 if count <= 14 else -90, title_text="token")
    figure.update_yaxes(**axis, autorange="reversed", title_text="token")
    figure.update_layout(
        coloraxis={
            "colorscale": SEQUENTIAL,
            "cmin": low,
            "cmax": high,
            "colorbar": {"title": {"text": unit, "side": "right"}, "thickness": 18},
        }
    )
    sentence = wrapped("".join(graphs[0].strings).strip(), (size - 60) // 8)
    note = f"<br><sup>{sentence}<br>colours span the values off the diagonal"
    note += ("; the same for all steps" if len(graphs) > 1 else "") + "</sup>"
    titles = [f"Token graph, {place_of(one)}{note}" for one in graphs]
    room = 22 * titles[0].count("<br>")
    below = 120 + (90 if len(graphs) > 1 else 0)
    styled(figure, titles[0], width=size + 120, height=size - 140 + room + below, top=65 + room)
    figure.update_layout(margin={"l": 120, "b": below})
    if len(graphs) > 1:
        figure.update_layout(sliders=[_slider(graphs, titles)])
    return figure


def values_of(graph: TokenGraph, *, weights: bool) -> Any:
    """The weights or similarities of a graph, as numbers."""
    return np.asarray(graph.weights if weights else graph.similarity, dtype=float)


def unit_of(graph: TokenGraph, *, weights: bool) -> str:
    """What they are called."""
    return "weight" if weights else _unit(str(graph.settings.similarity))


def _unit(similarity: str) -> str:
    told = {"mutual_information": "mutual information (bits)", "cosine": "cosine similarity"}
    return told.get(similarity, "similarity")


def place_of(graph: TokenGraph) -> str:
    """Where a graph was taken, in words."""
    head = "" if graph.head is None else f", head {graph.head}"
    rounds = f"{graph.depth} round" + ("" if graph.depth == 1 else "s")
    return f"layer {graph.layer}{head}, after {rounds} of propagation"


def _require_alike(graphs: list[TokenGraph]) -> None:
    if not graphs:
        raise WorkbenchError("no graphs", "at least one")
    if len({(one.strings, one.settings.similarity) for one in graphs}) > 1:
        raise WorkbenchError(
            "graphs of different answers or measures", "those of one answer by one measure"
        )


def _slider(graphs: list[TokenGraph], titles: list[str]) -> dict[str, Any]:
    """A step a graph, which shows it and its title."""
    steps = []
    for number, (one, title) in enumerate(zip(graphs, titles, strict=True)):
        head = "" if one.head is None else f", head {one.head}"
        steps.append(
            {
                "label": f"layer {one.layer}{head}, round {one.depth}",
                "method": "update",
                "args": [
                    {"visible": [other == number for other in range(len(graphs))]},
                    {"title.text": title},
                ],
            }
        )
    return {"active": 0, "steps": steps, "pad": {"t": 110}, "currentvalue": {"visible": True}}
