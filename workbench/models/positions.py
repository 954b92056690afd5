"""The position clock: which positions of which sequences a forward pass holds.

Hooks are told no positions. Two hooks around the whole model read them off the arguments of every
pass, on every path: with or without a cache, padded on either side, in a batch or alone. They are
there while something asks for positions, and gone afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from workbench.errors import WorkbenchError
from workbench.models.identity import Model
from workbench.models.ownership import Ownership, ownership, two_threads
from workbench.models.passes import argument_names, cache_in, cache_of

NEVER = 1 << 40
"""A start of edits that no sequence reaches."""


@dataclass(frozen=True)
class Pass:
    """One forward pass: real positions of its tokens, which of them are no padding, their ids."""

    positions: Int[Tensor, "batch position"]
    real: Bool[Tensor, "batch position"]
    tokens: Int[Tensor, "batch position"] | None

    def last_real(self) -> Int[Tensor, " batch"]:
        """The position of every row's last token that is no padding."""
        return torch.where(self.real, self.positions, -1).amax(dim=1)


@dataclass(frozen=True)
class Sequences:
    """Rows that are on their way through the model, over one or several passes.

    Attributes:
        number: counts the sets of sequences of a model.
        starts: the position from which edits apply, a number a row.
        known: whether they are where prompts end, and not only where a pass does.
    """

    number: int
    starts: Int[Tensor, " batch"]
    known: bool = True


