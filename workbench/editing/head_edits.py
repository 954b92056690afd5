"""Edits of heads: what is added to which of them, and how strongly."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.checks import is_whole
from workbench.doors import door_of_class
from workbench.editing.interventions import Intervention, Positions
from workbench.editing.strengths import Estimators, Strength
from workbench.errors import WorkbenchError
from workbench.models.identity import ModelIdentity
from workbench.models.prompts import AnswerStart
from workbench.stages.shortlists import Shortlists
from workbench.stages.uncertainty import UncertaintyKind


@dataclass(frozen=True)
class Reading:
    """How u is read off the residual stream.

    Attributes:
        kind: of uncertainty.
        shortlists: the words that it is read off; None for all.
    """

    kind: UncertaintyKind
    shortlists: Shortlists | None = None


@dataclass(frozen=True, repr=False, kw_only=True)
class HeadEdit(Intervention):
    """Moves some heads along a direction each: z ← z + α·σ·s·θ.

    A subclass says by `factors` what p̂ and u count in s.

    Attributes:
        heads: (layer, head) pairs, best first; the tensors have a row for each.
        direction: unit vectors θ.
        spread: σ, in the units of z.
        alpha: the common factor, in units of σ.
        estimators: of p̂; None where neither the strength nor a threshold needs any.
        answer_start, model, settings, positions: see `Intervention`.

    Example:
        >>> isinstance(edit, wb.editing.HeadEdit), edit.factors
        (True, (0.5, 0.5))
    """

    parts: ClassVar[Mapping[str, type]] = {**Intervention.parts, "estimators": Estimators}

    heads: tuple[tuple[int, int], ...]
    direction: Float[Tensor, "edited d_head"]
    spread: Float[Tensor, " edited"]
    alpha: float
    estimators: Estimators | None = None
    answer_start: AnswerStart = "offsets"
    model: ModelIdentity
    settings: Mapping[str, Any] = field(default_factory=dict)
    positions: Positions = field(default_factory=Positions)

    @property
    @abstractmethod
    def factors(self) -> tuple[float, float]:
        """What p̂ and u count in the strength; 0 where it is without them."""

    @property
    @abstractmethod
    def reads_uncertainty(self) -> Reading | None:
        """How the u is read that the strength depends on; None where it depends on none."""

    @property
    def reads_misalignment(self) -> bool:
        """Whether the estimators are asked at all."""
        return any(self.factors) or self.threshold is not None

    @property
    def threshold(self) -> Float[Tensor, " edited"] | None:
        """Least p̂ of a position that is edited, a head."""
        return None if self.estimators is None else self.estimators.threshold

    @property
    def layers(self) -> tuple[int, ...]:
        """The edited layers, ascending."""
        return tuple(sorted({layer for layer, _ in self.heads}))

    @property
    def shares_heads(self) -> bool:
        """Whether several goals edit the same head."""
        return len(set(self.heads)) < len(self.heads)

    def require_heads(self, goals: tuple[str, ...] = ()) -> None:
        """Refuse heads that the model lacks or that stand twice, and tensors of other shapes.

        Args:
            goals: of every row; those of different goals may share a head.
        """
        self.require_sound()
        layers, heads = self.model.shape.layers, self.model.shape.heads
        known = [
            is_whole(layer) and is_whole(head) and 0 <= layer < layers and 0 <= head < heads
            for layer, head in self.heads
        ]
        named = goals or ("",) * len(self.heads)
        if len(named) != len(self.heads):
            raise WorkbenchError(f"{len(named)} goals of {len(self.heads)} heads", "one a head")
        twice = len(set(zip(self.heads, named, strict=True))) < len(self.heads)
        if not self.heads or not all(known) or twice:
            raise WorkbenchError(
                f"an edit of the heads {list(self.heads)}",
                f"different (layer, head) pairs of {layers} layers x {heads} heads",
            )
        rows, width = len(self.heads), self.model.shape.d_head
        shapes: dict[str, tuple[int, ...]] = {"direction": (rows, width), "spread": (rows,)}
        if self.estimators is not None:
            shapes |= {"estimators.coefficient": (rows, width), "estimators.intercept": (rows,)}
        if self.threshold is not None:
            shapes["estimators.threshold"] = (rows,)
        for name, shape in shapes.items():
            self.require_finite(name, shape)


@door_of_class
@dataclass(frozen=True, repr=False, kw_only=True)
class Edit(HeadEdit, kind="heads"):
    """A fitted edit of some heads of a model, whose strength comes from p̂ and u.

    Attributes:
        strength: what s is.
        shortlists: the words that u is read off at every edited layer; None for all of them.
        goals: of a combination, every row's goal; empty otherwise. See `combining.combine`.
        heads, direction, spread, alpha, estimators: see `HeadEdit`. Goals may share heads.
        answer_start, model, settings, positions: see `Intervention`.

    Example:
        >>> edit
        Edit(4 heads of hearsay, layers (1, 2), alpha=5, adaptive strength)
        >>> edit.heads
        ((1, 1), (1, 2), (2, 5), (2, 3))
        >>> edit.direction.shape
        torch.Size([4, 20])
    """

    parts: ClassVar[Mapping[str, type]] = {
        **HeadEdit.parts, "strength": Strength, "shortlists": Shortlists,
    }  # fmt: skip

    strength: Strength
    shortlists: Shortlists | None = None
    goals: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.strength, Strength):
            raise WorkbenchError(f"strength={self.strength!r}", 'Strength("adaptive", beta=0.5)')
        self.require_heads(self.goals)
        if self.estimators is None and any(self.factors):
            raise WorkbenchError(
                f"{self.strength.kind} strength without estimators", "Estimators of p̂ of every head"
            )
        if self.shortlists is not None:
            self._require_lists(self.shortlists)

    def _require_lists(self, lists: Shortlists) -> None:
        if not isinstance(lists, Shortlists) or self.strength.uncertainty != "logit_lens":
            raise WorkbenchError(
                f"shortlists={lists!r} with uncertainty={self.strength.uncertainty!r}",
                "Shortlists, of an edit with uncertainty='logit_lens'",
            )
        lists.require_for(self.layers)

    def __repr__(self) -> str:
        return (
            f"Edit({len(self.heads)} heads of {self.model.name}, layers {self.layers}, "
            f"alpha={self.alpha:g}, {self.strength.kind} strength)"
        )

    def constant(self) -> Mapping[Any, Tensor] | None:
        """α·σ·θ, where every token has the strength 1; see `Intervention.constant`."""
        if any(self.factors) or self.threshold is not None:
            return None
        heads, width = self.model.shape.heads, self.direction.shape[1]
        found = {
            ("z", layer): torch.zeros(heads, width, dtype=torch.float32) for layer in self.layers
        }
        moved = self.alpha * self.spread[:, None] * self.direction
        for (layer, head), own in zip(self.heads, moved, strict=True):
            found["z", layer][head] += own.float().cpu()
        return found

    @property
    def label(self) -> str:
        """Heads and α, of a combination every goal's."""
        goals = dict.fromkeys(self.goals)
        alphas = ", ".join(f"{goal} {self.settings[goal]['alpha']:g}" for goal in goals)
        times = f", all times {self.alpha:g}" if goals and self.alpha != 1 else ""
        return f"{len(self.heads)} heads, alpha {alphas or format(self.alpha, 'g')}{times}"

    @property
    def factors(self) -> tuple[float, float]:
        """What p̂ and u count in the strength: β and 1 − β, or 0 where it is without them."""
        return self.strength.factors

    @property
    def reads_uncertainty(self) -> Reading | None:
        """How the u is read that the strength depends on; None where it depends on none."""
        return Reading(self.strength.uncertainty, self.shortlists) if self.factors[1] else None
