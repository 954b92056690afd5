"""Head to head: all methods on the same folds, at their chosen α and at equal side effects.

A run measures every method at several multiples of the α that was chosen on training questions.
Told are: means at the chosen α, which is what papers report; the gain at equal KL; the mean of the
front of gain against KL and against the share of answers that do not end properly; and what a
method costs: seconds to fit, milliseconds a token written, numbers stored.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from workbench import storage
from workbench.editing.generation import generate
from workbench.editing.head_edits import HeadEdit
from workbench.editing.interventions import Intervention
from workbench.errors import WorkbenchError
from workbench.evaluation.fronts import Sweep, area, compare_at_side_effects, curve, sweep_of
from workbench.evaluation.tables import compare, summary
from workbench.models.identity import Model
from workbench.models.prompts import encode, prompt_format
from workbench.runs.description import RunConfig
from workbench.runs.resumable import run
from workbench.runs.summary import limit_lines
from workbench.runs.work import Work

GAINS = ("says_truth", "true_x_info", "mc2")
KL, UNENDED = "kl", "1 - ended"


@dataclass(frozen=True)
class HeadToHead:
    """What a comparison says.

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


def head_to_head(
    config: RunConfig, folder: storage.PathLike, *, against: str = "TAE", **how: Any
) -> HeadToHead:
    """Run a comparison, or what is missing of it, and tell it.

    Args:
        config: a run on truthfulness with several `multiples`, plain `texts`, and the unedited
            model as `no edit`.
        folder: see `runs.run`; receives `curves.parquet`, `matched.parquet`, `areas.parquet`,
            `costs.parquet`, `head_to_head.md`, and `head_to_head.json` with all that these depend
            on beside the run.
        against: the method that the others are compared with.
        how: model, executor, workers, threads and progress, see `runs.run`.

    Raises:
        WorkbenchError: a run without several multiples, plain texts, `no edit` or `against`.
    """
    _require(config, against)
    table = run(config, folder, **how)
    place = Path(folder)
    swept, dropped = complete(storage.read_table(place / "sweep.parquet"), config)
    if against in dropped or "no edit" in dropped:
        raise WorkbenchError(
            f"{against!r} or 'no edit' that was not measured in every fold", "both, everywhere"
        )
    measured = set(swept["metric"])
    if {"true", "info"} <= measured:
        measured.add("true_x_info")
    gain = next(metric for metric in GAINS if metric in measured)
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


def costs_of(config: RunConfig, folder: Path, model: Model | None = None) -> pd.DataFrame:
    """Seconds to fit, milliseconds a token, and numbers stored, of every method in fold 0.

    Milliseconds are those of writing greedy answers to 32 questions in one batch, the median
    of three times; the fit's are by itself, with nothing shared with other methods.
    """
    work = Work(config, model)
    split = work.splits["truthfulness"][0]
    chosen = prompt_format(split.style)
    asked = [encode(work.model, q.question, None, chosen) for q in list(split.train)[:32]]
    pieces = work.pieces()
    rows = []
    for name in config.methods:
        fits = work.fits(name, "truthfulness", 0)
        place = folder / "edits"
        if any(not (place / fit.key / "fit.json").exists() for fit in fits):
            continue
        made = [storage.read_json(place / fit.key / "fit.json") for fit in fits]
        piece = next(p for p in pieces if (p.method, p.number) == (name, 0))
        edits = work.edits(piece, folder)
        edit = edits if edits is None or isinstance(edits, Intervention) else edits[0]
        seconds = sum(float(one["seconds"]) for one in made)
        rows.append((name, seconds, _milliseconds(work.model, asked, edit), stored(edit)))
    return pd.DataFrame(rows, columns=["method", "fit_seconds", "ms_per_token", "stored"])


def _milliseconds(model: Model, asked: Sequence[Any], edit: Intervention | None) -> float:
    spent = []
    for _ in range(3):
        begin = time.perf_counter()
        written = generate(model, asked, edit=edit, max_new_tokens=24, stop=("\n",))
        tokens = sum(len(one.tokens) for one in written)
        spent.append(1000 * (time.perf_counter() - begin) / tokens)
    return median(spent)


