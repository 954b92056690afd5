"""Head to head: all methods on the same folds, at their chosen α and at equal side effects.

A run measures every method at several multiples of the α that was chosen on training questions.
Told are: means at the chosen α, which is what papers report; the gain at equal KL; the mean of the
front of gain against KL and against the share of answers that do not end properly; and what a
method costs: seconds to fit, milliseconds a token written, numbers stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from workbench import storage
from workbench.doors import door, door_of_class
from workbench.errors import WorkbenchError
from workbench.evaluation.fronts import Sweep, area, compare_at_side_effects, curve, sweep_of
from workbench.evaluation.metrics.registry import METRICS, Metric
from workbench.evaluation.tables import compare, summary
from workbench.evaluation.text_tables import Table, interval, rows_by_method
from workbench.models.loading import load_model
from workbench.runs.costs import costs_of
from workbench.runs.resumable import run
from workbench.runs.run_config import RunConfig
from workbench.runs.summary import limit_lines, mean_cell

GAINS = ("says_truth", "true_x_info", "mc2")
"""What is gained if nothing is said: the first of these that was measured."""
KL, UNENDED = "kl", "1 - ended"


@door_of_class
@dataclass(frozen=True)
class HeadToHead:
    r"""What a comparison says.

    Attributes:
        table: `evaluate`'s, at the chosen α.
        differences: `compare`'s, at the chosen α.
        curves: means by method and multiple of α, with intervals; columns as `fronts.curve`'s and
            `side_effect`.
        matched: `fronts.compare_at_side_effects` at some KLs.
        areas: `fronts.area`, with `side_effect`.
        costs: columns `method`, `fit_seconds`, `ms_per_token`, `stored`.
        gain: the metric that is gained.
        against: the method that the others are compared with.
        dropped: methods that failed in some fold.

    Example:
        >>> import json
        >>> from dataclasses import asdict
        >>> from pathlib import Path
        >>> few = [json.dumps(asdict(question)) for question in questions.choose(range(8))]
        >>> _ = Path("few.jsonl").write_text("\n".join(few))
        >>> config = wb.runs.RunConfig(
        ...     data={"truthfulness": "few.jsonl"}, multiples=[0.5, 1, 2], texts=2,
        ...     methods={"no edit": {"kind": "none"}, "ITI": {"kind": "iti", "heads": 2}},
        ... )
        >>> found = wb.runs.head_to_head(
        ...     config, "comparison", against="ITI", model=model, progress=False
        ... )
        >>> found.against, list(found.costs)
        ('ITI', ['method', 'fit_seconds', 'ms_per_token', 'stored'])
    """

    table: pd.DataFrame
    differences: pd.DataFrame
    curves: pd.DataFrame
    matched: pd.DataFrame
    areas: pd.DataFrame
    costs: pd.DataFrame
    gain: str
    against: str
    dropped: tuple[str, ...] = ()


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
    against: str = "TAE",
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
        against: the method that the others are compared with.
        gain: the metric that is gained, which is better when larger, also one of one's own; by
            default the share of true answers, true times informative ones, or MC2, whichever is
            measured first.
        how: model, executor, workers, threads and progress, see `runs.run`.

    Raises:
        WorkbenchError: a run without several multiples, plain texts, `no edit` or `against`, or a
            gain that is not measured.

    Example:
        >>> config = wb.runs.RunConfig(multiples=[0.5, 1, 2], texts=24)
        >>> found = wb.runs.head_to_head(config, "comparison")  # doctest: +SKIP
        >>> wb.runs.head_to_head(wb.runs.RunConfig(), "comparison")
        Traceback (most recent call last):
            ...
        workbench.errors.WorkbenchError: multiples=[1.0] and texts=0. Expected three multiples or
        more, 1 among them, and plain texts.
    """
    _require(config, against)
    if how.get("model") is None and how.get("workers", 1) == 1 and how.get("executor") is None:
        how["model"] = load_model(config.model, dtype=config.dtype, device=config.device)
    table = run(config, folder, **how)
    place = Path(folder)
    swept, dropped = complete(storage.read_table(place / "sweep.parquet"), config)
    if against in dropped or "no edit" in dropped:
        raise WorkbenchError(
            f"{against!r} or 'no edit' that was not measured in every fold", "both, everywhere"
        )
    measured = set(swept["metric"])
    measured |= {
        name
        for name, own in METRICS.items()
        if isinstance(own, Metric) and own.parts and {*own.parts} <= measured
    }
    gain = gain or next(metric for metric in GAINS if metric in measured)
    if gain not in measured:
        raise WorkbenchError.unknown(f"the gain {gain!r}", gain, sorted(measured))
    sweeps = {KL: sweep_of(swept, gain, KL, seed=config.seed)}
    if "ended" in measured:
        sweeps[UNENDED] = sweep_of(swept, gain, UNENDED, seed=config.seed)
    levels = kl_levels(sweeps[KL], against)
    grids = {
        KL: np.geomspace(levels[0], levels[-1], 40), UNENDED: np.linspace(0.0025, 0.1, 40)
    }  # fmt: skip
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
        matched=compare_at_side_effects(sweeps[KL], against, levels),
        areas=areas,
        costs=costs_of(config, place, how.get("model")),
        gain=gain,
        against=against,
        dropped=tuple(dropped),
    )
    for name in ("curves", "matched", "areas", "costs"):
        storage.write_table(place / f"{name}.parquet", getattr(found, name))
    storage.write_json(
        place / "head_to_head.json",
        {"against": against, "gain": gain, "seed": config.seed, "kl": levels,
         "grids": {name: grids[name].tolist() for name in sweeps}},
    )  # fmt: skip
    limits = storage.read_json(place / "manifest.json")["limits"].get("truthfulness", {})
    text = as_markdown(found, config.primary, config.seed, limits)
    storage.write_text(place / "head_to_head.md", text)
    return found


