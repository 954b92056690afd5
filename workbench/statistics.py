"""Honest numbers: bootstrap by question."""

from __future__ import annotations

from collections.abc import Callable
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
    if values.size == 0 or not np.isfinite(values).all() or not 0 < level < 1:
        raise WorkbenchError(
            f"{values.size} values (finite: {bool(np.isfinite(values).all())}) at level {level}",
            "at least one value, all finite, and a level between 0 and 1",
        )
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(values.size, np.full(values.size, 1 / values.size), size=draws)
    means = counts @ values / values.size
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high), values.size)


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
