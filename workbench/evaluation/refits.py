"""Refits: folds and fits drawn anew are a source of chance, beside the questions.

Of several refits every question is in each, in a fold of its own. A resample draws questions, the
same for all refits, and refits, and takes the mean over them: a bootstrap of two crossed factors
(McCullagh 2000; Owen 2007), which is wide where either varies. With few refits it is too narrow,
as a bootstrap over few of anything is: their variance is that of R − 1 among R.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from workbench.evaluation.statistics import Interval, Statistic, Strata, require_values

CHUNK = 1 << 23


@dataclass(frozen=True)
class Crossed:
    """Which refit a stratum is of, and which units its rows are.

    Attributes:
        refit: a number a stratum, from 0 on.
        units: numbers of units, a row's; the same unit has the same one in every refit.
        count: how many units there are.
    """

    refit: Sequence[int]
    units: Sequence[Int[np.ndarray, _row]]
    count: int

    @classmethod
    def of(cls, index: pd.MultiIndex) -> Crossed | None:
        """Of rows (refit, fold, question) in the order of their strata; None of a single refit."""
        refits = index.get_level_values("refit")
        if refits.nunique() < 2:
            return None
        units, names = pd.factorize(index.get_level_values("question"))
        strata = strata_of(index)
        numbers = {refit: number for number, refit in enumerate(dict.fromkeys(refits))}
        return cls(
            [numbers[refit] for refit, _ in strata], [units[rows] for rows in strata.values()],
            len(names),
        )  # fmt: skip

    @property
    def refits(self) -> int:
        """How many there are."""
        return len(set(self.refit))


def strata_of(index: pd.MultiIndex) -> dict[tuple[int, object], Int[np.ndarray, " row"]]:
    """The numbers of the rows of every refit's folds."""
    keys = list(zip(index.get_level_values("refit"), index.get_level_values("fold"), strict=True))
    found: dict[tuple[int, object], list[int]] = {}
    for row, key in enumerate(keys):
        found.setdefault(key, []).append(row)
    return {key: np.array(rows) for key, rows in found.items()}


def crossed_estimate(strata: Strata, statistic: Statistic, crossed: Crossed) -> float:
    """The mean over refits of the statistic, a mean over folds by their numbers of units."""
    ones = np.ones((1, crossed.count))
    return float(_by_refit(strata, statistic, crossed, ones).mean())


def crossed_resamples(
    strata: Strata, statistic: Statistic, crossed: Crossed, draws: int, seed: int
) -> Float[np.ndarray, " draw"]:
    """The statistic in every resample of units and refits.

    Args:
        strata: as in `statistics.bootstrap_of_means`.
        statistic: of the columns' means.
        crossed: whose the strata and rows are.
        draws: resamples.
        seed: of the resampling; the same for tables of the same numbers of units and refits.
    """
    generator = np.random.default_rng([seed, 2])
    size = max(1, CHUNK // crossed.count)
    found = []
    for begin in range(0, draws, size):
        count = min(size, draws - begin)
        weights = generator.multinomial(
            crossed.count, np.full(crossed.count, 1 / crossed.count), size=count
        )
        refits = crossed.refits
        picked = generator.multinomial(refits, np.full(refits, 1 / refits), size=count) / refits
        each = _by_refit(strata, statistic, crossed, weights.astype(float))
        found.append((each * picked).sum(axis=1))
    return np.concatenate(found)


def crossed_interval(
    strata: Strata,
    statistic: Statistic,
    crossed: Crossed,
    level: float = 0.95,
    draws: int = 4_000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap over units and refits; see `statistics.bootstrap_of_means`."""
    require_values(strata, level)
    found = crossed_resamples(strata, statistic, crossed, draws, seed)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    mean = crossed_estimate(strata, statistic, crossed)
    return Interval(mean, float(low), float(high), crossed.count)


def two_sided(resamples: Float[np.ndarray, " draw"]) -> float:
    """Twice the share of resamples on the other side of 0; one is added to both counts."""
    below, above = int((resamples <= 0).sum()), int((resamples >= 0).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (len(resamples) + 1))


def _by_refit(
    strata: Strata,
    statistic: Statistic,
    crossed: Crossed,
    weights: Float[np.ndarray, "draw unit"],
) -> Float[np.ndarray, "draw refit"]:
    """Every refit's statistic under some weights of units: a mean over its folds and draws.

    A fold of which nothing was drawn, as a tiny one may be, counts nothing.
    """
    shape = len(weights), crossed.refits
    total, share = np.zeros(shape), np.zeros(shape)
    for values, refit, units in zip(strata, crossed.refit, crossed.units, strict=True):
        own = weights[:, units]
        count = own.sum(axis=1)
        means = np.tensordot(own, values, axes=1) / np.maximum(count, 1)[:, None, None]
        total[:, refit] += count * statistic(means).mean(axis=-1)
        share[:, refit] += count
    found: np.ndarray = total / np.maximum(share, 1)
    return found
