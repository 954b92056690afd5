"""How answers' log-probabilities follow from the states at their tokens: rows of gradients.

One backward pass gives ∂ log π(answer)/∂x at every token t of every place; with the features of the
state at that token they make a row Σ_t [1, φ(x_t)] ⊗ ∂ log π/∂x_t. Its inner product with a change
[v, V] is how far log π moves, to first order, where every token's state moves by v + Vᵀφ(x_t).
With tokens drawn from the model's own distribution in place of the answer's, the mean square of
that product is twice the KL, to second order (the Fisher information).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from workbench.checks import require_whole
from workbench.editing.added_vectors import AddedVector
from workbench.editing.affine_edits import AffineChange
from workbench.editing.state_edits import StateEdit
from workbench.errors import WorkbenchError
from workbench.methods.by_gradient import Changes, changed_where, changes_of
from workbench.models.batched_passes import Passage, padded_batches, states_at
from workbench.models.identity import Model, identify, shape_of
from workbench.models.passes import Hook, Place, attached
from workbench.models.prompts import Encoded
from workbench.models.tokens import pad
from workbench.models.unwrapping import runner

Change = AddedVector | AffineChange
MOST_LAYERS = 10
"""By default at most so many are edited, evenly spaced: a row has as many parts."""


def checked_layers(layers: Sequence[int] | None) -> tuple[int, ...] | None:
    """Numbers of layers, or None.

    Raises:
        WorkbenchError: something else.
    """
    if layers is None:
        return None
    if isinstance(layers, int | str) or not layers:
        raise WorkbenchError(f"layers={layers!r}", "numbers of layers, or None")
    for layer in layers:
        require_whole("layers", layer, 0)
    return tuple(layers)


def require_features(model: Model, count: int) -> None:
    """Refuse more features than a state has channels."""
    width = shape_of(model).d_model
    if count > width:
        raise WorkbenchError(f"features={count}", f"at most {width}, a state's channels")


def residual_places(model: Model, layers: Sequence[int] | None) -> tuple[Place, ...]:
    """The residual streams behind some layers; None is all, or `MOST_LAYERS` evenly spaced ones.

    Raises:
        WorkbenchError: layers that the model does not have.
    """
    count = shape_of(model).layers
    if layers is None:
        spaced = np.linspace(0, count - 1, min(count, MOST_LAYERS)).astype(int)
        layers = np.unique(spaced).tolist()
    if not {*layers} <= {*range(count)} or len({*layers}) < len(layers):
        raise WorkbenchError(f"layers={tuple(layers)}", f"different ones of 0 to {count - 1}")
    return tuple(("resid_post", int(layer)) for layer in layers)


@dataclass(frozen=True)
class Reader:
    """What reads features off the states of some places.

    Attributes:
        places: where.
        mean: μ, where all features are 0.
        axes: U; features have a standard deviation of 1 over answers' tokens, the largest principal
            components (of channels that have been given a standard deviation of 1) first.
        spread: the median standard deviation of a place's channels: the unit of changes there.
        bound: no feature is larger in size.
    """

    places: tuple[Place, ...]
    mean: Float[Tensor, "place channel"]
    axes: Float[Tensor, "place channel feature"]
    spread: Float[Tensor, " place"]
    bound: float

    def read(self, number: int, state: Float[Tensor, "*token channel"]) -> Tensor:
        """[1, φ] of the states of a place."""
        mean, axes = self.mean[number].to(state), self.axes[number].to(state)
        inner = ((state - mean) @ axes).clamp(-self.bound, self.bound)
        return torch.cat([inner.new_ones(*inner.shape[:-1], 1), inner], dim=-1)

    def change(self, model: Model, theta: Float[Tensor, "place feature_and_one channel"]) -> Change:
        """The edit that adds [1, φ]·Θ, Θ being in units of the places' spread.

        Args:
            model: the bridge.
            theta: v, then V of so many first features; gradients go through it.
        """
        moved = theta * self.spread.to(theta)[:, None, None]
        how: dict[str, Any] = {"places": self.places, "alpha": 1.0, "model": identify(model)}
        if theta.shape[1] == 1:
            return AddedVector(vector=moved[:, 0], **how)
        return AffineChange(
            vector=moved[:, 0], vectors=moved[:, 1:], mean=self.mean, bound=self.bound,
            axes=self.axes[..., : theta.shape[1] - 1].contiguous(), **how,
        )  # fmt: skip


def fit_reader(
    model: Model,
    own: Sequence[Encoded],
    answers: Sequence[Encoded],
    places: Sequence[Place],
    features: int,
    bound: float,
    batch_size: int,
) -> Reader:
    """Principal components of answers' states, about the mean of the model's own answers.

    So the features of what the model writes are 0 in the mean, and the constant part of a change is
    its mean change.

    Args:
        model: the bridge.
        own: the model's own answers.
        answers: what components are taken over.
        places: where; of points as wide as the residual stream.
        features: how many.
        bound: no feature is larger in size.
        batch_size: answers run together.
    """
    states = states_at(model, [_before_tokens(one) for one in (*own, *answers)], places, batch_size)
    count = sum(len(one.answer_tokens) for one in own)
    means, axes, spreads = [], [], []
    for place in places:
        exact = states[place].double()
        deviation = exact[count:].std(dim=0)
        spread = deviation.median()
        deviation = deviation.clamp(min=1e-3 * spread)
        scaled = (exact[count:] - exact[count:].mean(dim=0)) / deviation
        variance, directions = torch.linalg.eigh(scaled.T @ scaled / len(scaled))
        kept = variance.flip(0)[:features].clamp(min=1e-9 * variance[-1])
        axes.append(directions.flip(1)[:, :features] / kept.sqrt() / deviation[:, None])
        means.append(exact[:count].mean(dim=0))
        spreads.append(spread)
    return Reader(
        tuple(places), torch.stack(means).float(), torch.stack(axes).float(),
        torch.stack(spreads).float(), bound,
    )  # fmt: skip


def _before_tokens(one: Encoded) -> Passage:
    """The positions at which an answer's tokens are predicted."""
    return Passage(one.tokens, range(one.start - 1, len(one.tokens) - 1))


