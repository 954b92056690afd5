"""A run, loaded: its model and data, what it consists of, and the edits of its pieces.

A fit is one method on the training questions of one fold; it is kept as an artefact under `edits/`.
A piece is one method measured in one fold of one capability; its table is kept under `parts/`. Both
are named by a digest of all that they depend on, so that runs can share a folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
from workbench.evaluation.answers_alone import answers_alone
from workbench.evaluation.capabilities.splits import Split
from workbench.evaluation.evaluate import limits_of_capability
from workbench.evaluation.judges.making import make_judge
from workbench.evaluation.judges.references import make_measures
from workbench.evaluation.lengths import lengths_alone
from workbench.methods.around import AroundMethod
from workbench.methods.base import Method
from workbench.methods.controls import strength_sample
from workbench.methods.saved import load_edit
from workbench.models.identity import Model
from workbench.models.loading import load_model
from workbench.runs.identity import digest, identity_of
from workbench.runs.jobs import Fit, Piece
from workbench.runs.run_config import RunConfig
from workbench.runs.run_data import judges_for, refit_of, seed_of, splits_of, texts_of

Edits = Intervention | Sequence[Intervention] | None


class LoadedRun:
    """Everything that fits and measurements need, loaded once, and what of them there are.

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
        again = self._again(capability, number)
        asked = own.get("unrelated_fingerprints", {}).get(capability)
        more = [
            *code,
            *([asked] if asked else []),
            *([f"the same data, time {again}"] if again else []),
        ]
        return [[own[key] for key in keys], split, own["evaluation"].get(capability), *more]

    def _again(self, capability: str, number: int) -> int:
        """How many earlier folds have the same data, as of refits whose data are given apart."""
        known = self.identity["fingerprints"]
        mine = known[f"{capability}, fold {number}"]
        return sum(known[f"{capability}, fold {other}"] == mine for other in range(number))

    def alone(self) -> pd.DataFrame | None:
        """Controls of multiple choice that know nothing of the question, or of answers' words.

        None where no questions are tested.
        """
        tested = "truthfulness" in self.config.capabilities
        parts = []
        for split in self.made("truthfulness") if tested else []:
            test: Any = split.test
            fold, style = split.number, self.settings_of(split).get("style", "bare")
            own = [
                answers_alone(self.model, split.train, test, fold=fold),
                lengths_alone(self.model, test, fold=fold, style=style),
            ]
            parts += [self.told_of_refit(one, "truthfulness", fold) for one in own]
        return pd.concat(parts, ignore_index=True) if parts else None

    def made(self, capability: str) -> list[Split]:
        """The folds of those refits that are to be made now."""
        own = self.splits[capability]
        return [
            one for one in own if refit_of(self.config, one.number, own) < self.config.refits_made
        ]

    def told_of_refit(self, table: pd.DataFrame, capability: str, fold: int) -> pd.DataFrame:
        """A fold's table with its refit, where there are several."""
        if self.config.refits_made == 1:
            return table
        told = table.assign(refit=refit_of(self.config, fold, self.splits[capability]))
        told.attrs = table.attrs
        return told

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
        """The fits that a piece needs, one a capability.

        Where one that is fitted on has other folds than that which is measured, the fold of the
        same number in the same refit is taken, counted round.
        """
        plan = self.config.plans[name]
        if not plan.fitted:
            return []
        own = [plan.fitted, plan.styled, plan.train_size, list(map(asdict, plan.candidates))]
        around = [type(one.of).__name__ for one in plan.candidates if isinstance(one, AroundMethod)]
        own += [around] if around else []
        found = []
        for fitted in plan.capabilities or (capability,):
            refit = refit_of(self.config, number, self.splits[capability])
            each, own_each = (
                len(self.splits[name]) // self.config.refits for name in (capability, fitted)
            )
            fold = refit * own_each + number % each % own_each
            found.append(Fit(name, fitted, fold, digest([self._common(fitted, fold), own])))
        return found

    def edits_of(self, pieces: Iterable[Piece]) -> dict[str, list[str]]:
        """The keys of every method's fits, which are the names of their edits' folders."""
        found: dict[str, list[str]] = {}
        for piece in pieces:
            keys = [fit.key for fit in self.fits(piece.method, piece.capability, piece.number)]
            found[piece.method] = list(dict.fromkeys([*found.get(piece.method, []), *keys]))
        return found

    def candidates(self, fit: Fit) -> list[Method]:
        """The settings that a fit chooses from."""
        plan, own = self.config.plans[fit.method], self.splits[fit.capability]
        shift = self._seed_of(fit) - self.config.seed
        found = [replace(method, seed=method.seed + shift) for method in plan.candidates]
        if plan.styled:
            return found
        return [replace(method, style=own[fit.number].style) for method in found]

    def _seed_of(self, fit: Fit) -> int:
        """The seed of a fit's refit."""
        refit = refit_of(self.config, fit.number, self.splits[fit.capability])
        return seed_of(self.config, refit)

    def split_of(self, fit: Fit) -> Split:
        """The fold that a fit sees, with as many training questions as it may."""
        split = self.splits[fit.capability][fit.number]
        size = self.config.plans[fit.method].train_size
        return split if size is None else split.smaller(size, self._seed_of(fit))

    def edits(self, piece: Piece, folder: Path, multiple: float = 1.0) -> Edits:
        """The piece's edits at a multiple of their α, read from the run's folder."""
        plan = self.config.plans[piece.method]
        fits = self.fits(piece.method, piece.capability, piece.number)
        kept = {fit.capability: folder / "edits" / fit.key for fit in fits}
        found = {
            capability: load_edit(storage.awaited(place), self.model)
            for capability, place in kept.items()
        }
        if not found:
            return None
        edit = combine(found) if len(found) > 1 else next(iter(found.values()))
        edit = edit.scaled(multiple * edit.alpha)
        if plan.control is None or plan.control.derived is None:
            return edit
        sample = self._sample(fits[0], edit) if plan.control.sampled else None
        return plan.control.derived(edit, sample, plan.draws, self.config.seed + piece.number)

    def _sample(self, fit: Fit, edit: Intervention) -> Float[Tensor, "token gate"]:
        """The strengths of an edit at its α on training data, as they are tested.

        They are the questions that it was fitted on, in its style; or, where prompts are tested,
        those that are held back for the choice of α.
        """
        key = (fit.key, edit.alpha)
        if key not in self._samples:
            split = self.split_of(fit)
            styles = {method.style_name: method.style for method in self.candidates(fit)}
            asked: QuestionSet | list[str] = split.train
            if split.inner is not None and isinstance(split.inner.test, PromptSet):
                asked = [prompt.text for prompt in split.inner.test]
            style = styles[edit.settings["style"]]
            self._samples[key] = strength_sample(self.model, edit, asked, style)
        return self._samples[key]

    def settings_of(self, split: Split) -> dict[str, Any]:
        """The settings of a split's capability."""
        settings = dict(self.config.evaluation.get(split.capability, {}))
        if split.capability != "harmlessness":
            return settings | ({"references": self.measures} if "references" in settings else {})
        return {"seed": self.config.seed, "scorer": self.scorer, **settings}
