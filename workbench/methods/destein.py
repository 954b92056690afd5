"""DeStein: every head's output is blended with a direction, the more the farther it points away.

    z_h ← ‖z_h‖ · unit( unit(z_h) + α·λ·w_h·unit(v_h) ),  λ = 1 + max(0, cos(z_h, −v_h))

v_h is the mean over pairs of z⁺_h − z⁻_h, each the mean of an answer's last eight tokens, and w_h
how well a logistic probe of the head tells validation answers (Li et al. 2024, where
answers are toxic or not).

In the published code w_h has no effect: it scales v_h before `unit` does. And there the heads of a
layer come out equally long, together as long as before; here every head keeps its own length.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from workbench.checks import require_share, require_whole
from workbench.data.questions import QuestionSet, require_questions
from workbench.doors import door_of_class
from workbench.editing.state_edits import StateEdit
from workbench.methods.base import OF_OTHERS, Method
from workbench.methods.memo import Memo
from workbench.methods.registry import METHODS
from workbench.methods.states import answer_pairs, held_back, pair_states
from workbench.models.identity import Model, identify, shape_of
from workbench.models.passes import Place
from workbench.stages.probes import fit_probes


@dataclass(frozen=True, repr=False, kw_only=True)
class HeadFusion(StateEdit, kind="head_fusion"):
    """Blends every head's z with a direction and keeps its length.

    Attributes:
        direction: unit(v_h), or zero, which changes nothing.
        weight: w_h.
    """

    direction: Float[Tensor, "place head d_head"]
    weight: Float[Tensor, "place head"]

    def __post_init__(self) -> None:
        super().__post_init__()
        shape = self.model.shape
        self.require_finite("direction", (len(self.places), shape.heads, shape.d_head))
        self.require_finite("weight", (len(self.places), shape.heads))

    def change(
        self, number: int, state: Float[Tensor, "position head d_head"]
    ) -> Float[Tensor, "position head d_head"]:
        """The blended z."""
        weight = self.weight[number].to(state)
        return blend(state, self.direction[number].to(state), self.alpha * weight)


def blend(
    z: Float[Tensor, "position head d_head"],
    direction: Float[Tensor, "head d_head"],
    strength: Float[Tensor, " head"],
) -> Float[Tensor, "position head d_head"]:
    """The blended z of every head.

    A z or a direction of zero stays as it is or changes nothing, and a z that the direction cancels
    becomes zero.

    Args:
        z: of every head.
        direction: unit vectors, or zero.
        strength: α·w_h.
    """
    length = z.norm(dim=-1, keepdim=True)
    against = -(torch.nn.functional.normalize(z, dim=-1) * direction).sum(dim=-1, keepdim=True)
    factor = strength[:, None] * (1 + against.clamp(min=0))
    moved = z + length * factor * direction
    blended: Tensor = moved * (length / moved.norm(dim=-1, keepdim=True).clamp(min=1e-20))
    return blended


@METHODS.register("destein", about="DeStein: mean differences blended into every head")
@door_of_class
@dataclass(frozen=True, kw_only=True)
class DeStein(Method):
    """Settings of a fit.

    Attributes:
        alpha: α, in units of z's own length.
        last_tokens: how many of an answer's last tokens z is the mean of; all of a shorter one.
        validation_share: share of the training questions that measure w; v is fitted on all of
            them.
        style, shuffle_labels, seed, batch_size: see `Method`.

    Example:
        >>> wb.methods.DeStein().fit(model, fold.train, progress=False)
        HeadFusion(z of hearsay, layers (0, 1, 2, 3, 4), alpha=0.4)
    """

    alpha: float = 0.4
    last_tokens: int = 8
    validation_share: float = 0.2
    LACKS: ClassVar[tuple[str, ...]] = OF_OTHERS

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("last_tokens", self.last_tokens, 1)
        require_share("validation_share", self.validation_share)

    def fit(
        self,
        model: Model,
        train: QuestionSet,
        *,
        everything: QuestionSet | None = None,  # noqa: ARG002
        memo: Memo | None = None,
        progress: bool = True,
    ) -> HeadFusion:
        """Fit on training questions.

        Args:
            model: the bridge.
            train: the training questions of a fold.
            everything: not looked at.
            memo: of this model; states that it holds are not computed again.
            progress: show bars.

        Raises:
            WorkbenchError: fewer than two questions.
        """
        require_questions(train)
        pairs = answer_pairs(train, shuffle_labels=self.shuffle_labels, seed=self.seed)
        held = held_back(pairs, train.validation_mask(self.validation_share, self.seed))
        places: tuple[Place, ...] = tuple(("z", n) for n in range(shape_of(model).layers))
        sides = pair_states(
            model, pairs, places, style=self.style, over=self.last_tokens,
            batch_size=self.batch_size, memo=memo,
        )  # fmt: skip
        directions, weights = [], []
        for _ in tqdm(places, desc="heads", disable=not progress, leave=False):
            positive, negative = next(sides)
            difference = (positive - negative).mean(dim=0)
            directions.append(torch.nn.functional.normalize(difference, dim=-1))
            weights.append(told_apart(positive, negative, held))
        return HeadFusion(
            places=places, direction=torch.stack(directions), weight=torch.stack(weights),
            alpha=self.alpha, model=identify(model),
            settings={**asdict(self), "style": self.style_name, "method": "destein"},
        )  # fmt: skip


def told_apart(
    positive: Float[Tensor, "pair head d_head"],
    negative: Float[Tensor, "pair head d_head"],
    held: Bool[Tensor, " pair"],
) -> Float[Tensor, " head"]:
    """Accuracy on held-back pairs of each head's probe, fitted on the others."""

    def rows(chosen: Tensor) -> tuple[Tensor, Tensor]:
        z = torch.cat([positive[chosen], negative[chosen]])[:, None]
        return z, torch.arange(2).flip(0).repeat_interleave(int(chosen.sum()))

    return fit_probes(*rows(~held)).accuracy(*rows(held))[0]
