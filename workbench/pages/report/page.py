"""The page: sections filled into one template, in which every text is escaped."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from workbench import storage
from workbench.checks import require_whole
from workbench.evaluation.capabilities.rows import NO_EDIT, SIDE_EFFECTS
from workbench.evaluation.changes import changes, outcomes
from workbench.evaluation.text_tables import Table
from workbench.models.identity import Model
from workbench.pages.report import account, figures
from workbench.pages.report.examples import Example, Examples, worked_examples
from workbench.pages.report.results import Results, read_results
from workbench.pages.report.tables import (
    contest_tables,
    difference_table,
    metrics_of,
    outcome_table,
    summary_tables,
    worst_table,
)
from workbench.plots.theme import SEQUENTIAL, shown
from workbench.registry import registered_alone

LONG = 40
"""Rows beyond which a table is folded on the screen."""
MIDDLE = 118
"""The grey on which black and white are equally legible."""
SHORT = 14
"""Rows up to which a table is not divided between printed pages."""
UNBROKEN = 26
"""Characters of a word beyond which it may break anywhere; no interval is as long."""
DRAWN = 24
"""Methods beyond which their differences are not drawn, since no printed page holds them."""

WORST = 5
"""Questions that are told of those that a method hurts."""


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


def report(
    folder: storage.PathLike,
    out: storage.PathLike,
    *,
    model: Model | None = None,
    examples: int = 4,
    trust: bool = False,
) -> Path:
    """Write the report of a folder of results: one page that needs no network and no server.

    The same results give the same page. Worked examples need the run's edits, model and data;
    where one of them is not there, the page says so.

    Args:
        folder: what `workbench evaluate`, `compare`, `ablate` or `demo` wrote.
        out: the HTML file, written whole or not at all.
        model: the run's model, if it is loaded already.
        examples: how many held-out questions to answer; 0 leaves them out and loads no model.
        trust: run code that the results name as `module:name` (methods, judges, data of one's
            own), which worked examples need. Never for results of strangers.

    Returns:
        The file.

    Raises:
        WorkbenchError: no such folder, no results in it, a run that is not finished, or a number
            of examples below 0.
    """
    require_whole("examples", examples, 0)
    with nullcontext() if trust else registered_alone():
        results = read_results(folder)
        worked = Examples(absent="None were asked for.")
        if examples:
            worked = worked_examples(results, examples, model)
    return storage.write_text(out, as_html(results, worked))


def as_html(results: Results, worked: Examples) -> str:
    """The page's text."""
    from plotly.offline import get_plotlyjs

    sections = [
        _section(results, str(name), str(capability))
        for name, capability in results.found[["model", "capability"]]
        .drop_duplicates()
        .itertuples(index=False)
    ]
    contest = results.contest
    drawn = _Numbered()
    low, high = _range(worked.shown)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.tests["unbroken"] = lambda text: max(map(len, text.split(" "))) > UNBROKEN
    environment.filters |= {"visible": lambda text: Markup(shown(text, 40)), "figure": drawn}
    template = environment.from_string(_file("page.html"))
    return template.render(
        title=account.title(results),
        results=results,
        facts=account.facts(results),
        methods=account.methods_table(results),
        sections=sections,
        refits=refits_of(results.table),
        contest=contest,
        contest_tables=[] if contest is None else contest_tables(contest),
        fronts=[] if contest is None else figures.fronts(contest),
        pictures=_pictures(results),
        worked=worked,
        colour=lambda value: _colour(value, low, high),
        low=low,
        high=high,
        scale=[_colour(low + (high - low) * step / 8, low, high)[0] for step in range(9)],
        failed=account.failed(results),
        made_with=account.made_with(results),
        manifest=json.dumps(results.manifest, indent=1, ensure_ascii=False),
        style=Markup(_file("page.css")),
        plotly=Markup(get_plotlyjs()),
        long=LONG,
        short=SHORT,
    )


class _Numbered:
    """Figures as HTML, numbered as the template asks for them."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, figure: Any) -> Markup:
        self.count += 1
        return figures.as_html(figure, self.count)


def _file(name: str) -> str:
    return storage.read_text(storage.package_path("pages", "report", name))


def refits_of(table: pd.DataFrame) -> int:
    """How often folds were drawn and methods fitted."""
    return int(table["refit"].nunique()) if "refit" in table else 1


def _section(results: Results, model: str, capability: str) -> Section:
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
    known = [m for m in _whole(metrics) if m in set(changed["metric"]) - set(SIDE_EFFECTS)]
    if not known:
        return None
    metric = figures.leading(known, results.shown.get("primary", ()))[0]
    own = changed[changed["metric"] == metric]
    drawn = figures.changed_questions(own, metric)
    return Hurt(metric, NO_EDIT, outcome_table(outcomes(own)), worst_table(own, WORST), drawn)


def _whole(metrics: Sequence[str]) -> list[str]:
    """Metrics that are not those of a group alone."""
    return [metric for metric in metrics if "/" not in metric]


def _of(table: pd.DataFrame, model: str, capability: str) -> pd.DataFrame:
    return table[(table["model"] == model) & (table["capability"] == capability)]


def _pictures(results: Results) -> list[tuple[str, str]]:
    """The demo's pictures as data, each with what its name says."""
    return [
        (name.replace("_", " "), "data:image/png;base64," + base64.b64encode(content).decode())
        for name, content in results.pictures.items()
    ]


def _range(examples: Sequence[Example]) -> tuple[float, float]:
    """The least and the largest strength of all tokens that are shown."""
    values = [
        token.strength
        for example in examples
        for answer in example.answers
        for token in answer.tokens
        if token.strength is not None and not math.isnan(token.strength)
    ]
    return (min(values), max(values)) if values else (0.0, 0.0)


def _colour(value: float, low: float, high: float) -> tuple[str, str]:
    """Colours of ground and text for a strength; the text can be read on any of them."""
    from plotly.colors import sample_colorscale, unlabel_rgb

    place = 0.5 if high <= low else (value - low) / (high - low)
    ground = sample_colorscale(SEQUENTIAL, [min(1.0, max(0.0, place))])[0]
    red, green, blue = unlabel_rgb(ground)
    light = 0.299 * red + 0.587 * green + 0.114 * blue
    return ground, "#000000" if light > MIDDLE else "#ffffff"
