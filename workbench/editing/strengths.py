"""How strongly an edit moves heads at a token: s = 1 + β·p̂ + (1 − β)·u (TAE, eq. 9), or s = 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from workbench.checks import require_one_of
from workbench.doors import door_of_class
from workbench.errors import WorkbenchError
from workbench.stages.misalignment import require_beta
from workbench.stages.uncertainty import UncertaintyKind, require_kind

StrengthKind = Literal["adaptive", "misalignment", "uncertainty", "constant"]


@door_of_class
@dataclass(frozen=True)
class Strength:
    """Which strength a token gets.

    Attributes:
        kind: `adaptive`, s = 1 + β·p̂ + (1 − β)·u; `misalignment` and `uncertainty`, the same
            without the term of u or of p̂; `constant`, s = 1 (ITI).
        beta: weight of p̂ against u.
        uncertainty: how u is read off the residual stream.

    Raises:
        WorkbenchError: another kind, or a β outside [0, 1].

    Example:
        >>> wb.editing.Strength("misalignment", beta=0.8).factors
        (0.8, 0.0)
    """

    kind: StrengthKind = "adaptive"
    beta: float = 0.5
    uncertainty: UncertaintyKind = "logit_lens"

    def __post_init__(self) -> None:
        require_one_of("strength", self.kind, StrengthKind)
        require_beta(self.beta)
        require_kind(self.uncertainty)

    @property
    def factors(self) -> tuple[float, float]:
        """What p̂ and u count: β and 1 − β, or 0 where the strength is without them."""
        misaligned = self.beta if self.kind in ("adaptive", "misalignment") else 0.0
        uncertain = 1 - self.beta if self.kind in ("adaptive", "uncertainty") else 0.0
        return misaligned, uncertain


@door_of_class
@dataclass(frozen=True, repr=False)
class Estimators:
    """Misalignment estimators of some heads: p̂ = sigmoid(w·z + b), a row a head.

    Attributes:
        coefficient: w.
        intercept: b.
        threshold: least p̂ of a position that is edited; all are where it is left out.

    Example:
        >>> z = acts[0].z[:, [1, 1, 2, 2], [1, 2, 5, 3]]  # the heads of the edit
        >>> edit.estimators.probability(z).shape == z.shape[:2]
        True
    """

    coefficient: Float[Tensor, "edited d_head"]
    intercept: Float[Tensor, " edited"]
    threshold: Float[Tensor, " edited"] | None = None

    def __post_init__(self) -> None:
        given = (self.coefficient, self.intercept, self.threshold)
        known = [own for own in given if own is not None]
        heads = {own.shape[:1] for own in known if isinstance(own, Tensor)}
        widths = [own.ndim if isinstance(own, Tensor) else 0 for own in known]
        if len(heads) != 1 or widths != [2, 1, 1][: len(known)]:
            shapes = [tuple(own.shape) if isinstance(own, Tensor) else own for own in known]
            raise WorkbenchError(
                f"estimators of {shapes}",
                "tensors [head, d_head] and [head], of as many heads",
            )

    def __repr__(self) -> str:
        heads, width = self.coefficient.shape
        return f"Estimators({heads} heads, {width} channels)"

    def probability(
        self, z: Float[Tensor, "*position edited d_head"]
    ) -> Float[Tensor, "*position edited"]:
        """p̂ of the token that follows each position, in [0, 1]."""
        return ((z * self.coefficient).sum(dim=-1) + self.intercept).sigmoid()
