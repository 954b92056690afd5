"""The explorer's figure in a notebook: tokens by layer, a graph's row, and the map of heads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.pages.explorer.record import Exploration
from workbench.plots.theme import MARK, SEQUENTIAL, shown, styled, wrapped

if TYPE_CHECKING:
    import plotly.graph_objects as go

QUANTITIES = ("strength s", "misalignment p̂", "uncertainty u", "change α·σ·s")
WIDTH, HEIGHT = 980, 900
LONGEST = 300
"""Characters of an answer in the title."""


@dataclass(frozen=True)
class View:
    """What is looked at.

    Attributes:
        record: the exploration; of one answer and one α where it was made live.
        answer: number of the answer in it.
        alpha, beta: the edit's α and β.
        token, layer, depth: of the graph's row.
        quantity: what colours tokens and heads.
    """

    record: Exploration
    answer: int
    alpha: float
    beta: float
    token: int = 0
    layer: int = 0
    depth: int = 0
    quantity: str = QUANTITIES[0]


def empty() -> go.Figure:
    """The figure without its values: tokens by layer, the graph's row, and the map of heads."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=3, cols=1, row_heights=[0.36, 0.24, 0.4], vertical_spacing=0.13,
        subplot_titles=["tokens by edited layer", "graph", "heads"],
    )  # fmt: skip
    bar = {"len": 0.32, "thickness": 14}
    figure.add_trace(
        go.Heatmap(colorscale=SEQUENTIAL, xgap=1, ygap=1, colorbar={**bar, "y": 0.86}), 1, 1
    )
    figure.add_trace(go.Bar(showlegend=False), 2, 1)
    figure.add_trace(
        go.Heatmap(colorscale=SEQUENTIAL, xgap=2, ygap=2, colorbar={**bar, "y": 0.15}), 3, 1
    )
    figure.update_yaxes(title_text="layer", type="category", row=1, col=1)
    figure.update_yaxes(title_text="layer", dtick=1, row=3, col=1)
    figure.update_xaxes(title_text="head", dtick=1, row=3, col=1)
    figure.update_xaxes(showgrid=False, zeroline=False)
    figure.update_yaxes(showgrid=False, zeroline=False, row=3, col=1)
    figure.update_annotations(font_size=13)
    styled(figure, "", width=WIDTH, height=HEIGHT, top=100)
    figure.update_layout(title={"yref": "container", "y": 0.97, "yanchor": "top"})
    return figure


def update(figure: Any, view: View) -> None:
    """Put what a view shows into a figure that `empty` made."""
    own = view.record.answers[view.answer]
    token = min(view.token, len(own.strings) - 1)
    per_head = _per_head(view)
    names = [shown(text, 18) for text in own.strings]
    places = list(range(len(names)))
    layers = list(view.record.edit.layers)
    row = own.graphs[view.depth, view.layer, token].numpy()
    unit = "bits" if view.record.settings.similarity == "mutual_information" else "similarity"
    low, high = _range(view)
    with figure.batch_update():
        figure.data[0].update(
            z=[_sent(_mean(per_head[:, layer])) for layer in layers], x=places,
            y=[str(layer) for layer in layers], zmin=low, zmax=high,
            customdata=[names] * len(layers),
            hovertemplate="%{customdata}, layer %{y}<br>%{z:.3f}<extra></extra>",
        )  # fmt: skip
        figure.data[1].update(
            x=places, y=row, marker={"color": [MARK if n == token else "#0072B2" for n in places]},
            customdata=names, hovertemplate="%{customdata}<br>%{y:.3f} " + unit + "<extra></extra>",
        )  # fmt: skip
        figure.data[2].update(
            z=_sent(per_head[token]), zmin=low, zmax=high,
            hovertemplate="layer %{y}, head %{x}<br>%{z:.3f}<extra></extra>",
        )  # fmt: skip
        ticks = {"tickvals": places, "ticktext": names, "tickangle": -45}
        figure.layout.xaxis.update(**ticks)
        figure.layout.xaxis2.update(**ticks)
        figure.layout.yaxis2.update(title_text=unit)
        title = _title(view)
        figure.layout.title.text = title
        figure.layout.margin.t = 70 + 22 * title.count("<br>")
        for number, text in enumerate((
            f"{view.quantity}: mean over the edited heads of each layer",
            f"{unit} with {names[token]} at layer {view.layer}, rounds: {view.depth}",
            f"{view.quantity} of the heads at {names[token]}",
        )):  # fmt: skip
            figure.layout.annotations[number].text = text


def _per_head(view: View) -> np.ndarray:
    """The chosen quantity by token, layer and head; NaN for heads that are not edited."""
    record, edit = view.record, view.record.edit
    own, row = record.answers[view.answer], record.row(view.alpha)
    layer, head = np.array(edit.heads).T
    shape = edit.model.shape
    found = np.full((len(own.strings), shape.layers, shape.heads), np.nan)
    found[:, layer, head] = {
        QUANTITIES[0]: lambda: record.strengths(view.answer, view.alpha, view.beta),
        QUANTITIES[1]: lambda: own.misalignment[row],
        QUANTITIES[2]: lambda: own.uncertainty[row][:, layer],
        QUANTITIES[3]: lambda: record.change(view.answer, view.alpha, view.beta),
    }[view.quantity]().numpy()
    return found


def _title(view: View) -> str:
    """The answer and what the model writes by itself, escaped and cut where they are long."""
    own = view.record.answers[view.answer]
    head = f"{own.kind}: {own.question} → {own.answer.strip()}"
    said = f"α = {view.alpha:g} writes: {own.written[view.record.row(view.alpha)].strip()}"
    cut = [text if len(text) <= LONGEST else text[: LONGEST - 1] + "…" for text in (head, said)]
    return f"{wrapped(cut[0], 100)}<br><sup>{wrapped(cut[1], 140)}</sup>"


def _range(view: View) -> tuple[float, float]:
    """Least and most of the heads at every α of the record, so that colours keep their meaning."""
    alphas = view.record.alphas
    every = np.concatenate([_per_head(replace(view, alpha=alpha)).ravel() for alpha in alphas])
    known = every[~np.isnan(every)]
    return (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)


def _sent(values: np.ndarray) -> np.ndarray:
    """Values as they travel to a notebook's page: JSON knows None, and no NaN."""
    known = ~np.isnan(values)
    found = values if known.all() else values.astype(object)
    found[~known] = None
    return found


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over edited heads for every token; NaN where none acts."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.where(known.any(axis=-1), total / np.maximum(known.sum(axis=-1), 1), np.nan)
