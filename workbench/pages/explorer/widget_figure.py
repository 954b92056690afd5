"""The explorer's figure in a notebook: tokens by layer, a graph's row, and the map of heads.

Edits that are not of heads have no map, and those of the whole model one row of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.editing.head_edits import Edit
from workbench.pages.explorer.kinds import column_names, edit_kind, what_it_lacks
from workbench.pages.explorer.record import Exploration
from workbench.plots.theme import DIVERGING, MARK, SEQUENTIAL, shown, styled, wrapped

if TYPE_CHECKING:
    import plotly.graph_objects as go

OF_HEADS = ("strength s", "misalignment p̂", "uncertainty u", "change α·σ·s")
GATE, MOVED, NATS = "gate", "how far states moved (norm)", "log-probability (nats)"
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
    quantity: str = OF_HEADS[0]


def quantities(record: Exploration) -> tuple[str, ...]:
    """What tokens can be coloured by."""
    of_states = (GATE, MOVED, NATS) if record.gated else (MOVED, NATS)
    return {"heads": OF_HEADS, "states": of_states, "whole": (NATS,)}[edit_kind(record.edit)]


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
    figure.update_yaxes(type="category", row=1, col=1)
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
    edit = view.record.edit
    per_head = _per_head(view) if isinstance(edit, Edit) else None
    rows, values = _by_layer(view)
    names = [shown(text, 18) for text in own.strings]
    places = list(range(len(names)))
    row = own.graphs[view.depth, view.layer, token].numpy()
    unit = "bits" if view.record.settings.similarity == "mutual_information" else "similarity"
    low, high = _range(view)
    signed = view.quantity == GATE and low < 0
    with figure.batch_update():
        figure.data[0].update(
            z=[_sent(row) for row in values.T], x=places, y=rows, zmin=low, zmax=high,
            colorscale=DIVERGING if signed else SEQUENTIAL, customdata=[names] * len(rows),
            hovertemplate="%{customdata}, %{y}<br>%{z:.3f}<extra></extra>",
        )  # fmt: skip
        figure.data[1].update(
            x=places, y=row, marker={"color": [MARK if n == token else "#0072B2" for n in places]},
            customdata=names, hovertemplate="%{customdata}<br>%{y:.3f} " + unit + "<extra></extra>",
        )  # fmt: skip
        figure.data[2].update(
            z=None if per_head is None else _sent(per_head[token]), zmin=low, zmax=high,
            visible=per_head is not None,
            hovertemplate="layer %{y}, head %{x}<br>%{z:.3f}<extra></extra>",
        )  # fmt: skip
        ticks = {"tickvals": places, "ticktext": names, "tickangle": -45}
        figure.layout.xaxis.update(**ticks)
        figure.layout.xaxis2.update(**ticks)
        figure.layout.yaxis2.update(title_text=unit)
        figure.layout.xaxis3.update(visible=per_head is not None)
        figure.layout.yaxis3.update(visible=per_head is not None)
        title = _title(view)
        figure.layout.title.text = title
        figure.layout.margin.t = 70 + 22 * title.count("<br>")
        for number, text in enumerate((
            view.quantity + _meant(view),
            f"{unit} with {names[token]} at layer {view.layer}, rounds: {view.depth}",
            f"{view.quantity} of the heads at {names[token]}" if isinstance(edit, Edit)
            else wrapped(what_it_lacks(edit), 110),
        )):  # fmt: skip
            figure.layout.annotations[number].text = text


def _meant(view: View) -> str:
    """Of what the rows of tokens are."""
    if view.quantity == NATS:
        return ""
    heads = isinstance(view.record.edit, Edit)
    return ": mean over the edited heads of each layer" if heads else " at each edited layer"


def _by_layer(view: View) -> tuple[list[str], np.ndarray]:
    """Names of the rows of tokens, and the chosen quantity by token and row."""
    record, own = view.record, view.record.answers[view.answer]
    row = record.row(view.alpha)
    if view.quantity == NATS:
        return ["answer"], own.nats[row][:, None].numpy()
    if isinstance(record.edit, Edit):
        layers, per_head = record.edit.layers, _per_head(view)
        means = [_mean(per_head[:, layer]) for layer in layers]
        return [f"layer {layer}" for layer in layers], np.stack(means, axis=1)
    values = own.gate if view.quantity == GATE else own.moved
    assert values is not None
    return list(column_names(record.edit)), values[row].numpy()


def _per_head(view: View) -> np.ndarray:
    """The chosen quantity by token, layer and head; NaN for heads that are not edited."""
    record, edit = view.record, view.record.edit
    assert isinstance(edit, Edit)
    own, row = record.answers[view.answer], record.row(view.alpha)
    layer, head = np.array(edit.heads).T
    shape = edit.model.shape
    found = np.full((len(own.strings), shape.layers, shape.heads), np.nan)
    found[:, layer, head] = {
        OF_HEADS[0]: lambda: record.strengths(view.answer, view.alpha, view.beta),
        OF_HEADS[1]: lambda: own.misalignment[row],
        OF_HEADS[2]: lambda: own.uncertainty[row][:, layer],
        OF_HEADS[3]: lambda: record.change(view.answer, view.alpha, view.beta),
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
    """Least and most at every α of the record, so that colours keep their meaning.

    Of heads, of each by itself; 0 stands in the middle where gates lie on both sides of it.
    """
    views = [replace(view, alpha=alpha) for alpha in view.record.alphas]
    heads = isinstance(view.record.edit, Edit)
    every = np.concatenate([(_per_head(v) if heads else _by_layer(v)[1]).ravel() for v in views])
    known = every[~np.isnan(every)]
    if not known.size:
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    most = max(-low, high)
    return (-most, most) if view.quantity == GATE and low < 0 else (low, high)


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
