"""Sections of the page: what was measured of one model and capability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from workbench.evaluation.capabilities.rows import NO_EDIT
from workbench.evaluation.changes import changes, outcomes
from workbench.evaluation.text_tables import Table
from workbench.pages.report import account, figures
from workbench.pages.report.results import Results
from workbench.pages.report.tables import (
    difference_table,
    metrics_of,
    outcome_table,
    summary_tables,
    worst_table,
)

DRAWN = 24
"""Methods beyond which their differences are not drawn, since no printed page holds them."""
WORST = 5
"""Questions that are told of those that a method hurts."""
FINER = "mc2"
OF_SIDE_EFFECTS = ("kl", "cross_entropy")
"""How metrics of side effects begin, which nobody is helped by."""


@dataclass(frozen=True)
class Differences:
    """From one of the methods, of one model and capability.

    Attributes:
        against: the method.
        table: of all.
        corrected: the metrics that p-values are corrected for; all where it is empty.
        comparisons: how many they are.
        figures: forest plots; none where `crowd` says why.
        alike: metrics that are not drawn, since no method differs.
        crowd: so many methods that they are not drawn; 0 where they are.
        random: methods of several draws.
    """

    against: str
    table: Table
    corrected: Sequence[str]
    comparisons: int
    figures: Sequence[Any]
    alike: Sequence[str] = ()
    crowd: int = 0
    random: Sequence[str] = ()


@dataclass(frozen=True)
class Hurt:
    """Who is helped and who is hurt, in one metric of one model and capability.

    Attributes:
        metric: which one.
        against: the method before the change.
        shares: of questions that became better, worse, or neither.
        worst: the questions hurt most.
        figure: all changes in order; None where the methods are too many.
    """

    metric: str
    against: str
    shares: Table
    worst: Table
    figure: Any


@dataclass(frozen=True)
class Section:
    """What was measured of one model and capability.

    Attributes:
        title: of the section.
        summaries: means with intervals.
        glossary: what the metrics mean.
        limits: what those who judged cannot tell, by their names.
        curves: what the settings of a study do.
        told: differences; None where there is nothing to compare with.
        hurt: what happens to every question; None where nothing is measured without an edit.
    """

    title: str
    summaries: Sequence[Table]
    glossary: Sequence[tuple[str, str]]
    limits: Sequence[tuple[str, str]]
    curves: Sequence[Any]
    told: Differences | None
    hurt: Hurt | None


def refits_of(table: pd.DataFrame) -> int:
    """How often folds were drawn and methods fitted."""
    return int(table["refit"].nunique()) if "refit" in table else 1


def section_of(results: Results, model: str, capability: str) -> Section:
    """What was measured of a model and capability, and what it says."""
    own = _of(results.found, model, capability)
    metrics = metrics_of(results, own)
    primary = results.shown.get("primary", ())
    curves = []
    if results.study is not None:
        by = figures.leading(_whole(metrics), primary)
        study = _of(results.study, model, capability)
        curves = figures.curves(study, results.axes, by, seed=results.seed)
    return Section(
        title=f"{capability.capitalize()} of {model}",
        summaries=summary_tables(own, metrics),
        glossary=account.glossary(metrics),
        limits=list(results.manifest.get("limits", {}).get(capability, {}).items()),
        curves=curves,
        told=_differences(results, model, capability, metrics),
        hurt=_hurt(results, model, capability, metrics),
    )


def _differences(
    results: Results, model: str, capability: str, metrics: Sequence[str]
) -> Differences | None:
    """Differences of one model and capability, the primary metrics drawn first."""
    if results.compared is None:
        return None
    every = _of(results.compared, model, capability)
    count = int(every["p_holm"].notna().sum())
    own = every[every["metric"].isin(metrics)]
    if own.empty:
        return None
    primary = results.shown.get("primary", ())
    draws = _of(results.table, model, capability).groupby("method", sort=False)["draw"].nunique()
    random = [str(method) for method, count in draws.items() if count > 1]
    crowd, against = len(own["method"].unique()), str(own["against"].iloc[0])
    table = difference_table(own, metrics)
    if crowd > DRAWN:
        return Differences(against, table, primary, count, (), crowd=crowd, random=random)
    whole = _whole(metrics)
    alike = [metric for metric in whole if figures.is_flat(own, metric)]
    drawn = [metric for metric in whole if metric not in alike]
    first = [metric for metric in primary if metric in drawn]
    rest = [metric for metric in drawn if metric not in first]
    others = figures.forests(own, rest, None if primary else count)
    panels = [*figures.forests(own, first, count), *others]
    return Differences(against, table, primary, count, panels, alike, random=random)


def _hurt(results: Results, model: str, capability: str, metrics: Sequence[str]) -> Hurt | None:
    """Every question's change from the unedited model, in the leading metric that has a better."""
    table = _of(results.table, model, capability)
    if NO_EDIT not in set(table["method"]):
        return None
    changed = changes(table)
    measured = set(changed["metric"])
    own = [m for m in _whole(metrics) if not m.startswith(OF_SIDE_EFFECTS)]
    known = [metric for metric in own if metric in measured]
    if not known:
        return None
    metric = figures.leading(known, results.shown.get("primary", ()))[0]
    of_metric = _with_finer(changed, metric)
    drawn = figures.changed_questions(of_metric, metric)
    shares, worst = outcome_table(outcomes(of_metric)), worst_table(of_metric, WORST)
    return Hurt(metric, NO_EDIT, shares, worst, drawn)


def _with_finer(changed: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The changes of a metric, and beside them those of MC2, which hardly ever are equal."""
    own = changed[changed["metric"] == metric]
    finer = changed[changed["metric"] == FINER]
    if metric == FINER or finer.empty:
        return own
    keys = ["method", "draw", "fold", "question"]
    beside = finer[[*keys, "change"]].rename(columns={"change": "finer"})
    return own.merge(beside, on=keys, how="left")


def _whole(metrics: Sequence[str]) -> list[str]:
    """Metrics that are not those of a group alone."""
    return [metric for metric in metrics if "/" not in metric]


def _of(table: pd.DataFrame, model: str, capability: str) -> pd.DataFrame:
    return table[(table["model"] == model) & (table["capability"] == capability)]
