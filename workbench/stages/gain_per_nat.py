"""The change of most gain per nat, to first order: a natural gradient with a cross-fitted ridge.

To first order in a change Θ an answer's log-probability moves by ⟨g, Θ⟩, and to second order the KL
of a text's tokens is ½ E⟨s, Θ⟩², s being the same gradient of tokens that the model itself draws:
A = E s sᵀ is the Fisher information. With weights w, what the measure gains per nat of every
answer, the most gain at a given KL is had along

    Θ = (A + r·1)⁻¹ b,  b = Σ w g

(Amari 1998, "Natural gradient works efficiently in learning"). A has far fewer rows than columns:
without r a change is free in every direction in which no text was seen, with r → ∞ it is the plain
gradient. What an r, and a number of features that a change may depend on, are good for is told by
questions that a fit left out. Everything is done with inner products of rows, which one Gram matrix
holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.errors import WorkbenchError

TextKind = Literal["own", "right", "correct"]
"""The model's own answers, correct ones that it had right, and other correct ones."""
PATH = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the way at which answers are weighted."""
MEASURED: tuple[TextKind, ...] = ("own", "right")
"""The kinds whose KL counts; the others say what else a change is to leave alone."""


@dataclass(frozen=True)
class Answers:
    """Answers to training questions, as far as their gain goes.

    Attributes:
        nats: log π of the unedited model.
        question: the number of the question of each.
        correct: whether it is.
    """

    nats: Float[Tensor, " answer"]
    question: Int[Tensor, " answer"]
    correct: Bool[Tensor, " answer"]

    def shares(
        self, moved: Float[Tensor, " answer"] | None = None, temperature: float = 1.0
    ) -> tuple[Float[Tensor, " answer"], Float[Tensor, " question"]]:
        """The share of every answer in its question's probability, and that of the correct ones.

        The latter is MC2 (Lin, Hilton & Evans 2022) at a temperature of 1.

        Args:
            moved: how far log-probabilities have moved, in nats.
            temperature: by which they are divided; a higher one looks at more answers.
        """
        nats = (self.nats if moved is None else self.nats + moved) / temperature
        count = int(self.question.max()) + 1
        largest = nats.new_full((count,), -torch.inf).scatter_reduce(
            0, self.question, nats, "amax", include_self=False
        )
        likely = (nats - largest[self.question]).exp()
        share = likely / likely.new_zeros(count).index_add(0, self.question, likely)[self.question]
        return share, share.new_zeros(count).index_add(0, self.question, share * self.correct)

    def weights(
        self, moved: Float[Tensor, " answer"] | None = None, temperature: float = 1.0
    ) -> Float[Tensor, " answer"]:
        """∂ mean MC2 / ∂ log π of every answer, times the temperature; see `shares`."""
        share, right = self.shares(moved, temperature)
        return share * (self.correct.to(share) - right[self.question]) / len(right)

    def along(
        self, moved: Float[Tensor, " answer"], shares: Sequence[float], temperature: float
    ) -> Float[Tensor, " answer"]:
        """Weights in the mean over shares of the way by which log-probabilities have moved."""
        return torch.stack([self.weights(one * moved, temperature) for one in shares]).mean(dim=0)

    def gains(self, moved: Float[Tensor, " answer"]) -> Float[Tensor, " question"]:
        """How far MC2 of every question moves."""
        return self.shares(moved)[1] - self.shares()[1]


@dataclass(frozen=True)
class Texts:
    """Texts whose KL counts, a row for every draw of their tokens.

    Attributes:
        kind: of each row.
        number: of the text of each; several draws have one.
        question: the number of the question of each.
        weight: its share in A; they sum to 1.
    """

    kind: Sequence[TextKind]
    number: Int[Tensor, " row"]
    question: Int[Tensor, " row"]
    weight: Float[Tensor, " row"]

    def of(self, kind: TextKind) -> Bool[Tensor, " row"]:
        """Which rows are of a kind."""
        return torch.tensor([one == kind for one in self.kind])


class Choice(NamedTuple):
    """What left-out questions choose among.

    Attributes:
        features: how many features of the state a change depends on.
        ridge: r, in units of A's trace over the number of texts.
    """

    features: int
    ridge: float


@dataclass(frozen=True)
class Expected:
    """What a choice is expected to do to questions that a fit has not seen.

    Attributes:
        gain: of MC2, at a KL of the budget.
        length: √(2·KL) in sample at which the budget is spent out of sample.
        weights: of the answers, at that gain.
    """

    gain: float
    length: float
    weights: Float[Tensor, " answer"]


@dataclass(frozen=True)
class Kernel:
    """Inner products of all rows, answers first, for a class of changes.

    Attributes:
        gram: of all rows.
        answers: what the first rows are.
        texts: what the others are.
    """

    gram: Float[Tensor, "row row"]
    answers: Answers
    texts: Texts

    def solver(self, keep: Bool[Tensor, " question"], ridge: float) -> Solver:
        """The solver that sees some of the questions alone.

        Args:
            keep: which.
            ridge: r, in units of A's trace over the number of texts.
        """
        count = len(self.answers.nats)
        answers = keep[self.answers.question].nonzero()[:, 0]
        texts = keep[self.texts.question].nonzero()[:, 0]
        weight = self.texts.weight[texts].double()
        scale = (weight / weight.sum()).sqrt()
        inner = self.gram[count:, count:][texts][:, texts].double() * scale[:, None] * scale
        r = ridge * float(inner.diagonal().sum()) / len(set(self.texts.number[texts].tolist()))
        if not r > 0:
            raise WorkbenchError("texts without gradients", "texts on which the model has choices")
        inner.diagonal().add_(r)
        factor, failed = torch.linalg.cholesky_ex(inner)
        if int(failed):
            raise WorkbenchError(f"ridge={ridge:g}, too small for these texts", "a larger one")
        return Solver(self, answers, texts, scale, r, factor)


@dataclass(frozen=True)
class Solver:
    """(A + r·1)⁻¹ b for any weights, in coordinates of the rows."""

    kernel: Kernel
    answers: Int[Tensor, " seen"]
    texts: Int[Tensor, " seen_text"]
    scale: Float[Tensor, " seen_text"]
    r: float
    factor: Float[Tensor, "seen_text seen_text"]

    def solve(self, weights: Float[Tensor, " answer"]) -> Float[Tensor, " row"]:
        """Θ as coefficients of all rows, of an in-sample KL of ½.

        Args:
            weights: of all answers; of those that it may not see they count nothing.
        """
        kernel, count = self.kernel, len(self.kernel.answers.nats)
        found = torch.zeros(len(kernel.gram), dtype=torch.float64)
        found[self.answers] = weights[self.answers].double()
        b = kernel.gram[count + self.texts][:, self.answers].double() @ found[self.answers]
        solved = torch.cholesky_solve((self.scale * b)[:, None], self.factor)[:, 0]
        found[count + self.texts] = -self.scale * solved
        found /= self.r
        moved = self.scale * (kernel.gram[count + self.texts].double() @ found)
        length = moved.norm()
        if not bool(length > 0):
            raise WorkbenchError(
                "answers whose gain no change moves",
                "correct and incorrect answers that differ, and a temperature that sees both",
            )
        return found.div(length)


def folds_of(questions: int, count: int, seed: int) -> Int[Tensor, " question"]:
    """The fold of every question, of as equal sizes as can be."""
    order = torch.randperm(questions, generator=torch.Generator().manual_seed(seed))
    fold = torch.empty(questions, dtype=torch.long)
    fold[order] = torch.arange(questions) % count
    return fold


def expected(
    kernel: Kernel, ridge: float, fold: Int[Tensor, " question"], *,
    budget: float, rounds: int, temperature: float,
) -> Expected:  # fmt: skip
    """What changes that were fitted without a question's fold do to it, all folds together.

    After the first round answers are weighted as they are in the mean along the way to the change
    of the round before, of a fold that has not seen them: questions that are soon won count for
    less. So it is the gain at the budget that is sought, and not that of the first step.

    Args:
        kernel: of all training questions.
        ridge: r, in units of A's trace over the number of texts.
        fold: of every question.
        budget: the KL, of the kind of texts that has most of it, at which the gain is told.
        rounds: how often answers are weighted.
        temperature: of the weights.
    """
    answers, texts, count = kernel.answers, kernel.texts, len(kernel.answers.nats)
    numbers = range(int(fold.max()) + 1)
    solvers = [kernel.solver(fold != number, ridge) for number in numbers]
    measured = [rows for kind in MEASURED if bool((rows := texts.of(kind)).any())]
    moved, length = torch.zeros(count), 0.0
    for _ in range(rounds):
        # In the first round nothing has moved, and they are those of the unedited model.
        weights = answers.along(moved.float(), PATH, temperature)
        score = torch.empty(len(kernel.gram), dtype=torch.float64)
        for number, solver in zip(numbers, solvers, strict=True):
            out = torch.cat([fold[answers.question] == number, fold[texts.question] == number])
            score[out] = kernel.gram[out].double() @ solver.solve(weights)
        worst = max(float(score[count:][rows].square().mean()) for rows in measured)
        length = (2 * budget / worst) ** 0.5
        moved = length * score[:count]
    return Expected(float(answers.gains(moved.float()).mean()), length, weights)


def choose(
    kernels: Mapping[int, Kernel], ridges: Sequence[float], fold: Int[Tensor, " question"], *,
    budget: float, rounds: int, temperature: float,
) -> Iterator[tuple[Choice, Expected]]:  # fmt: skip
    """What every choice is expected to do; see `expected`.

    Args:
        kernels: by number of features.
        ridges: values of r, in units of A's trace over the number of texts.
        fold: of every question.
        budget: see `expected`.
        rounds: see `expected`.
        temperature: see `expected`.
    """
    for features, kernel in kernels.items():
        for ridge in ridges:
            yield (
                Choice(features, ridge),
                expected(
                    kernel, ridge, fold, budget=budget, rounds=rounds, temperature=temperature
                ),
            )
