"""TruthX: states move along what a decoder makes of a shift in a latent space of truthfulness.

An autoencoder gives a state x a semantic latent S and a truthful latent T, and decodes both,
D(S, T) = f(S + attention of S to T). It is fitted on states of pairs of a correct and an incorrect
answer, x⁺ and x⁻, by the sum of three losses: reconstruction, ‖D(S, T) − x‖²; contrast, by which
latents of one truth value (T) or of one pair (S) are alike; editing, ‖D(S⁺, T⁻) − x⁻‖² and
‖D(S⁻, T⁺) − x⁺‖². With δ the difference of the truthful latents' means, the edit is
x ← x + α ‖x‖ Δ / ‖Δ‖, Δ = D(S, T + δ) − D(S, T − δ). Zhang et al. 2024, "TruthX: Alleviating
Hallucinations by Editing Large Language Models in Truthful Space", sections 3.2 and 3.3; code for
training was never published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import linear, normalize, relu
from tqdm.auto import tqdm

from workbench.checks import require_share, require_whole
from workbench.data.questions import QuestionSet, require_questions
from workbench.doors import door_of_class
from workbench.editing.state_edits import StateEdit, States
from workbench.errors import WorkbenchError
from workbench.methods.base import OF_OTHERS, Method
from workbench.methods.memo import Memo
from workbench.methods.registry import METHODS
from workbench.methods.states import Over, answer_pairs, answer_states
from workbench.models.identity import Model, identify, shape_of
from workbench.models.passes import Place


@dataclass(frozen=True)
class Sizes:
    """Sizes of an autoencoder; its latents are slots, between which the decoder attends."""

    states: int
    hidden: int
    slots: int
    width: int

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of weights and biases: semantic encoder, truthful encoder, decoder, two layers each."""
        latent = self.slots * self.width
        encoder = [(self.hidden, self.states), (self.hidden,), (latent, self.hidden), (latent,)]
        decoder = [(self.hidden, latent), (self.hidden,), (self.states, self.hidden)]
        return [*encoder, *encoder, *decoder, (self.states,)]

    @property
    def numbers(self) -> list[int]:
        """Numbers in each of the shapes."""
        return [prod(shape) for shape in self.shapes]


@dataclass(frozen=True, repr=False, kw_only=True)
class TruthfulShift(StateEdit, kind="truthful_shift"):
    """Shifts along a decoded difference.

    Attributes:
        weights: of the autoencoder, which all places share, one behind the other.
        hidden, slots, width: its sizes.
        shift: δ of every place.
        places, alpha, answer_start, model, settings, positions: see `StateEdit`; α is in units of
            the state's norm.
    """

    weights: Float[Tensor, " weight"]
    hidden: int
    slots: int
    width: int
    shift: Float[Tensor, "place latent"]

    def change(self, number: int, state: States) -> States:
        """The shifted state; see `StateEdit.change`."""
        sizes = Sizes(state.shape[-1], self.hidden, self.slots, self.width)
        way = decoded_way(sizes, self.weights.to(state), state, self.shift[number].to(state))
        size: Tensor = self.alpha * state.norm(dim=-1, keepdim=True)
        return state + size * normalize(way, dim=-1)


