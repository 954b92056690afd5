"""What a folder of results holds, read once and checked before a page is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from workbench import storage
from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.rows import COLUMNS, NO_EDIT
from workbench.evaluation.tables import compare, summary
from workbench.runs.resumable import ALONE


@dataclass(frozen=True)
class Contest:
    """What `workbench compare` adds to a run.

    Attributes:
        curves, matched, areas, costs, gain, against, matched_on: see `head_to_head.HeadToHead`.
    """

    curves: pd.DataFrame
    matched: pd.DataFrame
    areas: pd.DataFrame
    costs: pd.DataFrame
    gain: str
    against: str
    matched_on: str = "kl"


@dataclass(frozen=True)
class Results:
    """A folder of results.

    Attributes:
        folder: where they are.
        table: `evaluate`'s.
        found: its `summary`.
        compared: differences between methods; None where there is nothing to compare with.
        manifest: of the run; of a demo its `demo.json`, which is like it. Empty where there is
            neither.
        demo: whether a demo, or nobody who left a manifest, wrote the results.
        contest: of a comparison at equal side effects.
        study: `evaluate`'s table with a column for every axis, of a study.
        pictures: PNG files by name, of the demo.
    """

    folder: Path
    table: pd.DataFrame
    found: pd.DataFrame
    compared: pd.DataFrame | None
    manifest: Mapping[str, Any] = field(default_factory=dict)
    demo: bool = False
    contest: Contest | None = None
    study: pd.DataFrame | None = None
    pictures: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def run(self) -> Mapping[str, Any]:
        """The run's description and fingerprints; empty where there is no manifest."""
        found: Mapping[str, Any] = self.manifest.get("run", {})
        return found

    @property
    def shown(self) -> Mapping[str, Any]:
        """What the run wanted shown: `metrics`, `primary`, `against`."""
        found: Mapping[str, Any] = self.manifest.get("shown", {})
        return found

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.manifest.get("seed", 0))

    @property
    def methods(self) -> list[str]:
        """Names of all methods that were measured, in order."""
        return [str(method) for method in dict.fromkeys(self.table["method"])]

    @property
    def axes(self) -> list[str]:
        """What a study varied."""
        return [] if self.study is None else [str(c) for c in self.study if c not in COLUMNS]


def read_results(folder: storage.PathLike) -> Results:
    """Read a folder that `workbench evaluate`, `compare`, `ablate` or `demo` wrote.

    Raises:
        WorkbenchError: no such folder, no results in it, or results that are not finished.
    """
    place = storage.existing(folder, "folder")
    if not place.is_dir():
        raise WorkbenchError(f"{place}, which is a file", "the folder of a run")
    study = _optional(place / "study.parquet")
    table = _table(place, study)
    record = _record(place)
    manifest = record or _manifest(place)
    demo = bool(record) or not manifest
    seed = int(manifest.get("seed", 0))
    contest = _contest(place)
    return Results(
        folder=place,
        table=table,
        found=_means(place, table, seed),
        compared=_compared(place, table, manifest, demo, contest),
        manifest=manifest,
        demo=demo,
        contest=contest,
        study=study,
        pictures=_pictures(place) if demo else {},
    )


def _table(place: Path, study: pd.DataFrame | None) -> pd.DataFrame:
    """The results, or those within a study's table where it was kept alone."""
    if study is not None and not any((place / n).exists() for n in ("results.parquet", "run.json")):
        return study[list(COLUMNS)]
    _require_results(place)
    table = storage.read_table(place / "results.parquet", COLUMNS)
    if table.empty:
        raise WorkbenchError(f"{place / 'results.parquet'} without a row", "results of a run")
    return table


