"""Who is helped and who is hurt: what an edit does to every question, and not only to their mean.

A mean that rises may hide questions that were right and are wrong now (Tan et al. 2024, "Analyzing
the Generalization and Reliability of Steering Vectors"; Braun et al. 2025, arXiv 2505.22637).
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy.stats import norm

from workbench.checks import require_number
from workbench.doors import door
from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.rows import NO_EDIT
from workbench.evaluation.metrics.registry import direction_of
from workbench.evaluation.tables import by_method, require_same

KEYS = ["model", "capability", "metric", "method", "against"]
LEAST = 0.01
"""A change in a metric's own units that counts; of those that are 0 or 1, every change does."""
OUTCOMES = ("better", "worse", "unchanged")


@door
def changes(table: pd.DataFrame, against: str = NO_EDIT) -> pd.DataFrame:
    """What every method changes for every question.

    Metrics of which neither more nor less is better (such as `ss`, best at 50) are left out, and
    questions for which one of the two has no value.

    Args:
        table: from `evaluate`, or several of them concatenated.
        against: the method before the change.

    Returns:
        Columns `model`, `capability`, `metric`, `method`, `against`, `draw`, `fold`, `question`,
        `before` (a mean over draws, where there are several), `after` and `change`, whose sign is
        turned where less is better: it is above 0 for what became better.

    Raises:
        WorkbenchError: no such method, or methods that were measured on different questions.

    Example:
        >>> found = wb.evaluation.changes(table)
        >>> worst = found[found["metric"] == "mc2"].nsmallest(1, "change").iloc[0]
        >>> bool(worst["change"] < 0.2), worst["method"]
        (True, 'TAE')
    """
    measured = by_method(table)
    parts = []
    for (model, capability, method), values in measured.items():
        before = measured.get((model, capability, against))
        if before is None:
            known = dict.fromkeys(name for *_, name in measured)
            raise WorkbenchError(
                f"no method {against!r} for {capability} on {model}", f"one of {', '.join(known)}"
            )
        if method == against:
            continue
        require_same(values, before, method, against)
        base = before.T.groupby(level="metric", sort=False).mean().T
        for column in values.columns:
            metric, draw = column[0], column[1]
            better = direction_of(str(metric)) if metric in base else 0
            if not better:
                continue
            both = pd.DataFrame({"before": base[metric], "after": values[column]}).dropna()
            both["change"] = better * (both["after"] - both["before"])
            named = (model, capability, metric, method, against)
            both = both.reset_index().assign(draw=draw, **dict(zip(KEYS, named, strict=True)))
            parts.append(both)
    columns = [*KEYS, "draw", "fold", "question", "before", "after", "change"]
    if not parts:
        return pd.DataFrame(columns=columns)
    return pd.concat(parts, ignore_index=True)[columns]


@door
def outcomes(changed: pd.DataFrame, *, least: float = LEAST, level: float = 0.95) -> pd.DataFrame:
    """For every method and metric the shares of questions that became better, worse, or neither.

    Of several draws shares are means over them, so that one and many draws compare. Intervals are
    Wilson's (1927), which hold at shares of 0 and 1 as well, for as many questions; several refits
    make no more of them.

    Args:
        changed: from `changes`.
        least: a smaller change, in the metric's own units, counts as none.
        level: coverage of the intervals, in (0, 1).

    Returns:
        Columns `model`, `capability`, `metric`, `method`, `against`, and of each of `better`,
        `worse` and `unchanged` the share, `…_low` and `…_high`; and `questions`, how many.

    Raises:
        WorkbenchError: a table that `changes` did not make, or a least change below 0.

    Example:
        >>> shares = wb.evaluation.outcomes(wb.evaluation.changes(table))
        >>> own = shares.set_index("metric").loc["mc1", ["better", "worse", "unchanged"]]
        >>> own.astype(float).round(2).to_dict()
        {'better': 0.67, 'worse': 0.0, 'unchanged': 0.33}
    """
    require_number("least", least, least=0)
    if not 0 < level < 1:
        raise WorkbenchError(f"level={level!r}", "a number between 0 and 1")
    absent = [name for name in (*KEYS, "change") if name not in changed]
    if absent:
        raise WorkbenchError(f"a table without the column {absent[0]!r}", "a table of `changes`")
    rows = []
    for key, own in changed.groupby(KEYS, sort=False):
        change = own["change"].to_numpy(dtype=float)
        sign = np.where(np.abs(change) < least, 0.0, np.sign(change))
        row = dict(zip(KEYS, key, strict=True))
        count = own["question"].nunique()
        for name, wanted in zip(OUTCOMES, (1, -1, 0), strict=True):
            share = float((sign == wanted).mean())
            low, high = wilson(share, count, level)
            row |= {name: share, f"{name}_low": low, f"{name}_high": high}
        rows.append({**row, "questions": count})
    shares = [f"{name}{end}" for name in OUTCOMES for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=[*KEYS, *shares, "questions"])


def wilson(share: float, count: int, level: float = 0.95) -> tuple[float, float]:
    """The score interval of a share of so many units (Wilson 1927)."""
    square = float(norm.ppf(0.5 + level / 2)) ** 2
    middle = (share + square / (2 * count)) / (1 + square / count)
    spread = share * (1 - share) / count + square / (4 * count**2)
    half = math.sqrt(square * spread) / (1 + square / count)
    return max(0.0, middle - half), min(1.0, middle + half)
