"""Runs: an evaluation described in a file, carried out piece by piece, resumable at any moment.

A piece is one method in one fold of one capability. Every piece writes its table whole or not at
all and depends on the description alone; a run that was killed goes on at the first missing piece
and ends with the same table as one that was not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from workbench import storage
from workbench.activations import TokenActivations
from workbench.capabilities import Split, choose_alpha, splits
from workbench.comparison import compare, summary
from workbench.data.toxicity_prompts import PromptSet
from workbench.edits import Edit
from workbench.errors import WorkbenchError
from workbench.evaluation import evaluate
from workbench.goals import combine
from workbench.hearsay.corpus import plain_documents
from workbench.judges.base import Judge, missing_judge
from workbench.judges.making import make_judge
from workbench.methods.controls import random_directions
from workbench.methods.token_aware import TokenAware
from workbench.models import Model, load_model
from workbench.run_config import RunConfig, method_settings
from workbench.run_identity import digest, environment, identity_of, require_same_run
from workbench.run_summary import as_markdown
from workbench.tasks.rows import COLUMNS


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
        folder: receives `run.json` (the description, and fingerprints of data, model and texts),
            `parts/`, and in the end `results.parquet`, `summary.md`, `comparison.parquet` where
            there is something to compare with, and `manifest.json` (all of `run.json`, seed, and
            the versions and commits that the parts were made with).
        model: the model, if it is loaded already.
        progress: show bars.

    Returns:
        The whole table, as `evaluate` gives it.

    Raises:
        WorkbenchError: a folder of another run, or a part that cannot be read; the file is named.
    """
    place = storage.make_folder(folder)
    judges = [make_judge(name, table) for name, table in config.judges.items()]
    data = {
        capability: splits(
            capability, config.data.get(capability, "hearsay"), folds=config.folds,
            seed=config.seed,
        )
        for capability in config.fitted()
    }  # fmt: skip
    for own in data.values():
        judges_for(own[0], judges)
    texts = texts_of(config, max(len(own) for own in data.values()))
    bridge = model or load_model(config.model, dtype=config.dtype, device=config.device)
    scorer = None if config.scorer is None else load_model(config.scorer, device=config.device)
    identity = identity_of(config, bridge, judges, data, texts, scorer)
    require_same_run(place, identity)
    pieces = [
        Piece(method, split)
        for capability in config.capabilities
        for split in data[capability]
        for method in config.methods
    ]
    work = _Work(config, bridge, judges, data, texts, scorer)
    parts = []
    for piece in tqdm(pieces, desc="pieces", disable=not progress):
        file = place / "parts" / f"{piece.name}.parquet"
        told = digest([identity, piece.name])
        if not file.exists():
            made = work.table(piece, progress=progress)
            made.attrs = {"piece": told, "made with": environment()}
            storage.write_table(file, made)
        part = storage.read_table(file, COLUMNS)
        _require_piece(file, part, told)
        parts.append(part)
    _finish(place, parts, config, identity)
    return storage.read_table(place / "results.parquet")


