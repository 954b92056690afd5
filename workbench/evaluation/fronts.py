"""Fronts: what an edit gains at equal side effects, over a sweep of its α.

A method that multiplies its edit looks better at equal α for that reason alone. So every method
is measured at several multiples of its α and compared where its side effect is the same. Between
two multiples the gain is interpolated linearly in the root of the side effect, since a KL grows
with the square of a small edit; a method has no number at side effects that it was not measured
around.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from workbench.errors import WorkbenchError
from workbench.evaluation.resampling import Array
from workbench.evaluation.statistics import holm
from workbench.evaluation.sweeps import Curves, Sweep


def at_side_effect(sweep: Sweep, method: str, effect: float) -> Float[Array, "resample fold"]:
    """The gain of a method where its side effect first reaches a value, in every fold.

    Args:
        sweep: from `sweep_of`.
        method: one of its methods.
        effect: above 0.

    Returns:
        A value a resample and fold, the first resample that of the data; NaN where the fold's least
        multiple has more, or none has as much.

    Raises:
        WorkbenchError: no such method.
    """
    sweep.require(method)
    gains, roots = (
        sweep.gain[method][..., 1:],
        np.sqrt(np.maximum(sweep.side_effect[method][..., 1:], 0)),
    )
    return first_reached(roots, gains, np.sqrt(effect))


def first_reached(
    rising: Float[Array, "*resample multiple"],
    values: Float[Array, "*resample multiple"],
    wanted: Array | float,
) -> Float[Array, "*resample"]:
    """The value where what rises along the multiples first reaches something; NaN where never."""
    found = np.full(rising.shape[:-1], np.nan)
    for step in range(rising.shape[-1] - 1):
        low, high = rising[..., step], rising[..., step + 1]
        reached = np.isnan(found) & (low <= wanted) & (wanted <= high)
        found = np.where(reached, _between(values, step, low, high, wanted), found)
    return np.asarray(found)


def _between(
    gains: Float[Array, "*resample multiple"],
    step: int,
    low: Array,
    high: Array,
    wanted: Array | float,
) -> Float[Array, "*resample"]:
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
    sweep.require(against)
    rows = []
    for effect in effects:
        base = at_side_effect(sweep, against, effect)
        for method in sweep.gain:
            own = at_side_effect(sweep, method, effect)
            rows.append((effect, method, *_told(sweep, own, own - base, level, method, against)))
    columns = ["effect", "method", "gain", "low", "high", "difference", "difference_low",
               "difference_high", "p"]  # fmt: skip
    found = pd.DataFrame(rows, columns=columns)
    known = found["p"].notna()
    found.loc[known, "p_holm"] = holm(found.loc[known, "p"].tolist())
    return found


def area(
    sweep: Sweep,
    against: str,
    effects: Sequence[float],
    *,
    level: float = 0.95,
    apart: bool = True,
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
        apart: as of `front`.

    Returns:
        Columns `method`, `area`, `low`, `high`, `difference`, `difference_low`,
        `difference_high`, `p`.

    Raises:
        WorkbenchError: no side effects, or one that is not above 0; no such method; a sweep
            without halves.
    """
    if not len(effects) or min(effects) <= 0:
        raise WorkbenchError(f"the side effects {list(effects)[:5]}", "side effects above 0")
    sweep.require(against)
    areas = {
        method: np.mean([front(sweep, method, float(one), apart=apart) for one in effects], axis=0)
        for method in sweep.gain
    }
    rows = []
    for method, own in areas.items():
        rows.append((method, *_told(sweep, own, own - areas[against], level, method, against)))
    columns = ["method", "area", "low", "high", "difference", "difference_low",
               "difference_high", "p"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def front(
    sweep: Sweep, method: str, effect: float, *, apart: bool = True
) -> Float[Array, "resample fold"]:
    """The most that a method gains at or below a side effect, by resample and fold.

    What gains most, a multiple or a place between two, is chosen on one half of a fold's units and
    read on the other, both ways round, and the mean taken over three halvings. Chosen where it is
    read, scatter would count as gain: of methods of equal means the one whose gains scatter more,
    or that has more multiples, would be ahead (in planted sweeps of 160 questions by 0.016, where
    the other hardly scatters). Side effects are those of all units.

    Args:
        sweep: from `sweep_of`.
        method: one of its methods. What was measured at a single strength, as a prompt is, is not
            interpolated to none.
        effect: above 0.
        apart: False chooses where it reads, as is done by who has no halves.

    Returns:
        NaN of a fold of which a resample has no unit, or of `apart` none in one half of every
        halving.

    Raises:
        WorkbenchError: no such method, or a sweep without halves, which `sweep_of` gives.
    """
    sweep.require(method)
    if apart and method not in sweep.halves:
        raise WorkbenchError(
            "a sweep without halves", "one from sweep_of, or apart=False to choose where it reads"
        )
    halves = sweep.halves[method] if apart else sweep.gain[method][None, None]
    open_to = _candidates(halves, sweep.side_effect[method], effect)
    chosen = np.flip(open_to.argmax(axis=-1), axis=1)
    read = np.take_along_axis(open_to, chosen[..., None], axis=-1)[..., 0].sum(axis=1)
    # A half without a unit is NaN; without one of the side effect nothing is open.
    known = np.isfinite(read)
    count = known.sum(axis=0)
    total = np.where(known, read, 0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _candidates(
    gains: Float[Array, "halving side resample fold multiple"],
    effects: Curves,
    effect: float,
) -> Float[Array, "halving side resample fold candidate"]:
    """Gains of all multiples and of the places between two, −∞ of those with other side effects."""
    roots, wanted = np.sqrt(np.maximum(effects, 0)), float(np.sqrt(effect))
    found = [np.where(roots <= wanted, gains, -np.inf)]
    steps = roots.shape[2] - 1
    for step in range(steps if steps > 1 else 0):
        low, high = roots[..., step], roots[..., step + 1]
        inside = (np.minimum(low, high) <= wanted) & (wanted <= np.maximum(low, high))
        if inside.any():
            here = _between(gains, step, low, high, wanted)
            found.append(np.where(inside & (low != high), here, -np.inf)[..., None])
    return np.concatenate(found, axis=-1)


def curve(sweep: Sweep, method: str, *, level: float = 0.95) -> pd.DataFrame:
    """A method's means at every multiple of α, with intervals: for plots.

    Returns:
        Columns `method`, `multiple`, `gain`, `gain_low`, `gain_high`, `effect`, `effect_low`,
        `effect_high`.
    """
    rows = []
    for place, multiple in enumerate(sweep.multiples[method]):
        gains = sweep.told(sweep.gain[method][..., place], level)
        effects = sweep.told(sweep.side_effect[method][..., place], level)
        both = [(one.mean, one.low, one.high) for one in (gains, effects)]
        rows.append((method, multiple, *both[0], *both[1]))
    columns = ["method", "multiple", "gain", "gain_low", "gain_high", "effect", "effect_low",
               "effect_high"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _told(
    sweep: Sweep,
    own: Float[Array, "resample fold"],
    apart: Float[Array, "resample fold"],
    level: float,
    method: str,
    against: str,
) -> tuple[float, ...]:
    """A method's gain and its difference from another's, each with its interval, and p."""
    one, other = sweep.told(own, level), sweep.told(apart, level)
    p = np.nan if method == against else other.p
    return one.mean, one.low, one.high, other.mean, other.low, other.high, p
