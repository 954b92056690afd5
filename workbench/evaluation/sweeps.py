"""Sweeps: means of a gain and of a side effect at every multiple of α, of resampled units.

Units (questions, plain texts) are resampled within folds, the same for all methods and, where they
are the same, for gain and side effects: the KL on answers that the model had right is of some of
the questions, and a resample has as many of each as it has for the gain. Of gains the means of
either half of a fold's units are kept too, so that a multiple can be chosen on one and read on the
other. `fronts` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from jaxtyping import Float

from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.rows import NO_EDIT
from workbench.evaluation.metrics.registry import METRICS, Metric
from workbench.evaluation.refits import Told, told
from workbench.evaluation.resampling import SIDES, Array, Resamples, quarters_of
from workbench.evaluation.sweep_values import as_wide, of_the_same, refits_of, require_same_folds

Curves = Float[Array, "resample fold multiple"]
Halves = Float[Array, "halving side resample fold multiple"]


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

    def require(self, method: str) -> None:
        """Refuse a method that was not measured.

        Raises:
            WorkbenchError: it, and those that there are.
        """
        if method not in self.gain:
            raise WorkbenchError.unknown(f"the method {method!r}", method, [*self.gain])

    def among(self, methods: Sequence[str]) -> Sweep:
        """The same resamples of some methods alone.

        Raises:
            WorkbenchError: no such method.
        """
        for method in methods:
            self.require(method)
        return replace(
            self,
            gain={method: self.gain[method] for method in methods},
            side_effect={method: self.side_effect[method] for method in methods},
            multiples={method: self.multiples[method] for method in methods},
            halves={method: self.halves[method] for method in methods if method in self.halves},
        )

    def told(self, values: Float[Array, "resample fold"], level: float) -> Told:
        """The mean over folds of what was made of resamples, the first that of the data.

        Of a single refit the interval is the bootstrap's, and p twice the share of resamples on the
        other side of 0, at least 2 over their number; of several, see `refits`. Interval and p are
        NaN where not even half of the resamples have a mean, as of folds of two or three units.
        Student's t has the gain's units less one as degrees of freedom, also where a side effect
        is of fewer.
        """
        means = values.mean(axis=1)
        if not np.isfinite(means[0]):
            return Told(*[np.nan] * 4)
        known = means[1:][~np.isnan(means[1:])]
        if len(known) < max(2, len(means[1:]) / 2):
            return Told(float(means[0]), *[np.nan] * 3)
        if len(self.refits) < 2:
            low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
            least = (1 + min((known <= 0).sum(), (known >= 0).sum())) / (1 + len(known))
            return Told(float(means[0]), float(low), float(high), min(1.0, 2 * float(least)))
        each = np.array([values[0, list(folds)].mean() for folds in self.refits])
        return told(each, means[1:], self.units, level)


def sweep_of(
    table: pd.DataFrame, gain: str, side_effect: str, *, draws: int = 20_000, seed: int = 0
) -> Sweep:
    """Curves of a gain and a side effect from a run's sweep; see `sweeps_of`."""
    return sweeps_of(table, gain, [side_effect], draws=draws, seed=seed)[side_effect]


def sweeps_of(
    table: pd.DataFrame,
    gain: str,
    side_effects: Sequence[str],
    *,
    draws: int = 20_000,
    seed: int = 0,
) -> dict[str, Sweep]:
    """Curves of a gain and of each of some side effects, in the same resamples.

    Args:
        table: `sweep.parquet` of a run on one capability, with the method `no edit`.
        gain: a metric that is better when larger, such as `says_truth`; of one that is made of
            others' means, such as `true_x_info`, the means are those of every fold and draw.
        side_effects: metrics of values from 0 on that are worse when larger, such as `kl`; or,
            of shares that are worse when smaller, the rest, such as `1 - ended`.
        draws: resamples.
        seed: of the resampling.

    Returns:
        By side effect. All share the gain's values.

    Raises:
        WorkbenchError: no sweep, several capabilities, no side effects, no such metric, a gain that
            is a side effect too, or no method `no edit`.
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
    if not side_effects or gain in side_effects:
        raise WorkbenchError(
            f"the gain {gain!r} against {', '.join(map(repr, side_effects)) or 'nothing'}",
            "a gain, and other metrics as side effects",
        )
    entry = METRICS.get(gain)
    made = entry if isinstance(entry, Metric) and entry.of_means is not None else None
    parts = of_the_same({name: as_wide(table, name) for name in (made.parts if made else (gain,))})
    sides = {name: as_wide(table, name) for name in side_effects}
    require_same_folds({**sides, **parts})
    one = next(iter(parts.values()))
    first, known = one.index, one.columns.to_frame().drop_duplicates(["method", "multiple"])
    refits = refits_of(table)
    drawn = Resamples.of(first, draws, seed, refits)
    quarters = quarters_of(first, seed)
    methods = [method for method in dict.fromkeys(table["method"]) if method != NO_EDIT]
    multiples = {
        method: (0.0, *sorted(known.loc[known["method"] == method, "multiple"].astype(float)))
        for method in methods
    }
    curves = _curves(_gains(drawn, [*parts.values()], quarters, made), multiples)
    shares = drawn.shares(quarters)
    for own in curves.values():
        own[1:] *= shares
    sweep = Sweep(
        gain={method: own[0].copy() for method, own in curves.items()},
        side_effect={},
        multiples=multiples,
        refits=tuple(map(tuple, refits)),
        units=len(set(first.get_level_values("question"))),
        halves={
            method: own[1:].reshape(len(SIDES), 2, *own.shape[1:]) for method, own in curves.items()
        },
    )
    found = {}
    for name in side_effects:
        own_draws = drawn.beside(sides[name].index, [seed, 1])
        effects = _curves(_over_draws(own_draws.means(sides[name])), multiples)
        if min(float(np.nanmin(values)) for values in effects.values()) < -1e-6:
            raise WorkbenchError(f"the side effect {name!r} below 0", "a side effect from 0 on")
        found[name] = replace(
            sweep,
            side_effect={
                method: np.maximum(own[0] - own[0][..., :1], 0) for method, own in effects.items()
            },
        )
    return found


def worst_of(sweeps: Sequence[Sweep]) -> Sweep:
    """The same gains against the worst of several side effects, in every resample and fold.

    Side effects must be of one unit, such as KLs in nats a token on different texts.

    Args:
        sweeps: from `sweeps_of`, or from `sweep_of` of one table, gain and seed.

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


def _gains(
    drawn: Resamples,
    wides: Sequence[pd.DataFrame],
    quarters: Sequence[Sequence[Array]],
    made: Metric | None,
) -> dict[tuple[str, float], Float[Array, "part resample fold"]]:
    """Means of a gain, or what it is made of its parts' means in every draw."""
    parts = [drawn.means(wide, quarters) for wide in wides]
    if made is None or made.of_means is None:
        return _over_draws(parts[0])
    combined = made.of_means
    return _over_draws(
        {key: combined(np.stack([own[key] for own in parts], axis=-1)) for key in parts[0]}
    )


def _over_draws(
    means: Mapping[tuple[str, float, int], Array],
) -> dict[tuple[str, float], Array]:
    """The mean over a control's draws, each of which is another edit."""
    draws: dict[tuple[str, float], list[Array]] = {}
    for (method, multiple, _), values in means.items():
        draws.setdefault((method, multiple), []).append(values)
    return {
        key: values[0] if len(values) == 1 else np.mean(values, axis=0)
        for key, values in draws.items()
    }


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
