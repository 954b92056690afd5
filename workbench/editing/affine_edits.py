"""Edits whose change of a state is an affine function of it.

x ← x + α (v + Vᵀ φ(x)), φ(x) = clip(Uᵀ(x − μ), ±c)

v is what a token gets in the mean, φ holds a few features of the token's own state, and V says how
the change differs with them. Along v a token gets the share 1 + φ(x)·Vv / |v|².
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.checks import require_number
from workbench.doors import door_of_class
from workbench.editing.added_vectors import AddedVector
from workbench.editing.state_edits import StateEdit, States, width_at
from workbench.errors import WorkbenchError


@door_of_class
@dataclass(frozen=True, repr=False, kw_only=True)
class AffineChange(StateEdit, kind="affine_change"):
    """Adds a vector that depends on a few features of the state.

    Attributes:
        vector: v, the change where all features are 0.
        vectors: V, what a feature of 1 adds to it.
        mean: μ, the state at which all features are 0.
        axes: U, what reads the features off the state.
        bound: c; no feature is larger in size, so that a state unlike all that was fitted on (a
            text's first token has a hundred times the norm of others) is changed no further.
        places, alpha, answer_start, model, settings, positions: see `StateEdit`.

    Example:
        >>> natural = wb.methods.NaturalGradient(features=4, layers=(2,), look_again=False)
        >>> edit = natural.fit(model, fold.train, progress=False)
        >>> edit
        AffineChange(resid_post of hearsay, layers (2,), alpha=1, 4 features)
    """

    vector: Float[Tensor, "place channel"]
    vectors: Float[Tensor, "place feature channel"]
    mean: Float[Tensor, "place channel"]
    axes: Float[Tensor, "place channel feature"]
    bound: float

    def __post_init__(self) -> None:
        super().__post_init__()
        widths = {width_at(self.model.shape, point) for point, _ in self.places}
        if len(widths) > 1 or self.vectors.ndim != 3 or not self.vectors.shape[1]:
            raise WorkbenchError(
                f"an affine change at {list(self.places)} of {tuple(self.vectors.shape)}",
                "places of one size, and vectors [place, feature, channel] of at least one feature",
            )
        count, features, width = len(self.places), self.vectors.shape[1], widths.pop()
        self.require_finite("vector", (count, width))
        self.require_finite("vectors", (count, features, width))
        self.require_finite("mean", (count, width))
        self.require_finite("axes", (count, width, features))
        require_number("bound", self.bound, above=0)

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, {self.vectors.shape[1]} features)"

    def features(self, number: int, state: States) -> Float[Tensor, "position feature"]:
        """φ of states.

        Args:
            number: of the place.
            state: as for `change`.
        """
        flat = state.flatten(start_dim=1)
        inner = (flat - self.mean[number].to(flat)) @ self.axes[number].to(flat)
        return inner.clamp(-self.bound, self.bound)

    def change(self, number: int, state: States) -> States:
        """The state and α·(v + Vᵀφ)."""
        moved = self.features(number, state) @ self.vectors[number].to(state)
        return state + (self.alpha * (self.vector[number].to(state) + moved)).view(state.shape)

    def gates(self, number: int, state: States) -> Float[Tensor, "position 1"]:
        """The share of v that each state gets along v; 0 where v is 0."""
        along = self.vector[number].to(state)
        size = along.square().sum()
        own = self.vectors[number].to(state) @ along / size.clamp(min=torch.finfo(size.dtype).tiny)
        return (1 + self.features(number, state) @ own[:, None]) * (size > 0)

    def evened(self, means: Float[Tensor, " gate"]) -> AddedVector:
        """The mean share of v at every token, and nothing that depends on it."""
        return AddedVector(
            places=self.places, vector=means.to(self.vector)[:, None] * self.vector,
            alpha=self.alpha, answer_start=self.answer_start, model=self.model,
            settings=self.settings, positions=self.positions,
        )  # fmt: skip
