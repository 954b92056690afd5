"""Runs: an evaluation described in a file, carried out piece by piece, resumable at any moment.

A piece is one method in one fold of one capability. Every piece writes its table whole or not at
all and depends on the description alone; a run that was killed goes on at the first missing piece
and ends with the same table as one that was not.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from workbench import storage
from workbench.activations import TokenActivations
from workbench.capabilities import Split, choose_alpha, splits
from workbench.capturing import fingerprint_of_weights
from workbench.edits import Edit
from workbench.errors import WorkbenchError
from workbench.evaluation import COLUMNS, compare, evaluate, summary
from workbench.goals import combine
from workbench.hearsay.corpus import plain_documents
from workbench.judges.base import Judge
from workbench.judges.making import make_judge
from workbench.methods.controls import random_directions
from workbench.methods.token_aware import TokenAware
from workbench.models import Model, identify, load_model
from workbench.run_config import RunConfig, method_settings
from workbench.run_summary import as_markdown

SHOWN = ("metrics", "against")  # may change: nothing is measured anew
PACKAGES = ("workbench", "torch", "transformers", "transformer-lens", "numpy", "pandas")


@dataclass(frozen=True)
class Piece:
    """One method in one fold of one capability."""

    method: str
    split: Split

    @property
    def name(self) -> str:
        """The piece's file, without suffix."""
        slug = "".join(c if c.isalnum() else "-" for c in self.method)
        own = hashlib.sha256(self.method.encode()).hexdigest()[:6]
        return f"{self.split.capability}-{self.split.number}-{slug}-{own}"


