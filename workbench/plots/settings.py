"""The settings of a study as the axes of a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.rows import NO_EDIT
from workbench.plots.theme import shown

if TYPE_CHECKING:
    import pandas as pd

UNSET = "(not set)"


def numeric(values: Sequence[Any]) -> bool:
    """Whether all are numbers, of which truth values are none."""
    return all(isinstance(v, int | float | np.number) and not isinstance(v, bool) for v in values)


def spelled(value: Any) -> str:
    """A setting's value as it is shown."""
    return format(value, "g") if numeric([value]) else shown(str(value))


def chosen(summary: pd.DataFrame, axes: Sequence[str], metric: str) -> pd.DataFrame:
    """The rows of a metric, with settings that are empty beside others said to be so.

    Raises:
        WorkbenchError: no such axis or metric, several models or capabilities, or several rows for
            the same values.
    """
    absent = [axis for axis in axes if axis not in summary]
    own = summary[summary["metric"] == metric]
    if absent or own.empty:
        raise WorkbenchError(
            f"no axis {absent[0]!r}" if absent else f"no metric {metric!r}",
            f"columns of the table, {', '.join(map(str, summary.columns))}"
            if absent
            else f"one of {', '.join(dict.fromkeys(summary['metric']))}",
        )
    if len(own[["model", "capability"]].drop_duplicates()) > 1:
        raise WorkbenchError(
            f"{metric!r} of several models or capabilities",
            "that of one",
            "summary[summary.capability == 'truthfulness'], for example.",
        )
    rows = own[own["method"] != NO_EDIT].copy()
    for axis in axes:
        if rows[axis].isna().any():
            rows[axis] = rows[axis].astype(object).where(rows[axis].notna(), UNSET)
    if rows.empty or rows.duplicated(list(axes)).any():
        raise WorkbenchError(
            "no settings" if rows.empty else f"several settings for the same {' and '.join(axes)}",
            "one row a setting",
            f"study_summary(table, {list(axes)}) averages over the other axes.",
        )
    return rows


def ordered(rows: pd.DataFrame, axis: str) -> list[Any]:
    """An axis' values: numbers in order, others as they come."""
    values = list(dict.fromkeys(rows[axis].tolist()))
    return sorted(values) if numeric(values) else values


def blank(summary: pd.DataFrame, metric: str) -> tuple[float, float, float] | None:
    """Mean and interval of the unedited model, where the table has it."""
    own = summary[(summary["metric"] == metric) & (summary["method"] == NO_EDIT)]
    if own.empty:
        return None
    mean, low, high = own[["mean", "low", "high"]].iloc[0]
    return float(mean), float(low), float(high)
