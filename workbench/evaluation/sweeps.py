"""Sweeps: means of a gain and of a side effect at every multiple of α, of resampled units.

Units (questions, plain texts) are resampled within folds, the same for all methods, and the same
for gain and side effect where both are of the same units. Of gains the means of either half of a
fold's units are kept too, so that a multiple can be chosen on one and read on the other. `fronts`
reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.rows import NO_EDIT
from workbench.evaluation.metrics.registry import METRICS, Metric
from workbench.evaluation.refits import Told, told

Array = np.ndarray
Curves = Float[Array, "resample fold multiple"]
Halves = Float[Array, "halving side resample fold multiple"]
SIDES = (((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2)))
"""The quarters of either half, in three halvings."""


@dataclass(frozen=True)
class Sweep:
    """Means at every multiple of α, of the data (resample 0) and of resampled units.

    Attributes:
        gain: of every method, by multiple from 0 on.
        side_effect: likewise, in excess of the unedited model's and at least 0.
        multiples: of every method, ascending; 0 is the unedited model.
        refits: the places of every refit's folds.
        units: how many were resampled.
        halves: gains of either half of each fold's units times its share of them, so that both sum
            to `gain` (of a metric made of means, nearly). Halves are drawn by the resampling's
            seed, and are the same units in every resample; NaN of one of which there is none.
    """

    gain: Mapping[str, Curves]
    side_effect: Mapping[str, Curves]
    multiples: Mapping[str, tuple[float, ...]]
    refits: tuple[tuple[int, ...], ...] = ()
    units: int = 0
    halves: Mapping[str, Halves] = field(default_factory=dict)

    def among(self, methods: Sequence[str]) -> Sweep:
        """The same resamples of some methods alone."""
        return replace(
            self,
            gain={method: self.gain[method] for method in methods},
            side_effect={method: self.side_effect[method] for method in methods},
            multiples={method: self.multiples[method] for method in methods},
            halves={method: self.halves[method] for method in methods},
        )

    def told(self, values: Float[Array, "resample fold"], level: float) -> Told:
        """The mean over folds of what was made of resamples, the first that of the data.

        Of a single refit the interval is the bootstrap's, and p twice the share of resamples on the
        other side of 0, at least 2 over their number; of several, see `refits`.
        """
        means = values.mean(axis=1)
        if not np.isfinite(means[0]):
            return Told(*[np.nan] * 4)
        if len(self.refits) < 2:
            known = means[1:][~np.isnan(means[1:])]
            low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
            least = (1 + min((known <= 0).sum(), (known >= 0).sum())) / (1 + len(known))
            return Told(float(means[0]), float(low), float(high), min(1.0, 2 * float(least)))
        each = np.array([values[0, list(folds)].mean() for folds in self.refits])
        return told(each, means[1:], self.units, level)


def sweep_of(
    table: pd.DataFrame, gain: str, side_effect: str, *, draws: int = 20_000, seed: int = 0
) -> Sweep:
    """Curves of gain and side effect from a run's sweep.

    Args:
        table: `sweep.parquet` of a run on one capability, with the method `no edit`.
        gain: a metric that is better when larger, such as `says_truth`; of one that is made of
            others' means, such as `true_x_info`, the means are those of every fold and draw.
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
    if NO_EDIT not in set(table["method"]):
        raise WorkbenchError(f"a sweep without the method {NO_EDIT!r}", "the unedited model too")
    entry = METRICS.get(gain)
    made = entry if isinstance(entry, Metric) and entry.of_means else None
    wides = {name: _wide(table, name) for name in (*(made.parts if made else (gain,)), side_effect)}
    first = next(iter(wides.values())).index
    _require_same_folds(wides)
    refits = _refits(table)
    means, counts = {}, {}
    for name, wide in wides.items():
        own_seed = [seed, 0 if wide.index.equals(first) else 1]
        means[name], counts[name] = _resampled(
            wide, draws, own_seed, refits, halved=name != side_effect
        )
    if made is not None and made.of_means is not None:
        parts = [means[part] for part in made.parts]
        means[gain] = {
            key: made.of_means(np.stack([one[key] for one in parts], axis=-1)) for key in parts[0]
        }
    sides = [_over_draws(means[name]) for name in (gain, side_effect)]
    multiples = {
        method: (0.0, *sorted(multiple for name, multiple in sides[0] if name == method))
        for method in dict.fromkeys(table["method"])
        if method != NO_EDIT
    }
    gains, effects = (_curves(own, multiples) for own in sides)
    if min(float(np.nanmin(values)) for values in effects.values()) < -1e-6:
        raise WorkbenchError(f"the side effect {side_effect!r} below 0", "a side effect from 0 on")
    units = counts[next(iter(wides))]
    shares = (units[1:] / np.maximum(units[0], 1))[..., None]
    halves = (len(SIDES), 2)
    return Sweep(
        gain={method: own[0] for method, own in gains.items()},
        side_effect={
            method: np.maximum(own[0] - own[0][..., :1], 0) for method, own in effects.items()
        },
        multiples=multiples,
        refits=tuple(map(tuple, refits)),
        units=len(set(first.get_level_values("question"))),
        halves={
            method: (own[1:] * shares).reshape(*halves, *own.shape[1:])
            for method, own in gains.items()
        },
    )