def run(
    config: RunConfig,
    folder: storage.PathLike,
    *,
    model: Model | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Carry a run out, or what is missing of it, in a folder.

    Args:
        config: what to evaluate.
        folder: receives `run.json` (the description, and fingerprints of data and weights),
            `parts/`, and in the end `results.parquet`, `summary.md`, `comparison.parquet` where
            there is something to compare with, and `manifest.json` (versions, seeds, all of
            `run.json`, model, judges and commit).
        model: the model, if it is loaded already.
        progress: show bars.

    Returns:
        The whole table, as `evaluate` gives it.

    Raises:
        WorkbenchError: a folder of another run, or a part that cannot be read; the file is named.
    """
    place = storage.make_folder(folder)
    described = json.loads(json.dumps(asdict(config), default=list))
    bridge = model or load_model(config.model, dtype=config.dtype, device=config.device)
    judges = [make_judge(name, table) for name, table in config.judges.items()]
    data = {
        capability: splits(
            capability, config.data.get(capability, "hearsay"), folds=config.folds,
            seed=config.seed,
        )
        for capability in config.fitted()
    }  # fmt: skip
    pieces = [
        Piece(method, split)
        for capability in config.capabilities
        for split in data[capability]
        for method in config.methods
    ]
    described |= {"weights": fingerprint_of_weights(bridge), "fingerprints": _data(data)}
    _require_same_run(place, described)
    work = _Work(config, bridge, judges, data)
    tables = []
    for piece in tqdm(pieces, desc="pieces", disable=not progress):
        file = place / "parts" / f"{piece.name}.parquet"
        if not file.exists():
            storage.write_table(file, work.table(piece, progress=progress))
        part = storage.read_table(file, COLUMNS)
        _require_piece(file, part, piece, identify(bridge).name)
        tables.append(part)
    table = pd.concat(tables, ignore_index=True)
    _finish(place, table, config, described, bridge, judges)
    return table


class _Work:
    """Fits and measures pieces; what methods of one split share is made once."""

    def __init__(
        self,
        config: RunConfig,
        model: Model,
        judges: Sequence[Judge],
        splits: Mapping[str, Sequence[Split]],
    ) -> None:
        self.config, self.model, self.judges, self.splits = config, model, judges, splits
        self._captured: dict[str, tuple[Any, TokenActivations]] = {}

    def table(self, piece: Piece, *, progress: bool) -> pd.DataFrame:
        """A piece's table."""
        split = piece.split
        return evaluate(
            self.model, split.test, {piece.method: self.edit(piece, progress=progress)},
            fold=split.number, judges=_judges_for(split, self.judges),
            texts=texts_of(self.config, split.number), progress=progress, **self._task(split),
        )  # fmt: skip

    def _task(self, split: Split) -> dict[str, Any]:
        """The settings of a split's task."""
        settings = dict(self.config.task.get(split.capability, {}))
        return {"seed": self.config.seed, **settings} if _sampled(split) else settings

    def edit(self, piece: Piece, *, progress: bool) -> Edit | Sequence[Edit] | None:
        """The piece's edit, of its own capability or of those that its method is to be fitted on.

        Where those have other folds, the fold of the same number is taken, counted round.
        """
        described = self.config.methods[piece.method]
        if described["kind"] == "none":
            return None
        goals = described.get("fit", piece.split.capability)
        edits = {}
        for goal in [goals] if isinstance(goals, str) else goals:
            own = self.splits[goal]
            split = own[piece.split.number % len(own)]
            edits[goal] = self.fitted(piece.method, described, split, progress=progress)
        edit = combine(edits) if len(edits) > 1 else next(iter(edits.values()))
        if described["kind"] == "random":
            return random_directions(edit, int(described.get("draws", 4)), self.config.seed)
        return edit

    def fitted(
        self, name: str, described: Mapping[str, Any], split: Split, *, progress: bool
    ) -> Edit:
        """A method's edit for one capability, its strength chosen on the inner split."""
        method, alphas = method_settings(name, described, self.config.seed)
        if "style" not in described:
            method = replace(method, style=split.style)
        activations = self.activations(method, split, "train", progress=progress)
        everything = None
        if method.leaks:
            everything = self.activations(method, split, "everything", progress=progress)
        alpha = choose_alpha(
            self.model, method, split, alphas, judges=_judges_for(split, self.judges),
            activations=activations, **self._task(split),
        )  # fmt: skip
        return method.fit(
            self.model, split.train, activations=activations, progress=progress,
            everything=everything,
        ).scaled(alpha)  # fmt: skip

    def activations(
        self, method: TokenAware, split: Split, part: str, *, progress: bool
    ) -> TokenActivations:
        """Activations of the part `train` or `everything`, kept for methods that need the same."""
        key = (
            split.capability, split.number, method.style, method.answer_start, method.uncertainty,
            method.seed,
        )  # fmt: skip
        if part not in self._captured or self._captured[part][0] != key:
            self._captured.pop(part, None)
            questions = getattr(split, part)
            self._captured[part] = key, method.capture(self.model, questions, progress=progress)
        return self._captured[part][1]


def _sampled(split: Split) -> bool:
    """Whether the split's task draws random numbers."""
    return split.capability == "harmlessness"


def _judges_for(split: Split, judges: Sequence[Judge]) -> list[Judge]:
    """The judges that were described; on hearsay's prompts also its ground truth."""
    if split.capability == "harmlessness":
        own = [judge for judge in judges if judge.name == "toxicity"]
        known = split.train.name.startswith("hearsay")
        return own or ([make_judge("toxicity", {"kind": "hearsay"})] if known else [])
    return [judge for judge in judges if judge.name != "toxicity"]


def texts_of(config: RunConfig, fold: int) -> list[str]:
    """Plain texts for side effects."""
    if isinstance(config.texts, int):
        return plain_documents(config.texts, seed=fold) if config.texts else []
    found = storage.read_json(config.texts)
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise WorkbenchError(f"{config.texts} holds no list of texts", "a JSON list of texts")
    return found


def _require_same_run(folder: Path, described: Mapping[str, Any]) -> None:
    """Write the folder's description; refuse a folder whose parts another one made."""
    file = folder / "run.json"
    before = storage.read_json(file) if file.exists() else described
    if not isinstance(before, dict):
        raise WorkbenchError(f"{file} holds no run's description", "what a run wrote there")
    differing = [key for key in described if key not in SHOWN and before.get(key) != described[key]]
    if differing:
        raise WorkbenchError(
            f"{folder} holds a run with other settings ({', '.join(differing)} differ)",
            "the folder of the same run, or a new one",
        )
    storage.write_json(file, described)


def _require_piece(file: Path, part: pd.DataFrame, piece: Piece, model: str) -> None:
    """Refuse a part of another piece or model."""
    held = part[["model", "method", "fold"]].drop_duplicates().to_records(index=False).tolist()
    wanted = [(model, piece.method, piece.split.number)]
    if held != wanted:
        raise WorkbenchError(
            f"{file} holds the model, method and fold {held[:2]}",
            f"{wanted[0]}",
            "It was exchanged: delete it, and it is measured again.",
        )


def _finish(
    folder: Path, table: pd.DataFrame, config: RunConfig, described: Mapping[str, Any],
    model: Model, judges: Sequence[Judge],
) -> None:  # fmt: skip
    """Write what is derived from the whole table."""
    storage.write_table(folder / "results.parquet", table)
    compared = None
    if config.against is not None and len(config.methods) > 1:
        compared = compare(table, config.against, seed=config.seed)
        storage.write_table(folder / "comparison.parquet", compared)
    found = summary(table, seed=config.seed)
    storage.write_text(folder / "summary.md", as_markdown(found, compared, config.metrics))
    storage.write_json(
        folder / "manifest.json",
        {
            "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
            "seed": config.seed,
            "run": described,
            "model": asdict(identify(model)),
            "judges": {judge.name: judge.identity for judge in judges},
            "results": storage.fingerprint(folder / "results.parquet"),
            "commit": _commit(),
        },
    )


def _data(data: Mapping[str, Sequence[Split]]) -> dict[str, Any]:
    """Fingerprints of what is fitted and tested on, a split each."""
    return {
        f"{capability}, fold {split.number}": {
            "train": _fingerprint(list(split.train)),
            "test": _fingerprint(list(split.test)),
            "questions": len(split.test),
        }
        for capability, own in data.items()
        for split in own
    }


def _fingerprint(records: Sequence[Any]) -> str:
    text = json.dumps([asdict(record) for record in records], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _commit() -> str | None:
    """The commit of the workbench's own code, where it runs from a repository."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
