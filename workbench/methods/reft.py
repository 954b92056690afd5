"""ReFT-r1: one direction of one layer, fitted to detect and to steer at once.

    fitted with  x ← x + m(x₁ … x_n)·v,  m = mean of the k largest of relu(x_i·v)
    used as      x ← x + α·m̄·v

‖v‖ = 1, x_i are the states from the last prompt token on, m̄ is the mean of m over the training
answers. v minimises the mean −log π of correct answers' tokens and, with a weight that grows from 0
to λ while it is fitted, the mean of those relu(x_i·v) that are not among the k largest. Wu et al.
2025, "AxBench: Steering LLMs? Even Simple Baselines Outperform Sparse Autoencoders", section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from workbench.checks import require_number, require_share, require_whole
from workbench.data.questions import QuestionSet, require_questions
from workbench.doors import door_of_class
from workbench.editing.added_vectors import AddedVector
from workbench.errors import WorkbenchError
from workbench.methods.base import OF_VECTORS, Method
from workbench.methods.by_gradient import Around, log_probabilities, preferences, steps
from workbench.methods.caa import choose_layer
from workbench.methods.memo import Memo
from workbench.methods.registry import METHODS
from workbench.methods.states import answer_pairs, held_back, pair_states
from workbench.models.identity import Model, identify, shape_of
from workbench.models.passes import Hook, Place, attached
from workbench.models.prompts import Encoded

LONGEST_GRADIENT = 1.0
"""What the gradient's norm is cut to."""
BEGINNINGS = 4
"""So many random directions are tried at most, where fits end where no state lies."""


@METHODS.register("reft_r1", about="ReFT-r1: one direction, fitted to detect and to steer")
@door_of_class
@dataclass(frozen=True, kw_only=True)
class RankOneReFT(Method):
    """Settings of a fit.

    Attributes:
        alpha: factor of m̄·v; 1 is what was fitted, on average.
        layer: the edited one; by default that which contrastive addition chooses.
        largest: k.
        pairs: at most so many correct answers of every question; None for all.
        epochs: how often all are gone through.
        step: answers in a step of the optimiser.
        rate: the optimiser's, at the beginning; it falls linearly to 0.
        sparsity: λ.
        validation_share: share of the training questions that choose the layer.
        style, shuffle_labels, seed, batch_size: see `Method`; half of the pairs change sides.

    Example:
        >>> quick = wb.methods.RankOneReFT(layer=2, pairs=1, epochs=1)
        >>> quick.fit(model, fold.train, progress=False)
        AddedVector(resid_post of hearsay, layers (2,), alpha=1)
    """

    layer: int | None = None
    largest: int = 8
    pairs: int | None = 4
    epochs: int = 8
    step: int = 8
    rate: float = 1e-2
    sparsity: float = 5e-3
    validation_share: float = 0.2
    LACKS: ClassVar[tuple[str, ...]] = OF_VECTORS

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("largest", "epochs", "step"):
            require_whole(name, getattr(self, name), 1)
        if self.pairs is not None:
            require_whole("pairs", self.pairs, 1)
        if self.layer is not None:
            require_whole("layer", self.layer, 0)
        require_share("rate", self.rate)
        require_share("validation_share", self.validation_share)
        require_number("sparsity", self.sparsity, least=0)

    def fit(
        self,
        model: Model,
        train: QuestionSet,
        *,
        everything: QuestionSet | None = None,  # noqa: ARG002 - it does not leak
        memo: Memo | None = None,
        progress: bool = True,
    ) -> AddedVector:
        """Fit on training questions; see `Method.fit`.

        Raises:
            WorkbenchError: a layer that the model does not have, or a direction that no answer's
                states lie along.
        """
        require_questions(train)
        place: Place = ("resid_post", self._layer(model, train, memo))
        answers = [own.chosen for own in preferences(model, train, self, self.pairs)]
        bar = "direction" if progress else None
        direction, length = fit_direction(model, answers, place, self, bar=bar)
        return AddedVector(
            places=(place,), vector=(length * direction)[None], alpha=self.alpha,
            model=identify(model),
            settings={**asdict(self), "style": self.style_name, "method": "reft_r1"},
        )  # fmt: skip

    def _layer(self, model: Model, train: QuestionSet, memo: Memo | None) -> int:
        """The given layer, or the one that tells held-back pairs apart best."""
        layers = shape_of(model).layers
        if self.layer is not None:
            if self.layer >= layers:
                raise WorkbenchError(f"layer={self.layer} of {layers} layers", f"0 to {layers - 1}")
            return self.layer
        pairs = answer_pairs(train, shuffle_labels=self.shuffle_labels, seed=self.seed)
        places: list[Place] = [("resid_post", layer) for layer in range(layers)]
        states = pair_states(
            model, pairs, places, style=self.style, batch_size=self.batch_size, memo=memo
        )
        held = held_back(pairs, train.validation_mask(self.validation_share, self.seed))
        return choose_layer(states, held)[0]


