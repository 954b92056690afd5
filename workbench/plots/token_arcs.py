"""The graph between an answer's tokens, as arcs over the sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.doors import door
from workbench.errors import WorkbenchError
from workbench.plots.theme import shown, styled, wrapped
from workbench.plots.token_cells import FEW, colour_limits, columns, ticks
from workbench.plots.token_graph import place_of, unit_of, values_of
from workbench.stages.token_graph import TokenGraph

if TYPE_CHECKING:
    import plotly.graph_objects as go

ARC = "0, 114, 178"
"""Blue, as red, green, blue."""
POINTS = 49


@door
def token_arcs(graph: TokenGraph, *, strongest: int = 40, weights: bool = False) -> go.Figure:
    """The sentence on a line and an arc between every two tokens that are strongly joined.

    Width and opacity grow from the weakest to the strongest of all pairs, so that arcs look alike
    where the graph hardly tells tokens apart. Of weights, which have a direction, an arc shows the
    mean of both.

    Args:
        graph: from `token_graph`.
        strongest: how many arcs to draw; a token's arc to itself is left out.
        weights: show the propagation weights instead of the similarities.

    Raises:
        WorkbenchError: fewer than one arc asked for.

    Example:
        >>> figure = wb.plots.token_arcs(wb.token_graph(acts[0], layer=2), strongest=3)
        >>> len(figure.data)
        3
    """
    import plotly.graph_objects as go

    if strongest < 1:
        raise WorkbenchError(f"strongest={strongest}", "at least one arc")
    values = values_of(graph, weights=weights)
    count = len(graph.strings)
    pairs, joined = _strongest(values, strongest)
    unit = unit_of(graph, weights=weights)
    labels = [shown(text, 18) for text in graph.strings]
    low, high = colour_limits(joined)
    figure = go.Figure()
    for first, second in reversed(pairs):
        own = (values[first, second] + values[second, first]) / 2
        share = float((own - low) / (high - low))
        told = f"{labels[first]} ↔ {labels[second]}<br>{unit} {own:.3f}"
        if weights:
            told += f"<br>→ {values[first, second]:.3f}, ← {values[second, first]:.3f}"
        figure.add_trace(_arc(first, second, share, told))
    figure.update_xaxes(
        **ticks(labels), range=[-0.7, max(count, 2) - 0.3], title_text="token", showline=True
    )
    tall = max((second - first for first, second in pairs), default=1)
    figure.update_yaxes(visible=False, range=[0, 1.06 * _height(tall)])
    width = max(620, min(1700, 160 + (46 if count <= FEW else 15) * count))
    sentence = wrapped("".join(graph.strings).strip(), (width - 60) // 8)
    title = f"Token graph, {place_of(graph)}<br><sup>{sentence}<br>"
    title += f"{wrapped(_told(len(pairs), joined, unit), (width - 60) // 8)}</sup>"
    room = 22 * title.count("<br>")
    below = 60 + 7 * max(map(columns, labels))
    styled(figure, title, width=width, height=330 + room + below, top=60 + room)
    return figure.update_layout(showlegend=False, hovermode="closest", margin={"b": below, "l": 40})


def _strongest(values: Any, most: int) -> tuple[list[tuple[int, int]], Any]:
    """The pairs of largest value, largest first, and the values of all pairs that are numbers."""
    first, second = np.triu_indices(len(values), k=1)
    means = (values[first, second] + values[second, first]) / 2
    known = np.isfinite(means)
    first, second, means = first[known], second[known], means[known]
    order = np.argsort(-means, kind="stable")[:most]
    return [(int(first[k]), int(second[k])) for k in order], means


def _height(distance: float) -> float:
    """Of an arc over so many tokens; far ones are flattened, so that near ones are seen."""
    return float(distance**0.6)


def _arc(first: int, second: int, share: float, told: str) -> go.Scatter:
    import plotly.graph_objects as go

    turn = np.linspace(0, np.pi, POINTS)
    middle, half = (first + second) / 2, (second - first) / 2
    return go.Scatter(
        x=middle - half * np.cos(turn),
        y=_height(second - first) * np.sin(turn),
        mode="lines",
        line={"width": 0.6 + 4.4 * share, "color": f"rgba({ARC}, {0.15 + 0.75 * share:.3f})"},
        text=[told] * POINTS,
        hovertemplate="%{text}<extra></extra>",
    )


def _told(drawn: int, joined: Any, unit: str) -> str:
    if not drawn:
        return "no pairs of tokens"
    kept = np.sort(joined)[::-1][:drawn]
    which = "all" if drawn == len(joined) else f"the {drawn} strongest of"
    return (
        f"{which} {len(joined):,} pairs: {unit} {kept[-1]:.3g} to {kept[0]:.3g}; width and opacity "
        f"grow from the weakest pair of all, {joined.min():.3g}"
    )
