"""Shared prefixes: unedited tokens that many rows begin with, run once and kept as keys and values.

Edits begin at the last prompt token, so what comes before it is the same for every answer to a
question and for every setting of an edit, and a few-shot primer is the same for all questions.
`Prefix.of` runs such a beginning, `extended` appends each question to it, and `rows` hands keys and
values to a batch of rows, of which each names the prefix that it continues.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from workbench.models.attention_trials import branched, padded_inside, same_logits
from workbench.models.identity import Model
from workbench.models.passes import forward, new_cache, takes_positions
from workbench.models.positions import NEVER, clock
from workbench.models.tokens import pad

BY_LENGTH = ("dynamic", "longrope")
"""Rotary embeddings that depend on how long the text of a pass becomes: what is behind a beginning
changes its keys."""


def must_run_apart(model: Model, lengths: Iterable[int]) -> bool:
    """Whether rows must run one by one, since the longest would change what the others are.

    Rotary embeddings of the kind `longrope` have two sets of factors, and a pass takes one of them
    for all of its rows: by whether the longest has more positions than the model was first trained
    on. Those of the kind `dynamic` change beyond the model's context alone, where nothing is run.

    Args:
        model: the bridge.
        lengths: of the rows, the least and the most that each comes to.
    """
    rotary = getattr(model.original_model.config, "rope_parameters", None) or {}
    kinds = [rotary, *(own for own in rotary.values() if isinstance(own, Mapping))]
    turns = [
        own.get("original_max_position_embeddings", 0)
        for own in kinds
        if own.get("rope_type") == "longrope"
    ]
    known = list(lengths)
    return bool(known) and any(min(known) <= turn < max(known) for turn in turns)


def can_share(model: Model) -> bool:
    """Whether the model's keys and values can be handed to other rows."""
    kinds = {type(layer) for layer in new_cache(model).layers}
    rotary = str(getattr(model.original_model.config, "rope_parameters", None))
    if any(kind in rotary for kind in BY_LENGTH):
        return False
    return bool(kinds) and kinds <= {DynamicLayer, DynamicSlidingWindowLayer}


def can_pad(model: Model) -> bool:
    """Whether padding between prefix and row is harmless.

    A window would count it, and so do biases of attention that go by columns; the first is read
    off the cache and the config, the second is tried.
    """
    config = model.original_model.config
    kinds = [getattr(config, name, None) for name in ("attention_types", "attention_layers")]
    windowed = any("local" in str(kind) for kind in kinds)
    windowed |= {type(layer) for layer in new_cache(model).layers} != {DynamicLayer}
    return not windowed and same_logits(model, padded_inside)


def can_branch(model: Model) -> bool:
    """Whether tokens can be told their positions and which others they see, as trees need."""
    return takes_positions(model) and can_pad(model) and same_logits(model, branched)


@dataclass(frozen=True)
class Prefix:
    """Keys and values of one or several beginnings.

    Attributes:
        cache: a Hugging Face cache with a row for each.
        mask: 1 for real tokens, 0 for padding behind the shorter ones.
    """

    cache: Any
    mask: Int[Tensor, "prefix position"]

    @classmethod
    def of(cls, model: Model, tokens: Sequence[Sequence[int]]) -> Prefix:
        """Run beginnings from their first token."""
        return _run(model, new_cache(model), tokens, None)

    def extended(self, model: Model, tokens: Sequence[Sequence[int]]) -> Prefix:
        """Append each of some continuations to the only beginning."""
        zeros = torch.zeros(len(tokens), dtype=torch.long)
        return _run(model, self.rows(zeros, keep=True), tokens, self.mask[zeros])

    def rows(self, which: Int[Tensor, " row"], *, keep: bool = False) -> Any:
        """A cache whose row k continues prefix `which[k]`.

        Args:
            which: numbers of prefixes; neighbours with the same number are copied together.
            keep: keep the keys and values of the next pass; otherwise it is the last one.
        """
        made = copy.copy(self.cache)
        made.layers = [_layer_for(layer, which, keep=keep) for layer in self.cache.layers]
        return made


def _run(
    model: Model, cache: Any, tokens: Sequence[Sequence[int]], before: Tensor | None
) -> Prefix:
    new, mask = pad(model, tokens)
    mask = mask if before is None else torch.cat([before, mask], dim=1)
    with clock(model).starting_at(torch.full((len(new),), NEVER)):
        _, cache = forward(model, new, mask, cache, keep=1)
    return Prefix(cache, mask)


def _layer_for(layer: Any, which: Tensor, *, keep: bool) -> Any:
    if type(layer) is DynamicSlidingWindowLayer:
        chosen = copy.copy(layer)
        chosen.batch_select_indices(which.to(layer.device))
        return chosen
    return _JoinedLayer(layer.keys, layer.values, which, keep=keep)


class _JoinedLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Prefixes' keys and values, put before a pass's own: one copy, and none that stays."""

    def __init__(self, keys: Tensor, values: Tensor, which: Tensor, *, keep: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self.before, self.keep = (keys, values), keep
        self.keys, self.values = keys, values
        numbers, counts = torch.unique_consecutive(which, return_counts=True)
        self.runs = list(zip(numbers.tolist(), counts.tolist(), strict=True))

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Keys and values of whole rows."""
        keys = self._joined(self.before[0], key_states)
        values = self._joined(self.before[1], value_states)
        if self.keep:
            self.keys, self.values = keys, values
        return keys, values

    def _joined(self, prefixes: Tensor, own: Tensor) -> Tensor:
        length = prefixes.shape[2]
        whole = own.new_empty(*own.shape[:2], length + own.shape[2], own.shape[3])
        first = 0
        for number, count in self.runs:
            whole[first : first + count, :, :length] = prefixes[number]
            first += count
        whole[:, :, length:] = own
        return whole
