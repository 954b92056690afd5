"""Fronts: what an edit gains at equal side effects, over a sweep of its strength.

A method that multiplies its strength looks better at equal α for that reason alone. So every method
is measured at several multiples of its α, from none to many, and compared where its side effect is
the same: between two strengths both the gain and the side effect are interpolated linearly. Gains
and side effects are means over other units (questions, plain texts), which are resampled each by
itself, within folds, the same for all methods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from workbench.errors import WorkbenchError
from workbench.statistics import holm

Array = np.ndarray
Curves = Float[Array, "resample fold strength"]
BLANK = "no edit"


@dataclass(frozen=True)
class Sweep:
    """Means at every strength, of the data (resample 0) and of resampled units.

    Attributes:
        gain: of every method, by strength from 0 on.
        cost: likewise.
        strengths: of every method, ascending; 0 is the unedited model.
    """

    gain: Mapping[str, Curves]
    cost: Mapping[str, Curves]
    strengths: Mapping[str, tuple[float, ...]]


def sweep_of(
    table: pd.DataFrame, gain: str, cost: str, *, draws: int = 2000, seed: int = 0
) -> Sweep:
    """Curves of gain and cost from a run's sweep.

    Args:
        table: `sweep.parquet` of a run on one task, with the method `no edit`.
        gain: a metric that is better when larger, such as `says_truth`.
        cost: a metric that is worse when larger, such as `kl`, or with a minus sign one that is
            worse when smaller, such as `-ended`.
        draws: resamples.
        seed: of the resampling.

    Raises:
        WorkbenchError: no sweep, several tasks, or a metric or the method `no edit` is missing.
    """
    for column in ("strength", "method", "fold", "metric", "question", "value"):
        if column not in table:
            raise WorkbenchError(f"a table without the column {column!r}", "a run's sweep.parquet")
    if len(set(table["task"])) != 1:
        raise WorkbenchError("the sweep of several tasks", "table[table.task == 'truthfulness']")
    if BLANK not in set(table["method"]):
        raise WorkbenchError(f"a sweep without the method {BLANK!r}", "the unedited model too")
    sides = {}
    for number, name in enumerate((gain, cost)):
        metric, sign = name.removeprefix("-"), -1.0 if name.startswith("-") else 1.0
        own = table[table["metric"] == metric]
        if own.empty:
            raise WorkbenchError(
                f"the metric {metric!r}", f"one of {', '.join(dict.fromkeys(table['metric']))}"
            )
        sides[name] = _resampled(own.assign(value=sign * own["value"]), draws, [seed, number])
    methods = [method for method in dict.fromkeys(table["method"]) if method != BLANK]
    found: list[dict[str, Array]] = []
    strengths = {}
    for name in (gain, cost):
        blank = sides[name][BLANK, 1.0]
        curves = {}
        for method in methods:
            own_strengths = sorted(s for m, s in sides[name] if m == method)
            strengths[method] = (0.0, *own_strengths)
            curves[method] = np.stack(
                [blank, *(sides[name][method, s] for s in own_strengths)], axis=-1
            )
        found.append(curves)
    return Sweep(found[0], found[1], strengths)


def _resampled(
    table: pd.DataFrame, draws: int, seed: Sequence[int]
) -> dict[tuple[str, float], Float[Array, "resample fold"]]:
    """Means by method and strength: of all units, then of resampled ones, fold by fold."""
    wide = table.pivot_table(
        index=["fold", "question"], columns=["method", "strength"], values="value", aggfunc="mean"
    )
    if wide.isna().to_numpy().any():
        raise WorkbenchError(
            "methods that were measured on different questions", "the same questions for all"
        )
    generator = np.random.default_rng(list(seed))
    folds = []
    for _, part in wide.groupby(level="fold", sort=True):
        values = part.to_numpy()
        weights = generator.multinomial(len(values), np.full(len(values), 1 / len(values)), draws)
        means = weights @ values / len(values)
        folds.append(np.concatenate([values.mean(axis=0)[None], means]))
    stacked = np.stack(folds, axis=1)
    names: list[Any] = list(wide.columns)
    return {(str(m), float(s)): stacked[..., k] for k, (m, s) in enumerate(names)}


def at_cost(sweep: Sweep, method: str, cost: Float[Array, " resample"] | float) -> Array:
    """The gain of a method where its cost first reaches a value, mean over folds; NaN if never.

    Args:
        sweep: from `sweep_of`.
        method: one of its methods.
        cost: the same for all resamples, or one for each.

    Returns:
        A value a resample, the first that of the data.
    """
    gains, costs = sweep.gain[method], sweep.cost[method]
    wanted = np.broadcast_to(np.asarray(cost, dtype=float), costs.shape[0])[:, None]
    found = np.full(costs.shape[:2], np.nan)
    for step in range(costs.shape[2] - 1):
        low, high = costs[..., step], costs[..., step + 1]
        reached = np.isnan(found) & (low <= wanted) & (wanted <= high)
        share = (wanted - low) / np.where(high > low, high - low, 1.0)
        here = gains[..., step] + share * (gains[..., step + 1] - gains[..., step])
        found = np.where(reached, here, found)
    return np.asarray(found.mean(axis=1))


def compare_at_cost(
    sweep: Sweep,
    against: str,
    costs: Sequence[float],
    *,
    level: float = 0.95,
) -> pd.DataFrame:
    """Every method's gain at equal costs, and its difference from one of them.

    Args:
        sweep: from `sweep_of`.
        against: the method to subtract.
        costs: where to compare.
        level: coverage of the intervals.

    Returns:
        Columns `cost`, `method`, `gain`, `low`, `high`, `difference`, `difference_low`,
        `difference_high`, `p` (two-sided, by the share of resamples on the other side of 0, at
        least one over their number) and `p_holm` (corrected for all of the table). A method that
        never reaches a cost has NaN there; an interval leaves out resamples in which it does not.

    Raises:
        WorkbenchError: no such method.
    """
    if against not in sweep.gain:
        raise WorkbenchError(f"the method {against!r}", f"one of {', '.join(sweep.gain)}")
    rows = []
    for cost in costs:
        base = at_cost(sweep, against, cost)
        for method in sweep.gain:
            own = at_cost(sweep, method, cost)
            apart = own - base
            p = np.nan if method == against else _p_value(apart)
            rows.append((cost, method, *_interval(own, level), *_interval(apart, level), p))
    columns = ["cost", "method", "gain", "low", "high", "difference", "difference_low",
               "difference_high", "p"]  # fmt: skip
    found = pd.DataFrame(rows, columns=columns)
    known = found["p"].notna()
    found.loc[known, "p_holm"] = holm(found.loc[known, "p"].tolist())
    return found


def area(
    sweep: Sweep, lowest: float, highest: float, *, points: int = 40, level: float = 0.95
) -> pd.DataFrame:
    """The mean gain over costs up to a limit, on a logarithmic scale, of every method.

    At each cost counts the most that the method gains at this cost or a lower one, no edit
    included, so that a method is not charged for strengths that nobody would choose.

    Args:
        sweep: from `sweep_of`.
        lowest: the smallest cost, above 0.
        highest: the largest.
        points: costs between them, at equal ratios.
        level: coverage of the intervals.

    Returns:
        Columns `method`, `area`, `low`, `high`.

    Raises:
        WorkbenchError: costs that are not 0 < lowest < highest.
    """
    if not 0 < lowest < highest:
        raise WorkbenchError(f"costs from {lowest} to {highest}", "0 < lowest < highest")
    grid = np.geomspace(lowest, highest, points)
    rows = []
    for method in sweep.gain:
        best = np.stack([front(sweep, method, cost) for cost in grid], axis=-1)
        rows.append((method, *_interval(best.mean(axis=-1), level)))
    return pd.DataFrame(rows, columns=["method", "area", "low", "high"])


def front(sweep: Sweep, method: str, cost: float) -> Array:
    """The most that a method gains at a cost or a lower one, mean over folds, by resample."""
    gains, costs = sweep.gain[method], sweep.cost[method]
    best = np.where(costs <= cost, gains, -np.inf).max(axis=-1)
    crossing = np.full(best.shape, -np.inf)
    for step in range(costs.shape[2] - 1):
        low, high = costs[..., step], costs[..., step + 1]
        inside = (np.minimum(low, high) <= cost) & (cost <= np.maximum(low, high)) & (low != high)
        share = (cost - low) / np.where(low != high, high - low, 1.0)
        here = gains[..., step] + share * (gains[..., step + 1] - gains[..., step])
        crossing = np.maximum(crossing, np.where(inside, here, -np.inf))
    return np.asarray(np.maximum(best, crossing).mean(axis=1))


def curve(sweep: Sweep, method: str, *, level: float = 0.95) -> pd.DataFrame:
    """A method's means at every strength, with intervals: for plots.

    Returns:
        Columns `method`, `strength`, `gain`, `gain_low`, `gain_high`, `cost`, `cost_low`,
        `cost_high`.
    """
    rows = []
    for place, strength in enumerate(sweep.strengths[method]):
        gains = sweep.gain[method][..., place].mean(axis=1)
        costs = sweep.cost[method][..., place].mean(axis=1)
        rows.append((method, strength, *_interval(gains, level), *_interval(costs, level)))
    columns = ["method", "strength", "gain", "gain_low", "gain_high", "cost", "cost_low",
               "cost_high"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _interval(values: Float[Array, " resample"], level: float) -> tuple[float, float, float]:
    """The value of the data and percentiles of the resamples."""
    if np.isnan(values[0]):
        return (float("nan"),) * 3
    known = values[1:][~np.isnan(values[1:])]
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(values[0]), float(low), float(high)


def _p_value(apart: Float[Array, " resample"]) -> float:
    if np.isnan(apart[0]):
        return float("nan")
    known = apart[1:][~np.isnan(apart[1:])]
    least = (1 + min((known <= 0).sum(), (known >= 0).sum())) / (1 + len(known))
    return float(min(1.0, 2 * least))