class PositionClock:
    """Tells hooks which positions a pass holds, on every path: cached or not, padded or not.

    Who knows the prompts' lengths sets the starts of edits with `starting_at`. Otherwise the pass
    that begins a set of sequences ends with the prompts: it does where it fills a cache or asks for
    the logits of its last position alone, as generation does (or of its last few, of which all but
    the first belong to candidates of assisted generation); elsewhere the starts are marked as not
    known. A pass begins a set unless it extends a cache, or, without a cache, has rows of the pass
    before it and one token behind each, as generation without a cache does, rows of beams in
    another order. One model serves one thread: blocks of another one are refused. What another
    thread runs by itself, as a streamer's does, is edited, as all passes of a block are.

    Args:
        module: the whole model, whose passes it follows.
        own: whose hooks are on it.
    """

    def __init__(self, module: Any, own: Ownership) -> None:
        self._module, self._ownership = ref(module), own
        self._listeners = 0
        self._running: threading.Thread | None = None
        self._around: list[tuple[Pass | None, Sequences | None]] = []
        self.mixed: set[int] = set()
        self.now: Pass | None = None
        self._given: Sequences | None = None
        self._announced: Pass | None = None
        self._current: Sequences | None = None
        self._of_cache: WeakKeyDictionary[Any, Sequences] = WeakKeyDictionary()
        self._begun: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
        self._uncached: tuple[Tensor, Tensor] | None = None
        self._count = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Follow the model's passes for the length of a block; blocks may hold one another."""
        with self._ownership.block():
            module = self._module()
            if self._listeners or module is None:
                handles = []
            else:
                handles = [
                    module.register_forward_pre_hook(self.tick, with_kwargs=True),
                    module.register_forward_hook(self.tock, with_kwargs=True, always_call=True),
                ]
            self._listeners += 1
            try:
                yield
            finally:
                self._listeners -= 1
                for handle in handles:
                    handle.remove()
                if not self._listeners:
                    self.now = self._current = self._uncached = self._running = None
                    self._around.clear()
                    self.mixed.clear()

    def tick(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before a pass: read positions off its arguments."""
        here = threading.current_thread()
        if self._running not in (None, here):
            if self._running.is_alive():
                raise two_threads()
            self._around.clear()  # it died within a pass
        self._running = here
        self._around.append((self.now, self._current))
        if self._announced is not None:
            self.now, self._announced = self._announced, None
            return
        kwargs = self._by_name(args, kwargs)
        tokens = kwargs.get("input_ids")
        shaped = tokens if tokens is not None else kwargs["inputs_embeds"]
        cache = cache_of(kwargs)
        past = int(cache.get_seq_length()) if cache is not None else 0
        self.now = read_positions(shaped, tokens, kwargs.get("attention_mask"), past)
        _require_usual(self.now, kwargs.get("position_ids"))
        if self._given is None:
            looked_at = kwargs.get("logits_to_keep", 0)
            looked_at = looked_at if isinstance(looked_at, int) else 0
            known = cache is not None or kwargs.get("use_cache") is True or looked_at > 0
            if past:
                self._current = self._extended(self.now, cache, looked_at)
            else:
                self._current = self._begin(self.now, cache, max(looked_at, 1), known=known)

    def _by_name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """A pass' arguments by their names; what no name has stays as it came."""
        module = self._module()
        if not args or module is None:
            return kwargs
        kind: Any = type(module)
        names = argument_names(kind)
        names = names if names[:1] == ("input_ids",) else ("input_ids",)
        return {**dict(zip(names, args, strict=False)), **kwargs}

    def tock(
        self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        """After a pass, also one that failed: know the cache again that the model made for it."""
        kwargs = self._by_name(args, kwargs)
        before = self._around.pop() if self._around else (None, None)
        made = cache_in(output)
        own = cache_of(kwargs) is None and self._given is None
        if own and self._current is not None and hasattr(made, "get_seq_length"):
            self._know(made, self._current)
        if self._around:  # a hook ran the model within a pass, which now goes on
            self.now, self._current = before
        else:
            self._running = None

    def _know(self, cache: Any, sequences: Sequences) -> None:
        """Remember whose a cache is, and be told when beams change its rows."""
        if cache not in self._of_cache and hasattr(cache, "reorder_cache"):
            original, mixed, number = cache.reorder_cache, self.mixed, sequences.number

            def reorder(beams: Tensor, *given: Any, **named: Any) -> Any:
                if not torch.equal(beams.cpu(), torch.arange(len(beams))):
                    mixed.add(number)
                return original(beams, *given, **named)

            cache.reorder_cache = reorder
        self._of_cache[cache] = sequences

    def _extended(self, now: Pass, cache: Any, looked_at: int) -> Sequences:
        """The sequences of a cache that a pass extends."""
        found = self._of_cache.get(cache)
        if found is None:
            raise WorkbenchError(
                "a pass that extends a cache whose first pass was not seen",
                "a cache that was begun under the edit, or start= of `edited`, the position "
                "of the first edited token",
            )
        if now.positions.shape[1] == looked_at or not looked_at:
            self._begun[cache] = True
        elif not self._begun.get(cache, False):
            raise WorkbenchError(
                "prompts that are read in chunks, under an edit (`prefill_chunk_size`)",
                "prompts in one pass, or start= of `edited`, the first edited position",
            )
        return found

    def _begin(self, now: Pass, cache: Any, looked_at: int, *, known: bool) -> Sequences:
        """The sequences that a pass begins, or goes on with where there is no cache."""
        found = None if cache is not None else self._repeated(now)
        if found is None:
            self._count += 1
            found = Sequences(self._count, now.last_real() - (looked_at - 1), known)
        if cache is not None:
            self._know(cache, found)
        self._uncached = None if cache is not None or now.tokens is None else (now.tokens, now.real)
        return found

    def _repeated(self, now: Pass) -> Sequences | None:
        """The sequences of the uncached pass before, if this one has its rows and a token more."""
        before = self._current
        if self._uncached is None or now.tokens is None or before is None:
            return None
        tokens, real = self._uncached
        rows, length = tokens.shape
        if now.tokens.shape != (rows, length + 1):
            return None
        alike = (now.tokens[:, None, :length] == tokens).all(dim=-1)
        alike &= (now.real[:, None, :length] == real).all(dim=-1)
        if not bool(alike.any(dim=1).all()):
            return None
        # Of rows that are alike the same one, so that those of a batch keep their own.
        alike = alike.int() + torch.eye(rows, dtype=torch.int, device=alike.device) * alike
        of = alike.argmax(dim=1).cpu()
        if not torch.equal(of, torch.arange(rows)):
            self.mixed.add(before.number)
        starts = before.starts[of.to(before.starts.device)]
        return Sequences(before.number, starts, before.known)

    @property
    def sequences(self) -> Sequences:
        """The sequences of the running pass.

        Raises:
            WorkbenchError: no pass is running, or it has another number of rows.
        """
        found = self._given or self._current
        if found is None or self.now is None:
            raise WorkbenchError("an edit outside any forward pass", "a forward pass of its model")
        rows = self.now.positions.shape[0]
        if found.starts.shape[0] != rows:
            raise WorkbenchError(
                f"{found.starts.shape[0]} start positions for a batch of {rows}", "one start a row"
            )
        return found

    @contextmanager
    def starting_at(self, starts: Int[Tensor, " batch"]) -> Iterator[None]:
        """Fix the edit's first positions for all passes of the block: one set of sequences."""
        before = self._given
        self._count += 1
        self._given = Sequences(self._count, starts)
        try:
            with self.listening():
                yield
        finally:
            self._given, self._announced = before, None

    def announce(self, coming: Pass) -> None:
        """Tell what the next pass holds, inside `starting_at`, instead of reading it off."""
        self._announced = coming


def read_positions(shaped: Tensor, tokens: Tensor | None, mask: Any, past: int) -> Pass:
    """Positions of a pass: after cached tokens, counted by the attention mask if given.

    Args:
        shaped: a tensor [batch, new, ...] of the pass' new tokens.
        tokens: the new tokens, where they are known.
        mask: of attention, [batch, cached + new], or None: no padding.
        past: how many tokens are cached.

    Raises:
        WorkbenchError: a mask that is no [batch, cached + new] tensor, as static caches make.
    """
    batch, length = shaped.shape[:2]
    if mask is None:
        real = torch.ones(batch, length, dtype=torch.bool, device=shaped.device)
        positions = torch.arange(past, past + length, device=shaped.device).expand(batch, length)
        return Pass(positions, real, tokens)
    if not isinstance(mask, Tensor) or mask.ndim != 2 or mask.shape[1] != past + length:
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise WorkbenchError(
            f"an attention mask of shape {shape} for {past} cached and {length} new tokens",
            f"shape ({batch}, {past + length})",
            "Static caches and masks of other shapes are not supported; use a dynamic cache.",
        )
    positions = (mask.long().cumsum(dim=1) - 1)[:, past:].clamp(min=0)
    return Pass(positions, mask[:, past:].bool(), tokens)


def _require_usual(now: Pass, given: Any) -> None:
    """Refuse positions other than those of rows that begin at 0, as of texts that share a row."""
    if not isinstance(given, Tensor) or given.ndim != 2:
        return
    if not bool(((given.to(now.positions.device) == now.positions) | ~now.real).all()):
        raise WorkbenchError(
            "position_ids that do not count a row's tokens from 0, as of several texts in one row",
            "a text a row, padded, with its attention mask",
            "Edits begin at a position of each row, and would begin at another one here.",
        )


_CLOCKS: WeakKeyDictionary[Any, PositionClock] = WeakKeyDictionary()


def clock(model: Model) -> PositionClock:
    """The model's position clock, which runs while somebody is `listening`."""
    found = _CLOCKS.get(model)
    if found is None:
        found = _CLOCKS[model] = PositionClock(model.original_model, ownership(model))
    return found
