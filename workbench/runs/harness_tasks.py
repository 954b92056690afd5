"""Tasks of lm-evaluation-harness with and without edits, resumable, as the workbench's tables."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from workbench import storage
from workbench.checks import require_whole
from workbench.data.questions import QuestionSet
from workbench.doors import door
from workbench.editing.interventions import Intervention
from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.rows import COLUMNS, NO_EDIT
from workbench.evaluation.harness.tables import rows_of
from workbench.evaluation.harness.wrapping import lm_eval, require_harness
from workbench.evaluation.tables import compare, summary
from workbench.models.fingerprints import fingerprint_of_weights
from workbench.models.identity import Model, identify, tokenizer_of
from workbench.runs.identity import digest, environment
from workbench.runs.summary import as_markdown

QUIET = ("lm_eval", "lm_eval.config.task", "lm_eval.api.task", "datasets")
"""Whose remarks on every task are not shown."""


@door
def harness(
    model: Model,
    tasks: Sequence[Any],
    edits: Mapping[str, Intervention | Sequence[Intervention] | None],
    folder: storage.PathLike,
    *,
    questions: QuestionSet | None = None,
    limit: int | None = None,
    few_shot: int | None = None,
    chat: bool = False,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Run tasks of lm-evaluation-harness on the model under every edit, or what is missing of them.

    Args:
        model: the bridge.
        tasks: names of the harness' tasks or groups, paths of YAML files, or its task objects;
            `mmlu_shipped` is multiple choice on some 270 questions that come with the harness.
        edits: a name for every edit; None is the model itself, several are draws of a control.
        folder: receives `results.parquet`, `summary.md`, `manifest.json`, the harness' own results
            under `harness/` and, as they are finished, tables under `parts/`.
        questions: asked by `truthfulqa_mc1`, `truthfulqa_mc2` and `truthfulqa_gen`, whose data the
            harness would take from the hub.
        limit: at most so many documents of each task; all by default.
        few_shot: examples before each question; the task's own number by default.
        chat: apply the tokenizer's chat template.
        batch_size: rows run together; log-probabilities do not depend on it.
        seed: of the choice of examples and of the bootstrap.
        progress: show a bar.

    Returns:
        A table as `evaluate` gives it: the task as `capability`, the documents as `question`. The
        metrics are the harness'; those that are no mean over documents stand under `harness/` alone
        and are named in `attrs["left out"]`.

    Raises:
        WorkbenchError: no tasks or edits, an unknown task, data that cannot be had, or the harness
            is not installed.

    Example:
        >>> table = wb.runs.harness(
        ...     model, ["mmlu_shipped"], {"no edit": None, "TAE": edit}, "harness", limit=4,
        ...     progress=False,
        ... )
        >>> table.groupby(["method", "metric"], sort=False)["question"].nunique().to_dict()
        {('no edit', 'acc'): 4, ('no edit', 'acc_norm'): 4, ('TAE', 'acc'): 4,
        ('TAE', 'acc_norm'): 4}
    """
    require_harness()
    if not edits or not tasks or isinstance(tasks, str):
        raise WorkbenchError(
            f"tasks={tasks!r:.60} and {len(edits)} edits", "lists of one task or edit at the least"
        )
    empty = [name for name, own in edits.items() if isinstance(own, Sequence) and not own]
    if empty:
        raise WorkbenchError(f"no edits under the name {empty[0]!r}", "an edit, edits or None")
    if edits.get(NO_EDIT) is not None:
        raise WorkbenchError(f"an edit called {NO_EDIT!r}", "another name: it is the model's own")
    for name, value, least in (("limit", limit, 1), ("few_shot", few_shot, 0)):
        if value is not None:
            require_whole(name, value, least)
    place = storage.make_folder(folder)
    job = _Job(model, limit, few_shot, seed, batch_size, chat=chat)
    bar = tqdm(desc="the harness reads its tasks", disable=not progress)
    with _quietly(), bar:
        from workbench.evaluation.harness.tasks import fingerprint_of_task, load_tasks

        loaded = load_tasks(tasks, questions)
        pieces = [
            _Piece(name, task, method, draw, edit)
            for name, task in loaded.items()
            for method, own in edits.items()
            for draw, edit in enumerate(own if isinstance(own, Sequence) else [own])
        ]
        plain = lm_eval(model, batch_size=batch_size)
        asked = {
            name: fingerprint_of_task(task, plain, job.settings) for name, task in loaded.items()
        }
        keys = [piece.key(job, asked[piece.name]) for piece in pieces]
        bar.reset(total=len(pieces))
        bar.set_description("tasks and edits")
        parts = []
        for piece, key in zip(pieces, keys, strict=True):
            parts.append(_part(job, piece, place, key))
            bar.update()
    table = pd.concat(parts, ignore_index=True)
    left_out = {name: own for part in parts for name, own in part.attrs["left out"].items()}
    table.attrs = {"left out": left_out} if left_out else {}
    _write(place, table, job, pieces, [part.attrs["made with"] for part in parts])
    return table


