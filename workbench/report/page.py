"""The page: sections filled into one template, in which every text is escaped."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from workbench import storage
from workbench.errors import WorkbenchError
from workbench.models import Model
from workbench.plots.theme import SEQUENTIAL, shown
from workbench.report import account, figures
from workbench.report.examples import Example, Examples, worked_examples
from workbench.report.results import Results, read_results
from workbench.report.tables import (
    Table,
    contest_tables,
    difference_table,
    metrics_of,
    summary_tables,
)

LONG = 40
"""Rows beyond which a table is folded on the screen."""


@dataclass(frozen=True)
class Section:
    """What was measured of one task and model.

    Attributes:
        title: of the section.
        summaries: means with intervals.
        glossary: what the metrics mean.
        differences: from one of the methods; None where there is nothing to compare with.
        corrected: the metrics that p-values are corrected for; all where it is empty.
        figures: forest plots.
        alike: metrics that are not drawn, since no method differs.
    """

    title: str
    summaries: Sequence[Table]
    glossary: Sequence[tuple[str, str]]
    differences: Table | None
    corrected: Sequence[str]
    figures: Sequence[Any]
    alike: Sequence[str]


def report(
    folder: storage.PathLike,
    out: storage.PathLike,
    *,
    model: Model | None = None,
    examples: int = 4,
) -> Path:
    """Write the report of a folder of results: one page that needs no network and no server.

    The same results give the same page. Worked examples need the run's edits, model and data;
    where one of them is not there, the page says so.

    Args:
        folder: what `workbench evaluate`, `compare`, `ablate` or `demo` wrote.
        out: the HTML file, written whole or not at all.
        model: the run's model, if it is loaded already.
        examples: how many held-out questions to answer; 0 leaves them out and loads no model.

    Returns:
        The file.

    Raises:
        WorkbenchError: no such folder, no results in it, a run that is not finished, or a number
            of examples below 0.
    """
    if isinstance(examples, bool) or not isinstance(examples, int) or examples < 0:
        raise WorkbenchError(f"examples={examples!r}", "a whole number from 0 on")
    results = read_results(folder)
    worked = Examples(absent="None were asked for.")
    if examples:
        worked = worked_examples(results, examples, model)
    return storage.write_text(out, as_html(results, worked))


def as_html(results: Results, worked: Examples) -> str:
    """The page's text."""
    from plotly.offline import get_plotlyjs

    sections = [
        _section(results, str(name), str(task))
        for name, task in results.found[["model", "task"]].drop_duplicates().itertuples(index=False)
    ]
    gain = _gain(results)
    contest = results.contest
    drawn = _Numbered()
    low, high = _range(worked.shown)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"visible": lambda text: Markup(shown(text, 40)), "figure": drawn}
    template = environment.from_string(_file("page.html"))
    return template.render(
        title=account.title(results),
        results=results,
        facts=account.facts(results),
        methods=account.methods_table(results),
        sections=sections,
        contest=None if contest is None else contest_tables(contest),
        fronts=[] if contest is None else figures.fronts(contest, gain),
        gain=gain,
        pictures=_pictures(results),
        worked=worked,
        colour=lambda value: _colour(value, low, high),
        low=low,
        high=high,
        scale=[_colour(low + (high - low) * step / 8, low, high)[0] for step in range(9)],
        failed=results.manifest.get("failed", []),
        made_with=results.manifest.get("made with", []),
        manifest=json.dumps(results.manifest, indent=1, ensure_ascii=False),
        style=Markup(_file("page.css")),  # noqa: S704
        plotly=Markup(get_plotlyjs()),  # noqa: S704
        long=LONG,
    )


class _Numbered:
    """Figures as HTML, numbered as the template asks for them."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, figure: Any) -> Markup:
        self.count += 1
        return figures.as_html(figure, self.count)


def _file(name: str) -> str:
    return storage.read_text(storage.package_path("report", name))


def _section(results: Results, model: str, task: str) -> Section:
    found = results.found
    own = found[(found["model"] == model) & (found["task"] == task)]
    metrics = metrics_of(results, own)
    compared = results.compared
    if compared is not None:
        compared = compared[(compared["model"] == model) & (compared["task"] == task)]
        compared = compared[compared["metric"].isin(metrics)]
    told = compared is not None and not compared.empty
    plain = [metric for metric in metrics if "/" not in metric]
    first = [metric for metric in results.shown.get("primary", ()) if metric in plain]
    alike = [] if not told else [m for m in plain if figures.is_flat(compared, m)]
    drawn = [m for m in dict.fromkeys([*first, *plain]) if m not in alike]
    return Section(
        title=f"{task.capitalize()} of {model}",
        summaries=summary_tables(own, metrics),
        glossary=account.glossary(metrics),
        differences=difference_table(compared, metrics) if told else None,
        corrected=results.shown.get("primary", ()),
        figures=figures.forests(compared, drawn) if told else [],
        alike=alike,
    )


def _gain(results: Results) -> str:
    """What a comparison's curves gain; the metric that its report names."""
    from workbench.head_to_head import GAINS

    measured = set(results.table["metric"])
    return next((metric for metric in GAINS if metric in measured), "gain")


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
    return ground, "#000000" if light > 128 else "#ffffff"
