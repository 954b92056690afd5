"""Honest numbers: bootstrap by question, paired differences, correction for many comparisons."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from workbench.doors import door
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
    return bootstrap_of_means([values[:, None, None]], first_column, level, draws, seed)


Statistic = Callable[[np.ndarray], np.ndarray]
"""A function of columns' means [*row, column], with one value a row."""

Strata = Sequence[Float[np.ndarray, "_unit _draw _column"]]
"""Values by fold: units are resampled within their fold, with all of their draws and columns."""

Kind = Literal["resamples", "permutations"]
Weights = tuple[int, np.ndarray, np.ndarray]
"""A stratum's number, the numbers of some draws, and every unit's weight in them [draw, unit]."""

CHUNK = 1 << 23


def first_column(means: np.ndarray) -> np.ndarray:
    """The mean itself, as a statistic."""
    return np.asarray(means[..., 0])


def bootstrap_of_means(
    strata: Strata,
    statistic: Statistic,
    level: float = 0.95,
    draws: int = 4_000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of a function of means, whose columns are resampled together.

    The function is taken of every fold's and draw's own means, since each was fitted by itself,
    and then averaged: over draws, and over folds by their numbers of units. So two fits that err in
    opposite ways do not make one that is right.

    Args:
        strata: a row a unit, such as a question; a draw of a random control each; a column a
            metric.
        statistic: of the columns' means.
        level: coverage, in (0, 1).
        draws: resamples.
        seed: of the resampling; the same for tables of the same numbers of units.

    Raises:
        WorkbenchError: no values, a value that is not finite, or a level outside (0, 1).
    """
    require_values(strata, level)
    shares = _shares(strata)
    found = np.zeros(draws)
    for number, part, picked in _weights("resamples", tuple(map(len, strata)), draws, seed):
        means = np.tensordot(picked, strata[number], axes=1) / len(strata[number])
        found[part] += shares[number] * statistic(means).mean(axis=-1)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(_estimate(strata, statistic), float(low), float(high), sum(map(len, strata)))


def _estimate(strata: Strata, statistic: Statistic) -> float:
    parts = [statistic(values.mean(axis=0)[None]).mean() for values in strata]
    return float(np.dot(_shares(strata), parts))


def _shares(strata: Strata) -> Float[np.ndarray, " stratum"]:
    counts = np.array([len(values) for values in strata], dtype=float)
    shares: np.ndarray = counts / counts.sum()
    return shares


def require_values(strata: Strata, level: float) -> None:
    """Refuse no values, values that are not finite, and levels outside (0, 1)."""
    count = sum(map(len, strata))
    finite = all(bool(np.isfinite(values).all()) for values in strata)
    if not count or not all(values.size for values in strata) or not finite:
        raise WorkbenchError(f"{count} values (finite: {finite})", "at least one value, all finite")
    if not 0 < level < 1:
        raise WorkbenchError(f"a level of {level}", "a level between 0 and 1")


def _weights(kind: Kind, counts: tuple[int, ...], draws: int, seed: int) -> Iterable[Weights]:
    """Weights of units, kept for the next metric or method with the same units if they are few."""
    few = draws * sum(counts) <= CHUNK
    return _kept_weights(kind, counts, draws, seed) if few else _drawn(kind, counts, draws, seed)


@lru_cache(maxsize=4)
def _kept_weights(
    kind: Kind, counts: tuple[int, ...], draws: int, seed: int
) -> tuple[Weights, ...]:
    return tuple(_drawn(kind, counts, draws, seed))


def _drawn(kind: Kind, counts: tuple[int, ...], draws: int, seed: int) -> Iterator[Weights]:
    """By stratum the numbers of some draws, as many as keep to `CHUNK`, and their units' weights.

    Of resamples these are how often each unit is in them; of permutations 1 where it is left.
    """
    generator = np.random.default_rng(seed if kind == "resamples" else [seed, 1])
    for stratum, count in enumerate(counts):
        size = max(1, CHUNK // count)
        for part in (np.arange(k, min(k + size, draws)) for k in range(0, draws, size)):
            if kind == "resamples":
                weights = generator.multinomial(count, np.full(count, 1 / count), size=len(part))
            else:
                weights = generator.integers(0, 2, size=(len(part), count))
            yield stratum, part, weights.astype(float)


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


@door
def paired_difference(
    one: Strata,
    other: Strata,
    statistic: Statistic,
    level: float = 0.95,
    draws: int = 4_000,
    seed: int = 0,
) -> Difference:
    """Statistic of `one` minus that of `other`, both resampled with the same units.

    Every draw of the one is paired with every draw of the other. A pair's p-value is that of a
    permutation test in which the two change places at each unit by the toss of a coin (Fisher
    1935); one is added to both counts (Phipson & Smyth 2010), so it never is 0. Several pairs are
    tossed together, and of a mean it is their mean difference that is tested, the one that is
    returned. Of other statistics, whose mean over draws is no statistic of the draws' mean, it is
    twice the mean of the pairs' p-values, which holds however they depend on each other (Vovk &
    Wang 2020), and is small where draws differ even in opposite directions.

    Args:
        one: by fold, a row a unit, such as a question; a draw; a column a metric.
        other: the same of the other method, its units in the same order.
        statistic: as in `bootstrap_of_means`.
        level: coverage of the interval.
        draws: resamples, and permutations.
        seed: of both.

    Raises:
        WorkbenchError: different units or columns, or as `bootstrap_of_means`.

    Example:
        >>> import numpy as np
        >>> first = np.array([1, 1, 1, 0, 1, 1, 0, 1.0])[:, None, None]  # [question, draw, metric]
        >>> found = wb.evaluation.paired_difference(
        ...     [first], [1 - first], lambda means: means[..., 0]
        ... )
        >>> found.difference, found.count
        (0.5, 8)
    """
    units = [[len(values) for values in side] for side in (one, other)]
    widths = {values.shape[2] for values in (*one, *other)}
    if units[0] != units[1] or len(widths) != 1:
        raise WorkbenchError(
            f"{sum(units[0])} and {sum(units[1])} units to compare", "the same units for both"
        )
    width = widths.pop()
    both = [beside(a, b) for a, b in zip(one, other, strict=True)]
    apart = apart_by(statistic, width)

    interval = bootstrap_of_means(both, apart, level, draws, seed)
    permuted = np.zeros((draws, both[0].shape[1]))
    shares = _shares(both)
    for number, part, kept in _weights("permutations", tuple(map(len, both)), draws, seed):
        values = both[number]
        crossed = np.concatenate([values[..., width:], values[..., :width]], axis=-1)
        means = np.tensordot(kept, values - crossed, axes=1) + crossed.sum(axis=0)
        permuted[part] += shares[number] * apart(means / len(values))
    seen = np.abs(
        sum(
            share * apart(values.mean(axis=0)[None])[0]
            for share, values in zip(_shares(both), both, strict=True)
        )
    )
    if statistic is first_column:
        permuted = permuted.mean(axis=1, keepdims=True)
        seen = np.abs([interval.mean])
    extreme = (np.abs(permuted) >= seen - 1e-9 * (1 + seen)).sum(axis=0)
    p = (extreme + 1) / (draws + 1)
    combined = float(p[0]) if len(p) == 1 else min(1.0, 2 * float(p.mean()))
    return Difference(interval.mean, interval.low, interval.high, combined, interval.count)


def apart_by(statistic: Statistic, width: int) -> Statistic:
    """The statistic of the first so many columns minus that of the others."""

    def apart(means: np.ndarray) -> np.ndarray:
        found: np.ndarray = statistic(means[..., :width]) - statistic(means[..., width:])
        return np.asarray(found)

    return apart


def beside(
    one: Float[np.ndarray, "unit draw column"], other: Float[np.ndarray, "unit other_draw column"]
) -> Float[np.ndarray, "unit pair both_columns"]:
    """Every draw of the one beside every draw of the other."""
    mine, theirs = one.shape[1], other.shape[1]
    return np.concatenate([np.repeat(one, theirs, axis=1), np.tile(other, (1, mine, 1))], axis=-1)


@door
def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979): the family-wise error rate is kept.

    Raises:
        WorkbenchError: a p-value outside [0, 1].

    Example:
        >>> wb.evaluation.holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    if not all(0 <= value <= 1 for value in p):
        raise WorkbenchError(f"the p-values {list(p)}", "numbers between 0 and 1")
    order = sorted(range(len(p)), key=lambda number: p[number])
    corrected, largest = [0.0] * len(p), 0.0
    for rank, number in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[number]))
        corrected[number] = largest
    return corrected


@door
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

    Example:
        >>> import numpy as np
        >>> values, question = np.arange(12.0)[:, None], np.arange(12) // 2
        >>> interval = wb.evaluation.bootstrap_interval(np.mean, values, question)
        >>> interval.mean, interval.count
        (5.5, 6)
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
