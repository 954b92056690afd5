"""The page: sections filled into one template, in which every text is escaped."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from workbench import storage
from workbench.checks import require_whole
from workbench.models.identity import Model
from workbench.pages.report import account, figures
from workbench.pages.report.examples import Example, Examples, worked_examples
from workbench.pages.report.results import Results, read_results
from workbench.pages.report.sections import refits_of, section_of
from workbench.pages.report.tables import contest_tables
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
        section_of(results, str(name), str(capability))
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


def _pictures(results: Results) -> list[tuple[str, str]]:
    """The demo's pictures as data, each with what its name says."""
    return [
        (name.replace("_", " "), "data:image/png;base64," + base64.b64encode(content).decode())
        for name, content in results.pictures.items()
    ]


def _range(examples: Sequence[Example]) -> tuple[float, float]:
    """The least and the largest strength or gate of all tokens that are shown."""
    values = [
        token.shown
        for example in examples
        for answer in example.answers
        for token in answer.tokens
        if token.shown is not None and not math.isnan(token.shown)
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
