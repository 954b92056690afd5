"""Refits: folds and fits drawn anew are a source of chance, beside the questions.

Of several refits every question is in each, in a fold of its own. The mean over refits varies with
the questions, by a variance V that a bootstrap of them gives, the same ones in every refit; and
with the fits, by s²/R, where s² is the variance of the R refits' own estimates. An interval is
mean ± √(t²(R − 1) s²/R + t²(Q − 1) V), with Student's t for each part by its own degrees of freedom
(after Cochran and Cox 1950): it is long where refits are few and differ. A bootstrap
of three refits would find one difference in six where there is none. Noise that is neither the
question's nor the fit's is counted twice, so that intervals are somewhat too long where it is much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.optimize import brentq
from scipy.stats import t

from workbench.evaluation.statistics import Statistic, Strata, require_values

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


@dataclass(frozen=True)
class Told:
    """A mean over refits.

    Attributes:
        mean, low, high: in the units of the values.
        p: two-sided, for 0; where nothing varies, 1 if the mean is 0, and 0 if it is not.
    """

    mean: float
    low: float
    high: float
    p: float


def told(
    refits: Float[np.ndarray, " refit"],
    resamples: Float[np.ndarray, " draw"],
    units: int,
    level: float = 0.95,
) -> Told:
    """A mean over refits, its interval and p by Student's t.

    Args:
        refits: every refit's estimate.
        resamples: the mean over refits for resampled units; NaN where it is not defined.
        units: how many were resampled.
        level: coverage of the interval.

    Returns:
        Interval and p are NaN where fewer than two resamples are defined.
    """
    mean, count = float(refits.mean()), len(refits)
    known = resamples[np.isfinite(resamples)]
    if len(known) < 2:
        return Told(mean, *[math.nan] * 3)
    of_units = float(known.var(ddof=1))
    of_fits = float(refits.var(ddof=1)) / count
    whole = of_units + of_fits
    if not whole > 0:
        return Told(mean, mean, mean, 1.0 if mean == 0 else 0.0)

    def half(p: float) -> float:
        """Half the length of the interval that leaves p out."""
        wide = t.isf(p / 2, [count - 1, max(units - 1, 1)]) ** 2
        return float(np.sqrt(np.dot(wide, [of_fits, of_units])))

    own = half(1 - level)
    least, most = 1e-12, 1.0
    p = most if mean == 0 else least
    if half(most) < abs(mean) < half(least):
        p = float(brentq(lambda p: half(p) - abs(mean), least, most, xtol=1e-12))
    return Told(mean, mean - own, mean + own, p)


def crossed(
    strata: Strata,
    statistic: Statistic,
    design: Crossed,
    level: float = 0.95,
    draws: int = 4_000,
    seed: int = 0,
) -> Told:
    """The mean over refits of the statistic, a mean over folds by their numbers of units.

    Args:
        strata: as in `statistics.bootstrap_of_means`.
        statistic: of the columns' means.
        design: whose the strata and rows are.
        level: coverage, in (0, 1).
        draws: resamples of units.
        seed: of the resampling; the same for tables of the same numbers of units and refits.
    """
    require_values(strata, level)
    generator = np.random.default_rng([seed, 2])
    size = max(1, CHUNK // design.count)
    found = []
    for begin in range(0, draws, size):
        weights = generator.multinomial(
            design.count, np.full(design.count, 1 / design.count), size=min(size, draws - begin)
        )
        found.append(_by_refit(strata, statistic, design, weights.astype(float)).mean(axis=1))
    each = _by_refit(strata, statistic, design, np.ones((1, design.count)))[0]
    return told(each, np.concatenate(found), design.count, level)


def _by_refit(
    strata: Strata,
    statistic: Statistic,
    design: Crossed,
    weights: Float[np.ndarray, "draw unit"],
) -> Float[np.ndarray, "draw refit"]:
    """Every refit's statistic under some weights of units: a mean over its folds and draws.

    A fold of which nothing was drawn, as a tiny one may be, counts nothing.
    """
    shape = len(weights), design.refits
    total, share = np.zeros(shape), np.zeros(shape)
    for values, refit, units in zip(strata, design.refit, design.units, strict=True):
        own = weights[:, units]
        count = own.sum(axis=1)
        means = np.tensordot(own, values, axes=1) / np.maximum(count, 1)[:, None, None]
        total[:, refit] += count * statistic(means).mean(axis=-1)
        share[:, refit] += count
    found: np.ndarray = total / np.maximum(share, 1)
    return found
