"""The finished folds of a demo, kept in its folder until all of it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from workbench import storage
from workbench.analysis.risk import RiskAuroc
from workbench.editing.head_edits import Edit
from workbench.evaluation.statistics import Interval
from workbench.methods.saved import load_edit
from workbench.models.identity import Model


@dataclass(frozen=True)
class FoldResult:
    """What a demo needs of a fold.

    Attributes:
        table: from `evaluate`.
        edits: ITI's and TAE's, at the chosen α.
        figures: those that need the fold's activations, by name.
        risk: how well p̂ finds misaligned tokens; None where nobody can tell.
    """

    table: pd.DataFrame
    edits: Mapping[str, Edit]
    figures: Mapping[str, Any]
    risk: RiskAuroc | None


@dataclass(frozen=True)
class KeptFolds:
    """The finished folds of one demo.

    Attributes:
        folder: theirs alone; its name tells all that they depend on.
    """

    folder: Path

    def fold(self, number: int, model: Model, make: Callable[[], FoldResult]) -> FoldResult:
        """A fold that was kept, or else one that is made and kept now."""
        found = self.read(number, model)
        if found is None:
            found = make()
            self.write(number, found)
        return found

    def write(self, number: int, found: FoldResult) -> None:
        """Keep a fold, whole or not at all."""
        with storage.whole_folder(self.folder / str(number)) as place:
            storage.write_table(place / "table.parquet", found.table)
            for name, edit in found.edits.items():
                edit.save(place / "edits" / name)
            figures = {name: figure.to_json() for name, figure in found.figures.items()}
            storage.write_json(place / "figures.json", figures)
            if found.risk is not None:
                storage.write_table(place / "risk.parquet", pd.DataFrame(asdict(found.risk)))

    def read(self, number: int, model: Model) -> FoldResult | None:
        """A fold that was kept, or None.

        Raises:
            WorkbenchError: a file of it cannot be read, or is of another model.
        """
        from plotly.io import from_json

        place = self.folder / str(number)
        if not place.is_dir():
            return None
        figures = storage.read_json(place / "figures.json")
        edits = {one.name: load_edit(one, model) for one in sorted((place / "edits").iterdir())}
        return FoldResult(
            storage.read_table(place / "table.parquet"),
            {name: edit for name, edit in edits.items() if isinstance(edit, Edit)},
            {name: from_json(text) for name, text in figures.items()},
            _risk(place / "risk.parquet"),
        )

    def remove(self) -> None:
        """Remove them all."""
        storage.remove_folder(self.folder)


def _risk(file: Path) -> RiskAuroc | None:
    if not file.exists():
        return None
    columns = storage.read_table(file).to_dict()
    return RiskAuroc(
        **{
            str(name): Interval(own["mean"], own["low"], own["high"], int(own["count"]))
            for name, own in columns.items()
        }
    )
