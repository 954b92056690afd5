"""Fronts: what an edit gains at equal side effects, over a sweep of its α.

A method that multiplies its edit looks better at equal α for that reason alone. So every method
is measured at several multiples of its α and compared where its side effect is the same. Between
two multiples the gain is interpolated linearly in the root of the side effect, since a KL grows
with the square of a small edit; a method has no number at side effects that it was not measured
around. Units (questions, plain texts) are resampled within folds, the same for all methods, and
the same for gain and side effect where both are of the same units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from workbench.errors import WorkbenchError
from workbench.evaluation.metrics.registry import METRICS, Metric
from workbench.evaluation.statistics import holm

Array = np.ndarray
Curves = Float[Array, "resample fold multiple"]
BLANK = "no edit"


@dataclass(frozen=True)
class Sweep:
    """Means at every multiple of α, of the data (resample 0) and of resampled units.

    Attributes:
        gain: of every method, by multiple from 0 on.
        side_effect: likewise, in excess of the unedited model's and at least 0.
        multiples: of every method, ascending; 0 is the unedited model.
    """

    gain: Mapping[str, Curves]
    side_effect: Mapping[str, Curves]
    multiples: Mapping[str, tuple[float, ...]]


def sweep_of(
    table: pd.DataFrame, gain: str, side_effect: str, *, draws: int = 20_000, seed: int = 0
) -> Sweep:
    """Curves of gain and side effect from a run's sweep.

    Args:
        table: `sweep.parquet` of a run on one capability, with the method `no edit`.
        gain: a metric that is better when larger, such as `says_truth`; of one that is made of
            others' means, such as `true_x_info`, the means are those of every fold.
        side_effect: a metric of values from 0 on that is worse when larger, such as `kl`; or,
            of a share that is worse when smaller, the rest, such as `1 - ended`.
        draws: resamples.
        seed: of the resampling.

    Raises:
        WorkbenchError: no sweep, several capabilities, or no such metric, or no method
            `no edit`.
    """
    for column in ("multiple", "method", "fold", "metric", "question", "value"):
        if column not in table:
            raise WorkbenchError(f"a table without the column {column!r}", "a run's sweep.parquet")
    if len(set(table["capability"])) != 1:
        raise WorkbenchError(
            "the sweep of several capabilities", "table[table.capability == 'truthfulness']"
        )
    if BLANK not in set(table["method"]):
        raise WorkbenchError(f"a sweep without the method {BLANK!r}", "the unedited model too")
    entry = METRICS.get(gain)
    made = entry if isinstance(entry, Metric) and entry.of_means else None
    wides = {name: _wide(table, name) for name in (*(made.parts if made else (gain,)), side_effect)}
    first = next(iter(wides.values())).index
    means = {
        name: _resampled(wide, draws, [seed, 0 if wide.index.equals(first) else 1])
        for name, wide in wides.items()
    }
    if made is not None and made.of_means is not None:
        parts = [means[part] for part in made.parts]
        means[gain] = {
            key: made.of_means(np.stack([one[key] for one in parts], axis=-1)) for key in parts[0]
        }
    sides = {name: means[name] for name in (gain, side_effect)}
    if min(float(values.min()) for values in sides[side_effect].values()) < -1e-6:
        raise WorkbenchError(f"the side effect {side_effect!r} below 0", "a side effect from 0 on")
    methods = [method for method in dict.fromkeys(table["method"]) if method != BLANK]
    found: list[dict[str, Array]] = []
    multiples = {}
    for name in (gain, side_effect):
        blank = sides[name][BLANK, 1.0]
        curves = {}
        for method in methods:
            own_multiples = sorted(s for m, s in sides[name] if m == method)
            multiples[method] = (0.0, *own_multiples)
            own = np.stack([blank, *(sides[name][method, s] for s in own_multiples)], axis=-1)
            excess = np.maximum(own - own[..., :1], 0.0)
            curves[method] = own if name == gain else excess
        found.append(curves)
    return Sweep(found[0], found[1], multiples)


def _wide(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Values of a metric, or of what it lacks to 1: a row a fold and unit, a column a multiple."""
    metric = name.removeprefix("1 - ")
    own = table[table["metric"] == metric]
    if own.empty:
        raise WorkbenchError(
            f"the metric {metric!r}", f"one of {', '.join(dict.fromkeys(table['metric']))}"
        )
    if name != metric:
        own = own.assign(value=1 - own["value"])
    wide = own.pivot_table(
        index=["fold", "question"], columns=["method", "multiple"], values="value", aggfunc="mean"
    )
    if wide.isna().to_numpy().any():
        raise WorkbenchError(
            "methods that were measured on different questions", "the same questions for all"
        )
    return wide


def _resampled(
    wide: pd.DataFrame, draws: int, seed: Sequence[int]
) -> dict[tuple[str, float], Float[Array, "resample fold"]]:
    """Means by method and strength: of all units, then of resampled ones, fold by fold."""
    generator = np.random.default_rng(list(seed))
    folds = []
    for _, part in wide.groupby(level="fold", sort=True):
        values = part.to_numpy()
        count = len(values)
        weights = generator.multinomial(count, np.full(count, 1 / count), draws).astype(np.float32)
        means = weights @ values.astype(np.float32) / count
        folds.append(np.concatenate([values.mean(axis=0)[None], means]))
    stacked = np.stack(folds, axis=1)
    names: list[Any] = list(wide.columns)
    return {(str(m), float(s)): stacked[..., k] for k, (m, s) in enumerate(names)}


