"""CLAS: the strength of a steering vector is a fitted linear function of the state.

x ← x + α (w_l·x + b_l) v_l at every layer l

v_l is given: the unit direction from incorrect to correct answers. Fitted are w_l and b_l, from 0
on, by the cross-entropy of correct answers, with Adam. Hsu et al. 2026, "Contextual Linear
Activation Steering of Language Models" (arXiv 2604.24693); there v_l comes from recursive feature
machines, which the authors say may be exchanged for any steering vectors.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from torch.nn.functional import normalize

from workbench.data.questions import QuestionSet, require_questions
from workbench.doors import door_of_class
from workbench.editing.added_vectors import AddedVector
from workbench.editing.gates import Gate, Gated
from workbench.errors import WorkbenchError
from workbench.methods.base import OF_GATES
from workbench.methods.by_gradient import changed, changes_of, steps
from workbench.methods.memo import Memo
from workbench.methods.objectives import Descent, Goal, Objective
from workbench.methods.registry import METHODS
from workbench.methods.states import answer_pairs, pair_states
from workbench.models.identity import Model, identify, shape_of
from workbench.models.passes import Place


@METHODS.register("clas", about="CLAS: the strength of vectors is a fitted function of the state")
@door_of_class
@dataclass(frozen=True, kw_only=True)
class ContextualLinear(Descent):
    """Settings of a fit.

    Attributes:
        alpha: factor of the fitted change; 1 is what was fitted.
        layers: the edited ones; None for all.
        contextual: fit w too; otherwise b alone, a constant strength a layer: linear activation
            steering, which the paper compares with.
        objective: `likelihood`, as published; by `preference`, LoFiT's, it can be compared with
            LoFiT alone for its gate; see `Descent`.
        pairs, epochs, step, rate, beta, price: see `Descent`.
        style, shuffle_labels, seed, batch_size: see `Method`.

    Example:
        >>> quick = wb.methods.ContextualLinear(layers=(2,), pairs=1, epochs=1)
        >>> quick.fit(model, fold.train, progress=False)
        Gated(resid_post of hearsay, layers (2,), alpha=1, linear gate)
    """

    layers: tuple[int, ...] | None = None
    contextual: bool = True
    objective: Objective = "likelihood"
    epochs: int = 8
    rate: float = 3e-3
    LACKS: ClassVar[tuple[str, ...]] = OF_GATES

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.contextual, bool):
            raise WorkbenchError(f"contextual={self.contextual!r}", "true or false")

    def fit(
        self,
        model: Model,
        train: QuestionSet,
        *,
        everything: QuestionSet | None = None,  # noqa: ARG002 - it does not leak
        memo: Memo | None = None,
        progress: bool = True,
    ) -> Gated:
        """Fit on training questions; see `Method.fit`."""
        require_questions(train)
        shape = shape_of(model)
        layers = range(shape.layers) if self.layers is None else self.layers
        if not layers or not {*layers} <= {*range(shape.layers)}:
            raise WorkbenchError(f"layers={self.layers}", f"some of 0 to {shape.layers - 1}")
        places: tuple[Place, ...] = tuple(("resid_post", layer) for layer in layers)
        pairs = answer_pairs(train, shuffle_labels=self.shuffle_labels, seed=self.seed)
        sides = pair_states(
            model, pairs, places, style=self.style, batch_size=self.batch_size, memo=memo
        )
        vector = normalize(torch.stack([(c - i).mean(dim=0) for c, i in sides]), dim=1)
        inner = AddedVector(
            places=places, vector=vector, alpha=1.0, model=identify(model),
            settings={"style": self.style_name},
        )  # fmt: skip
        bar = "gates" if progress else None
        gate = fit_gate(model, self.goal(model, train, memo), inner, self, bar=bar)
        settings = {**asdict(self), "style": self.style_name, "method": "clas"}
        return Gated.around(inner, gate, alpha=self.alpha, settings=settings)


def fit_gate(
    model: Model,
    goal: Goal,
    inner: AddedVector,
    method: ContextualLinear,
    *,
    bar: str | None = None,
) -> Gate:
    """Fit w and b of every place by Adam, from 0 on.

    Args:
        model: the bridge.
        goal: what is descended on.
        inner: what is gated.
        method: its rate, epochs and sizes are used.
        bar: the label of a bar, or None for none.
    """
    device = next(model.original_model.parameters()).device
    weight = torch.zeros_like(inner.vector)[:, None].to(device)
    weight.requires_grad_(method.contextual)
    bias = torch.zeros(len(inner.places), 1, device=device, dtype=weight.dtype, requires_grad=True)
    fitted = [weight, bias] if method.contextual else [bias]
    optimiser = torch.optim.Adam(fitted, lr=method.rate)
    draw = torch.Generator().manual_seed(method.seed)
    for _, rows in steps(goal.count, method.epochs, method.step, draw, bar):
        gated = Gated.around(inner, Gate(weight, bias, "linear"))
        loss = goal.loss(rows, changed(model, changes_of(gated)))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return Gate(weight.detach().cpu(), bias.detach().cpu(), "linear")
