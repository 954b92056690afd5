"""A natural gradient: the change of the states that gains most truth per nat, found in closed form.

x ← x + α (v + Vᵀφ(x)) at some layers' residual streams

φ are a few principal components of the token's own state; v and V together are the direction

    Θ = (A + r·1)⁻¹ b

of most gain at a given KL, to first order: b is the gradient of MC2 over training questions, A the
Fisher information of answers' tokens, whose quadratic form is twice the KL. Left-out training
questions weight the answers, say where α = 1 is, and choose r and the number of features where none
is given. Nothing is fitted by descent.
The workbench's own method; see docs/natural_gradient.md for what it owes to whom.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import torch

from workbench.checks import require_number, require_whole
from workbench.data.questions import QuestionSet, require_questions
from workbench.doors import door_of_class
from workbench.errors import WorkbenchError
from workbench.methods.answer_gradients import (
    Change,
    checked_layers,
    require_features,
    residual_places,
)
from workbench.methods.base import OF_GATES, OF_VECTORS, Method
from workbench.methods.collected_rows import Collection, Rows, collected, looked_again
from workbench.methods.looks import Look, calibrated, cost_of
from workbench.methods.memo import Memo
from workbench.methods.registry import METHODS
from workbench.models.identity import Model
from workbench.stages.gain_per_nat import (
    Choice,
    Expected,
    choose,
    folds_of,
)

FEATURES, RIDGES = (0, 4, 8, 16), (0.3, 1.0, 3.0, 10.0)
"""What left-out questions choose among."""
FAR = 1.5
"""So many times as much as the budget, or as little, is warned of."""


@METHODS.register("natural_gradient", about="natural gradient: most gain per nat, in closed form")
@door_of_class
@dataclass(frozen=True, kw_only=True)
class NaturalGradient(Method):
    """Settings of a fit.

    Attributes:
        alpha: factor of the change; at 1 it costs about `budget`.
        layers: the edited ones; None for all, or ten evenly spaced ones.
        features: how many features of a token's state its change depends on; 0 for none, which is
            a constant vector a layer; None for the number among `FEATURES` that left-out questions
            choose.
        ridge: r, in units of A's trace over the number of texts; None for the one of `RIDGES` that
            they choose.
        budget: nats a token that the change may cost at α = 1, on the model's own answers or on
            those that it had right, whichever costs more; as measured on left-out questions.
        rounds: how often answers are weighted: those that are won already count for less.
        look_again: gradients are taken twice, of the unedited model and where the change that they
            make leads.
        temperature: of the weights; above 1 unlikely answers count for more.
        answers: of every question, at most so many correct and so many incorrect ones.
        token_draws: of every text's tokens, for the Fisher information.
        folds: that left-out questions form.
        bound: of features' size, in standard deviations.
        max_new_tokens: of the model's own answers.
        style, shuffle_labels, seed, batch_size: see `Method`; half of the questions change sides.

    Example:
        >>> natural = wb.methods.NaturalGradient(features=0, look_again=False)
        >>> natural.fit(model, fold.train, progress=False)
        AddedVector(resid_post of hearsay, layers (0, 1, 2, 3, 4), alpha=1)
    """

    layers: tuple[int, ...] | None = None
    features: int | None = 8
    ridge: float | None = 3.0
    budget: float = 0.1
    rounds: int = 4
    look_again: bool = True
    temperature: float = 1.5
    answers: int = 4
    token_draws: int = 2
    folds: int = 5
    bound: float = 3.0
    max_new_tokens: int = 30
    LACKS: ClassVar[tuple[str, ...]] = OF_GATES

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "layers", checked_layers(self.layers))
        if not isinstance(self.look_again, bool):
            raise WorkbenchError(f"look_again={self.look_again!r}", "true or false")
        for name in ("rounds", "answers", "token_draws", "max_new_tokens"):
            require_whole(name, getattr(self, name), 1)
        require_whole("folds", self.folds, 2)
        if self.features is not None:
            require_whole("features", self.features, 0)
        if self.ridge is not None:
            require_number("ridge", self.ridge, above=0)
        for name in ("budget", "temperature", "bound"):
            require_number(name, getattr(self, name), above=0)

    @property
    def lacks(self) -> tuple[str, ...]:
        """A constant vector has no gates."""
        return OF_VECTORS if self.features == 0 else self.LACKS

    @property
    def stage_order(self) -> str:
        """Those with more features first, whose gradients serve the others."""
        return repr((self.style_name, self.seed, f"{10**9 - self.most_features:010}"))

    def require_model(self, model: Model) -> None:
        """Refuse layers, or more features than a state has channels; see `Method.require_model`."""
        residual_places(model, self.layers)
        require_features(model, self.most_features)

    def fit(
        self,
        model: Model,
        train: QuestionSet,
        *,
        everything: QuestionSet | None = None,  # noqa: ARG002 - it does not leak
        memo: Memo | None = None,
        progress: bool = True,
    ) -> Change:
        """Fit on training questions; see `Method.fit`.

        Raises:
            WorkbenchError: fewer questions than folds, or layers that the model does not have.
        """
        require_questions(train)
        self.require_model(model)
        if len(train) < self.folds:
            raise WorkbenchError(
                f"{len(train)} training questions in {self.folds} folds", "one a fold at the least"
            )
        memo = memo or Memo()
        rows = self.rows(model, train, memo=memo, progress=progress)
        choice, told = self.chosen(rows)
        fold = folds_of(rows.questions, self.folds, self.seed)
        look, gains = Look(rows, choice, told.weights), {"expected_gain": told.gain}
        trials, length = calibrated(model, look, fold, self.budget, told.length)
        if self.look_again:
            rows, moved = memo.get(
                "second gradients", (tuple(train), replace(self, alpha=1.0)),
                lambda: looked_again(
                    model, rows, [one.scaled(length) for one in trials], fold, seed=self.seed,
                    batch_size=self.batch_size, progress=progress,
                ),
            )  # fmt: skip
            gains["measured_gain"] = float(rows.answers.gains(moved).mean())
            look = replace(look, rows=rows)
            trials, length = calibrated(model, look, fold, self.budget, length)
        cost = cost_of(model, look, fold, trials, length)
        if not self.budget / FAR < cost < self.budget * FAR:
            warnings.warn(
                f"at α = 1 left-out questions cost {cost:.3g} nats a token, and not the budget of "
                f"{self.budget:g}; a smaller budget is nearer to what the fit foresees",
                stacklevel=3,
            )
        everyone = torch.ones(len(train), dtype=torch.bool)
        settings = {
            **asdict(self), "style": self.style_name, "method": "natural_gradient",
            "chosen": {**choice._asdict(), **gains, "cost": cost},
        }  # fmt: skip
        return replace(look.change(model, everyone, length), alpha=self.alpha, settings=settings)

    def rows(
        self,
        model: Model,
        train: QuestionSet,
        *,
        memo: Memo | None = None,
        progress: bool = True,
    ) -> Rows:
        """Gradients of training answers: one backward pass an answer, and one a draw of a text.

        Args:
            model: the bridge.
            train: the questions.
            memo: what fits share; gradients of more features that are there serve as well.
            progress: show bars.
        """
        memo, what, questions = memo or Memo(), self.collection(model), tuple(train)
        kept = [
            other
            for known, other in memo.keys("gradients")
            if known == questions and other.features >= what.features
            and replace(other, features=what.features) == what
        ]  # fmt: skip
        what = kept[0] if kept else what
        how: dict[str, Any] = {"batch_size": self.batch_size, "progress": progress}
        return memo.get(
            "gradients", (questions, what), lambda: collected(model, train, what, **how)
        )

    def collection(self, model: Model) -> Collection:
        """What rows are collected of."""
        return Collection(
            residual_places(model, self.layers), self.most_features, self.answers, self.token_draws,
            self.bound, self.max_new_tokens, self.style, self.shuffle_labels, self.seed,
        )  # fmt: skip

    def chosen(self, rows: Rows) -> tuple[Choice, Expected]:
        """The choice that left-out questions gain most by, and what it is expected to do."""
        told = self.choices(rows)
        return max(told, key=lambda one: one[1].gain)

    def choices(self, rows: Rows) -> Iterator[tuple[Choice, Expected]]:
        """Every choice of features and ridge, and what it is expected to do; see `choose`.

        Raises:
            WorkbenchError: no rows, or rows with fewer features than are tried.
        """
        if not isinstance(rows, Rows):
            raise WorkbenchError(f"rows={rows!r:.80}", "those that `rows` collects")
        if self.most_features > rows.features:
            raise WorkbenchError(
                f"{self.most_features} features of {rows!r}", f"at most {rows.features}",
                "Rows are collected by a method with the most features that are to be tried.",
            )  # fmt: skip
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
