"""Head to head: all methods on the same folds, at their chosen α and at equal side effects.

A run measures every method at several multiples of the α that was chosen on training questions.
Told are: means at the chosen α, which is what papers report; the gain at equal KL; the mean of the
front of gain against every KL that is measured, the worst of them, and the share of answers that do
not end properly; and what a method costs: seconds to fit, milliseconds a token written, numbers
stored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workbench import storage
from workbench.doors import door
from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.rows import NO_EDIT
from workbench.evaluation.fronts import area, compare_at_side_effects, curve
from workbench.evaluation.metrics.registry import METRICS, Metric, direction_of
from workbench.evaluation.sweeps import Sweep, sweeps_of, worst_of
from workbench.evaluation.tables import compare
from workbench.models.loading import load_model
from workbench.runs.comparison import HeadToHead, as_markdown
from workbench.runs.costs import costs_of
from workbench.runs.resumable import run
from workbench.runs.run_config import RunConfig

GAINS = ("says_truth", "true_x_info", "mc2")
"""What is gained if nothing is said: the first of these that was measured."""
NARROW = 1.5
"""A range of KLs whose ends differ by no more than this is none."""
KL, WORST, UNENDED = "kl", "kl_worst", "1 - ended"
KLS = (KL, "kl_own", "kl_right", "kl_unrelated", "kl_long")
"""On plain texts, and where edits act; the worst of those that are measured is told too."""


def complete(sweep: pd.DataFrame, config: RunConfig) -> tuple[pd.DataFrame, list[str]]:
    """The sweep of the methods that were measured in every fold, and the other methods."""
    folds = sweep.groupby("method")["fold"].agg(lambda own: len(set(own)))
    whole = [str(method) for method, count in folds.items() if count == folds.max()]
    return sweep[sweep["method"].isin(whole)], [m for m in config.methods if m not in whole]


@door
def head_to_head(
    config: RunConfig,
    folder: storage.PathLike,
    *,
    against: str | None = None,
    gain: str | None = None,
    **how: Any,
) -> HeadToHead:
    """Run a comparison, or what is missing of it, and tell it.

    Args:
        config: a run on truthfulness with several `multiples`, plain `texts`, and the unedited
            model as `no edit`.
        folder: see `runs.run`; receives `curves.parquet`, `matched.parquet`, `areas.parquet`,
            `costs.parquet`, `head_to_head.md`, and `head_to_head.json` with all that these depend
            on beside the run.
        against: the method that the others are compared with, at whose KLs they are read; by
            default the run's, or TAE.
        gain: the metric that is gained, which is better when larger, also one of one's own; by
            default the share of true answers, true times informative ones, or MC2: the first that
            is among the run's `primary` ones, or else that is measured.
        how: model, executor, workers, threads and progress, see `runs.run`.

    Raises:
        WorkbenchError: a run without several multiples, plain texts, `no edit` or `against`, or a
            gain of which more is not better, or that is not measured.

    Example:
        >>> config = wb.runs.RunConfig(multiples=[0.5, 1, 2], texts=24)
        >>> found = wb.runs.head_to_head(config, "comparison")  # doctest: +SKIP
        >>> wb.runs.head_to_head(wb.runs.RunConfig(), "comparison")
        Traceback (most recent call last):
            ...
        workbench.errors.WorkbenchError: multiples=[1.0] and texts=0. Expected three multiples or
        more, 1 among them, and plain texts.
    """
    against = compared_with(config, against)
    if gain is not None:
        require_gain(gain)
    if how.get("model") is None and how.get("workers", 1) == 1 and how.get("executor") is None:
        how["model"] = load_model(config.model, dtype=config.dtype, device=config.device)
    table = run(config, folder, **how)
    place = Path(folder)
    swept, dropped = complete(storage.read_table(place / "sweep.parquet"), config)
    if against in dropped or NO_EDIT in dropped:
        failures = storage.read_json(place / "manifest.json")["failed"]
        errors = [own["error"] for own in failures if own["method"] in (against, NO_EDIT)]
        raise WorkbenchError(
            f"{against!r} or {NO_EDIT!r} that was not measured in every fold", "both, everywhere",
            f"First failure: {errors[0]}" if errors else "",
        )  # fmt: skip
    measured = set(swept["metric"])
    measured |= {
        name for name, _ in METRICS.items() if _made_of(name) and {*_made_of(name)} <= measured
    }
    own_gains = [metric for metric in config.primary if metric in GAINS]
    gain = gain or next(metric for metric in (*own_gains, *GAINS) if metric in measured)
    if gain not in measured:
        raise WorkbenchError.unknown(f"the gain {gain!r}", gain, sorted(measured))
    costly = [name for name in KLS if name in measured]
    ends = [UNENDED] if "ended" in measured else []
    found_sweeps = sweeps_of(swept, gain, [*costly, *ends], seed=config.seed)
    sweeps = {name: found_sweeps[name] for name in costly}
    if len(sweeps) > 1:
        sweeps[WORST] = worst_of(list(sweeps.values()))
    matched_on = WORST if WORST in sweeps else KL
    levels = kl_levels(sweeps[matched_on], against)
    grids = {name: _grid(own, against) for name, own in sweeps.items()}
    if ends:
        sweeps[UNENDED] = found_sweeps[UNENDED]
        grids[UNENDED] = np.linspace(0.0025, 0.1, 40)
    curves = pd.concat([
        curve(own, method).assign(side_effect=name)
        for name, own in sweeps.items()
        for method in own.gain
    ], ignore_index=True)  # fmt: skip
    areas = pd.concat([
        area(own, against, grids[name].tolist()).assign(side_effect=name)
        for name, own in sweeps.items()
    ], ignore_index=True)  # fmt: skip
    whole = table[~table["method"].isin(dropped)]
    found = HeadToHead(
        table=table,
        differences=compare(whole, against, primary=config.primary, seed=config.seed),
        curves=curves,
        matched=compare_at_side_effects(sweeps[matched_on], against, levels),
        areas=areas,
        costs=costs_of(config, place, how.get("model")),
        gain=gain,
        against=against,
        dropped=tuple(dropped),
        matched_on=matched_on,
    )
    for name in ("curves", "matched", "areas", "costs"):
        storage.write_table(place / f"{name}.parquet", getattr(found, name))
    storage.write_json(
        place / "head_to_head.json",
        {"against": against, "gain": gain, "seed": config.seed, "kl": levels,
         "matched_on": matched_on,
         "grids": {name: grids[name].tolist() for name in sweeps}},
    )  # fmt: skip
    limits = storage.read_json(place / "manifest.json")["limits"].get("truthfulness", {})
    text = as_markdown(
        found, config.primary, config.seed, limits, config.refits_made, config.metrics,
        {name: grid.tolist() for name, grid in grids.items()}, config.refits,
    )  # fmt: skip
    storage.write_text(place / "head_to_head.md", text)
    return found


def require_gain(gain: str) -> None:
    """Refuse what nobody gains: metrics of which less is better, or neither."""
    if direction_of(gain) != 1:
        raise WorkbenchError(
            f"the gain {gain!r}", "a metric of which more is better, such as mc2 or says_truth"
        )


def _made_of(name: str) -> tuple[str, ...]:
    """The metrics of whose means one is made."""
    known = METRICS.get(name)
    return known.parts if isinstance(known, Metric) else ()


def _grid(sweep: Sweep, against: str) -> np.ndarray:
    """Side effects at which fronts are read, in equal ratios: all that it had on average."""
    effects = sweep.side_effect[against][0][:, 1:].mean(axis=0)
    least, most = float(effects.min()), float(effects.max())
    if not 0 < least < most:
        raise _grows_not(against, least, most)
    return np.geomspace(least, most, 40)


def compared_with(config: RunConfig, against: str | None) -> str:
    """The method that the others are compared with, once all that this needs is there.

    Raises:
        WorkbenchError: a run that cannot be compared.
    """
    if list(config.capabilities) != ["truthfulness"]:
        raise WorkbenchError(
            f"a comparison on {', '.join(config.capabilities)}", "on truthfulness alone"
        )
    if len(config.multiples) < 3 or not config.texts:
        raise WorkbenchError(
            f"multiples={list(config.multiples)} and texts={config.texts!r}",
            "three multiples or more, 1 among them, and plain texts",
        )
    if NO_EDIT not in config.methods:
        raise WorkbenchError(
            f"a comparison without the method {NO_EDIT!r}", f"it among {', '.join(config.methods)}"
        )
    own = config.against if config.against != NO_EDIT else None
    name = against or own or "TAE"
    if name == NO_EDIT or name not in config.methods:
        others = [method for method in config.methods if method != NO_EDIT]
        raise WorkbenchError(
            f"a comparison with {name!r} at its side effects",
            f"one of {', '.join(others)}, that is measured in the run and changes something",
            "`against` in the run file, or --against, names it.",
        )  # fmt: skip
    return name


def kl_levels(sweep: Sweep, against: str, count: int = 5) -> list[float]:
    """Side effects to compare at, at equal ratios, where the method was measured in every fold.

    Where there are hardly any, as of fits that differ much, between the medians over folds.

    Args:
        sweep: by KL.
        against: the method whose range is taken.
        count: how many.
    """
    effects = sweep.side_effect[against][0][:, 1:]
    least, reached = float(effects[:, 0].max()), float(effects.max(axis=1).min())
    if not NARROW * least < reached:  # hardly a KL that all folds have: some rows will be empty
        least, reached = (float(np.median(effects[:, end])) for end in (0, -1))
    if not 0 < least < reached:
        raise _grows_not(against, least, reached)
    return [float(level) for level in np.geomspace(1.02 * least, 0.98 * reached, count)]


def _grows_not(against: str, least: float, most: float) -> WorkbenchError:
    return WorkbenchError(
        f"a method {against!r} whose KL goes from {least} to {most}", "a KL that grows with α"
    )
