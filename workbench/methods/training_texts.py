"""Training answers, on which a change is to gain, and the texts that it is to leave alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.data.questions import Question, QuestionSet
from workbench.editing.generation import written
from workbench.methods.memo import Memo
from workbench.models.identity import Model
from workbench.models.prompts import Encoded, PromptFormat, encode, prompt_format
from workbench.stages.gain_per_nat import Answers, TextKind

WEIGHT: Mapping[TextKind, float] = {"own": 0.2, "right": 0.6, "correct": 0.2}
"""Of the kinds of texts: where there is least to gain and most to lose counts most."""


@dataclass(frozen=True)
class Said:
    """Answers to training questions.

    Attributes:
        encoded: the answers, behind their prompts.
        question: the number of the question of each.
        correct: whether it is.
    """

    encoded: tuple[Encoded, ...]
    question: Int[Tensor, " answer"]
    correct: Bool[Tensor, " answer"]

    def answers(self, nats: Float[Tensor, " answer"]) -> Answers:
        """They with their log-probabilities."""
        return Answers(nats, self.question, self.correct)


def said_of(
    model: Model,
    train: QuestionSet,
    most: int | None,
    *,
    style: str | PromptFormat = "bare",
    shuffle_labels: bool = False,
    seed: int = 0,
) -> Said:
    """At most so many correct and so many incorrect answers of every question.

    Args:
        model: the bridge, whose tokenizer is used.
        train: the questions; the best answer is the first of the correct ones.
        most: of either side; None for all.
        style: prompt format.
        shuffle_labels: a control: the answers of half of the questions change sides.
        seed: draws them.
    """
    turned = turned_sides(len(train), seed) if shuffle_labels else set()
    found: list[tuple[Encoded, int, bool]] = []
    for number, question in enumerate(train):
        sides = [_best_first(question), question.incorrect_answers]
        if number in turned:
            sides.reverse()
        for side, correct in zip(sides, (True, False), strict=True):
            for text in islice(side, most):
                one = encode(model, question.question, text, prompt_format(style))
                found.append((one, number, correct))
    return Said(
        tuple(one for one, _, _ in found), torch.tensor([number for _, number, _ in found]),
        torch.tensor([correct for _, _, correct in found]),
    )  # fmt: skip


def turned_sides(count: int, seed: int) -> set[int]:
    """Half of the questions, whose answers change sides where labels are shuffled."""
    return set(np.random.default_rng([seed, 7]).permutation(count)[: count // 2].tolist())


def own_answers(
    model: Model,
    train: QuestionSet,
    *,
    style: str | PromptFormat = "bare",
    max_new_tokens: int,
    batch_size: int,
    memo: Memo | None = None,
) -> list[Encoded]:
    """What the model itself writes, a text a question.

    Args:
        model: the bridge.
        train: the questions.
        style: prompt format.
        max_new_tokens: of each.
        batch_size: written together.
        memo: what fits share.
    """
    asked = [encode(model, one.question, None, prompt_format(style)) for one in train]
    return (memo or Memo()).get(
        "own answers", (tuple(train), style, max_new_tokens),
        lambda: written(model, asked, max_new_tokens=max_new_tokens, batch_size=batch_size),
    )  # fmt: skip


@dataclass(frozen=True)
class TrainingTexts:
    """The model's own answers, then all that were given.

    Attributes:
        encoded: they, behind their prompts.
        question: the number of the question of each.
        kind: of each; None for incorrect answers, which may become unlikely.
    """

    encoded: tuple[Encoded, ...]
    question: list[int]
    kind: list[TextKind | None]

    @property
    def weights(self) -> Float[Tensor, " text"]:
        """See `weights_of`."""
        return weights_of(self.kind)


def texts_of(own: Sequence[Encoded], said: Said, nats: Float[Tensor, " answer"]) -> TrainingTexts:
    """All texts.

    Args:
        own: the model's own answers, one a question.
        said: the given ones.
        nats: log π of these.
    """
    right, kind = had_right(said.answers(nats)), list[TextKind | None](["own"] * len(own))
    for row, correct in enumerate(said.correct.tolist()):
        kind.append(("right" if row in right else "correct") if correct else None)
    question = [*range(len(own)), *said.question.tolist()]
    return TrainingTexts((*own, *said.encoded), question, kind)


def weights_of(kinds: Sequence[TextKind | None]) -> Float[Tensor, " text"]:
    """The share of every text, in the measure of its kind; they sum to 1."""
    weight = torch.tensor([WEIGHT[kind] / kinds.count(kind) if kind else 0.0 for kind in kinds])
    return weight / weight.sum()


def had_right(answers: Answers) -> set[int]:
    """The rows of best answers that are likelier than every incorrect one: right by MC1."""
    found = set()
    for number in range(int(answers.question.max()) + 1):
        rows = (answers.question == number).nonzero()[:, 0]
        best = rows[answers.correct[rows]][0]
        if bool((answers.nats[best] > answers.nats[rows[~answers.correct[rows]]]).all()):
            found.add(int(best))
    return found


def _best_first(question: Question) -> tuple[str, ...]:
    best = question.best_answer
    return (best, *(answer for answer in question.correct_answers if answer != best))
