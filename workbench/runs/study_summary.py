"""What a study says: rows by setting, and means with intervals of settings or of some axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from workbench.checks import is_number
from workbench.doors import door
from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.rows import COLUMNS
from workbench.evaluation.tables import summary
from workbench.methods.making import named
from workbench.runs.ablation import plain_value, spelled


@door
def select(table: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The rows of a study in which axes have the values that were typed.

    Args:
        table: from `ablate`, `run_study` or `study_summary`, or read from `study.parquet`.
        values: by axis, a value of the grid as it was typed, lists and tables too; of an axis with
            a dot, such as `graph.bins`, by `**{"graph.bins": 50}`.

    Raises:
        WorkbenchError: no such axis, or a value that no row has.

    Example:
        >>> list(dict.fromkeys(wb.runs.select(study, depth=1)["method"]))
        ['depth=1']
    """
    found = table
    known = [column for column in table.columns if column not in COLUMNS]
    for axis, value in named(values).items():
        if axis not in known:
            raise WorkbenchError.unknown(f"the axis {axis!r}", axis, known)
        texts = table[axis].map(_text, na_action="ignore")
        if not (texts == _text(value)).any():
            there = ", ".join(texts.dropna().unique())
            raise WorkbenchError(f"{axis}={value!r}", f"a value of the study, one of {there}")
        found = found[texts.reindex(found.index) == _text(value)]
    return found


def _text(value: Any) -> str:
    """A value as it is compared: as its name has it, numbers of any type alike."""
    plain = plain_value(value)
    if isinstance(plain, str) or not is_number(plain):
        return str(plain)
    return spelled(float(plain))


@door
def study_summary(
    table: pd.DataFrame, axes: Sequence[str] = (), *, level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Mean and bootstrap interval by question of every setting of a study.

    Args:
        table: from `ablate` or `run_study`.
        axes: those to tell apart; settings that agree in them are averaged, each with equal
            weight, as draws of a control are. All by default.
        level: coverage of the intervals.
        seed: of the bootstrap.

    Returns:
        `summary`'s table behind a column for each axis, empty for methods that are no setting of
        the study, such as `no edit`.

    Raises:
        WorkbenchError: a table without axes, or no such axis.

    Example:
        >>> means = wb.runs.study_summary(study)
        >>> list(dict.fromkeys(means["method"]))
        ['no edit', 'depth=0', 'depth=1']
    """
    known = [column for column in table.columns if column not in COLUMNS]
    chosen = list(axes) or known
    absent = [axis for axis in chosen if axis not in known]
    if absent or not known:
        raise WorkbenchError(
            f"no axis {absent[0]!r} in the table" if absent else "a table without axes",
            f"some of {', '.join(known)}" if known else "the table that `ablate` returns",
        )
    own = table[known].notna().any(axis=1)
    settings = table["method"].where(~own, _names(table, chosen))
    pooled = table.assign(
        method=settings, draw=table.groupby(["method", "draw"], sort=False).ngroup()
    )
    values = pooled.drop_duplicates("method").set_index("method")
    found = summary(pooled.drop(columns=known), level=level, seed=seed)
    for place, axis in enumerate(chosen):
        column = values[axis].where(values[known].notna().any(axis=1))
        found.insert(place, axis, column.reindex(found["method"]).to_numpy())
    return found


def _names(table: pd.DataFrame, axes: Sequence[str]) -> pd.Series:
    """A name for every row's values of some axes."""
    return table[list(axes)].apply(
        lambda row: ", ".join(f"{axis}={_spelled(row[axis])}" for axis in axes), axis=1
    )


def _spelled(value: object) -> str:
    return format(value, ".12g") if isinstance(value, float) else str(value)
