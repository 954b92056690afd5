"""Contrastive activation addition: a mean difference is added to the residual stream of one layer.

    x ← x + m·v,  v = mean over pairs of (x⁺ − x⁻)

x is what a block leaves in the residual stream, x⁺ and x⁻ are its means over the tokens of a
correct and an incorrect answer to the same question (Rimsky et al. 2024). The paper
takes lettered answers and reads x at the letter; a free-text answer has several tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.checks import require_share, require_whole
from workbench.data.questions import QuestionSet, require_questions
from workbench.doors import door_of_class
from workbench.editing.added_vectors import AddedVector
from workbench.errors import WorkbenchError
from workbench.methods.base import OF_VECTORS, Method
from workbench.methods.memo import Memo
from workbench.methods.registry import METHODS
from workbench.methods.states import Sides, answer_pairs, held_back, pair_states
from workbench.models.identity import Model, identify, shape_of
from workbench.models.passes import Place
from workbench.stages.directions import auroc


@METHODS.register(
    "caa",
    about="contrastive activation addition: the mean difference of right and wrong answers",
)
@door_of_class
@dataclass(frozen=True, kw_only=True)
class ContrastiveAddition(Method):
    """Settings of a fit.

    Attributes:
        alpha: m, in units of v's own length, or of the residual stream where v is normalised.
        layer: the edited one; by default that whose v tells the validation questions' correct from
            their incorrect answers best (AUROC of x·v, v of the other questions; the first of
            equals).
        normalised: v has the length 1.
        validation_share: share of the training questions that choose the layer; v itself is then
            fitted on all of them.
        style, shuffle_labels, seed, batch_size: see `Method`.

    Example:
        >>> wb.methods.ContrastiveAddition(layer=2).fit(model, fold.train, progress=False)
        AddedVector(resid_post of hearsay, layers (2,), alpha=1)
    """

    layer: int | None = None
    normalised: bool = False
    validation_share: float = 0.2
    LACKS: ClassVar[tuple[str, ...]] = OF_VECTORS

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share("validation_share", self.validation_share)
        if self.layer is not None:
            require_whole("layer", self.layer, 0)
        if not isinstance(self.normalised, bool):
            raise WorkbenchError(f"normalised={self.normalised!r}", "True or False")

    def fit(
        self,
        model: Model,
        train: QuestionSet,
        *,
        everything: QuestionSet | None = None,  # noqa: ARG002
        memo: Memo | None = None,
        progress: bool = True,  # noqa: ARG002
    ) -> AddedVector:
        """Fit on training questions.

        Args:
            model: the bridge.
            train: the training questions of a fold.
            everything: not looked at.
            memo: of this model; states that it holds are not computed again.
            progress: there is no bar.

        Raises:
            WorkbenchError: fewer than two questions, or a layer that the model does not have.
        """
        require_questions(train)
        layers = self._layers(model)
        pairs = answer_pairs(train, shuffle_labels=self.shuffle_labels, seed=self.seed)
        places: list[Place] = [("resid_post", layer) for layer in layers]
        states = pair_states(
            model, pairs, places, style=self.style, batch_size=self.batch_size, memo=memo
        )
        held = held_back(pairs, train.validation_mask(self.validation_share, self.seed))
        best, vector = choose_layer(states, held)
        if self.normalised:
            vector = torch.nn.functional.normalize(vector, dim=0)
        return AddedVector(
            places=(places[best],), vector=vector[None], alpha=self.alpha, model=identify(model),
            settings={**asdict(self), "style": self.style_name, "method": "caa"},
        )  # fmt: skip

    def _layers(self, model: Model) -> Sequence[int]:
        """Those that come into question."""
        layers = shape_of(model).layers
        if self.layer is not None and self.layer >= layers:
            raise WorkbenchError(f"layer={self.layer} of {layers} layers", f"0 to {layers - 1}")
        return range(layers) if self.layer is None else (self.layer,)


def choose_layer(
    states: Iterable[Sides], held: Bool[Tensor, " pair"]
) -> tuple[int, Float[Tensor, " d_model"]]:
    """The number of the layer that tells held-back pairs apart best, and its v of all pairs.

    Args:
        states: of every layer, those of the positive and those of the negative sides.
        held: the pairs that layers are compared on.
    """
    best, highest, vector = 0, -1.0, torch.empty(0, dtype=torch.float32)
    for number, (positive, negative) in enumerate(states):
        difference = positive - negative
        along = difference[~held].mean(dim=0)
        found = auroc(positive[held] @ along, negative[held] @ along)
        if found > highest:
            best, highest, vector = number, found, difference.mean(dim=0)
    return best, vector