def stored(edit: Intervention | None) -> int:
    """How many numbers an edit holds that it uses."""
    if edit is None:
        return 0
    if isinstance(edit, HeadEdit) and not edit.reads_misalignment:
        edit = replace(edit, estimators=None)
    return sum(value.numel() for value in edit.tensors().values())


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
    means = summary(found.table, seed=seed).set_index(["method", "metric"])
    methods = list(dict.fromkeys(found.table["method"]))
    known = set(means.index.get_level_values("metric"))
    shown = [m for m in (found.gain, "true_x_info", "mc1", "mc2", "mc3", "ended", "cross_entropy",
                         "kl") if m in known]  # fmt: skip
    costs = found.costs.set_index("method")
    lines = [
        "# At the α that training questions chose", "",
        "Mean [95 % bootstrap interval by question]. Not at equal side effects: see below."
        + (f" Failed in some fold and left out below: {', '.join(found.dropped)}."
           if found.dropped else ""), "",
        "| method | " + " | ".join(dict.fromkeys(shown)) + " | fit (s) | ms a token | stored |",
        "|---" * (len(dict.fromkeys(shown)) + 4) + "|",
    ]  # fmt: skip
    for method in methods:
        cells = [_cell(means.loc[(method, metric)]) for metric in dict.fromkeys(shown)]
        own = costs.loc[method] if method in costs.index else None
        more = ["-"] * 3 if own is None else [
            f"{own['fit_seconds']:.3g}", f"{own['ms_per_token']:.3g}", f"{int(own['stored']):,}"
        ]  # fmt: skip
        lines.append(f"| {method} | " + " | ".join([*cells, *more]) + " |")
    if limits:
        lines += ["", *limit_lines(limits)[:-1]]
    lines += _differences(found, tuple(primary) or (found.gain,))
    lines += [
        "", f"# At equal KL from the unedited model: {found.gain}", "",
        f"Interpolated over multiples of α; the difference is from {found.against} [95 %], p of "
        "the bootstrap, corrected for the whole table (Holm). `-`: not measured around this KL.",
        "",
        "| KL | method | " + f"{found.gain} | difference | p |", "|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [_matched_row(row) for row in found.matched.to_dict("records")]
    for name in dict.fromkeys(found.areas["side_effect"]):
        own = found.areas[found.areas["side_effect"] == name]
        lines += [
            "", f"# Front of {found.gain} against {name}: the mean over side effects of the most "
            "that is gained at each, or at a lower one", "",
            f"| method | mean | from {found.against} | p, uncorrected |", "|---|---|---|---|",
        ]  # fmt: skip
        lines += [
            f"| {row['method']} | {row['area']:.3f} [{row['low']:.3f}, {row['high']:.3f}] | "
            + ("| |" if row["method"] == found.against else
               f"{row['difference']:+.3f} [{row['difference_low']:+.3f}, "
               f"{row['difference_high']:+.3f}] | {row['p']:.2g} |")
            for row in own.sort_values("area", ascending=False).to_dict("records")
        ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _differences(found: HeadToHead, metrics: Sequence[str]) -> list[str]:
    """Paired differences at the chosen α."""
    own = found.differences.set_index(["method", "metric"])
    lines = [
        "", f"# Differences from {found.against} at the α that training questions chose", "",
        "Paired by question [95 %]; p of a permutation test, corrected for the table (Holm).", "",
        "| method | " + " | ".join(f"{metric} | p" for metric in metrics) + " |",
        "|---" * (1 + 2 * len(metrics)) + "|",
    ]  # fmt: skip
    for method in dict.fromkeys(found.differences["method"]):
        cells = []
        for metric in metrics:
            row = own.loc[(method, metric)]
            cells.append(f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]")
            cells.append(f"{row['p_holm']:.2g}")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return lines


def _cell(row: pd.Series) -> str:
    return f"{row['mean']:.3g} [{row['low']:.3g}, {row['high']:.3g}]"


def _matched_row(row: Mapping[Any, Any]) -> str:
    if np.isnan(row["gain"]):
        return f"| {row['effect']:.2g} | {row['method']} | - | - | - |"
    gain = f"{row['gain']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
    apart = p = ""
    if not np.isnan(row["p_holm"]):
        low, high = row["difference_low"], row["difference_high"]
        apart, p = f"{row['difference']:+.3f} [{low:+.3f}, {high:+.3f}]", f"{row['p_holm']:.2g}"
    return f"| {row['effect']:.2g} | {row['method']} | {gain} | {apart} | {p} |"
