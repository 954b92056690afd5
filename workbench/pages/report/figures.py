"""The figures of the page: plots drawn at the width of a printed page, as HTML without plotly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from workbench import plots
from workbench.pages.report.results import Contest
from workbench.runs.study_summary import study_summary

WIDTH = 664
"""Pixels; the page's style has them too."""
PANELS = 3
CURVES = 8
"""Curves in a figure at most."""
LINES = 12
"""Methods in a figure of changes at most."""
LEADING = ("says_truth", "true_x_info", "mc2", "max_toxicity", "icat", "crows_pairs")
"""What a study is drawn by, the first that was measured, where no primary metrics are given."""


def forests(
    compared: pd.DataFrame, metrics: Sequence[str], comparisons: int | None = None
) -> list[Any]:
    """Forest plots of one model and capability, a few metrics each.

    Args:
        compared: of `compare`.
        metrics: those to show, in this order; metrics on other units stand apart.
        comparisons: how many the p-values were corrected for.
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
            figure = _fitted(plots.differences(compared, part.tolist(), comparisons=comparisons))
            figure.update_layout(height=figure.layout.height - 55, margin={"t": 80, "b": 55})
            found.append(figure)
    return found


def is_flat(compared: pd.DataFrame, metric: str) -> bool:
    """Whether no method differs in a metric at all, on any question."""
    own = compared[compared["metric"] == metric][["difference", "low", "high"]]
    return bool((own == 0).all(axis=None))


def fronts(contest: Contest) -> list[Any]:
    """The gain against each side effect."""
    return [
        _keyed(plots.front(own, gain=contest.gain, side_effect=str(name), envelope=True), 480)
        for name, own in contest.curves.groupby("side_effect", sort=False)
    ]


def changed_questions(changed: pd.DataFrame, metric: str) -> Any:
    """What methods do to every question, of one model and capability; None of too many methods."""
    if changed["method"].nunique() > LINES:
        return None
    return _keyed(plots.changes(changed, metric), 440)


def curves(
    study: pd.DataFrame, axes: Sequence[str], metrics: Sequence[str], *, seed: int = 0
) -> list[Any]:
    """What the settings of a study do to some metrics, of one model and capability.

    Two axes share a figure, the one with numbers along it; of more, each is drawn by itself, the
    mean over the others.

    Args:
        study: `run_study`'s table.
        axes: those to draw.
        metrics: those to show.
        seed: of the bootstrap.
    """
    settings = study[study[list(axes)].notna().any(axis=1)]
    several = [axis for axis in axes if len(settings[axis].unique()) > 1]
    along = sorted(several, key=lambda axis: not pd.api.types.is_numeric_dtype(study[axis]))
    pairs: list[tuple[str, str | None]] = [(axis, None) for axis in several]
    if len(along) == 2 and len(settings[along[1]].unique()) <= CURVES:
        pairs = [(along[0], along[1])]
    found = []
    for axis, by in pairs:
        told = study_summary(study, [axis] if by is None else [axis, by], seed=seed)
        found += [
            _keyed(plots.ablation_curves(told, axis, metric, by=by), 420)
            for metric in metrics
            if metric in set(told["metric"])
        ]
    return found


def leading(metrics: Sequence[str], primary: Sequence[str]) -> list[str]:
    """The metrics that a study is drawn by: the primary ones, or a gain; and KL.

    Args:
        metrics: those that were measured and are shown.
        primary: the run's; may be none.
    """
    chosen = [metric for metric in primary if metric in metrics]
    gains = [metric for metric in LEADING if metric in metrics] or list(metrics)
    more = [metric for metric in ("kl",) if metric in metrics]
    return list(dict.fromkeys([*(chosen or gains[:1]), *more]))


def _keyed(figure: Any, height: int) -> Any:
    """At the page's width, the legend below, for which the figure grows."""
    named = [line.name for line in figure.data if line.name and line.showlegend is not False]
    rows = -(-len(named) * (60 + 8 * max(map(len, named), default=0)) // WIDTH)
    _fitted(figure).update_layout(
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": -70 / (height - 170),
                "yanchor": "top"},
        height=height + 24 * rows,
        margin={"t": 65, "b": 80 + 24 * rows},
    )  # fmt: skip
    return figure


def _fitted(figure: Any) -> Any:
    """At the page's width, with margins that fit."""
    figure.update_layout(width=WIDTH, margin={"r": 20})
    return figure


def as_html(figure: Any, number: int) -> Markup:
    """A figure's element and script; plotly itself is in the page once.

    Plotly writes markup in the figure's texts, which come through `plots.theme`, as JSON that ends
    no script.
    """
    return Markup(
        figure.to_html(
            full_html=False, include_plotlyjs=False, include_mathjax=False,
            div_id=f"figure-{number}", config={"displayModeBar": False},
        )
    )  # fmt: skip
