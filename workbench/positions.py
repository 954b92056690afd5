"""The position clock: which positions of which sequences a forward pass holds.

Hooks are told no positions. One pre-hook on the whole model reads them off the arguments of every
pass, on every path: with or without a cache, padded on either side, in a batch or alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from workbench.errors import WorkbenchError
from workbench.models import Model


@dataclass(frozen=True)
class Pass:
    """One forward pass: real positions of its tokens, which of them are no padding, their ids."""

    positions: Int[Tensor, "batch position"]
    real: Bool[Tensor, "batch position"]
    tokens: Int[Tensor, "batch position"] | None
    fresh: bool

    def last_real(self) -> Int[Tensor, " batch"]:
        """The position of every row's last token that is no padding."""
        return torch.where(self.real, self.positions, -1).amax(dim=1)


class PositionClock:
    """Tells hooks which positions a pass holds, on every path: cached or not, padded or not.

    `starts` are the positions from which edits apply, a number a row. Who knows the prompt's
    length sets them with `starting_at`; otherwise the last token of the pass that began with an
    empty cache counts as the last prompt token.
    """

    def __init__(self) -> None:
        self.now: Pass | None = None
        self._given: Tensor | None = None
        self._found: Tensor | None = None
        self.sequences = 0

    def tick(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The forward pre-hook: reads positions off the arguments of the pass."""
        tokens = kwargs.get("input_ids", args[0] if args else None)
        shaped = tokens if tokens is not None else kwargs["inputs_embeds"]
        batch, length = shaped.shape[:2]
        cache = kwargs.get("past_key_values")
        past = int(cache.get_seq_length()) if cache is not None else 0
        mask = kwargs.get("attention_mask")
        if mask is None:
            real = torch.ones(batch, length, dtype=torch.bool, device=shaped.device)
            positions = torch.arange(past, past + length, device=shaped.device)
            positions = positions.expand(batch, length)
        else:
            if mask.ndim != 2 or mask.shape[1] != past + length:
                raise WorkbenchError(
                    f"an attention mask of shape {tuple(mask.shape)} for {past} cached and "
                    f"{length} new tokens",
                    f"shape ({batch}, {past + length})",
                )
            real = mask[:, past:].bool()
            positions = (mask.long().cumsum(dim=1) - 1)[:, past:].clamp(min=0)
        self.now = Pass(positions, real, tokens, fresh=past == 0)
        if past == 0:
            self._found = self.now.last_real()
            self.sequences += self._given is None

    @property
    def starts(self) -> Int[Tensor, " batch"]:
        """The position from which edits apply, for every row of the running pass."""
        starts = self._given if self._given is not None else self._found
        if starts is None or self.now is None:
            raise WorkbenchError("an edit outside any forward pass", "a forward pass of its model")
        rows = self.now.positions.shape[0]
        if starts.shape[0] != rows:
            raise WorkbenchError(
                f"{starts.shape[0]} start positions for a batch of {rows}", "one start a row"
            )
        return starts.to(self.now.positions.device)

    @contextmanager
    def starting_at(self, starts: Int[Tensor, " batch"]) -> Iterator[None]:
        """Fix the edit's first positions for all passes of the block: one set of sequences."""
        before = self._given
        self._given = starts
        self.sequences += 1
        try:
            yield
        finally:
            self._given = before


_CLOCKS: WeakKeyDictionary[Any, PositionClock] = WeakKeyDictionary()


def clock(model: Model) -> PositionClock:
    """The model's position clock; attached to it on first use."""
    found = _CLOCKS.get(model)
    if found is None:
        found = PositionClock()
        model.original_model.register_forward_pre_hook(found.tick, with_kwargs=True)
        _CLOCKS[model] = found
    return found