def _require(config: RunConfig, against: str) -> None:
    if list(config.capabilities) != ["truthfulness"]:
        raise WorkbenchError(
            f"a comparison on {', '.join(config.capabilities)}", "on truthfulness alone"
        )
    if len(config.multiples) < 3 or not config.texts:
        raise WorkbenchError(
            f"multiples={list(config.multiples)} and texts={config.texts!r}",
            "three multiples or more, 1 among them, and plain texts",
        )
    for name in ("no edit", against):
        if name not in config.methods:
            raise WorkbenchError(
                f"a comparison without the method {name!r}", f"one of {', '.join(config.methods)}"
            )


def kl_levels(sweep: Sweep, against: str, count: int = 5) -> list[float]:
    """Side effects to compare at, at equal ratios, where the method was measured in every fold.

    Args:
        sweep: by KL.
        against: the method whose range is taken.
        count: how many.
    """
    effects = sweep.side_effect[against][0][:, 1:]
    least, reached = float(effects[:, 0].max()), float(effects.max(axis=1).min())
    if not 0 < least < reached:
        raise WorkbenchError(
            f"a method {against!r} whose KL goes from {least} to {reached}",
            "a KL that grows with α, in every fold",
        )
    return [float(level) for level in np.geomspace(1.02 * least, 0.98 * reached, count)]


