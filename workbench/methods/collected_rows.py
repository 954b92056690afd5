"""Rows of gradients of a training set's answers and texts: what a natural gradient is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.data.questions import QuestionSet
from workbench.editing.state_edits import StateEdit
from workbench.methods.answer_gradients import Change, Reader, fit_reader, gradient_rows, seed_of
from workbench.methods.training_texts import (
    WEIGHT,
    own_answers,
    said_of,
    texts_of,
    weights_of,
)
from workbench.models.identity import Model
from workbench.models.passes import Place
from workbench.models.prompts import Encoded, PromptFormat
from workbench.stages.gain_per_nat import Answers, Kernel, TextKind, Texts

MORE_DRAWS = 4
"""So many times as many of texts that the model had right: they are few."""
MOST_TOGETHER = 16
"""Texts of a batch whose logits, and the graph to them, are held."""


@dataclass(frozen=True)
class Collection:
    """What rows are collected of; see `NaturalGradient` for each."""

    places: tuple[Place, ...]
    features: int
    answers: int
    draws: int
    bound: float
    max_new_tokens: int
    style: str | PromptFormat
    shuffle_labels: bool
    seed: int


@dataclass(frozen=True, repr=False)
class Rows:
    """Gradients of all training answers.

    Attributes:
        values: of the answers, then of the texts.
        reader: of the features.
        answers: what the first rows are.
        texts: what the others are.
        said: the answers themselves.
        encoded: the texts themselves, by their numbers.
        questions: how many there are.
    """

    values: Float[Tensor, "row place feature_and_one channel"]
    reader: Reader
    answers: Answers
    texts: Texts
    said: tuple[Encoded, ...]
    encoded: tuple[Encoded, ...]
    questions: int

    def __repr__(self) -> str:
        return (
            f"Rows({self.questions} questions, {len(self.said)} answers, {len(self.texts.kind)} "
            f"draws of texts, {self.values.shape[1]} places, {self.features} features)"
        )

    @property
    def features(self) -> int:
        """How many features of a state they have."""
        return self.values.shape[2] - 1

    def left_out(self, kind: TextKind, questions: Bool[Tensor, " question"]) -> list[Encoded]:
        """The texts of a kind to some questions, each once."""
        rows = self.texts.of(kind) & questions[self.texts.question]
        return [self.encoded[number] for number in sorted(set(self.texts.number[rows].tolist()))]

    def edit(self, model: Model, coefficients: Float[Tensor, " row"], features: int) -> Change:
        """The change that a combination of the rows is.

        Args:
            model: the bridge.
            coefficients: of all rows.
            features: so many first ones are used.
        """
        return self.reader.change(model, self.combined(coefficients.float(), features))

    def kernel(self, features: int) -> Kernel:
        """Inner products of the rows with the first so many features."""
        flat = self.values[:, :, : features + 1].flatten(start_dim=1)
        gram = torch.zeros(len(flat), len(flat))
        for part in torch.split(flat, 1 << 14, dim=1):
            own = part.float()
            gram += own @ own.T
        return Kernel(gram, self.answers, self.texts)

    def combined(
        self, coefficients: Float[Tensor, " row"], features: int
    ) -> Float[Tensor, "place feature_and_one channel"]:
        """The sum of the rows, each times its coefficient."""
        shape = self.values[0, :, : features + 1].shape
        found = torch.zeros(shape.numel())
        for part, own in zip(
            torch.split(self.values, 256), torch.split(coefficients, 256), strict=True
        ):
            found += own @ part[:, :, : features + 1].flatten(start_dim=1).float()
        return found.view(shape)


def collected(
    model: Model,
    train: QuestionSet,
    what: Collection,
    *,
    batch_size: int = 32,
    progress: bool = True,
) -> Rows:
    """Gradients of training answers: one backward pass an answer, and one a draw of a text.

    Args:
        model: the bridge.
        train: the questions.
        what: what is collected.
        batch_size: answers run together.
        progress: show bars.
    """
    said = said_of(
        model, train, what.answers, style=what.style, shuffle_labels=what.shuffle_labels,
        seed=what.seed,
    )  # fmt: skip
    own = own_answers(
        model, train, style=what.style, max_new_tokens=what.max_new_tokens, batch_size=batch_size
    )
    how: dict[str, Any] = {"seed": what.seed, "batch_size": min(batch_size, MOST_TOGETHER)}
    reader = fit_reader(
        model, own, said.encoded, what.places, what.features, what.bound, batch_size
    )
    bar = "gradients" if progress else None
    gains, nats = gradient_rows(model, said.encoded, reader, bar=bar, **how)
    texts = texts_of(own, said, nats)
    parts, kinds, of, numbers = [gains[0]], list[TextKind](), list[int](), list[int]()
    for kind in WEIGHT:
        some = [number for number, own_kind in enumerate(texts.kind) if own_kind == kind]
        draws = what.draws * (MORE_DRAWS if kind == "right" else 1)
        if some:
            drawn, _ = gradient_rows(
                model,
                [texts.encoded[number] for number in some],
                reader,
                draws=draws,
                bar=bar,
                **how,
            )
            parts.append(drawn.flatten(0, 1))
            kinds += [kind] * (draws * len(some))
            of += [texts.question[number] for number in some] * draws
            numbers += some * draws
    return Rows(
        torch.cat(parts), reader, said.answers(nats),
        Texts(kinds, torch.tensor(numbers), torch.tensor(of), weights_of(kinds)),
        said.encoded, texts.encoded, len(train),
    )  # fmt: skip


def looked_again(
    model: Model,
    rows: Rows,
    trials: Sequence[StateEdit],
    fold: Int[Tensor, " question"],
    *,
    seed: int = 0,
    batch_size: int = 32,
    progress: bool = True,
) -> tuple[Rows, Float[Tensor, " answer"]]:
    """Gradients where changes lead, of questions that they have not seen.

    Of answers it is the mean of both that counts, of texts both stand side by side: what a change
    gains, and what it costs, along its way.

    Args:
        model: the bridge.
        rows: what was collected before.
        trials: of every fold, the change that was fitted without it.
        fold: of every question.
        seed: draws texts' tokens.
        batch_size: texts run together.
        progress: show bars.

    Returns:
        The rows, and how far every answer's log-probability has moved.
    """
    count, texts = len(rows.said), rows.texts
    gains, drawn = torch.empty_like(rows.values[:count]), torch.empty_like(rows.values[count:])
    nats = torch.empty_like(rows.answers.nats)
    how: dict[str, Any] = {
        "batch_size": min(batch_size, MOST_TOGETHER), "bar": "gradients" if progress else None
    }  # fmt: skip
    for number, trial in enumerate(trials):
        own = (fold[rows.answers.question] == number).nonzero()[:, 0]
        some = [rows.said[row] for row in own.tolist()]
        (gains[own],), nats[own] = gradient_rows(model, some, rows.reader, edit=trial, **how)
        for order, kind in enumerate(WEIGHT):
            at = (texts.of(kind) & (fold[texts.question] == number)).nonzero()[:, 0]
            numbers = sorted(set(texts.number[at].tolist()))
            if numbers:
                found, _ = gradient_rows(
                    model, [rows.encoded[one] for one in numbers], rows.reader, edit=trial,
                    draws=len(at) // len(numbers), seed=seed_of(seed, number, order), **how,
                )  # fmt: skip
                drawn[at.view(len(found), -1)] = found
    both = Texts(
        (*texts.kind, *texts.kind), texts.number.repeat(2), texts.question.repeat(2),
        texts.weight.repeat(2) / 2,
    )  # fmt: skip
    along = (rows.values[:count].float() + gains.float()).div(2).half()
    values = torch.cat([along, rows.values[count:], drawn])
    return replace(rows, values=values, texts=both), nats - rows.answers.nats
