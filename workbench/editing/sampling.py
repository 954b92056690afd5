"""Sampling: the next token of every row, of a nucleus of the likeliest words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MOST_LIKELY = 1024
"""Words among which a nucleus is looked for before all are sorted: to sort all of SmolLM2's takes
half as long as a pass."""


def choose(
    log_probability: Float[Tensor, "batch vocabulary"],
    temperature: float,
    top_p: float,
    draws: Sequence[torch.Generator],
) -> Int[Tensor, " batch"]:
    """The next token of every row: the likeliest at temperature 0, else a nucleus sample."""
    if temperature == 0:
        return log_probability.argmax(dim=-1)
    shifted = log_probability - log_probability.amax(dim=-1, keepdim=True)
    probability = (shifted / temperature).softmax(dim=-1)
    share = torch.stack([torch.rand(1, generator=draw, dtype=torch.float64) for draw in draws])
    share = share.to(probability.device)
    few = min(MOST_LIKELY, probability.shape[-1])
    ordered, place = _in_order(*probability.topk(few, dim=-1))
    kept = _nucleus(ordered, top_p)
    chosen = _drawn(ordered * kept, place, share)
    if few < probability.shape[-1]:
        wider = (kept & (ordered == ordered[:, -1:])).any(dim=-1)  # the last one may have equals
        if bool(wider.any()):
            ordered, place = probability[wider].sort(dim=-1, descending=True, stable=True)
            chosen[wider] = _drawn(ordered * _nucleus(ordered, top_p), place, share[wider])
    return chosen


def _in_order(
    likely: Float[Tensor, "batch word"], place: Int[Tensor, "batch word"]
) -> tuple[Float[Tensor, "batch word"], Int[Tensor, "batch word"]]:
    """The likeliest words first, equally likely ones by their number."""
    place, order = place.sort(dim=-1)
    likely, again = likely.gather(1, order).sort(dim=-1, descending=True, stable=True)
    return likely, place.gather(1, again)


def _nucleus(ordered: Float[Tensor, "batch word"], top_p: float) -> Bool[Tensor, "batch word"]:
    """Which of the likeliest words are needed to reach the mass."""
    return ordered.cumsum(dim=-1) - ordered < top_p


def _drawn(
    kept: Float[Tensor, "batch word"],
    place: Int[Tensor, "batch word"],
    share: Float[Tensor, "batch 1"],
) -> Int[Tensor, " batch"]:
    """The words at which the kept mass reaches a share of its sum."""
    mass = kept.double().cumsum(dim=-1)
    reached = mass > share * mass[:, -1:]
    drawn = reached.float().argmax(dim=-1, keepdim=True)
    return place.gather(1, drawn)[:, 0]