def _require_results(place: Path) -> None:
    """Refuse a folder without results; those below it, and how to finish a run, are named."""
    if (place / "results.parquet").exists():
        return
    below = sorted(file.parent.name for file in place.glob("*/results.parquet"))
    if (place / "run.json").exists() or ((place / "parts").exists() and not below):
        raise _unfinished(place, "no results yet")
    raise WorkbenchError(
        f"{place} without results.parquet",
        "a folder that `workbench evaluate`, `compare`, `ablate` or `demo` wrote",
        f"There are results in {', '.join(str(place / name) for name in below)}." if below else "",
    )


def _unfinished(place: Path, why: str) -> WorkbenchError:
    return WorkbenchError(
        f"{place} holds a run that is not finished ({why})",
        "the folder of a finished run",
        "Give the command that began it once more, with the same --out: it goes on from there.",
    )


def _manifest(place: Path) -> Mapping[str, Any]:
    """A run's manifest, which must be of these results; empty where no run wrote them."""
    if not (place / "manifest.json").exists():
        if (place / "run.json").exists():
            raise _unfinished(place, "no manifest yet")
        return {}
    found = storage.read_json(place / "manifest.json")
    if not isinstance(found, dict) or not isinstance(found.get("run"), dict):
        raise WorkbenchError(f"{place / 'manifest.json'} that is no manifest", "what a run wrote")
    if "methods" not in found["run"]:
        raise WorkbenchError(
            f"{place} of lm-evaluation-harness", "a run, study, comparison or demo",
            "Its table is in summary.md there.",
        )  # fmt: skip
    results = place / "results.parquet"
    if results.exists() and found.get("results") != storage.fingerprint(results):
        raise _unfinished(place, "manifest.json is of other results than results.parquet")
    return found


def _record(place: Path) -> Mapping[str, Any]:
    """What a demo left of its settings; empty where it was not the last to write results here."""
    results = place / "results.parquet"
    if not results.exists() or not (place / "demo.json").exists():
        return {}
    found = storage.read_json(place / "demo.json")
    own = isinstance(found, dict) and found.get("results") == storage.fingerprint(results)
    return found if own else {}


def _means(place: Path, table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Means with intervals, of controls that know nothing of the question too."""
    found = summary(table, seed=seed)
    alone = _optional(place / ALONE)
    if alone is None:
        return found
    return pd.concat([found, summary(alone, seed=seed)], ignore_index=True)


def _compared(
    place: Path,
    table: pd.DataFrame,
    manifest: Mapping[str, Any],
    demo: bool,
    contest: Contest | None,
) -> pd.DataFrame | None:
    """The differences that a run wrote; where it wrote none, computed.

    They are from the method that the run names, that a comparison compares with, or, of the demo,
    from `no edit`.
    """
    shown = manifest.get("shown", {})
    kept = place / "comparison.parquet"
    if shown.get("against") and kept.exists() and not demo:
        return storage.read_table(kept)
    against = shown.get("against") or (contest and contest.against) or (NO_EDIT if demo else None)
    failed = {one["method"] for one in manifest.get("failed", ())}
    whole = table[~table["method"].isin(failed)]
    methods = set(whole["method"])
    if against not in methods or len(methods) < 2:
        return None
    primary, seed = shown.get("primary", ()), int(manifest.get("seed", 0))
    return compare(whole, str(against), primary=primary, seed=seed)


def _contest(place: Path) -> Contest | None:
    if not (place / "curves.parquet").exists():
        return None
    if not (place / "head_to_head.json").exists():
        raise _unfinished(place, "curves.parquet without head_to_head.json")
    told = storage.read_json(place / "head_to_head.json")
    names = ("curves", "matched", "areas", "costs")
    tables = {name: storage.read_table(place / f"{name}.parquet") for name in names}
    return Contest(
        **tables, gain=str(told["gain"]), against=str(told["against"]),
        matched_on=str(told.get("matched_on", "kl")),
    )  # fmt: skip


def _optional(file: Path) -> pd.DataFrame | None:
    return storage.read_table(file) if file.exists() else None


def _pictures(place: Path) -> dict[str, bytes]:
    return {file.stem: storage.read_bytes(file) for file in sorted(place.glob("*.png"))}
