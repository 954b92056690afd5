"""Token representations of one answer before and after propagation over its graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.aggregation import require_depth
from workbench.errors import WorkbenchError
from workbench.token_graphs import GraphSettings, propagate, split_scope


@dataclass(frozen=True, repr=False)
class Propagation:
    """The tokens of one answer after each round of X ← W X, in the plane where they vary most.

    Attributes:
        points: coordinates on the first two principal components of the tokens of round 0 and of
            the last round taken together, in the units of z; their common mean is the origin.
        explained: the two components' shares of the variance of those tokens; 0 where all are
            equal.
        spread: mean distance of the tokens from their mean, in all channels, as a share of that of
            round 0; NaN where the tokens of round 0 do not differ. At 0 the graph has become a
            plain mean.
        strings: the tokens.
        settings: how the graph was made.
        layer, head: where; head is None where all channels of the layer are taken together.
    """

    points: Float[Tensor, "round token 2"]
    explained: Float[Tensor, " component"]
    spread: Float[Tensor, " round"]
    strings: tuple[str, ...]
    settings: GraphSettings
    layer: int
    head: int | None

    def __repr__(self) -> str:
        where = f"layer {self.layer}" + ("" if self.head is None else f", head {self.head}")
        rounds, tokens, _ = self.points.shape
        return f"Propagation({where}, {tokens} tokens, {rounds - 1} rounds)"


def propagation(
    answer: Float[Tensor, "token layer head d_head"] | object,
    layer: int,
    *,
    head: int | None = None,
    depth: int = 1,
    graph: GraphSettings | None = None,
    strings: Sequence[str] | None = None,
) -> Propagation:
    """Follow the tokens of one answer through rounds of propagation (TAE, eq. 4).

    Args:
        answer: an item of `TokenActivations`, or z at its tokens.
        layer: which layer.
        head: which head; required by, and only for, `scope="head"`, which is the default where a
            head is given.
        depth: how many rounds, from 0 on.
        graph: the graph's settings.
        strings: the tokens' texts, where `answer` is a tensor.

    Returns:
        Points and spread of rounds 0 to `depth`, in float64.

    Raises:
        WorkbenchError: no answer, no tokens, no such layer or head, or no such depth.
    """
    settings = graph or GraphSettings(scope="layer" if head is None else "head")
    z = answer if isinstance(answer, Tensor) else getattr(answer, "own", None)
    if z is None:
        raise WorkbenchError(
            f"the propagation of a {type(answer).__name__}", "one answer, such as acts[0]"
        )
    require_depth(depth)
    _require_place(tuple(z.shape), layer, head, settings, depth)
    values = split_scope(z, settings.scope)[layer]
    rounds = [(values if head is None else values[head]).float()]
    for _ in range(depth):
        rounds.append(propagate(rounds[-1], settings))
    states = torch.stack(rounds).double()
    points, explained = _project(states)
    names = strings if strings is not None else getattr(answer, "strings", None)
    return Propagation(
        points=points,
        explained=explained,
        spread=_spread(states),
        strings=tuple(names) if names is not None else tuple(map(str, range(len(z)))),
        settings=settings,
        layer=layer,
        head=head,
    )


def _require_place(
    shape: tuple[int, ...], layer: int, head: int | None, settings: GraphSettings, depth: object
) -> None:
    tokens, layers, heads, _ = shape
    if not tokens:
        raise WorkbenchError("an answer without tokens", "at least one token")
    if not 0 <= layer < layers:
        raise WorkbenchError(f"layer {layer}", f"0 to {layers - 1}")
    if (head is not None) != (settings.scope == "head"):
        raise WorkbenchError(
            f"head={head} with scope={settings.scope!r}", "a head for scope='head' and only there"
        )
    if head is not None and not 0 <= head < heads:
        raise WorkbenchError(f"head {head}", f"0 to {heads - 1}")
    if depth == "last":
        raise WorkbenchError("depth='last'", "a number of rounds, from 0 on")


def _project(
    states: Float[Tensor, "round token channel"],
) -> tuple[Float[Tensor, "round token 2"], Float[Tensor, " component"]]:
    """Coordinates on two components, whose largest entry is positive, and their shares."""
    both = torch.cat([states[0], states[-1]])
    mean = both.mean(dim=0)
    _, singular, rows = torch.linalg.svd(both - mean, full_matrices=False)
    variance = singular.square()
    # Directions in which nothing varies are rounding's, and would be drawn as noise.
    real = singular > 1e-10 * states.abs().max() * len(both)
    count = min(2, int(real.sum()))
    axes = rows[:count]
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    points = states.new_zeros(*states.shape[:2], 2)
    points[..., :count] = (states - mean) @ (axes * largest.sign()).T
    explained = states.new_zeros(2)
    explained[:count] = variance[:count] / variance.sum().clamp(min=1e-300)
    return points, explained


def _spread(states: Float[Tensor, "round token channel"]) -> Float[Tensor, " round"]:
    distance = (states - states.mean(dim=1, keepdim=True)).norm(dim=-1).mean(dim=-1)
    differs = distance[0] > 1e-10 * states[0].abs().max()
    return distance / distance[0] if differs else torch.full_like(distance, torch.nan)