def gradient_rows(
    model: Model,
    texts: Sequence[Encoded],
    reader: Reader,
    *,
    draws: int = 0,
    seed: int = 0,
    batch_size: int = 16,
    bar: str | None = None,
    edit: StateEdit | None = None,
) -> tuple[Float[Tensor, "draw text place feature_and_one channel"], Float[Tensor, " text"]]:
    """A row of gradients a text, in units of the places' spread, in half precision on the CPU.

    Args:
        model: the bridge.
        texts: prompts with their answers; changes are at the positions that predict the latter.
        reader: of the features.
        draws: 0 for the gradient of the answer's own tokens; otherwise so many draws of tokens
            from the model's distribution at each position, and rows over √tokens, so that the mean
            square is of the KL a token.
        seed: draws the tokens; what is drawn depends on the text's number alone.
        batch_size: texts run together.
        bar: the label of a bar, or None for none.
        edit: a change, at some of the reader's places, under which gradients are taken; features
            are of the states that it changes.

    Returns:
        The rows, and log π of every answer in nats.

    Raises:
        WorkbenchError: a gradient that half precision does not hold.
    """
    width, features = reader.mean.shape[1], reader.axes.shape[2] + 1
    shape = (max(draws, 1), len(texts), len(reader.places), features, width)
    rows = torch.empty(shape, dtype=torch.float16)
    nats = torch.empty(len(texts))
    batches = list(padded_batches(model, [one.tokens for one in texts], batch_size))
    for numbers in tqdm(batches, desc=bar, disable=bar is None, leave=False):
        batch = _Batch(model, [texts[number] for number in numbers], reader, edit)
        nats[numbers] = batch.answers_nats().cpu()
        for draw in range(max(draws, 1)):
            drawn = [
                torch.Generator().manual_seed(seed_of(seed, draw, number)) for number in numbers
            ]
            rows[draw, numbers] = batch.rows(drawn if draws else None).half().cpu()
    if not rows.isfinite().all():
        raise WorkbenchError(
            "gradients that half precision does not hold, or that are not finite",
            "a model whose passes are finite, in bfloat16 or float32",
        )
    return rows, nats


