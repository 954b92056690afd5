"""Edits of heads: what is added to which of them, and how strongly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from workbench.editing.interventions import Intervention, Positions, require_one_of
from workbench.errors import WorkbenchError
from workbench.models.identity import ModelIdentity
from workbench.models.prompts import AnswerStart
from workbench.stages.misalignment import require_beta
from workbench.stages.uncertainty import UncertaintyKind, require_kind

StrengthKind = Literal["adaptive", "misalignment", "uncertainty", "constant", "resampled"]
TENSORS = ("direction", "spread", "coefficient", "intercept")


@dataclass(frozen=True, repr=False)
class Edit(Intervention, kind="heads"):
    """A fitted edit of some heads of a model: z ← z + α·σ·s·θ.

    Attributes:
        heads: (layer, head) pairs, best first; the tensors below have a row for each. Different
            ones, but that different goals may share heads.
        direction: unit vectors θ.
        spread: σ, in the units of z.
        alpha: the strength's common factor, in units of σ.
        beta: weight of p̂ against u.
        strength: `adaptive`, s = 1 + β·p̂ + (1 − β)·u; `misalignment` and `uncertainty`, the same
            without the term of u or of p̂; `constant`, s = 1 (ITI); `resampled`, s of `strengths`,
            a row drawn by position and token (a control).
        uncertainty: how u is read off the residual stream.
        coefficient, intercept: the misalignment estimators; unused where strength is constant.
        answer_start, model, settings, positions: see `Intervention`.
        goals: of a combination, every row's goal; empty otherwise. See `combine`.
        threshold: least p̂ of a position that is edited, a head; all are where it is left out.
        strengths: what `resampled` draws from.

    Example:
        >>> edit
        Edit(4 heads of hearsay, layers (1, 2), alpha=5, adaptive strength)
        >>> edit.heads
        ((1, 1), (1, 2), (2, 5), (2, 3))
        >>> edit.direction.shape
        torch.Size([4, 20])
    """

    heads: tuple[tuple[int, int], ...]
    direction: Float[Tensor, "edited d_head"]
    spread: Float[Tensor, " edited"]
    coefficient: Float[Tensor, "edited d_head"]
    intercept: Float[Tensor, " edited"]
    alpha: float
    beta: float
    strength: StrengthKind
    uncertainty: UncertaintyKind
    answer_start: AnswerStart
    model: ModelIdentity
    settings: Mapping[str, Any] = field(default_factory=dict)
    goals: tuple[str, ...] = ()
    positions: Positions = field(default_factory=Positions)
    threshold: Float[Tensor, " edited"] | None = None
    strengths: Float[Tensor, "sample edited"] | None = None

    def __post_init__(self) -> None:
        self.require_sound()
        require_beta(self.beta)
        require_kind(self.uncertainty)
        require_one_of("strength", self.strength, StrengthKind)
        layers, heads = self.model.shape.layers, self.model.shape.heads
        known = [0 <= layer < layers and 0 <= head < heads for layer, head in self.heads]
        goals = self.goals or ("",) * len(self.heads)
        if len(goals) != len(self.heads):
            raise WorkbenchError(f"{len(goals)} goals of {len(self.heads)} heads", "one a head")
        twice = len(set(zip(self.heads, goals, strict=True))) < len(self.heads)
        if not self.heads or not all(known) or twice:
            raise WorkbenchError(
                f"an edit of the heads {list(self.heads)}",
                f"different (layer, head) pairs of {layers} layers x {heads} heads",
            )
        rows, width = len(self.heads), self.model.shape.d_head
        shapes = ((rows, width), (rows,), (rows, width), (rows,))
        for name, shape in zip(TENSORS, shapes, strict=True):
            self.require_finite(name, shape)
        if self.threshold is not None:
            self.require_finite("threshold", (rows,))
        if (self.strength == "resampled") != (self.strengths is not None):
            raise WorkbenchError(
                f"strength={self.strength!r} {'with' if self.strengths is not None else 'without'} "
                "strengths",
                "strengths to draw from where it is 'resampled', and there alone",
            )
        if self.strengths is not None:
            self.require_finite("strengths", (max(1, len(self.strengths)), rows))

    def __repr__(self) -> str:
        return (
            f"Edit({len(self.heads)} heads of {self.model.name}, layers {self.layers}, "
            f"alpha={self.alpha:g}, {self.strength} strength)"
        )

    @property
    def layers(self) -> tuple[int, ...]:
        """The edited layers, ascending."""
        return tuple(sorted({layer for layer, _ in self.heads}))

    @property
    def label(self) -> str:
        """Heads and strength, of a combination every goal's."""
        goals = dict.fromkeys(self.goals)
        strengths = ", ".join(f"{goal} {self.settings[goal]['alpha']:g}" for goal in goals)
        times = f", all times {self.alpha:g}" if goals and self.alpha != 1 else ""
        return f"{len(self.heads)} heads, alpha {strengths or format(self.alpha, 'g')}{times}"

    @property
    def shares_heads(self) -> bool:
        """Whether several goals edit the same head."""
        return len(set(self.heads)) < len(self.heads)

    @property
    def reads_uncertainty(self) -> UncertaintyKind | None:
        """The kind of u that the strength depends on; None where it depends on none."""
        return self.uncertainty if self.factors[1] else None

    @property
    def factors(self) -> tuple[float, float]:
        """What p̂ and u count in the strength: β and 1 − β, or 0 where it is without them."""
        misaligned = self.beta if self.strength in ("adaptive", "misalignment") else 0.0
        uncertain = 1 - self.beta if self.strength in ("adaptive", "uncertainty") else 0.0
        return misaligned, uncertain
