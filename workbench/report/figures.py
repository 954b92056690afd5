"""The figures of the page: plots drawn at the width of a printed page, as HTML without plotly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from workbench import plots
from workbench.report.results import Contest

WIDTH = 670
PANELS = 3


def forests(compared: pd.DataFrame, metrics: Sequence[str]) -> list[Any]:
    """Forest plots of one model and task, a few metrics each.

    Args:
        compared: of `compare`.
        metrics: those to show, in this order; metrics on other units stand apart.
    """
    known = compared.groupby("metric")["questions"].max()
    units: dict[int, list[str]] = {}
    for metric in metrics:
        if metric in known.index:
            units.setdefault(int(known[metric]), []).append(metric)
    found = []
    for own in units.values():
        count = -(-len(own) // PANELS)
        for part in np.array_split(own, count):
            figure = _fitted(plots.differences(compared, part.tolist()))
            figure.update_layout(height=figure.layout.height - 30, margin={"t": 105, "b": 55})
            found.append(figure)
    return found


def is_flat(compared: pd.DataFrame, metric: str) -> bool:
    """Whether no method differs in a metric at all, on any question."""
    own = compared[compared["metric"] == metric][["difference", "low", "high"]]
    return bool((own == 0).all(axis=None))


def fronts(contest: Contest, gain: str) -> list[Any]:
    """The gain against each side effect."""
    found = []
    for name, own in contest.curves.groupby("side_effect", sort=False):
        figure = _fitted(plots.front(own, gain=gain, cost=str(name)))
        rows = (own["method"].nunique() + 1) // 2
        figure.update_layout(
            legend={"orientation": "h", "x": 0, "xanchor": "left", "y": -0.16, "yanchor": "top"},
            height=480 + 22 * rows,
            margin={"b": 80 + 22 * rows},
        )
        found.append(figure)
    return found


def _fitted(figure: Any) -> Any:
    """At the page's width, with margins that fit."""
    figure.update_layout(width=WIDTH, margin={"r": 20})
    return figure


def as_html(figure: Any, number: int) -> Markup:
    """A figure's element and script; plotly itself is in the page once.

    Plotly writes markup in the figure's texts, which come through `plots.theme`, as JSON that ends
    no script.
    """
    return Markup(  # noqa: S704
        figure.to_html(
            full_html=False, include_plotlyjs=False, include_mathjax=False,
            div_id=f"figure-{number}", config={"displayModeBar": False},
        )
    )  # fmt: skip
