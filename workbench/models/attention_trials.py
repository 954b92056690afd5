"""Whether a model's attention can be padded inside and branch, found by trying it once.

A model may take positions and a mask and go by columns all the same, as ALiBi biases do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.models.identity import Model
from workbench.models.passes import forward
from workbench.models.positions import NEVER, Pass, clock
from workbench.models.unwrapping import difference, tolerance

_TRIED: WeakKeyDictionary[Any, dict[Any, bool]] = WeakKeyDictionary()


def same_logits(model: Model, given: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]) -> bool:
    """Whether the last tokens of a probe have the logits that they have in a row of their own.

    Args:
        model: the bridge; what it answered once is known.
        given: of a row's tokens, the same with others in between, their mask and positions.
    """
    known = _TRIED.setdefault(model, {})
    if given not in known:
        weight = model.original_model.get_input_embeddings().weight
        row = (
            torch.linspace(0, len(weight) - 1, 8, dtype=torch.float32)
            .long()[None]
            .to(weight.device)
        )
        tokens, mask, positions = given(row)
        mask = mask if mask.ndim == 2 else added_to_attention(model, mask)
        with clock(model).starting_at(torch.tensor([NEVER])):
            clock(model).announce(Pass(positions, torch.ones_like(tokens).bool(), tokens))
            found, _ = forward(model, tokens, mask, positions=positions)
            wanted, _ = forward(model, row, torch.ones_like(row))
        apart = difference(found[:, -2:], wanted[:, -2:])
        known[given] = apart <= tolerance(wanted.dtype)
    return known[given]


def padded_inside(row: Int[Tensor, "1 position"]) -> tuple[Tensor, Tensor, Tensor]:
    """Three tokens of padding before the last two."""
    tokens = torch.cat([row[:, :-2], row[:, :3], row[:, -2:]], dim=1)
    mask = torch.ones_like(tokens)
    mask[:, -5:-2] = 0
    return tokens, mask, mask.cumsum(dim=1) - 1


def branched(row: Int[Tensor, "1 position"]) -> tuple[Tensor, Tensor, Tensor]:
    """A branch of three tokens, which the last two do not see."""
    tokens, _, positions = padded_inside(row)
    positions[:, -5:-2] = positions[:, -2:-1] + torch.arange(3, device=row.device)
    seen = torch.ones(1, tokens.shape[1], tokens.shape[1], device=row.device).tril().bool()
    seen[:, -2:, -5:-2] = False
    return tokens, seen, positions


def added_to_attention(
    model: Model, seen: Bool[Tensor, "batch position all_position"]
) -> Float[Tensor, "batch 1 position all_position"]:
    """What is added to attention: 0 for what a token sees, the least number for the rest."""
    weight = model.original_model.get_input_embeddings().weight
    added = torch.zeros(seen.shape, dtype=weight.dtype)
    added.masked_fill_(~seen.cpu(), torch.finfo(weight.dtype).min)
    return added[:, None].to(weight.device)
