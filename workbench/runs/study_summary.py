"""What a study says: rows by setting, and means with intervals of settings or of some axes."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd

from workbench.doors import door
from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.rows import COLUMNS
from workbench.evaluation.tables import summary
from workbench.methods.making import named
from workbench.runs.setting_names import plain_value, spelled


@door
def select(table: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The rows of a study in which axes have the values that were typed.

    Args:
        table: from `ablate`, `run_study` or `study_summary`, or read from `study.parquet`.
        values: by axis, one value of the grid as it was typed, which may be a list, a table or
            None; of an axis with a dot, such as `graph.bins`, by `**{"graph.bins": 50}`.

    Raises:
        WorkbenchError: no such axis, or values that no row has, or none has together.

    Example:
        >>> list(dict.fromkeys(wb.runs.select(study, depth=1)["method"]))
        ['depth=1']
    """
    known = _axes(table)
    chosen = np.ones(len(table), dtype=bool)
    for axis, value in named(values).items():
        if axis not in known:
            raise WorkbenchError.unknown(f"the axis {axis!r}", axis, known)
        here = _has(table, axis, value)
        if not here.any():
            there = ", ".join(dict.fromkeys(map(spelled, table[axis].dropna())))
            raise WorkbenchError(f"{axis}={value!r}", f"a value of the study, one of {there}")
        chosen &= here
    if not chosen.any():
        raise WorkbenchError(
            f"no setting with {', '.join(f'{k}={v!r}' for k, v in values.items())}",
            "values that one setting has together",
        )
    return table[chosen]


def _has(table: pd.DataFrame, axis: str, value: Any) -> np.ndarray:
    """Which rows have a value of an axis: numbers alike of any type, lists by their text."""
    if value is None:  # of settings that say so, and not of rows without the axis
        own = f"{axis}=None"
        return np.array([own in str(name).split(", ") for name in table["method"]], dtype=bool)
    plain = plain_value(value)

    def same(other: Any) -> bool:
        if isinstance(plain, bool | np.bool_) or isinstance(other, bool | np.bool_):
            return str(other) == str(plain)
        if isinstance(other, Number) and isinstance(plain, Number):
            return bool(other == plain)
        return str(other) == str(plain)  # of a file, where numbers and texts of an axis are texts

    return np.array([same(other) for other in table[axis]], dtype=bool)


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
    known = _axes(table)
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


def _axes(table: pd.DataFrame) -> list[str]:
    """The columns that are axes of the study."""
    return [column for column in table.columns if column not in (*COLUMNS, "refit")]


def _names(table: pd.DataFrame, axes: Sequence[str]) -> pd.Series:
    """A name for every row's values of some axes."""
    return table[list(axes)].apply(
        lambda row: ", ".join(f"{axis}={_spelled(row[axis])}" for axis in axes), axis=1
    )


def _spelled(value: object) -> str:
    return format(value, ".12g") if isinstance(value, float) else str(value)