@METHODS.register("truthx", about="TruthX: edits in a learned truthful space")
@door_of_class
@dataclass(frozen=True, kw_only=True)
class TruthX(Method):
    """Settings of a fit.

    Attributes:
        alpha: α, in units of the state's norm.
        modules: how many outputs of attention and of perceptrons are edited; those at which the
            nearest mean of truthful latents tells validation answers best.
        over: which of an answer's tokens its states are of: the last, mostly the same full stop in
            both answers of a pair, as the paper compares the same tokens; or a mean.
        hidden, slots, width: sizes of the autoencoder: hidden layers, and both latents.
        temperature: of the contrast.
        rate: the optimiser's.
        epochs: how often all pairs are gone through.
        validation_share: share of the training questions that rank modules and are not fitted on.
        style, shuffle_labels, seed, batch_size: see `Method`; half of the pairs change sides.

    Example:
        >>> quick = wb.methods.TruthX(epochs=1, modules=2)
        >>> len(quick.fit(model, fold.train, progress=False).places)
        2
    """

    alpha: float = 0.3
    modules: int = 10
    over: Over = "last"
    hidden: int = 128
    slots: int = 4
    width: int = 16
    temperature: float = 0.1
    rate: float = 1e-3
    epochs: int = 20
    validation_share: float = 0.2
    LACKS: ClassVar[tuple[str, ...]] = OF_OTHERS

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("modules", "hidden", "slots", "width", "epochs"):
            require_whole(name, getattr(self, name), 1)
        if self.over not in ("mean", "last"):
            require_whole("over", self.over, 1)
        for name in ("temperature", "rate", "validation_share"):
            require_share(name, getattr(self, name))

    def fit(
        self,
        model: Model,
        train: QuestionSet,
        *,
        everything: QuestionSet | None = None,  # noqa: ARG002 - it does not leak
        memo: Memo | None = None,
        progress: bool = True,
    ) -> TruthfulShift:
        """Fit on training questions; see `Method.fit`."""
        require_questions(train)
        shape = shape_of(model)
        places: list[Place] = [
            place for n in range(shape.layers) for place in (("attn_out", n), ("mlp_out", n))
        ]
        if self.modules > len(places):
            raise WorkbenchError(f"modules={self.modules}", f"at most {len(places)}")
        pairs = answer_pairs(train, shuffle_labels=self.shuffle_labels, seed=self.seed)
        answers = [(p.question, p.positive) for p in pairs]
        answers += [(p.question, p.negative) for p in pairs]
        found = answer_states(
            model, answers, places, style=self.style, over=self.over, batch_size=self.batch_size,
            memo=memo,
        )  # fmt: skip
        states = rearrange(torch.stack(found), "place (side pair) d -> place side pair d", side=2)
        mask = train.validation_mask(self.validation_share, self.seed)
        held = torch.tensor([mask[p.number] for p in pairs])
        sizes = Sizes(shape.d_model, self.hidden, self.slots, self.width)
        weights = fit_autoencoder(sizes, states[:, :, ~held], self, progress)
        shift, middle = centres(sizes, weights, states[:, :, ~held])
        told = accuracy(sizes, weights, states[:, :, held], shift, middle)
        best = told.sort(descending=True, stable=True).indices[: self.modules]
        return TruthfulShift(
            places=tuple(places[k] for k in best.tolist()), weights=weights, shift=shift[best],
            hidden=self.hidden, slots=self.slots, width=self.width, alpha=self.alpha,
            model=identify(model),
            settings={"method": "truthx", **asdict(self), "style": self.style_name},
        )  # fmt: skip


def encoded(
    sizes: Sizes, weights: Float[Tensor, " weight"], x: Float[Tensor, "*row d_model"]
) -> tuple[Float[Tensor, "*row latent"], Float[Tensor, "*row latent"]]:
    """The semantic and the truthful latent of states of norm √d_model."""
    parts = _parts(sizes, weights)
    return _perceptron(parts[:4], x), _perceptron(parts[4:8], x)


def decoded(
    sizes: Sizes,
    weights: Float[Tensor, " weight"],
    semantic: Float[Tensor, "*row latent"],
    truthful: Float[Tensor, "*row latent"],
) -> Float[Tensor, "*row d_model"]:
    """D: the semantic latent's slots attend to the truthful one's."""
    query, key = (
        rearrange(latent, "... (slot d) -> ... slot d", slot=sizes.slots)
        for latent in (semantic, truthful)
    )
    share = (query @ key.mT / sizes.width**0.5).softmax(dim=-1)
    mixed = rearrange(query + share @ key, "... slot d -> ... (slot d)")
    return _perceptron(_parts(sizes, weights)[8:], mixed)


def decoded_way(
    sizes: Sizes,
    weights: Float[Tensor, " weight"],
    state: Float[Tensor, "*row d_model"],
    shift: Float[Tensor, " latent"],
) -> Float[Tensor, "*row d_model"]:
    """Δ = D(S, T + δ) − D(S, T − δ)."""
    semantic, truthful = encoded(sizes, weights, _normed(state))
    more = decoded(sizes, weights, semantic, truthful + shift)
    return more - decoded(sizes, weights, semantic, truthful - shift)


