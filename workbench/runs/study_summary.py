"""What a study says: means with intervals of every setting, or of some axes over all others."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from workbench.doors import door
from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.rows import COLUMNS
from workbench.evaluation.tables import summary


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
