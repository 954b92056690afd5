"""The work of a run: fits and measurements, each by itself and in any process.

A fit is one method on the training questions of one fold; it is kept as an artefact under `edits/`.
A piece is one method measured in one fold of one capability; its table is kept under `parts/`. Both
are named by a digest of all that they depend on, so that runs can share a folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from workbench import storage
from workbench.data.questions import QuestionSet
from workbench.data.toxicity_prompts import PromptSet
from workbench.editing.combining import combine
from workbench.editing.interventions import Intervention
from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.splits import Split
from workbench.evaluation.choosing import choose
from workbench.evaluation.evaluate import evaluate, limits_of_capability
from workbench.evaluation.judges.making import make_judge
from workbench.evaluation.judges.references import make_measures
from workbench.methods.base import Method
from workbench.methods.controls import strength_sample
from workbench.methods.memo import Memo
from workbench.methods.saved import load_edit
from workbench.models.fingerprints import weights_stay
from workbench.models.identity import Model
from workbench.models.loading import load_model
from workbench.runs.identity import digest, environment, identity_of
from workbench.runs.jobs import Fit, Job, Piece
from workbench.runs.run_config import RunConfig
from workbench.runs.run_data import judges_for, splits_of, texts_of

Edits = Intervention | Sequence[Intervention] | None


class Work:
    """Everything that fits and measurements need, loaded once.

    Args:
        config: the run.
        model: the model, if it is loaded already.
        progress: show bars of what is at work.
    """

    def __init__(
        self, config: RunConfig, model: Model | None = None, *, progress: bool = False
    ) -> None:
        self.config, self.progress = config, progress
        self.judges = [make_judge(name, table) for name, table in config.judges.items()]
        self.measures = make_measures(
            config.evaluation.get("truthfulness", {}).get("references", ())
        )
        self.splits = {capability: splits_of(config, capability) for capability in config.fitted()}
        for own in self.splits.values():
            judges_for(own[0], self.judges)
        self.texts = texts_of(config, max(len(own) for own in self.splits.values()))
        self.model = model or load_model(config.model, dtype=config.dtype, device=config.device)
        self.scorer = None
        if config.scorer is not None:
            self.scorer = load_model(config.scorer, device=config.device)
        self.captures: Path | None = None
        self.memos: dict[tuple[str, int], Memo] = {}
        self._samples: dict[tuple[str, float], Tensor] = {}
        for plan in config.plans.values():
            for method in plan.candidates:
                method.require_model(self.model)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All that the run's results depend on."""
        return identity_of(
            self.config, self.model, [*self.judges, *self.measures], self.splits, self.texts,
            self.scorer,
        )  # fmt: skip

    @property
    def limits(self) -> dict[str, dict[str, str]]:
        """By capability, what those who judge it cannot tell."""
        found = {
            capability: limits_of_capability(
                capability, judges_for(self.splits[capability][0], self.judges), self.measures
            )
            for capability in self.config.capabilities
        }
        return {capability: own for capability, own in found.items() if own}

    def _common(self, capability: str, number: int) -> list[Any]:
        """What fits and pieces of a fold depend on, whatever the method."""
        own = self.identity
        keys = ("model_identity", "weights", "tokenizer", "scorer_weights", "judges", "judged_by",
                "seed", "dtype")  # fmt: skip
        split = own["fingerprints"][f"{capability}, fold {number}"]
        code = [own["own_code"]] if own["own_code"] else []
        return [[own[key] for key in keys], split, own["evaluation"].get(capability), *code]

    def pieces(self) -> list[Piece]:
        """All pieces of the run, fold by fold."""
        found = []
        for capability in self.config.capabilities:
            for split in self.splits[capability]:
                texts = self.identity["text_fingerprints"][str(split.number)]
                common = [self._common(capability, split.number), texts, self.config.multiples]
                for name, described in self.config.methods.items():
                    fits = [fit.key for fit in self.fits(name, capability, split.number)]
                    key = digest([common, described, fits, name])
                    found.append(Piece(name, capability, split.number, key))
        return found

    def fits(self, name: str, capability: str, number: int) -> list[Fit]:
        """The fits that a piece needs, one a goal.

        Where a goal has other folds than the capability that is measured, the fold of the same
        number is taken, counted round.
        """
        plan = self.config.plans[name]
        if not plan.fitted:
            return []
        own = [plan.fitted, plan.styled, plan.train_size, list(map(asdict, plan.candidates))]
        found = []
        for goal in plan.goals or (capability,):
            fold = number % len(self.splits[goal])
            found.append(Fit(name, goal, fold, digest([self._common(goal, fold), own])))
        return found

    def candidates(self, fit: Fit) -> list[Method]:
        """The settings that a fit chooses from."""
        plan = self.config.plans[fit.method]
        if plan.styled:
            return list(plan.candidates)
        style = self.splits[fit.capability][fit.number].style
        return [replace(method, style=style) for method in plan.candidates]

    def make(self, fit: Fit) -> tuple[Intervention, float]:
        """Choose a fit's settings on the inner split, and fit them on all training questions.

        Returns:
            The edit, and the seconds that the fit takes by itself, without the choosing.
        """
        split = self._split(fit)
        memo = self._memo(fit)
        method = choose(
            self.model, self.candidates(fit), split, judges=judges_for(split, self.judges),
            memo=memo, progress=self.progress, **self._settings(split),
        )  # fmt: skip
        with memo.timed() as seconds:
            edit = method.fit(
                self.model, split.train, everything=split.everything if method.leaks else None,
                memo=memo, progress=self.progress,
            )  # fmt: skip
        return edit, seconds[0]

    def _memo(self, fit: Fit) -> Memo:
        """The stages of a fit's fold; those of others are let go, which take much memory."""
        key = (fit.capability, fit.number)
        if key not in self.memos:
            self.memos = {key: Memo(self.captures)}
        return self.memos[key]

    def _split(self, fit: Fit) -> Split:
        """The fold that a fit sees, with as many training questions as it may."""
        split = self.splits[fit.capability][fit.number]
        size = self.config.plans[fit.method].train_size
        return split if size is None else split.smaller(size, self.config.seed)

    def measure(self, pieces: Sequence[Piece], folder: Path) -> dict[Piece, pd.DataFrame]:
        """Tables of pieces of one fold, which share what can be shared."""
        self.memos.clear()
        split = self.splits[pieces[0].capability][pieces[0].number]
        asked = [
            (piece, multiple)
            for piece in pieces
            for multiple in self.config.plans[piece.method].multiples
        ]
        edits = {str(n): self.edits(piece, folder, by) for n, (piece, by) in enumerate(asked)}
        table = evaluate(
            self.model, split.test, edits, fold=split.number, progress=self.progress,
            judges=judges_for(split, self.judges), texts=self.texts[split.number],
            **self._settings(split),
        )  # fmt: skip
        parts: dict[Piece, list[pd.DataFrame]] = {piece: [] for piece in pieces}
        for number, own in table.groupby("method", sort=False):
            piece, multiple = asked[int(str(number))]
            parts[piece].append(own.assign(method=piece.method, multiple=multiple))
        return {piece: pd.concat(own, ignore_index=True) for piece, own in parts.items()}

    def edits(self, piece: Piece, folder: Path, multiple: float = 1.0) -> Edits:
        """The piece's edits at a multiple of their α, read from the run's folder."""
        plan = self.config.plans[piece.method]
        fits = self.fits(piece.method, piece.capability, piece.number)
        found = {fit.capability: load_edit(folder / "edits" / fit.key, self.model) for fit in fits}
        if not found:
            return None
        edit = combine(found) if len(found) > 1 else next(iter(found.values()))
        edit = edit.scaled(multiple * edit.alpha)
        if plan.control is None or plan.control.derived is None:
            return edit
        sample = self._sample(fits[0], edit) if plan.control.sampled else None
        return plan.control.derived(edit, sample, plan.draws, self.config.seed + piece.number)

    def _sample(self, fit: Fit, edit: Intervention) -> Float[Tensor, "token edited"]:
        """The strengths of an edit at its α on training data, as they are tested.

        They are the questions that it was fitted on, in its style; or, where prompts are tested,
        those that are held back for the choice of α.
        """
        key = (fit.key, edit.alpha)
        if key not in self._samples:
            split = self._split(fit)
            styles = {method.style_name: method.style for method in self.candidates(fit)}
            asked: QuestionSet | list[str] = split.train
            if split.inner is not None and isinstance(split.inner.test, PromptSet):
                asked = [prompt.text for prompt in split.inner.test]
            style = styles[edit.settings["style"]]
            self._samples[key] = strength_sample(self.model, edit, asked, style)
        return self._samples[key]

    def _settings(self, split: Split) -> dict[str, Any]:
        """The settings of a split's capability."""
        settings = dict(self.config.evaluation.get(split.capability, {}))
        if split.capability != "harmlessness":
            return settings | ({"references": self.measures} if "references" in settings else {})
        return {"seed": self.config.seed, "scorer": self.scorer, **settings}

    def do(self, job: Job) -> dict[str, str]:
        """Carry a job out; what could not be computed is told, by the keys of fits and pieces.

        What was computed and cannot be written is an error of the whole run.
        """
        folder = Path(job.folder)
        captures = Path(job.captures) if job.captures else None
        if captures != self.captures:
            self.captures, self.memos = captures, {}
        failed: dict[str, str] = {}
        for fit in job.fits:
            try:
                with weights_stay(self.model, self.identity["weights"]):
                    edit, seconds = self.make(fit)
            except Exception as error:
                failed[fit.key] = _told(error)
                continue
            with storage.whole_folder(folder / "edits" / fit.key) as place:
                edit.save(place)
                made = {"seconds": seconds, "made with": environment()}
                storage.write_json(place / "fit.json", made)
        tables, errors = self._measured(job.pieces, folder)
        for piece, table in tables.items():
            file = folder / "parts" / piece.file
            if not file.exists():
                table.attrs = {"piece": piece.key, "made with": environment()}
                storage.write_table(file, table)
        return failed | errors

    def _measured(
        self, pieces: Sequence[Piece], folder: Path
    ) -> tuple[dict[Piece, pd.DataFrame], dict[str, str]]:
        """Tables, and errors by key: where pieces fail together, each is measured by itself."""
        if not pieces:
            return {}, {}
        try:
            return self.measure(pieces, folder), {}
        except Exception as error:
            if len(pieces) == 1:
                return {}, {pieces[0].key: _told(error)}
        tables: dict[Piece, pd.DataFrame] = {}
        errors: dict[str, str] = {}
        for piece in pieces:
            table, error_of = self._measured([piece], folder)
            tables |= table
            errors |= error_of
        return tables, errors


_LOADED: dict[str, Work] = {}


def do(job: Job) -> dict[str, str]:
    """Carry a job out in a worker process, which loads a run's model and data once.

    Raises:
        WorkbenchError: the worker finds another model or other data than the coordinator.
    """
    if job.identity not in _LOADED:
        _LOADED.clear()
        work = Work(job.config)
        found = digest(work.identity)
        if found != job.identity:
            raise WorkbenchError(
                "a worker whose model or data differ from the coordinator's",
                "the same files and versions on all machines",
                "A model that is given as an object is not what its name loads: give the name.",
            )
        _LOADED[job.identity] = work
    return _LOADED[job.identity].do(job)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
