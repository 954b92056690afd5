"""A sweep's values as tables: a row a fold and unit, a column a method, multiple and draw."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from workbench.errors import WorkbenchError


def as_wide(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Values of a metric, or of what it lacks to 1: a row a fold and unit.

    A column is a multiple of a method, and a draw of a control.
    """
    metric = name.removeprefix("1 - ")
    own = table[table["metric"] == metric]
    if own.empty:
        raise WorkbenchError(
            f"the metric {metric!r}", f"one of {', '.join(dict.fromkeys(table['metric']))}"
        )
    own = own if "draw" in own else own.assign(draw=0)
    if name != metric:
        own = own.assign(value=1 - own["value"])
    found = own.pivot_table(
        index=["fold", "question"], columns=["method", "multiple", "draw"], values="value",
        aggfunc="mean",
    )  # fmt: skip
    if found.isna().to_numpy().any():
        raise WorkbenchError(
            "methods, or draws of one, that were measured on different questions",
            "the same questions for all",
        )
    return found


def of_the_same(parts: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The rows that all parts of a gain have, in one order."""
    indices = [wide.index for wide in parts.values()]
    common = indices[0]
    for other in indices[1:]:
        common = common.intersection(other)
    if common.empty:
        raise WorkbenchError(
            f"{' and '.join(parts)} of different questions", "values of both for the same ones"
        )
    return {name: wide.loc[common.sort_values()] for name, wide in parts.items()}


def require_same_folds(wides: Mapping[str, pd.DataFrame]) -> None:
    """Refuse metrics of which one was not measured in every fold."""
    folds = {name: set(wide.index.get_level_values("fold")) for name, wide in wides.items()}
    every = set().union(*folds.values())
    for name, own in folds.items():
        if own != every:
            raise WorkbenchError(
                f"{name!r} without a value in the folds {sorted(every - own)}",
                "every metric in every fold",
                "Of kl_right the model may have had nothing right there: measure it on more "
                "questions (right_answers), or leave it out.",
            )


def refits_of(table: pd.DataFrame) -> list[list[int]]:
    """The places of every refit's folds among the sorted ones; a single list where there is one."""
    if "refit" not in table or table["refit"].nunique() < 2:
        return [list(range(table["fold"].nunique()))]
    known = table[["fold", "refit"]].drop_duplicates().sort_values("fold")["refit"].tolist()
    return [[n for n, own in enumerate(known) if own == refit] for refit in dict.fromkeys(known)]