@dataclass(frozen=True)
class _Job:
    """What all pieces have in common."""

    model: Model
    limit: int | None
    few_shot: int | None
    seed: int
    batch_size: int
    chat: bool

    @property
    def settings(self) -> dict[str, Any]:
        """What is asked of every task."""
        return {"limit": self.limit, "few_shot": self.few_shot, "chat": self.chat,
                "seed": self.seed}  # fmt: skip

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All that results depend on, beside task and edit."""
        return {
            "lm-eval": version("lm-eval"),
            "model": asdict(identify(self.model)),
            "weights": fingerprint_of_weights(self.model),
            "tokenizer": digest(tokenizer_of(self.model).backend_tokenizer.to_str()),
            **self.settings,
        }


@dataclass(frozen=True)
class _Piece:
    """A task under an edit."""

    name: str
    task: Any
    method: str
    draw: int
    edit: Intervention | None

    def key(self, job: _Job, asked: str) -> str:
        """A digest of all that its table depends on, `asked` that of its task."""
        edit = "" if self.edit is None else _fingerprint(self.edit)
        own = [self.name, asked, self.method, self.draw, edit]
        return digest([job.identity, own])


def _part(job: _Job, piece: _Piece, place: Path, key: str) -> pd.DataFrame:
    """A piece's table, measured if it is not there."""
    file = place / "parts" / f"{key}.parquet"
    if file.exists():
        return storage.read_table(file)
    from lm_eval import simple_evaluate

    from workbench.evaluation.harness.tasks import task_manager

    found = simple_evaluate(
        lm_eval(job.model, piece.edit, batch_size=job.batch_size), tasks=[piece.task],
        task_manager=task_manager(),
        num_fewshot=job.few_shot, limit=job.limit, bootstrap_iters=0,
        apply_chat_template=job.chat, fewshot_as_multiturn=job.chat,
        random_seed=job.seed, numpy_random_seed=job.seed, torch_random_seed=job.seed,
        fewshot_random_seed=job.seed,
    )  # fmt: skip
    rows, left_out = rows_of(found["samples"][piece.name], found["results"][piece.name])
    label = "" if piece.edit is None else piece.edit.label
    first = (identify(job.model).label, piece.name, piece.method, label, piece.draw, 0)
    table = pd.DataFrame([(*first, *row) for row in rows], columns=list(COLUMNS))
    table.attrs = {
        "left out": {piece.name: left_out} if left_out else {},
        "made with": environment(),
    }
    told = {"task": piece.name, "method": piece.method, "draw": piece.draw,
            "edit": repr(piece.edit)}  # fmt: skip
    told |= {name: found[name] for name in ("results", "versions", "n-shot", "n-samples")}
    if piece.edit is not None:
        told["saved"] = _saved(piece.edit, place)
    storage.write_text(place / "harness" / f"{key}.json", json.dumps(told, default=str, indent=1))
    storage.write_table(file, table)
    return table


def _fingerprint(edit: Intervention) -> str:
    """Of all that a saved edit holds."""
    with storage.scratch() as folder:
        edit.save(folder)
        return storage.fingerprint(folder / "edit.json")


def _saved(edit: Intervention, place: Path) -> str:
    """Save an edit into the folder's `edits/`; its name there."""
    name = _fingerprint(edit)[:16]
    if not (place / "edits" / name).exists():
        with storage.whole_folder(place / "edits" / name) as folder:
            edit.save(folder)
    return name


def _write(
    place: Path,
    table: pd.DataFrame,
    job: _Job,
    pieces: Sequence[_Piece],
    made_with: Sequence[Mapping[str, str]],
) -> None:
    """What is derived from all parts."""
    results = storage.write_table(place / "results.parquet", table)
    (place / "comparison.parquet").unlink(missing_ok=True)  # of an earlier call
    compared = None
    if NO_EDIT in set(table["method"]) and len(set(table["method"])) > 1:
        compared = compare(table, NO_EDIT, seed=job.seed)
        storage.write_table(place / "comparison.parquet", compared)
    text = as_markdown(summary(table, seed=job.seed), compared)
    storage.write_text(place / "summary.md", text)
    storage.write_json(
        place / "manifest.json",
        {
            "run": job.identity,
            "tasks": list(dict.fromkeys(piece.name for piece in pieces)),
            "edits": {piece.method: repr(piece.edit) for piece in pieces},
            "left out": table.attrs.get("left out", {}),
            "made with": [one for n, one in enumerate(made_with) if one not in made_with[:n]],
            "results": storage.fingerprint(results),
        },
    )


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the harness' remarks on each task, and git's on a folder that is no repository."""
    from lm_eval import evaluator

    before = {name: logging.getLogger(name).level for name in QUIET}
    of_git = evaluator.get_git_commit_hash
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    evaluator.get_git_commit_hash = str  # ""
    try:
        yield
    finally:
        evaluator.get_git_commit_hash = of_git
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