def as_markdown(
    found: HeadToHead,
    primary: Sequence[str] = (),
    seed: int = 0,
    limits: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The comparison as Markdown tables.

    Args:
        found: from `head_to_head`.
        primary: metrics whose differences at the chosen α are shown; the gain by default.
        seed: of the bootstrap.
        limits: what those who judged cannot tell, by their names.
    """
    lines = [
        "# At the α that training questions chose", "",
        "Mean [95 % bootstrap interval by question]. Not at equal side effects: see below."
        + (f" Failed in some fold and left out below: {', '.join(found.dropped)}."
           if found.dropped else ""), "",
        _means(found, seed).markdown(),
    ]  # fmt: skip
    if limits:
        lines += ["", *limit_lines(limits)[:-1]]
    lines += [
        "", f"# Differences from {found.against} at the α that training questions chose", "",
        "Paired by question [95 %]; p of a permutation test, corrected for the table (Holm).", "",
        _differences(found, tuple(primary) or (found.gain,)).markdown(),
        "", f"# At equal KL from the unedited model: {found.gain}", "",
        f"Interpolated over multiples of α; the difference is from {found.against} [95 %], p of "
        "the bootstrap, corrected for the whole table (Holm). `-`: not measured around this KL.",
        "", _matched(found).markdown(),
    ]  # fmt: skip
    for name, own in found.areas.groupby("side_effect", sort=False):
        lines += [
            "", f"# Front of {found.gain} against {name}: the mean over side effects of the most "
            "that is gained at each, or at a lower one", "",
            _fronts(own, found.against).markdown(),
        ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _means(found: HeadToHead, seed: int) -> Table:
    """Means at the chosen α, and what the methods cost."""
    means = summary(found.table, seed=seed)
    known = set(means["metric"])
    shown = dict.fromkeys((found.gain, "true_x_info", "mc1", "mc2", "mc3", "ended",
                           "cross_entropy", "kl"))  # fmt: skip
    metrics = [metric for metric in shown if metric in known]
    costs = {
        row["method"]: (
            f"{row['fit_seconds']:.3g}",
            f"{row['ms_per_token']:.3g}",
            f"{int(row['stored']):,}",
        )
        for row in found.costs.to_dict("records")
    }
    rows = rows_by_method(means, metrics, mean_cell)
    return Table(
        ("method", *metrics, "fit (s)", "ms a token", "stored"),
        [(*row, *costs.get(row[0], ("-", "-", "-"))) for row in rows],
    )


def _differences(found: HeadToHead, metrics: Sequence[str]) -> Table:
    """Paired differences at the chosen α."""
    own = {(row["method"], row["metric"]): row for row in found.differences.to_dict("records")}
    rows = []
    for method in dict.fromkeys(found.differences["method"]):
        cells = [str(method)]
        for one in (own[method, metric] for metric in metrics):
            cells += [
                interval(one["difference"], one["low"], one["high"], "+.3f"),
                f"{one['p_holm']:.2g}",
            ]
        rows.append(cells)
    return Table(("method", *(name for metric in metrics for name in (metric, "p"))), rows)


def _matched(found: HeadToHead) -> Table:
    """Gains at equal KL."""
    rows = []
    for one in found.matched.to_dict("records"):
        gain = apart = p = "-"
        if not np.isnan(one["gain"]):
            gain, apart, p = interval(one["gain"], one["low"], one["high"], ".3f"), "", ""
            if not np.isnan(one["p_holm"]):
                low, high = one["difference_low"], one["difference_high"]
                apart = interval(one["difference"], low, high, "+.3f")
                p = f"{one['p_holm']:.2g}"
        rows.append((f"{one['effect']:.2g}", str(one["method"]), gain, apart, p))
    return Table(("KL", "method", found.gain, "difference", "p"), rows)


def _fronts(areas: pd.DataFrame, against: str) -> Table:
    """Means of the fronts against one side effect, the highest first."""
    rows = []
    for one in areas.sort_values("area", ascending=False).to_dict("records"):
        cells = [str(one["method"]), interval(one["area"], one["low"], one["high"], ".3f")]
        if one["method"] != against:
            apart = (one["difference"], one["difference_low"], one["difference_high"])
            cells += [interval(*apart, "+.3f"), f"{one['p']:.2g}"]
        rows.append(cells)
    return Table(("method", "mean", f"from {against}", "p, uncorrected"), rows)