def at_side_effect(sweep: Sweep, method: str, effect: float) -> Float[Array, " resample"]:
    """The gain of a method where its side effect first reaches a value, mean over folds.

    Args:
        sweep: from `sweep_of`.
        method: one of its methods.
        effect: above 0.

    Returns:
        A value a resample, the first that of the data; NaN where some fold's least multiple has
        more, or none has as much.
    """
    gains, roots = (
        sweep.gain[method][..., 1:],
        np.sqrt(np.maximum(sweep.side_effect[method][..., 1:], 0)),
    )
    wanted = np.sqrt(effect)
    found = np.full(roots.shape[:2], np.nan)
    for step in range(roots.shape[2] - 1):
        low, high = roots[..., step], roots[..., step + 1]
        reached = np.isnan(found) & (low <= wanted) & (wanted <= high)
        found = np.where(reached, _between(gains, step, low, high, wanted), found)
    return np.asarray(found.mean(axis=1))


def _between(
    gains: Curves, step: int, low: Array, high: Array, wanted: float
) -> Float[Array, "resample fold"]:
    """The gain between two multiples, linear in the root of the side effect."""
    share = (wanted - low) / np.where(high != low, high - low, 1.0)
    here: Array = gains[..., step] + share * (gains[..., step + 1] - gains[..., step])
    return here


def compare_at_side_effects(
    sweep: Sweep,
    against: str,
    effects: Sequence[float],
    *,
    level: float = 0.95,
) -> pd.DataFrame:
    """Every method's gain at equal side effects, and its difference from one of them.

    Args:
        sweep: from `sweep_of`.
        against: the method to subtract.
        effects: where to compare.
        level: coverage of the intervals.

    Returns:
        Columns `effect`, `method`, `gain`, `low`, `high`, `difference`, `difference_low`,
        `difference_high`, `p` (two-sided: twice the share of resamples on the other side of 0, at
        least 2 over their number) and `p_holm` (corrected for all of the table). A method that was
        not measured around a side effect has NaN there; an interval leaves out resamples in which
        it was not.

    Raises:
        WorkbenchError: no such method.
    """
    if against not in sweep.gain:
        raise WorkbenchError(f"the method {against!r}", f"one of {', '.join(sweep.gain)}")
    rows = []
    for effect in effects:
        base = at_side_effect(sweep, against, effect)
        for method in sweep.gain:
            own = at_side_effect(sweep, method, effect)
            apart = own - base
            p = np.nan if method == against else _p_value(apart)
            rows.append((effect, method, *_interval(own, level), *_interval(apart, level), p))
    columns = ["effect", "method", "gain", "low", "high", "difference", "difference_low",
               "difference_high", "p"]  # fmt: skip
    found = pd.DataFrame(rows, columns=columns)
    known = found["p"].notna()
    found.loc[known, "p_holm"] = holm(found.loc[known, "p"].tolist())
    return found


def area(
    sweep: Sweep, against: str, effects: Sequence[float], *, level: float = 0.95
) -> pd.DataFrame:
    """The mean over some side effects of the most that every method gains at or below each.

    No edit is among the lower ones, so that a method is not charged for multiples that nobody
    would choose; between it and the least one, too, the gain is linear in the side effect's root,
    which is less than there is where gains saturate: begin sweeps at small multiples.

    Args:
        sweep: from `sweep_of`.
        against: the method to subtract.
        effects: where to read the front, such as `numpy.geomspace(1e-4, 1e-2, 40)` for a KL.
        level: coverage of the intervals.

    Returns:
        Columns `method`, `area`, `low`, `high`, `difference`, `difference_low`,
        `difference_high`, `p`.

    Raises:
        WorkbenchError: no side effects, or one that is not above 0; no such method.
    """
    if not len(effects) or min(effects) <= 0:
        raise WorkbenchError(f"the side effects {list(effects)[:5]}", "side effects above 0")
    if against not in sweep.gain:
        raise WorkbenchError(f"the method {against!r}", f"one of {', '.join(sweep.gain)}")
    areas = {
        method: np.mean([front(sweep, method, float(effect)) for effect in effects], axis=0)
        for method in sweep.gain
    }
    rows = []
    for method, own in areas.items():
        apart = own - areas[against]
        p = np.nan if method == against else _p_value(apart)
        rows.append((method, *_interval(own, level), *_interval(apart, level), p))
    columns = ["method", "area", "low", "high", "difference", "difference_low",
               "difference_high", "p"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def front(sweep: Sweep, method: str, effect: float) -> Float[Array, " resample"]:
    """The most that a method gains at or below a side effect, mean over folds, by resample."""
    gains, roots = sweep.gain[method], np.sqrt(np.maximum(sweep.side_effect[method], 0))
    wanted = np.sqrt(effect)
    best = np.where(roots <= wanted, gains, -np.inf).max(axis=-1)
    for step in range(roots.shape[2] - 1):
        low, high = roots[..., step], roots[..., step + 1]
        inside = (np.minimum(low, high) <= wanted) & (wanted <= np.maximum(low, high))
        here = _between(gains, step, low, high, float(wanted))
        best = np.maximum(best, np.where(inside & (low != high), here, -np.inf))
    return np.asarray(best.mean(axis=1))


def curve(sweep: Sweep, method: str, *, level: float = 0.95) -> pd.DataFrame:
    """A method's means at every multiple of α, with intervals: for plots.

    Returns:
        Columns `method`, `multiple`, `gain`, `gain_low`, `gain_high`, `effect`, `effect_low`,
        `effect_high`.
    """
    rows = []
    for place, multiple in enumerate(sweep.multiples[method]):
        gains = sweep.gain[method][..., place].mean(axis=1)
        effects = sweep.side_effect[method][..., place].mean(axis=1)
        rows.append((method, multiple, *_interval(gains, level), *_interval(effects, level)))
    columns = ["method", "multiple", "gain", "gain_low", "gain_high", "effect", "effect_low",
               "effect_high"]  # fmt: skip
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
