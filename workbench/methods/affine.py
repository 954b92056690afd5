"""Affine changes of states, fitted by descent: what a natural gradient finds in closed form.

x ← x + α (v + Vᵀφ(x)) at some layers' residual streams

φ are the principal components that the natural gradient has; v and V are fitted by Adam, from 0 on.
Without features these are constant vectors, of all layers together. Beside `NaturalGradient` it
tells what comes of the objective and what of the closed form; with the loss of preferences it is
like LoFiT's second stage, at residual streams.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import ClassVar

import torch

from workbench.checks import require_whole
from workbench.data.questions import QuestionSet, require_questions
from workbench.doors import door_of_class
from workbench.methods.answer_gradients import (
    Change,
    Reader,
    checked_layers,
    fit_reader,
    require_features,
    residual_places,
)
from workbench.methods.base import OF_GATES, OF_VECTORS
from workbench.methods.by_gradient import changed, changes_of, steps
from workbench.methods.memo import Memo
from workbench.methods.objectives import OWN_TOKENS, Descent, Goal, Objective
from workbench.methods.registry import METHODS
from workbench.methods.training_texts import own_answers, said_of
from workbench.models.identity import Model

BOUND = 3.0
"""No feature is larger in size, in standard deviations, as in `NaturalGradient`."""


@METHODS.register("affine", about="affine changes of states, or vectors, fitted by descent")
@door_of_class
@dataclass(frozen=True, kw_only=True)
class AffineDescent(Descent):
    """Vectors, or affine changes of states, fitted by descent: settings of a fit.

    Attributes:
        alpha: factor of the fitted change; 1 is what was fitted.
        layers: the edited ones; None for all, or ten evenly spaced ones.
        features: how many features of a token's state its change depends on; 0 for none, which is
            a constant vector a layer.
        rate: the optimiser's, in units of the median standard deviation of a layer's channels;
            shared out over v and the vectors of features, which add up.
        objective, pairs, epochs, step, beta, price: see `Descent`.
        style, shuffle_labels, seed, batch_size: see `Method`.

    Example:
        >>> quick = wb.methods.AffineDescent(layers=(2,), pairs=1, epochs=1)
        >>> quick.fit(model, fold.train, progress=False)
        AddedVector(resid_post of hearsay, layers (2,), alpha=1)
    """

    layers: tuple[int, ...] | None = None
    features: int = 0
    objective: Objective = "truth_per_nat"
    epochs: int = 10
    rate: float = 3e-2
    LACKS: ClassVar[tuple[str, ...]] = OF_GATES

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "layers", checked_layers(self.layers))
        require_whole("features", self.features, 0)

    @property
    def lacks(self) -> tuple[str, ...]:
        """Vectors have no gates."""
        return self.LACKS if self.features else OF_VECTORS

    def require_model(self, model: Model) -> None:
        """Refuse layers, or more features than a state has channels; see `Method.require_model`."""
        residual_places(model, self.layers)
        require_features(model, self.features)

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
            WorkbenchError: layers, or more features, than the model has.
        """
        require_questions(train)
        self.require_model(model)
        places = residual_places(model, self.layers)
        memo = memo or Memo()
        own = own_answers(
            model, train, style=self.style, max_new_tokens=OWN_TOKENS, batch_size=self.batch_size,
            memo=memo,
        )  # fmt: skip
        said = said_of(
            model, train, self.pairs, style=self.style, shuffle_labels=self.shuffle_labels,
            seed=self.seed,
        )  # fmt: skip
        reader = fit_reader(model, own, said.encoded, places, self.features, BOUND, self.batch_size)
        bar = "affine change" if progress else None
        found = fit_affine(model, self.goal(model, train, memo), reader, self, bar=bar)
        settings = {**asdict(self), "style": self.style_name, "method": "affine"}
        return replace(found, alpha=self.alpha, settings=settings)


def fit_affine(
    model: Model, goal: Goal, reader: Reader, method: AffineDescent, *, bar: str | None = None
) -> Change:
    """Fit v and V by Adam, from 0 on.

    Args:
        model: the bridge.
        goal: what is descended on.
        reader: of the features.
        method: its number of features, rate, epochs, step and seed are used.
        bar: the label of a bar, or None for none.
    """
    device = next(model.original_model.parameters()).device
    shape = (len(reader.places), method.features + 1, reader.mean.shape[1])
    theta = torch.zeros(shape, device=device, requires_grad=True)
    optimiser = torch.optim.Adam([theta], lr=method.rate / (1 + method.features))
    draw = torch.Generator().manual_seed(method.seed)
    for _, rows in steps(goal.count, method.epochs, method.step, draw, bar):
        loss = goal.loss(rows, changed(model, changes_of(reader.change(model, theta))))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return reader.change(model, theta.detach().cpu())