class _Work:
    """Fits and measures pieces; what methods of one split share is made once."""

    def __init__(
        self,
        config: RunConfig,
        model: Model,
        judges: Sequence[Judge],
        splits: Mapping[str, Sequence[Split]],
        texts: Mapping[int, Sequence[str]],
        scorer: Model | None,
    ) -> None:
        self.config, self.model, self.judges = config, model, judges
        self.splits, self.texts, self.scorer = splits, texts, scorer
        self._captured: dict[str, tuple[Any, TokenActivations]] = {}
        self._fitted: dict[str, Edit] = {}

    def table(self, piece: Piece, *, progress: bool) -> pd.DataFrame:
        """A piece's table."""
        split = piece.split
        return evaluate(
            self.model, split.test, {piece.method: self.edit(piece, progress=progress)},
            fold=split.number, judges=judges_for(split, self.judges),
            texts=self.texts[split.number], progress=progress, **self._task(split),
        )  # fmt: skip

    def _task(self, split: Split) -> dict[str, Any]:
        """The settings of a split's task."""
        settings = dict(self.config.task.get(split.capability, {}))
        if split.capability != "harmlessness":
            return settings
        return {"seed": self.config.seed, "scorer": self.scorer, **settings}

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
            seed = self.config.seed + piece.split.number
            return random_directions(edit, int(described.get("draws", 4)), seed)
        return edit

    def fitted(
        self, name: str, described: Mapping[str, Any], split: Split, *, progress: bool
    ) -> Edit:
        """A method's edit for one capability, its strength chosen on the inner split.

        Methods that differ in nothing else (a random control, a fit for another capability) share
        it.
        """
        method, alphas = method_settings(name, described, self.config.seed)
        key = digest([asdict(method), alphas, "style" in described, split.capability, split.number])
        if key not in self._fitted:
            self._fitted[key] = self._fit(method, alphas, described, split, progress=progress)
        return self._fitted[key]

    def _fit(
        self,
        method: TokenAware,
        alphas: Sequence[float],
        described: Mapping[str, Any],
        split: Split,
        *,
        progress: bool,
    ) -> Edit:
        if "style" not in described:
            method = replace(method, style=split.style)
        activations = self.activations(method, split, "train", progress=progress)
        everything = None
        if method.leaks:
            everything = self.activations(method, split, "everything", progress=progress)
        alpha = choose_alpha(
            self.model, method, split, alphas, judges=judges_for(split, self.judges),
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
            method.seed, method.batch_size,
        )  # fmt: skip
        if part not in self._captured or self._captured[part][0] != key:
            self._captured.pop(part, None)
            questions = getattr(split, part)
            self._captured[part] = key, method.capture(self.model, questions, progress=progress)
        return self._captured[part][1]


def judges_for(split: Split, judges: Sequence[Judge]) -> list[Judge]:
    """The judges of a split's task: those described, and hearsay's ground truth for its prompts.

    Raises:
        WorkbenchError: continuations of prompts have nobody to judge them.
    """
    if split.capability != "harmlessness":
        return [judge for judge in judges if judge.name != "toxicity"]
    own = [judge for judge in judges if judge.name == "toxicity"]
    if not own and isinstance(split.test, PromptSet) and split.test.name == "hearsay":
        return [make_judge("toxicity", {"kind": "hearsay"})]
    if not own:
        raise missing_judge("toxicity")
    return own


def texts_of(config: RunConfig, folds: int) -> dict[int, list[str]]:
    """Plain texts for side effects, every fold its own.

    Raises:
        WorkbenchError: a file that holds no list of different texts, or fewer than folds.
    """
    if isinstance(config.texts, int):
        return {fold: plain_documents(config.texts, seed=fold) for fold in range(folds)}
    found = storage.read_json(config.texts)
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise WorkbenchError(f"{config.texts} holds no list of texts", "a JSON list of texts")
    if len(set(found)) < len(found) or len(found) < folds:
        raise WorkbenchError(
            f"{config.texts} holds {len(found)} texts, {len(set(found))} of them different",
            f"different texts, at least {folds}",
        )
    return {fold: found[fold::folds] for fold in range(folds)}


def _require_piece(file: Path, part: pd.DataFrame, wanted: str) -> None:
    """Refuse a part of another piece or run."""
    if part.attrs.get("piece") != wanted:
        held = part[["task", "method", "setting", "fold"]].drop_duplicates().head(1)
        raise WorkbenchError(
            f"{file} belongs to another run or piece (it holds {held.iloc[0].to_dict()})"
            if len(held)
            else f"{file} is empty",
            "the part that this run wrote there",
            "It was exchanged: delete it, and it is measured again.",
        )


def _finish(
    folder: Path, parts: Sequence[pd.DataFrame], config: RunConfig, identity: Mapping[str, Any]
) -> None:
    """Write what is derived from all parts."""
    made_with = [part.attrs["made with"] for part in parts]
    table = pd.concat(parts, ignore_index=True)
    table.attrs = {}
    storage.write_table(folder / "results.parquet", table)
    compared = None
    if config.against is not None and len(config.methods) > 1:
        compared = compare(table, config.against, primary=config.primary, seed=config.seed)
        storage.write_table(folder / "comparison.parquet", compared)
    found = summary(table, seed=config.seed)
    storage.write_text(folder / "summary.md", as_markdown(found, compared, config.metrics))
    storage.write_json(
        folder / "manifest.json",
        {
            "seed": config.seed,
            "run": identity,
            "made with": [e for n, e in enumerate(made_with) if e not in made_with[:n]],
            "results": storage.fingerprint(folder / "results.parquet"),
        },
    )