def fit_autoencoder(
    sizes: Sizes,
    states: Float[Tensor, "place 2 pair d_model"],
    method: TruthX,
    progress: bool = False,
    step: int = 32,
) -> Float[Tensor, " weight"]:
    """Fit one autoencoder, of these sizes, for all places, with Adam.

    Args:
        sizes: see `Sizes`.
        states: of correct answers, and of incorrect ones.
        method: its temperature, rate, epochs and seed are used.
        progress: show a bar.
        step: pairs in a step of the optimiser, at all places.
    """
    draw = torch.Generator().manual_seed(method.seed)
    x = _normed(states)
    weights = _drawn(sizes, draw).requires_grad_()
    optimiser = torch.optim.Adam([weights], lr=method.rate)
    for _ in tqdm(range(method.epochs), desc="autoencoder", disable=not progress, leave=False):
        for rows in torch.split(torch.randperm(x.shape[2], generator=draw), step):
            optimiser.zero_grad()
            loss = losses(sizes, weights, x[:, :, rows], method.temperature)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return weights.detach()


def losses(
    sizes: Sizes,
    weights: Float[Tensor, " weight"],
    x: Float[Tensor, "place 2 pair d_model"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Reconstruction, contrast of both latents, and editing, summed."""
    semantic, truthful = encoded(sizes, weights, x)
    rebuilt = (decoded(sizes, weights, semantic, truthful) - x).square().mean()
    swapped = (decoded(sizes, weights, semantic.flip(1), truthful) - x).square().mean()
    kind = torch.tensor([0, 1]).repeat_interleave(x.shape[2])
    pair = torch.arange(x.shape[2]).repeat(2)
    told = contrast(truthful.flatten(1, 2), kind[:, None] == kind, temperature)
    meant = contrast(semantic.flatten(1, 2), pair[:, None] == pair, temperature)
    return rebuilt + swapped + told + meant


def contrast(
    latent: Float[Tensor, "place row latent"], alike: Bool[Tensor, "row row"], temperature: float
) -> Float[Tensor, ""]:
    """Mean −log of the share that those alike have in all others' exp(cosine / temperature).

    Rows without any other that is alike count nothing.
    """
    unit = normalize(latent, dim=-1)
    own = torch.eye(len(alike), dtype=torch.bool)
    likeness = (unit @ unit.mT / temperature).masked_fill(own, -torch.inf)
    some = (alike & ~own).any(dim=1)
    near = likeness.masked_fill(~alike, -torch.inf)[:, some].logsumexp(dim=-1)
    return (likeness[:, some].logsumexp(dim=-1) - near).sum() / max(1, near.numel())


def centres(
    sizes: Sizes, weights: Float[Tensor, " weight"], states: Float[Tensor, "place 2 pair d_model"]
) -> tuple[Float[Tensor, "place latent"], Float[Tensor, "place latent"]]:
    """δ, the difference of the truthful latents' means, and the point in their middle."""
    mean = encoded(sizes, weights, _normed(states))[1].mean(dim=2)
    return mean[:, 0] - mean[:, 1], mean.mean(dim=1)


def accuracy(
    sizes: Sizes,
    weights: Float[Tensor, " weight"],
    states: Float[Tensor, "place 2 pair d_model"],
    shift: Float[Tensor, "place latent"],
    middle: Float[Tensor, "place latent"],
) -> Float[Tensor, " place"]:
    """Share of the states whose truthful latent lies nearer to the mean of its own side."""
    truthful = encoded(sizes, weights, _normed(states))[1]
    side = torch.einsum("psnl,pl->psn", truthful - middle[:, None, None], shift)
    return ((side > 0) == torch.tensor([[True], [False]])).float().mean(dim=(1, 2))


def _parts(sizes: Sizes, weights: Tensor) -> list[Tensor]:
    parts = torch.split(weights, sizes.numbers)
    return [part.view(shape) for part, shape in zip(parts, sizes.shapes, strict=True)]


def _perceptron(parts: Sequence[Tensor], x: Tensor) -> Tensor:
    first, first_bias, second, second_bias = parts
    return linear(relu(linear(x, first, first_bias)), second, second_bias)


def _drawn(sizes: Sizes, draw: torch.Generator) -> Tensor:
    """First weights, normal with variance 1 over the inputs, and zero biases."""
    return torch.cat([
        torch.randn(prod(shape), generator=draw, dtype=torch.float32) / shape[-1] ** 0.5
        if len(shape) == 2 else torch.zeros(shape, dtype=torch.float32)
        for shape in sizes.shapes
    ])  # fmt: skip


def _normed(state: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row d_model"]:
    """States at norm √d_model, so that one autoencoder serves places of any scale."""
    unit: Tensor = normalize(state, dim=-1)
    return unit * float(state.shape[-1] ** 0.5)
