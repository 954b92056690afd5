"""Token representations of one answer before and after propagation over its graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.checks import require_whole
from workbench.doors import door, door_of_class
from workbench.errors import WorkbenchError
from workbench.records import Record
from workbench.stages.token_graph import GraphSettings, propagate, tokens_at

ROUNDING = 1e-10
"""As a share of the largest entry: well above the rounding of float64 (1e-16 each)."""


@door_of_class
@dataclass(frozen=True, repr=False)
class Propagation(Record):
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

    Example:
        >>> found = wb.analysis.propagation(acts[0], layer=2, depth=3)
        >>> found
        Propagation(layer 2, 5 tokens, 3 rounds)
        >>> found.points.shape
        torch.Size([4, 5, 2])
    """

    points: Float[Tensor, "depth token component"]
    explained: Float[Tensor, " component"]
    spread: Float[Tensor, " depth"]
    strings: tuple[str, ...]
    settings: GraphSettings
    layer: int
    head: int | None

    def coordinates(self) -> Mapping[str, tuple[str, Sequence[Any]]]:
        """The tokens' texts."""
        return {"string": ("token", self.strings)}

    def attributes(self) -> Mapping[str, Any]:
        """Where the graph is."""
        return {"layer": self.layer, "head": -1 if self.head is None else self.head}

    def __repr__(self) -> str:
        where = f"layer {self.layer}" + ("" if self.head is None else f", head {self.head}")
        rounds, tokens, _ = self.points.shape
        return f"Propagation({where}, {tokens} tokens, {rounds - 1} rounds)"


@door
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

    Example:
        >>> found = wb.analysis.propagation(acts[0], layer=2, depth=3)
        >>> [round(float(share), 2) for share in found.spread]  # the tokens become one
        [1.0, 0.42, 0.17, 0.06]
    """
    settings = graph or GraphSettings(scope="layer" if head is None else "head")
    require_whole("depth", depth, 0)
    values, names = tokens_at(answer, layer, head, settings, strings)
    if not len(values):
        raise WorkbenchError("an answer without tokens", "at least one token")
    rounds = [values.float()]
    for _ in range(depth):
        rounds.append(propagate(rounds[-1], settings))
    states = torch.stack(rounds).double()
    points, explained = _project(states)
    return Propagation(
        points=points,
        explained=explained,
        spread=_spread(states),
        strings=names,
        settings=settings,
        layer=layer,
        head=head,
    )


def _project(
    states: Float[Tensor, "round token channel"],
) -> tuple[Float[Tensor, "depth token component"], Float[Tensor, " component"]]:
    """Coordinates on two components, whose largest entry is positive, and their shares."""
    both = torch.cat([states[0], states[-1]])
    mean = both.mean(dim=0)
    _, singular, rows = torch.linalg.svd(both - mean, full_matrices=False)
    variance = singular.square()
    # Directions in which nothing varies are rounding's, and would be drawn as noise.
    real = singular > ROUNDING * states.abs().max() * len(both)
    count = min(2, int(real.sum()))
    axes = rows[:count]
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    points = states.new_zeros(*states.shape[:2], 2)
    points[..., :count] = (states - mean) @ (axes * largest.sign()).T
    explained = states.new_zeros(2)
    explained[:count] = variance[:count] / variance.sum().clamp(
        min=1e-300
    )  # 0 where all tokens are equal
    return points, explained


def _spread(states: Float[Tensor, "round token channel"]) -> Float[Tensor, " depth"]:
    distance = (states - states.mean(dim=1, keepdim=True)).norm(dim=-1).mean(dim=-1)
    differs = distance[0] > ROUNDING * states[0].abs().max()
    return distance / distance[0] if differs else torch.full_like(distance, torch.nan)