def seed_of(*numbers: int) -> int:
    """One that depends on all numbers (`manual_seed` itself looks at 32 bits)."""
    (seed,) = np.random.SeedSequence(numbers).generate_state(1)
    return int(seed)


class _Batch:
    """One pass of some texts, from which several gradients are taken."""

    def __init__(
        self, model: Model, texts: Sequence[Encoded], reader: Reader, edit: StateEdit | None
    ) -> None:
        self.reader = reader
        self.changes: Changes = {} if edit is None else changes_of(edit)
        self.tokens, mask = pad(model, [one.tokens for one in texts])
        start = torch.tensor([one.start for one in texts], device=self.tokens.device)[:, None]
        position = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        real = mask.bool()
        self.predicted = (real & (position >= start))[:, 1:]
        """Of every position but the last, whether the token behind it is one of the answer's."""
        self.states: dict[int, Tensor] = {}
        self.shifts: dict[int, Tensor] = {}
        hooks: dict[Place, Hook] = {
            place: partial(self._shifted, number) for number, place in enumerate(reader.places)
        }
        with attached(model, hooks, "module"), torch.enable_grad():
            output = runner(model)(input_ids=self.tokens, attention_mask=mask, use_cache=False)
            self.nats = output.logits[:, :-1].float().log_softmax(dim=-1)

    def _shifted(self, number: int, state: Tensor) -> Tensor:
        """The state under the edit, and a change of 0 that gradients are taken of."""
        self.states[number] = state.detach()
        self.shifts[number] = torch.zeros_like(state, requires_grad=True)
        change = self.changes.get(self.reader.places[number])
        if change is not None:
            state = changed_where(change, torch.nn.functional.pad(self.predicted, (0, 1)), state)
        return state + self.shifts[number]

    def answers_nats(self) -> Float[Tensor, " text"]:
        """Log π of the answers."""
        return self._of(self.tokens[:, 1:]).sum(dim=1).detach()

    def _of(self, tokens: Tensor) -> Float[Tensor, "text position"]:
        told = self.nats.gather(2, tokens[..., None])[..., 0]
        return torch.where(self.predicted, told, 0.0)

    def rows(
        self, drawn: Sequence[torch.Generator] | None
    ) -> Float[Tensor, "text place feature_and_one channel"]:
        """Gradients of the answers' own tokens, or of such as the model would draw."""
        tokens, scale = self.tokens[:, 1:], torch.ones(len(self.tokens))
        if drawn is not None:
            tokens = self._drawn(drawn)
            scale = self.predicted.sum(dim=1).float().rsqrt().cpu()
        shifts = [self.shifts[number] for number in range(len(self.reader.places))]
        found = torch.autograd.grad(self._of(tokens).sum(), shifts, retain_graph=True)
        where = self.predicted[..., None]
        made = [
            torch.einsum(
                "btf,btc->bfc",
                self.reader.read(number, self.states[number][:, :-1].float()) * where,
                gradient[:, :-1].float() * self.reader.spread[number],
            )
            for number, gradient in enumerate(found)
        ]
        return torch.stack(made, dim=1) * scale.to(made[0])[:, None, None, None]

    def _drawn(self, drawn: Sequence[torch.Generator]) -> Tensor:
        """A token at every position, from the model's distribution there; a generator a text."""
        likely = self.nats.detach().exp().cpu()
        tokens = torch.zeros(likely.shape[:2], dtype=torch.long)
        for row, (own, draw) in enumerate(zip(likely, drawn, strict=True)):
            at = self.predicted[row].cpu()
            tokens[row, at] = torch.multinomial(own[at], 1, generator=draw)[:, 0]
        return tokens.to(self.tokens.device)
