"""CLAS: the strength of a steering vector is a fitted linear function of the state.

x ← x + α (w_l·x + b_l) v_l at every layer l

v_l is given: the unit direction from incorrect to correct answers. Fitted are w_l and b_l, from 0
on, by the cross-entropy of correct answers, with Adam. Hsu et al. 2026, "Contextual Linear
Activation Steering of Language Models" (arXiv 2604.24693); there v_l comes from recursive feature
machines, which the authors say may be exchanged for any steering vectors.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch.nn.functional import normalize

from workbench.checks import require_number, require_one_of, require_share, require_whole
from workbench.data.questions import QuestionSet, require_questions
from workbench.doors import door_of_class
from workbench.editing.added_vectors import AddedVector
from workbench.editing.gates import Gate, Gated
from workbench.errors import WorkbenchError
from workbench.methods.base import Method
from workbench.methods.by_gradient import (
    Objective,
    Preference,
    changed,
    changes_of,
    objective,
    preferences,
    steps,
)
from workbench.methods.memo import Memo
from workbench.methods.registry import METHODS
from workbench.methods.states import answer_pairs, pair_states
from workbench.models.identity import Model, identify, shape_of
from workbench.models.passes import Place


@METHODS.register("clas", about="CLAS: the strength of vectors is a fitted function of the state")
@door_of_class
@dataclass(frozen=True, kw_only=True)
class ContextualLinear(Method):
    """Settings of a fit.

    Attributes:
        alpha: factor of the fitted change; 1 is what was fitted.
        layers: the edited ones; None for all.
        contextual: fit w too; otherwise b alone, a constant strength a layer: linear activation
            steering, which the paper compares with.
        objective: `likelihood`, the mean −log π of correct answers' tokens, as published; or
            `preference`, LoFiT's loss over pairs of a correct and an incorrect answer, as which it
            can be compared with LoFiT alone for its gate.
        pairs: at most so many pairs of every question; None for all.
        epochs: how often all are gone through.
        step: pairs in a step of the optimiser.
        rate: the optimiser's, for w and b.
        beta: of the preference.
        style, shuffle_labels, seed, batch_size: see `Method`; half of the pairs change sides.

    Example:
        >>> quick = wb.methods.ContextualLinear(layers=(2,), pairs=1, epochs=1)
        >>> quick.fit(model, fold.train, progress=False)
        Gated(resid_post of hearsay, layers (2,), alpha=1, linear gate)
    """

    layers: tuple[int, ...] | None = None
    contextual: bool = True
    objective: Objective = "likelihood"
    pairs: int | None = 4
    epochs: int = 8
    step: int = 8
    rate: float = 3e-3
    beta: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("objective", self.objective, Objective)
        if not isinstance(self.contextual, bool):
            raise WorkbenchError(f"contextual={self.contextual!r}", "true or false")
        if self.pairs is not None:
            require_whole("pairs", self.pairs, 1)
        for name in ("epochs", "step"):
            require_whole(name, getattr(self, name), 1)
        require_share("rate", self.rate)
        require_number("beta", self.beta, above=0)

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
        preferred = preferences(model, train, self, self.pairs)
        gate = fit_gate(model, preferred, inner, self, bar="gates" if progress else None)
        settings = {**asdict(self), "style": self.style_name, "method": "clas"}
        return Gated.around(inner, gate, alpha=self.alpha, settings=settings)


def fit_gate(
    model: Model,
    preferred: list[Preference],
    inner: AddedVector,
    method: ContextualLinear,
    *,
    bar: str | None = None,
) -> Gate:
    """Fit w and b of every place by Adam, from 0 on.

    Args:
        model: the bridge.
        preferred: answers to fit on.
        inner: what is gated.
        method: its objective, rate, epochs, β and sizes are used.
        bar: the label of a bar, or None for none.
    """
    loss_of = objective(
        model, preferred, method.objective, beta=method.beta, batch_size=method.batch_size
    )
    device = next(model.original_model.parameters()).device
    weight = torch.zeros_like(inner.vector)[:, None].to(device)
    weight.requires_grad_(method.contextual)
    bias = torch.zeros(len(inner.places), 1, device=device, dtype=weight.dtype, requires_grad=True)
    fitted = [weight, bias] if method.contextual else [bias]
    optimiser = torch.optim.Adam(fitted, lr=method.rate)
    draw = torch.Generator().manual_seed(method.seed)
    for _, rows in steps(len(preferred), method.epochs, method.step, draw, bar):
        gated = Gated.around(inner, Gate(weight, bias, "linear"))
        loss = loss_of(rows, changed(model, changes_of(gated)))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return Gate(weight.detach().cpu(), bias.detach().cpu(), "linear")
