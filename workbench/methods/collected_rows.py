"""Rows of gradients of a training set's answers and texts: what a natural gradient is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.data.questions import Question, QuestionSet
from workbench.editing.added_vectors import AddedVector
from workbench.editing.affine_edits import AffineChange
from workbench.editing.generation import written
from workbench.editing.state_edits import StateEdit
from workbench.methods.answer_gradients import Reader, fit_reader, gradient_rows, seed_of
from workbench.models.identity import Model, identify
from workbench.models.passes import Place
from workbench.models.prompts import Encoded, PromptFormat, encode, prompt_format
from workbench.stages.gain_per_nat import Answers, Kernel, TextKind, Texts

WEIGHT: Mapping[TextKind, float] = {"own": 0.2, "right": 0.6, "correct": 0.2}
"""Of the kinds of texts in A: where there is least to gain and most to lose counts most."""
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

    def turned(self, count: int) -> list[bool]:
        """Which questions' answers change sides: half of them where labels are shuffled."""
        if not self.shuffle_labels:
            return [False] * count
        order = np.random.default_rng([self.seed, 7]).permutation(count)
        half = set(order[: count // 2].tolist())
        return [number in half for number in range(count)]


@dataclass(frozen=True)
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

    def left_out(self, kind: TextKind, questions: Bool[Tensor, " question"]) -> list[Encoded]:
        """The texts of a kind to some questions, each once."""
        rows = self.texts.of(kind) & questions[self.texts.question]
        return [self.encoded[number] for number in sorted(set(self.texts.number[rows].tolist()))]

    def edit(
        self, model: Model, coefficients: Float[Tensor, " row"], features: int
    ) -> AddedVector | AffineChange:
        """The change that a combination of the rows is.

        Args:
            model: the bridge.
            coefficients: of all rows.
            features: so many first ones are used.
        """
        reader = self.reader
        theta = self.combined(coefficients.float(), features) * reader.spread[:, None, None]
        how: dict[str, Any] = {"places": reader.places, "alpha": 1.0, "model": identify(model)}
        if not features:
            return AddedVector(vector=theta[:, 0], **how)
        return AffineChange(
            vector=theta[:, 0], vectors=theta[:, 1:], mean=reader.mean,
            axes=reader.axes[..., :features].contiguous(), bound=reader.bound, **how,
        )  # fmt: skip

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
    style = prompt_format(what.style)
    turned = what.turned(len(train))
    sides = [
        (q.incorrect_answers, _best_first(q)) if turn else (_best_first(q), q.incorrect_answers)
        for q, turn in zip(train, turned, strict=True)
    ]
    asked = [q.question for q in train]
    answered = [
        (number, encode(model, question, text, style), correct)
        for number, (question, both) in enumerate(zip(asked, sides, strict=True))
        for side, correct in zip(both, (True, False), strict=True)
        for text in islice(side, what.answers)
    ]
    own = written(
        model, [encode(model, one, None, style) for one in asked],
        max_new_tokens=what.max_new_tokens, batch_size=batch_size,
    )  # fmt: skip
    how: dict[str, Any] = {"seed": what.seed, "batch_size": min(batch_size, MOST_TOGETHER)}
    reader = fit_reader(
        model, own, [one for _, one, _ in answered], what.places, what.features, what.bound,
        batch_size,
    )  # fmt: skip
    bar = "gradients" if progress else None
    gains, nats = gradient_rows(model, [one for _, one, _ in answered], reader, bar=bar, **how)
    question = torch.tensor([number for number, _, _ in answered])
    correct = torch.tensor([right for _, _, right in answered])
    answers = Answers(nats, question, correct)
    right = had_right(answers)
    texts: list[tuple[TextKind, int, Encoded]] = [("own", n, one) for n, one in enumerate(own)]
    texts += [
        ("right" if row in right else "correct", int(question[row]), answered[row][1])
        for row in correct.nonzero()[:, 0].tolist()
    ]
    encoded: list[Encoded] = []
    parts, kinds, of, numbers = [gains[0]], list[TextKind](), list[int](), list[int]()
    for kind in WEIGHT:
        some = [(n, one) for own_kind, n, one in texts if own_kind == kind]
        draws = what.draws * (MORE_DRAWS if kind == "right" else 1)
        if some:
            drawn, _ = gradient_rows(
                model, [one for _, one in some], reader, draws=draws, bar=bar, **how
            )
            parts.append(drawn.flatten(0, 1))
            kinds += [kind] * (draws * len(some))
            of += [n for n, _ in some] * draws
            numbers += list(range(len(encoded), len(encoded) + len(some))) * draws
            encoded += [one for _, one in some]
    weight = torch.tensor([WEIGHT[kind] / kinds.count(kind) for kind in kinds])
    return Rows(
        torch.cat(parts), reader, answers,
        Texts(kinds, torch.tensor(numbers), torch.tensor(of), weight / weight.sum()),
        tuple(one for _, one, _ in answered), tuple(encoded), len(train),
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


def _best_first(question: Question) -> tuple[str, ...]:
    best = question.best_answer
    return (best, *(answer for answer in question.correct_answers if answer != best))


def had_right(answers: Answers) -> set[int]:
    """The rows of best answers that are likelier than every incorrect one: right by MC1."""
    found = set()
    for number in range(int(answers.question.max()) + 1):
        rows = (answers.question == number).nonzero()[:, 0]
        best = rows[answers.correct[rows]][0]
        if bool((answers.nats[best] > answers.nats[rows[~answers.correct[rows]]]).all()):
            found.add(int(best))
    return found