@dataclass
class Steered:
    """A pass whose states move along a direction as far as they lie along it.

    Attributes:
        direction: v, not necessarily of length 1.
        largest: k.
        lengths: m of the rows of every pass so far.
        rest: the mean of what is not among the k largest, a row.
    """

    direction: Float[Tensor, " d_model"]
    largest: int
    lengths: list[Tensor] = field(default_factory=list)
    rest: list[Tensor] = field(default_factory=list)

    def around(self, model: Model, place: Place) -> Around:
        """What attaches it to a pass."""
        return lambda where: attached(model, {place: self._hook(where)}, "module")

    def _hook(self, where: Bool[Tensor, "batch position"]) -> Hook:
        def hook(state: Tensor) -> Tensor:
            exact = state.to(self.direction.dtype)
            along = normalize(self.direction, dim=0)
            latent = (exact @ along).relu() * where
            top = latent.topk(min(self.largest, latent.shape[1]), dim=1)
            count = where.sum(dim=1)
            length = top.values.sum(dim=1) / count.clamp(max=self.largest)
            self.lengths.append(length)
            self.rest.append((latent.sum(dim=1) - top.values.sum(dim=1)) / count)
            moved = exact + length[:, None, None] * along
            return torch.where(where[..., None], moved.to(state.dtype), state)

        return hook


def fit_direction(
    model: Model,
    answers: Sequence[Encoded],
    place: Place,
    method: RankOneReFT,
    *,
    bar: str | None = None,
) -> tuple[Float[Tensor, " d_model"], float]:
    """v and m̄, from a random direction on, or from its opposite if states lie along that.

    Where relu(x_i·v) is 0 for every state there is no gradient, and a fit that gets there stays.
    Then another direction is tried, and `BEGINNINGS` in all.

    Args:
        model: the bridge.
        answers: correct ones.
        place: where.
        method: its sizes, rate, sparsity and seed are used.
        bar: the label of a bar, or None for none.

    Raises:
        WorkbenchError: every beginning leads to where no state lies, so that m̄ is 0.
    """
    draw = torch.Generator().manual_seed(method.seed)
    for _ in range(BEGINNINGS):
        direction = _descended(model, answers, place, method, draw, bar)
        length = mean_length(model, answers, place, direction, method)
        if length:
            return direction.cpu(), length
    raise WorkbenchError(
        f"{BEGINNINGS} fits that ended at a direction along which no answer's states lie",
        "one that detects some",
        "Another layer, or a smaller rate or sparsity, may keep it among the states.",
    )


def _descended(
    model: Model,
    answers: Sequence[Encoded],
    place: Place,
    method: RankOneReFT,
    draw: torch.Generator,
    bar: str | None,
) -> Float[Tensor, " d_model"]:
    """v, by Adam from a direction that is drawn."""
    first = normalize(torch.randn(shape_of(model).d_model, generator=draw), dim=0)
    first = first.to(next(model.original_model.parameters()).device)
    both = [
        mean_length(model, answers[: method.batch_size], place, s * first, method) for s in (1, -1)
    ]
    direction = (first if both[0] >= both[1] else -first).requires_grad_()
    optimiser = torch.optim.Adam([direction], lr=method.rate)
    for done, rows in steps(len(answers), method.epochs, method.step, draw, bar):
        own = [answers[k] for k in rows]
        steered = Steered(direction, method.largest)
        nats = log_probabilities(model, own, steered.around(model, place))
        loss = -nats.sum() / sum(len(one.answer_tokens) for one in own)
        loss = loss + done * method.sparsity * torch.cat(steered.rest).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([direction], LONGEST_GRADIENT)
        for group in optimiser.param_groups:
            group["lr"] = method.rate * (1 - done)
        optimiser.step()
        with torch.no_grad():
            direction /= direction.norm()
    return direction.detach()


def mean_length(
    model: Model,
    answers: Sequence[Encoded],
    place: Place,
    direction: Float[Tensor, " d_model"],
    method: RankOneReFT,
) -> float:
    """The mean of m over answers."""
    steered = Steered(direction, method.largest)
    with torch.no_grad():
        for k in range(0, len(answers), method.batch_size):
            part = answers[k : k + method.batch_size]
            log_probabilities(model, part, steered.around(model, place))
    return float(torch.cat(steered.lengths).mean())
