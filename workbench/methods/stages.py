"""The stages of TAE's fit, each computed once for all settings that share it."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import asdict, dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from workbench import storage
from workbench.data.questions import QuestionSet
from workbench.errors import WorkbenchError
from workbench.methods.memo import Memo
from workbench.methods.token_aware_settings import TokenAwareSettings
from workbench.models.identity import Model
from workbench.stages.activations import TokenActivations, answers_in_order
from workbench.stages.aggregation import Features, aggregate
from workbench.stages.directions import (
    Directions,
    fit_directions,
    spread_along,
    token_level_accuracy,
)
from workbench.stages.misalignment import fit_estimators, incorrect_answers, misalignment_quantile
from workbench.stages.probes import Probes
from workbench.stages.shortlist_fitting import fit_shortlists
from workbench.stages.shortlists import Shortlists


@dataclass(frozen=True)
class Stages:
    """The stages of one fit, each kept in the memo by all that it depends on."""

    method: TokenAwareSettings
    model: Model
    train: QuestionSet
    everything: QuestionSet | TokenActivations | None
    given: TokenActivations | None
    memo: Memo
    progress: bool

    def activations(self) -> TokenActivations:
        """Of the training questions."""
        mine = self.given or self._captured(self.train)
        if mine.questions != self.train:
            raise WorkbenchError(
                "activations of other questions", "those of the training questions"
            )
        self.method.require_own(self.model, mine)
        return mine

    def whole(self) -> TokenActivations | None:
        """Of all questions, for settings that leak."""
        if not self.method.leaks:
            return None
        given = self.everything
        whole = self._captured(given) if isinstance(given, QuestionSet) else given
        if whole is not None:
            self.method.require_own(self.model, whole)
        return whole

    def _captured(self, questions: QuestionSet) -> TokenActivations:
        key = (*self._answers(), self.method.seed, questions)
        return self.memo.get("activations", key, lambda: self._capture(questions))

    def _capture(self, questions: QuestionSet) -> TokenActivations:
        """Run the model, or take what is known of more questions."""
        part = self._part(questions)
        if part is not None:
            return self._captured(part[0]).choose(part[1])
        own, folder = self.method, self.memo.folder
        if folder is None:
            return own.capture(self.model, questions, progress=self.progress)
        texts = repr([*self._answers(), own.seed, *map(asdict, questions)])
        file = folder / hashlib.sha256(texts.encode()).hexdigest()[:16]
        with storage.locked(file.with_suffix(".lock")):
            return own.capture(self.model, questions, folder=file, progress=self.progress)

    def _part(self, questions: QuestionSet) -> tuple[QuestionSet, list[int]] | None:
        """More questions that will be needed as well, and the numbers of these in them."""
        larger = self.memo.larger
        if larger is None or larger == questions or not {*questions} <= {*larger}:
            return None
        place = {question: number for number, question in enumerate(larger)}
        return larger, [place[question] for question in questions]

    def _answers(self) -> tuple[Hashable, ...]:
        """What z at answers' tokens depends on, beside the questions."""
        return (self.method.style, self.method.answer_start)

    def _features(self) -> tuple[Hashable, ...]:
        return (*self._answers(), self.train, self.method.depth, self.method.graph)

    def features(self) -> Features:
        """Of the training answers."""
        found = self.memo.get("features", self._features(), self._aggregate)
        return replace(found, unlabelled=self.activations().unlabelled)

    def _aggregate(self) -> Features:
        """Aggregate, or take what is known of more questions."""
        mine, own = self.activations(), self.method
        part = None if self.given else self._part(self.train)
        if part is None:
            return aggregate(mine, own.depth, own.graph, progress=self.progress)
        whole = replace(self, train=part[0]).features()
        answers = answers_in_order(whole.question, part[1])
        return replace(
            whole, values=whole.values[answers], question=mine.question, label=mine.label,
            questions=mine.questions,
        )  # fmt: skip

    def directions(self) -> Directions:
        """With the accuracies that the chosen ranking uses, and the chosen spread."""
        own, whole = self.method, self.whole()
        key = (*self._features(), own.seed, own.direction, own.validation_share,
               own.shuffle_labels)  # fmt: skip
        fitted = self.memo.get(
            "directions", key,
            lambda: fit_directions(
                self.features(), self.train, kind=own.direction, seed=own.seed,
                validation_share=own.validation_share, shuffle_labels=own.shuffle_labels,
            ),
        )  # fmt: skip
        everything = None if whole is None else whole.questions
        accuracy = self.memo.get(
            "ranking", (*key, own.head_ranking, everything), lambda: self._accuracy(fitted, whole)
        )
        found = replace(fitted, accuracy=accuracy)
        if own.spread_fold == "all" and whole is not None:
            spread = self.memo.get(
                "spread", (*key, everything), lambda: spread_along(whole.unlabelled, fitted.vector)
            )
            found = replace(found, spread=spread)
        return found

    def _accuracy(
        self, directions: Directions, whole: TokenActivations | None
    ) -> Float[Tensor, "layer head"]:
        own = self.method
        if own.head_ranking == "validation":
            return directions.accuracy
        if own.head_ranking == "random":
            generator = torch.Generator().manual_seed(own.seed)
            return torch.rand(directions.accuracy.shape, generator=generator, dtype=torch.float32)
        mine = self.activations()
        held = directions.validation.nonzero().flatten().tolist()
        if whole is None or own.head_ranking == "token_level":
            return token_level_accuracy(directions.probes, mine, mine.of_questions(held))
        answers = numbers_in(whole.questions, mine.questions, held)
        return token_level_accuracy(directions.probes, whole, answers)

    def estimators(self) -> Probes:
        """Misalignment estimators by the chosen grouping."""
        return self.memo.get("estimators", self._estimators(), self._fit_estimators)

    def _estimators(self) -> tuple[Hashable, ...]:
        own, whole = self.method, self.whole()
        everything = None if whole is None else whole.questions
        return (*self._answers(), self.train, own.estimator_grouping, everything)

    def _fit_estimators(self) -> Probes:
        mine, whole = self.activations(), self.whole()
        numbers = range(len(mine.questions))
        if whole is None or self.method.estimator_grouping == "own":
            return fit_estimators(mine, incorrect_answers(mine, numbers))
        numbers_there = numbers_in(whole.questions, mine.questions, numbers)
        return fit_estimators(whole, incorrect_answers(whole, numbers_there, "published"))

    def shortlists(self, layers: tuple[int, ...]) -> Shortlists:
        """The words that u of some layers is read off within the chosen tolerance."""
        own = self.method
        return self.memo.get(
            "shortlists", (*self._answers(), self.train, own.seed, layers, own.tolerance),
            lambda: fit_shortlists(
                self.model, self.train, layers, own.tolerance, style=own.style, seed=own.seed,
                batch_size=own.batch_size, progress=self.progress,
            ),
        )  # fmt: skip

    def risk(self, quantile: float) -> Float[Tensor, "layer head"]:
        """The p̂ below which a share of the tokens of incorrect training answers lies."""
        return self.memo.get(
            "risk", (*self._estimators(), quantile),
            lambda: misalignment_quantile(self.estimators(), self.activations(), quantile),
        )  # fmt: skip


def numbers_in(whole: QuestionSet, part: QuestionSet, numbers: range | list[int]) -> list[int]:
    """The numbers that questions of a part have in the whole set; matched by their text."""
    place = {question.question: number for number, question in enumerate(whole)}
    try:
        return [place[part[number].question] for number in numbers]
    except KeyError as error:
        raise WorkbenchError(
            f"the training question {error} is not in `everything`", "a set that holds them all"
        ) from error
