"""Honest numbers: bootstrap by question, paired differences, correction for many comparisons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from workbench.errors import WorkbenchError


@dataclass(frozen=True)
class Interval:
    """A mean with its percentile-bootstrap interval.

    Attributes:
        mean, low, high: in the units of the values.
        count: number of units (questions) that were resampled.
    """

    mean: float
    low: float
    high: float
    count: int


def bootstrap_mean(
    values: Float[np.ndarray, " unit"],
    *,
    level: float = 0.95,
    draws: int = 4_000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of a mean over units that are resampled whole (Efron 1979).

    Args:
        values: one per question.
        level: coverage, in (0, 1).
        draws: resamples.
        seed: of the resampling.

    Raises:
        WorkbenchError: no values, a value that is not finite, or a level outside (0, 1).
    """
    return bootstrap_of_means(values[:, None], lambda means: means[..., 0], level, draws, seed)


def bootstrap_of_means(
    values: Float[np.ndarray, "unit column"],
    statistic: Callable[[np.ndarray], np.ndarray],
    level: float = 0.95,
    draws: int = 4_000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of a function of means, whose columns are resampled together.

    Args:
        values: a row a unit, such as a question with its metrics.
        statistic: of the columns' means [*row, column]; gives one value a row.
        level: coverage, in (0, 1).
        draws: resamples.
        seed: of the resampling; the same for tables of the same number of units.

    Raises:
        WorkbenchError: no values, a value that is not finite, or a level outside (0, 1).
    """
    means = resampled_means(values, draws, seed)
    if not 0 < level < 1:
        raise WorkbenchError(f"a level of {level}", "a level between 0 and 1")
    low, high = np.quantile(statistic(means), [(1 - level) / 2, (1 + level) / 2])
    return Interval(
        float(statistic(values.mean(axis=0)[None])[0]), float(low), float(high), values.shape[0]
    )


def resampled_means(
    values: Float[np.ndarray, "unit column"], draws: int = 4_000, seed: int = 0
) -> Float[np.ndarray, "draw column"]:
    """Means of columns over units that are drawn with replacement."""
    count = values.shape[0]
    if count == 0 or not np.isfinite(values).all():
        raise WorkbenchError(
            f"{count} values (finite: {bool(np.isfinite(values).all())})",
            "at least one value, all finite",
        )
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(count, np.full(count, 1 / count), size=draws)
    means: np.ndarray = counts @ values / count
    return means


@dataclass(frozen=True)
class Difference:
    """How far a method's statistic differs from another's on the same units.

    Attributes:
        difference, low, high: in the units of the values.
        p: two-sided, for no difference.
        count: number of units.
    """

    difference: float
    low: float
    high: float
    p: float
    count: int


def paired_difference(
    one: Float[np.ndarray, "unit column"],
    other: Float[np.ndarray, "unit column"],
    statistic: Callable[[np.ndarray], np.ndarray],
    level: float = 0.95,
    draws: int = 4_000,
    seed: int = 0,
) -> Difference:
    """Statistic of `one` minus that of `other`, both resampled with the same units.

    The p-value is that of a permutation test in which the two methods change places at each unit
    by the toss of a coin (Fisher 1935; Phipson & Smyth 2010 for the + 1), so it holds for any
    statistic and never is 0.

    Args:
        one: a row a unit, such as a question, and a column a metric.
        other: the same of the other method, in the same order.
        statistic: as in `bootstrap_of_means`.
        level: coverage of the interval.
        draws: resamples, and permutations.
        seed: of both.

    Raises:
        WorkbenchError: different numbers of units or columns, or as `resampled_means`.
    """
    if one.shape != other.shape:
        raise WorkbenchError(
            f"{one.shape[0]} and {other.shape[0]} units to compare", "the same units for both"
        )
    both = np.concatenate([one, other], axis=1)
    width = one.shape[1]

    def apart(means: np.ndarray) -> np.ndarray:
        found: np.ndarray = statistic(means[..., :width]) - statistic(means[..., width:])
        return found

    interval = bootstrap_of_means(both, apart, level, draws, seed)
    generator = np.random.default_rng([seed, 1])
    kept = generator.integers(0, 2, size=(draws, len(one))).astype(float)
    first = (kept @ one + (1 - kept) @ other) / len(one)
    second = (kept @ other + (1 - kept) @ one) / len(one)
    permuted = apart(np.concatenate([first, second], axis=1))
    slack = 1e-12 * (1 + abs(interval.mean))
    extreme = int((np.abs(permuted) >= abs(interval.mean) - slack).sum())
    return Difference(
        interval.mean, interval.low, interval.high, (extreme + 1) / (draws + 1), interval.count
    )


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979): the family-wise error rate is kept.

    Raises:
        WorkbenchError: a p-value outside [0, 1].
    """
    if not all(0 <= value <= 1 for value in p):
        raise WorkbenchError(f"the p-values {list(p)}", "numbers between 0 and 1")
    order = sorted(range(len(p)), key=lambda number: p[number])
    corrected, largest = [0.0] * len(p), 0.0
    for rank, number in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[number]))
        corrected[number] = largest
    return corrected


def bootstrap_interval(
    statistic: Callable[[np.ndarray], float],
    rows: Float[np.ndarray, "row column"],
    unit: Int[np.ndarray, " row"],
    *,
    level: float = 0.95,
    draws: int = 500,
    seed: int = 0,
) -> Interval:
    """Cluster bootstrap of any statistic: units are resampled with all of their rows.

    Args:
        statistic: of rows.
        rows: the data.
        unit: each row's unit, such as its question.
        level: coverage, in (0, 1).
        draws: resamples.
        seed: of the resampling.
    """
    names, inverse = np.unique(unit, return_inverse=True)
    members = [np.flatnonzero(inverse == k) for k in range(len(names))]
    generator = np.random.default_rng(seed)
    found = [
        statistic(rows[np.concatenate([members[k] for k in drawn])])
        for drawn in generator.integers(len(names), size=(draws, len(names)))
    ]
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(statistic(rows)), float(low), float(high), len(names))
