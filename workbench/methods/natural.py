"""A natural gradient: the change of the states that gains most truth per nat, found in closed form.

x ← x + α (v + Vᵀφ(x)) at some layers' residual streams

φ are a few principal components of the token's own state; v and V together are the direction

    Θ = (A + r·1)⁻¹ b

of most gain at a given KL, to first order: b is the gradient of MC2 over training questions, A the
Fisher information of answers' tokens, whose quadratic form is twice the KL. Left-out training
questions weight the answers, say where α = 1 is, and choose r and the number of features where none
is given. Nothing is fitted by descent: one backward pass an answer.
The workbench's own method; see docs/natural_gradient.md for what it owes to whom.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.checks import require_number, require_whole
from workbench.data.questions import Question, QuestionSet, require_questions
from workbench.doors import door_of_class
from workbench.editing.added_vectors import AddedVector
from workbench.editing.affine_edits import AffineChange
from workbench.editing.generation import generate
from workbench.errors import WorkbenchError
from workbench.methods.answer_gradients import Reader, divergences, fit_reader, gradient_rows
from workbench.methods.base import Method
from workbench.methods.memo import Memo
from workbench.methods.registry import METHODS
from workbench.models.identity import Model, identify, shape_of
from workbench.models.passes import Place
from workbench.models.prompts import Encoded, encode, prompt_format
from workbench.stages.gain_per_nat import (
    MEASURED,
    Answers,
    Choice,
    Expected,
    Kernel,
    TextKind,
    Texts,
    choose,
    folds_of,
)

FEATURES, RIDGES = (0, 4, 8, 16), (0.1, 0.3, 1.0, 3.0)
"""What left-out questions choose among."""
WEIGHT: Mapping[TextKind, float] = {"own": 0.2, "right": 0.6, "correct": 0.2}
"""Of the kinds of texts in A: where there is least to gain and most to lose counts most."""
MORE_DRAWS = 4
"""So many times as many of texts that the model had right: they are few."""
CALIBRATIONS = 3
"""How often the cost of a change is measured before α = 1 is said to be there."""
MOST_TOGETHER = 16
"""Texts of a batch whose logits, and the graph to them, are held."""
MOST_LAYERS = 10
"""By default at most so many are edited, evenly spaced: a row has as many parts."""


@METHODS.register("natural_gradient", about="natural gradient: most gain per nat, in closed form")
@door_of_class
@dataclass(frozen=True, kw_only=True)
class NaturalGradient(Method):
    """Settings of a fit.

    Attributes:
        alpha: factor of the change; at 1 it costs about `budget`.
        layers: the edited ones; None for all, or `MOST_LAYERS` evenly spaced ones.
        features: how many features of a token's state its change depends on; 0 for none, which is
            a constant vector a layer; None for the number among `FEATURES` that left-out questions
            choose.
        ridge: r, in units of A's trace over the number of texts; None for the one of `RIDGES` that
            they choose.
        budget: nats a token that the change may cost at α = 1, on the model's own answers or on
            those that it had right, whichever costs more; as measured on left-out questions.
        rounds: how often answers are weighted: those that are won already count for less.
        temperature: of the weights; above 1 unlikely answers count for more.
        answers: of every question, at most so many correct and so many incorrect ones.
        draws: of every text's tokens, for the Fisher information.
        folds: that left-out questions form.
        bound: of features' size, in standard deviations.
        max_new_tokens: of the model's own answers.
        style, shuffle_labels, seed, batch_size: see `Method`; half of the questions change sides.

    Example:
        >>> natural = wb.methods.NaturalGradient(features=0, ridge=3.0)
        >>> natural.fit(model, fold.train, progress=False)
        AddedVector(resid_post of hearsay, layers (0, 1, 2, 3, 4), alpha=1)
    """

    layers: tuple[int, ...] | None = None
    features: int | None = 8
    ridge: float | None = 1.0
    budget: float = 0.1
    rounds: int = 4
    temperature: float = 1.5
    answers: int = 4
    draws: int = 2
    folds: int = 5
    bound: float = 3.0
    max_new_tokens: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rounds", "answers", "draws", "max_new_tokens"):
            require_whole(name, getattr(self, name), 1)
        require_whole("folds", self.folds, 2)
        if self.features is not None:
            require_whole("features", self.features, 0)
        if self.ridge is not None:
            require_number("ridge", self.ridge, above=0)
        for name in ("budget", "temperature", "bound"):
            require_number(name, getattr(self, name), above=0)

    def fit(
        self,
        model: Model,
        train: QuestionSet,
        *,
        everything: QuestionSet | None = None,  # noqa: ARG002 - it does not leak
        memo: Memo | None = None,
        progress: bool = True,
    ) -> AddedVector | AffineChange:
        """Fit on training questions; see `Method.fit`.

        Raises:
            WorkbenchError: fewer questions than folds, or layers that the model does not have.
        """
        require_questions(train)
        if len(train) < self.folds:
            raise WorkbenchError(
                f"{len(train)} training questions in {self.folds} folds", "one a fold at the least"
            )
        key = (
            tuple(train), self.places(model), self.style, self.shuffle_labels, self.seed,
            self.answers, self.draws, self.bound, self.max_new_tokens, self.most_features,
        )  # fmt: skip
        rows = (memo or Memo()).get(
            "gradients", key, lambda: collected(model, train, self, progress=progress)
        )
        choice, told = self.chosen(rows)
        kernel = rows.kernel(choice.features)
        factor = self.calibrated(model, rows, kernel, choice, told)
        everyone = torch.ones(len(train), dtype=torch.bool)
        found = kernel.solver(everyone, choice.ridge).solve(told.weights)
        settings = {
            **asdict(self), "style": self.style_name, "method": "natural_gradient",
            "chosen": {**choice._asdict(), "gain": told.gain},
        }  # fmt: skip
        edit = rows.edit(model, found * told.length * factor, choice.features)
        return replace(edit, alpha=self.alpha, settings=settings)

    def calibrated(
        self, model: Model, rows: Rows, kernel: Kernel, choice: Choice, told: Expected
    ) -> float:
        """What a change is multiplied with to cost the budget, measured on left-out questions.

        To second order it would be 1; but the KL of large changes grows faster than their square.

        Args:
            model: the bridge.
            rows: of the training questions.
            kernel: of as many features as were chosen.
            choice: the choice.
            told: what it is expected to do.
        """
        fold = folds_of(rows.questions, self.folds, self.seed)
        trials = []
        for number in range(self.folds):
            found = kernel.solver(fold != number, choice.ridge).solve(told.weights) * told.length
            trials.append(rows.edit(model, found, choice.features))
        factor = 1.0
        for _ in range(CALIBRATIONS):
            spent: dict[TextKind, list[Tensor]] = {kind: [] for kind in MEASURED}
            for number, trial in enumerate(trials):
                for kind in MEASURED:
                    texts = rows.left_out(kind, fold == number)
                    size = min(self.batch_size, MOST_TOGETHER)
                    spent[kind].append(divergences(model, texts, trial.scaled(factor), size))
            means = [float(torch.cat(own).mean()) for own in spent.values() if len(torch.cat(own))]
            factor *= (self.budget / max(means)) ** 0.5
        return factor

    def chosen(self, rows: Rows) -> tuple[Choice, Expected]:
        """The choice that left-out questions gain most by, and what it is expected to do."""
        told = self.choices(rows)
        return max(told, key=lambda one: one[1].gain)

    def choices(self, rows: Rows) -> Iterator[tuple[Choice, Expected]]:
        """Every choice of features and ridge, and what it is expected to do; see `choose`."""
        features = FEATURES if self.features is None else (self.features,)
        ridges = RIDGES if self.ridge is None else (self.ridge,)
        fold = folds_of(rows.questions, self.folds, self.seed)
        return choose(
            {one: rows.kernel(one) for one in features}, ridges, fold,
            budget=self.budget, rounds=self.rounds, temperature=self.temperature,
        )  # fmt: skip

    @property
    def most_features(self) -> int:
        """The largest number of features that is tried."""
        return max(FEATURES) if self.features is None else self.features

    def places(self, model: Model) -> tuple[Place, ...]:
        """Where it edits.

        Raises:
            WorkbenchError: layers that the model does not have.
        """
        count = shape_of(model).layers
        layers = self.layers
        if layers is None:
            layers = tuple(
                np.unique(np.linspace(0, count - 1, min(count, MOST_LAYERS)).astype(int))
            )
        if not layers or not {*layers} <= {*range(count)} or len({*layers}) < len(layers):
            raise WorkbenchError(f"layers={self.layers}", f"different ones of 0 to {count - 1}")
        return tuple(("resid_post", int(layer)) for layer in layers)


@dataclass(frozen=True)
class Rows:
    """Gradients of all training answers.

    Attributes:
        values: of the answers, then of the texts.
        reader: of the features.
        answers: what the first rows are.
        texts: what the others are.
        encoded: the texts themselves, by their numbers.
        questions: how many there are.
    """

    values: Float[Tensor, "row place feature_and_one channel"]
    reader: Reader
    answers: Answers
    texts: Texts
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
    model: Model, train: QuestionSet, method: NaturalGradient, *, progress: bool = True
) -> Rows:
    """Gradients of training answers: one backward pass an answer, and one a draw of a text.

    Args:
        model: the bridge.
        train: the questions.
        method: its sizes, style, seed and `shuffle_labels` are used.
        progress: show bars.
    """
    style, most = prompt_format(method.style), method.answers
    turned = _turned(len(train), method)
    sides = [
        (q.incorrect_answers, _best_first(q)) if turn else (_best_first(q), q.incorrect_answers)
        for q, turn in zip(train, turned, strict=True)
    ]
    asked = [q.question for q in train]
    answered = [
        (number, encode(model, question, text, style), correct)
        for number, (question, both) in enumerate(zip(asked, sides, strict=True))
        for side, correct in zip(both, (True, False), strict=True)
        for text in islice(side, most)
    ]
    own = written(model, [encode(model, one, None, style) for one in asked], method)
    how: dict[str, Any] = {"seed": method.seed, "batch_size": min(method.batch_size, MOST_TOGETHER)}
    reader = fit_reader(
        model, own, [one for _, one, _ in answered], method.places(model), method.most_features,
        method.bound, method.batch_size,
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
        draws = method.draws * (MORE_DRAWS if kind == "right" else 1)
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
        tuple(encoded), len(train),
    )  # fmt: skip


def _best_first(question: Question) -> tuple[str, ...]:
    best = question.best_answer
    return (best, *(answer for answer in question.correct_answers if answer != best))


def _turned(count: int, method: NaturalGradient) -> list[bool]:
    """Which questions' answers change sides: half of them where labels are shuffled."""
    if not method.shuffle_labels:
        return [False] * count
    order = np.random.default_rng([method.seed, 7]).permutation(count)
    half = set(order[: count // 2].tolist())
    return [number in half for number in range(count)]


def written(model: Model, prompts: Sequence[Encoded], method: NaturalGradient) -> list[Encoded]:
    """What the unedited model answers greedily."""
    found = generate(
        model, list(prompts), max_new_tokens=method.max_new_tokens, batch_size=method.batch_size
    )
    return [
        Encoded.of_tokens((*one.prompt_tokens, *one.tokens), len(one.prompt_tokens))
        for one in found
    ]


def had_right(answers: Answers) -> set[int]:
    """The rows of best answers that are likelier than every incorrect one: right by MC1."""
    found = set()
    for number in range(int(answers.question.max()) + 1):
        rows = (answers.question == number).nonzero()[:, 0]
        best = rows[answers.correct[rows]][0]
        if bool((answers.nats[best] > answers.nats[rows[~answers.correct[rows]]]).all()):
            found.add(int(best))
    return found
