"""Conditions: whether an edit acts at all is decided once, by the state at the last prompt token.

x ← x + α·[met]·(T(x) − x), met where cos(h, tanh(c (c·h) / (c·c))) is on one side of a threshold;
h is the state at the condition's own place (CAST: Lee et al. 2025, "Programming Refusal with
Conditional Activation Steering", eqs. 2 and 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.checks import require_number
from workbench.doors import door_of_class
from workbench.editing.gates import Gate, Gated
from workbench.editing.interventions import Intervention
from workbench.editing.state_edits import StateEdit, States, width_at
from workbench.errors import WorkbenchError
from workbench.models.passes import Place

AFTER_THE_BLOCK = {"resid_post", "final_norm"}
"""Points at which a layer's `resid_post` is known."""


@door_of_class
@dataclass(frozen=True, repr=False)
class Condition:
    """When an edit acts.

    Attributes:
        layer: whose residual stream, as its block leaves it, is read.
        vector: c.
        threshold: of the similarity.
        above: met where the similarity is above the threshold; otherwise where it is not.

    Example:
        >>> import torch
        >>> always = wb.editing.Condition(0, torch.ones(160), threshold=-2.0, above=True)
        >>> always.met(torch.ones(2, 160)).tolist()
        [True, True]
    """

    layer: int
    vector: Float[Tensor, " d_model"]
    threshold: float
    above: bool

    def __post_init__(self) -> None:
        require_number("threshold", self.threshold)

    def __repr__(self) -> str:
        side = ">" if self.above else "≤"
        return f"Condition(similarity {side} {self.threshold:.3g} at layer {self.layer})"

    @property
    def place(self) -> Place:
        """Where it is read."""
        return "resid_post", self.layer

    def met(self, state: Float[Tensor, "row d_model"]) -> Bool[Tensor, " row"]:
        """Whether it is met, of states at last prompt tokens."""
        similar = similarity(state, self.vector.to(state))
        return similar > self.threshold if self.above else similar <= self.threshold


def similarity(
    state: Float[Tensor, "row d_model"], vector: Float[Tensor, " d_model"]
) -> Float[Tensor, " row"]:
    """The cosine of states and the hyperbolic tangent of their projections on c."""
    along = (state @ vector) / vector.square().sum()
    return torch.cosine_similarity(state, (along[:, None] * vector).tanh(), dim=-1)


@door_of_class
@dataclass(frozen=True, repr=False, kw_only=True)
class Conditional(StateEdit, kind="conditional"):
    """An edit of states that acts on the answers to some prompts and leaves the others alone.

    Attributes:
        inner: the edit, with an α of its own.
        condition: which; its layer is before the first edited one, or the same.
        places: the inner edit's.
        alpha: what the change is multiplied with.
        answer_start, model, settings, positions: see `StateEdit`; those of `inner` do not count.

    Example:
        >>> import torch
        >>> caa = wb.methods.ContrastiveAddition(layer=2).fit(model, fold.train, progress=False)
        >>> never = wb.editing.Condition(0, torch.ones(160), threshold=2.0, above=True)
        >>> wb.editing.Conditional(
        ...     places=caa.places, inner=caa, condition=never, alpha=1.0, model=caa.model
        ... )
        Conditional(resid_post of hearsay, layers (2,), alpha=1, Condition(similarity > 2 at
        layer 0))
    """

    parts: ClassVar[Mapping[str, type]] = {
        **Intervention.parts, "inner": StateEdit, "condition": Condition,
    }  # fmt: skip

    inner: StateEdit
    condition: Condition

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.inner, StateEdit) or self.inner.places != self.places:
            raise WorkbenchError(f"a condition of {self.inner!r}", "an edit of the same places")
        self.inner.require_inside()
        first = min(layer for _, layer in self.places)
        points = {point for point, layer in self.places if layer == first}
        same = points <= AFTER_THE_BLOCK
        if not 0 <= self.condition.layer < first + same:
            raise WorkbenchError(
                f"a condition at layer {self.condition.layer} of {self.inner!r}",
                "a layer that has run before the first edited state",
            )
        self.require_finite("condition.vector", (self.model.shape.d_model,))

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, {self.condition!r})"

    def change(self, number: int, state: States) -> States:
        """The state where the condition is met; who runs the model sees to that."""
        moved = self.inner.change(number, state) - state
        return state + self.alpha * moved

    def require_inside(self) -> None:
        """Refuse it: who runs the model asks the outermost edit for a condition."""
        raise WorkbenchError(
            f"{self!r} within another edit", "a condition around everything else",
            "Put the gate inside: the condition's edit may have one.",
        )  # fmt: skip

    def evened(self, means: Float[Tensor, " gate"]) -> Gated:
        """The share of prompts that meet the condition, of its change everywhere."""
        bias = means.view(len(self.places), 1)
        width = width_at(self.model.shape, self.places[0][0])
        gate = Gate(torch.zeros(len(bias), 1, width, dtype=bias.dtype), bias, "linear")
        return Gated.around(
            self.inner, gate, alpha=self.alpha, settings=self.settings, positions=self.positions
        )
