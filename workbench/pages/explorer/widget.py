"""The explorer in a notebook: a figure with knobs, from the record or live."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from workbench.editing.head_edits import Edit
from workbench.editing.interventions import Intervention
from workbench.editing.whole_edits import Foreword
from workbench.errors import WorkbenchError
from workbench.models.identity import Model
from workbench.pages.explorer.kinds import require_explorable
from workbench.pages.explorer.record import Exploration
from workbench.pages.explorer.running import rerun
from workbench.pages.explorer.widget_figure import WIDTH, View, empty, quantities, update


def widget(
    record: Exploration, model: Model | None = None, edit: Intervention | None = None
) -> Any:
    """Knobs and a figure that follows them; a click on a token chooses it.

    Args:
        record: from `explore`.
        model: with it, every α (up to twice the edit's own) and β is run when its slider stops
            there; without it α is one of those that were run, and β changes s alone.
        edit: what to run, of any kind; the record's by default.

    Returns:
        An ipywidgets box: `children[0]` holds the knobs, `children[1]` the figure.

    Raises:
        WorkbenchError: an edit without a model or that `explore` refuses, or ipywidgets or
            anywidget is not installed.
    """
    if edit is not None and model is None:
        raise WorkbenchError("an edit without a model", "both to run it live, or neither")
    if edit is not None:
        require_explorable(edit)
    widgets, figure = _parts()
    knobs = _knobs(widgets, record, edit, live=model is not None)
    figure.update(empty().to_dict(), overwrite=True)
    board = _Board(record, model, edit, knobs, figure)
    for name, knob in knobs.items():
        knob.observe(board.switch if name == "edit" else board.follow, names="value")
    for trace in figure.data[:2]:
        trace.on_click(board.choose)
    seen = [knob for name, knob in knobs.items() if name != "edit" or record.beside]
    return widgets.VBox([widgets.VBox(seen), figure])


class _Board:
    """Knobs and figure, and what is looked at."""

    def __init__(
        self, record: Exploration, model: Model | None, edit: Intervention | None,
        knobs: dict[str, Any], figure: Any,
    ) -> None:  # fmt: skip
        self.record, self.model, self.edit = record, model, edit
        self.knobs, self.figure = knobs, figure
        self.switching = False
        self.look()

    @property
    def chosen(self) -> Exploration:
        """The exploration of the chosen edit."""
        place: int = self.knobs["edit"].value
        return self.record.every[place]

    def look(self) -> None:
        """Show what the knobs say, run anew where there is a model."""
        number = self.knobs["answer"].value
        self.knobs["token"].max = len(self.record.answers[number].strings) - 1
        record = self.chosen
        if self.model is not None:
            used = _under(self.edit or record.edit, **self._settings("alpha", "beta"))
            record = rerun(self.model, used, record.answers[number], record.settings)
            number = 0
        self._offer(record)
        self.view = View(record, number, **self._settings())
        update(self.figure, self.view)

    def _offer(self, record: Exploration) -> None:
        """The quantities that an edit has, and β where its strength has one."""
        self.switching = True
        colour, names = self.knobs["quantity"], quantities(record)
        if tuple(colour.options) != names:
            kept = colour.value
            colour.options = names
            colour.value = kept if kept in names else names[0]
        self.knobs["beta"].layout.display = None if isinstance(record.edit, Edit) else "none"
        self.switching = False

    def follow(self, change: Any) -> None:
        """After a knob was turned."""
        if self.switching:
            return
        runs = [self.knobs[name] for name in ("answer", "alpha")]
        if self.model is not None:
            runs.append(self.knobs["beta"])
        if change["owner"] in runs:
            self.look()
        else:
            self.view = replace(self.view, **self._settings())
            update(self.figure, self.view)

    def switch(self, _: Any) -> None:
        """After another edit was chosen."""
        self.switching = True
        used = self.edit or self.chosen.edit
        _begin_at(self.knobs, self.chosen, used, live=self.model is not None)
        self.switching = False
        self.look()

    def choose(self, _: Any, points: Any, __: Any) -> None:
        """After a click on a token."""
        if points.point_inds:
            at = points.point_inds[0]
            self.knobs["token"].value = int(at[1] if isinstance(at, list | tuple) else at)

    def _settings(self, *names: str) -> dict[str, Any]:
        """What knobs say; by default all but those of answer and edit."""
        asked = names or [name for name in self.knobs if name not in ("answer", "edit")]
        return {name: self.knobs[name].value for name in asked}


def _under(edit: Intervention, alpha: float, beta: float) -> Intervention:
    """An edit with another α, and β where its strength has one."""
    made = edit.scaled(alpha)
    if not isinstance(made, Edit):
        return made
    return replace(made, strength=replace(made.strength, beta=beta))


def _parts() -> tuple[Any, Any]:
    """ipywidgets, and an empty figure that notebooks update."""
    try:
        import ipywidgets
        import plotly.graph_objects as go

        return ipywidgets, go.FigureWidget()
    except ImportError as error:
        raise WorkbenchError(
            f"an explorer in a notebook without {error.name or 'ipywidgets and anywidget'}",
            "the packages of the extra `lab`",
            "Install them: pip install -e '.[lab]' in the workbench's folder; or write the page "
            "with `save`.",
        ) from error


def _knobs(
    widgets: Any, record: Exploration, edit: Intervention | None, *, live: bool
) -> dict[str, Any]:
    """The controls by what they set; a live one reports where it is let go."""
    used = edit or record.edit
    names = [
        (f"{number}. {own.kind}: {own.question} → {own.answer.strip()}", number - 1)
        for number, own in enumerate(record.answers, start=1)
    ]
    wide = {"style": {"description_width": "170px"}, "layout": {"width": f"{WIDTH - 20}px"}}
    still = {**wide, "continuous_update": not live}
    if live:
        alpha = widgets.FloatSlider(step=0.05, description="factor α", **still)
    else:
        alpha = widgets.SelectionSlider(options=record.alphas, description="factor α", **wide)
    edits = [(one.name, place) for place, one in enumerate(record.every)]
    knobs = {
        "edit": widgets.Dropdown(options=edits, value=0, description="edit", **wide),
        "answer": widgets.Dropdown(options=names, value=0, description="answer", **wide),
        "quantity": widgets.Dropdown(description="colour", **wide),
        "alpha": alpha,
        "beta": widgets.FloatSlider(
            value=0.0, min=0.0, max=1.0, step=0.05,
            description="weight β of p̂", **still,
        ),
        "layer": widgets.IntSlider(
            value=_first_layer(used), min=0, max=used.model.shape.layers - 1,
            description="layer of the graph", **wide,
        ),
        "depth": widgets.IntSlider(
            value=0, min=0, max=len(record.answers[0].graphs) - 1,
            description="rounds of propagation", **wide,
        ),
        "token": widgets.IntSlider(value=0, min=0, max=0, description="token", **wide),
    }  # fmt: skip
    _begin_at(knobs, record, used, live=live)
    return knobs


def _first_layer(edit: Intervention) -> int:
    """The layer to begin with."""
    return edit.heads[0][0] if isinstance(edit, Edit) else min(edit.layers, default=0)


def _begin_at(
    knobs: dict[str, Any], record: Exploration, edit: Intervention, *, live: bool
) -> None:
    """Set α and β to an edit's own; a live α reaches to twice that, as far as any that was run.

    A foreword is there or not: its α goes in whole steps.
    """
    slider = knobs["alpha"]
    if live:
        whole = isinstance(edit, Foreword)
        every = (0.0, edit.alpha) if whole else (0.0, 2 * edit.alpha, *record.alphas)
        slider.step = 1.0 if whole else 0.05
        least, most = min(every), max(1.0, *every)
        slider.min, slider.max = min(least, slider.min), max(most, slider.max)  # room for both
        slider.value = edit.alpha
        slider.min, slider.max = least, most
    else:
        slider.options = [(f"{alpha:g}", alpha) for alpha in record.alphas]
        slider.value = edit.alpha
    if isinstance(edit, Edit):
        knobs["beta"].value = edit.strength.beta