def _require_same_folds(wides: Mapping[str, pd.DataFrame]) -> None:
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


def worst_of(sweeps: Sequence[Sweep]) -> Sweep:
    """The same gains against the worst of several side effects, in every resample and fold.

    Side effects must be of one unit, such as KLs in nats a token on different texts.

    Args:
        sweeps: from `sweep_of`, of one table, gain and seed.

    Raises:
        WorkbenchError: no sweeps, or of different methods or multiples.
    """
    if not sweeps or any(one.multiples != sweeps[0].multiples for one in sweeps):
        raise WorkbenchError(
            f"the worst of {len(sweeps)} sweeps", "sweeps of the same methods and multiples"
        )
    worst = {
        method: np.max([one.side_effect[method] for one in sweeps], axis=0)
        for method in sweeps[0].side_effect
    }
    return replace(sweeps[0], side_effect=worst)


def _wide(table: pd.DataFrame, name: str) -> pd.DataFrame:
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
    wide = own.pivot_table(
        index=["fold", "question"], columns=["method", "multiple", "draw"], values="value",
        aggfunc="mean",
    )  # fmt: skip
    if wide.isna().to_numpy().any():
        raise WorkbenchError(
            "methods, or draws of one, that were measured on different questions",
            "the same questions for all",
        )
    return wide


def _refits(table: pd.DataFrame) -> list[list[int]]:
    """The places of every refit's folds among the sorted ones; a single list where there is one."""
    if "refit" not in table or table["refit"].nunique() < 2:
        return [list(range(table["fold"].nunique()))]
    known = table[["fold", "refit"]].drop_duplicates().sort_values("fold")["refit"].tolist()
    return [[n for n, own in enumerate(known) if own == refit] for refit in dict.fromkeys(known)]


def _resampled(
    wide: pd.DataFrame,
    draws: int,
    seed: Sequence[int],
    refits: Sequence[Sequence[int]],
    *,
    halved: bool,
) -> tuple[
    dict[tuple[str, float, int], Float[Array, "part resample fold"]],
    Float[Array, "part resample fold"],
]:
    """Means by method, strength and draw: of all units, then of resampled ones, fold by fold.

    The parts are all units and, `halved`, either half of three halvings, in single precision for
    their number; their numbers of units come second. Of several refits a resample has the same
    units in each, and of units that folds share, as plain texts may be, in each fold. NaN of a part
    of which there is no unit.
    """
    generator = np.random.default_rng(list(seed))
    halving = np.random.default_rng([*seed, 1])
    units, known = pd.factorize(wide.index.get_level_values("question"))
    fold_of, together = wide.index.get_level_values("fold"), None
    if len(refits) > 1 or len(known) < len(units):
        whole = len(known)
        together = generator.multinomial(whole, np.full(whole, 1 / whole), draws)
    means, counts = [], []
    for fold in sorted(set(fold_of)):
        rows = np.flatnonzero(fold_of == fold)
        values, count = wide.to_numpy()[rows], len(rows)
        if together is None:
            weights = generator.multinomial(count, np.full(count, 1 / count), draws)
        else:
            weights = together[:, units[rows]]
        # The data first: every unit once.
        weights = np.concatenate([np.ones((1, count)), weights])
        parts = [np.arange(count)]
        if halved:
            quarters = np.array_split(halving.permutation(count), 4)
            parts += [
                np.concatenate([quarters[k] for k in side]) for sides in SIDES for side in sides
            ]
        shares = np.stack([weights[:, part].sum(axis=1) for part in parts])
        sums = np.stack([weights[:, part] @ values[part] for part in parts])
        own = np.where(shares > 0, shares, np.nan)[..., None]
        means.append((sums / own).astype(np.float32 if halved else float))
        counts.append(shares)
    stacked = np.stack(means, axis=2)
    names: list[Any] = list(wide.columns)
    found = {(str(m), float(s), int(d)): stacked[..., k] for k, (m, s, d) in enumerate(names)}
    return found, np.stack(counts, axis=2)


def _over_draws(
    means: Mapping[tuple[str, float, int], Array],
) -> dict[tuple[str, float], Array]:
    """The mean over a control's draws, each of which is another edit."""
    draws: dict[tuple[str, float], list[Array]] = {}
    for (method, multiple, _), values in means.items():
        draws.setdefault((method, multiple), []).append(values)
    return {key: np.mean(values, axis=0) for key, values in draws.items()}


def _curves(
    sides: Mapping[tuple[str, float], Array], multiples: Mapping[str, tuple[float, ...]]
) -> dict[str, Float[Array, "part resample fold multiple"]]:
    """Every method's values along its multiples, from no edit on."""
    return {
        method: np.stack(
            [sides[NO_EDIT, 1.0], *(sides[method, multiple] for multiple in own[1:])], axis=-1
        )
        for method, own in multiples.items()
    }
