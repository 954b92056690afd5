"""What a run's work is divided into: fits, pieces, and the jobs that workers are given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from workbench import storage
from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.rows import COLUMNS
from workbench.runs.run_config import RunConfig


@dataclass(frozen=True)
class Fit:
    """One method on one fold's training questions; `key` tells all that it depends on."""

    method: str
    capability: str
    number: int
    key: str


@dataclass(frozen=True)
class Piece:
    """One method in one fold of one capability; `key` tells all that its table depends on."""

    method: str
    capability: str
    number: int
    key: str

    @property
    def file(self) -> str:
        """The name of its part."""
        slug = "".join(c if c.isalnum() else "-" for c in self.method)[:60]
        return f"{self.capability}-{self.number}-{slug}-{self.key[:8]}.parquet"


@dataclass(frozen=True)
class Job:
    """Fits of one fold that share their stages, or pieces of one fold that are measured together.

    Attributes:
        config: of the run.
        identity: of the run, which every worker must find again.
        folder: of the run.
        captures: a folder for activations that the fits of a run share while they are made.
        fits: to make.
        pieces: to measure, in this company; parts that are there already are kept.
    """

    config: RunConfig
    identity: str
    folder: str
    captures: str = ""
    fits: tuple[Fit, ...] = ()
    pieces: tuple[Piece, ...] = ()


def read_part(file: Path, piece: Piece) -> pd.DataFrame:
    """A piece's table.

    Raises:
        WorkbenchError: the file is damaged or of another piece or run; it is named.
    """
    part = storage.read_table(file, (*COLUMNS, "multiple"))
    if part.attrs.get("piece") != piece.key:
        held = part[["capability", "method", "setting", "fold"]].drop_duplicates().head(1)
        raise WorkbenchError(
            f"{file} belongs to another run or piece (it holds {held.iloc[0].to_dict()})"
            if len(held)
            else f"{file} is empty",
            "the part that this run wrote there",
            "It was exchanged: delete it, and it is measured again.",
        )
    return part
