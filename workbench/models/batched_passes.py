"""Batched passes: run rows of tokens and keep what hooks see at some of their positions.

Rows of similar length run together, longest first, and what they begin with alike is run once. What
is seen is picked out on the model's device at the positions that are kept, and copied from a GPU to
the host while the next batch runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import WorkbenchError
from workbench.models.beginnings import Reading
from workbench.models.identity import Model, device_of
from workbench.models.passes import Place, attached, forward
from workbench.models.positions import NEVER, clock
from workbench.models.prefixes import must_run_apart
from workbench.models.sharing import Layout, batches, most_tokens
from workbench.models.unwrapping import has_hooks

Look = Callable[[Float[Tensor, "kept *width"]], Tensor]


MOST_TOKENS: Mapping[str, int] = {"cpu": 1 << 12, "cuda": 1 << 15}
"""Most tokens of a batch, padding included: passes of seconds, and bounded memory."""


@dataclass(frozen=True)
class Passage:
    """Tokens to run, and the positions at which to keep what hooks see.

    Attributes:
        tokens: ids.
        span: the positions, in order.
        rows: where among all that is kept each of them belongs; by default behind what the passages
            before keep.
    """

    tokens: Sequence[int]
    span: Sequence[int]
    rows: Sequence[int] | None = None


@dataclass(frozen=True)
class Seen:
    """What one batch showed at the positions that are kept, on the model's device.

    Attributes:
        place: where each position belongs among all that is kept.
        tokens: how many tokens its passages have; those that they share count for each.
        seen: what was made of the states, by place; a row a kept position.
    """

    place: Int[Tensor, " kept"]
    tokens: int
    seen: dict[Place, Tensor]


def run_passages(
    model: Model, passages: Sequence[Passage], batch_size: int, looks: Mapping[Place, Look]
) -> Iterator[Seen]:
    """Run all passages, batch after batch.

    Args:
        model: the bridge.
        passages: what to run.
        batch_size: passages in a batch; what is gathered does not depend on it.
        looks: for every place what to make of its states at the kept positions, each by itself:
            one that several passages begin alike up to is shown once.

    Raises:
        WorkbenchError: a passage with an empty span.
    """
    if any(not len(passage.span) for passage in passages):
        raise WorkbenchError("a passage with no position to keep", "at least one")
    starts = np.cumsum([0, *(len(passage.span) for passage in passages)]).tolist()
    rows = [
        range(start, start + len(passage.span)) if passage.rows is None else passage.rows
        for start, passage in zip(starts, passages, strict=False)
    ]
    most = MOST_TOKENS.get(device_of(model).type, MOST_TOKENS["cpu"])
    whole = has_hooks(model)  # which may change what comes before by what comes after
    readings = [
        Reading(
            tuple(passage.tokens if whole else passage.tokens[: max(passage.span) + 1]),
            min(passage.span),
        )
        for passage in passages
    ]
    begins = [[reading.first for reading in readings]]
    for batch in batches(model, readings, begins, batch_size, most=most, only_together=True):
        layout = batch.layout(model, readings)
        numbers = [number for row in batch.rows for number in row.answers]
        width = layout.tokens.shape[1]
        cells = torch.tensor([
            row * width + path[position - readings[number].first]
            for row, (own, paths) in enumerate(zip(batch.rows, layout.paths, strict=True))
            for number, path in zip(own.answers, paths, strict=True)
            for position in passages[number].span
        ])  # fmt: skip
        seen: dict[Place, Tensor] = {}
        hooks = {place: _keeper(cells, place, seen, look) for place, look in looks.items()}
        with attached(model, hooks, "module"):
            _run(model, layout)
        place = torch.tensor([row for number in numbers for row in rows[number]])
        tokens = sum(len(passages[number].tokens) for number in numbers)
        del layout, hooks  # with what they hold, while the next beginnings are run
        yield Seen(place, tokens, seen)
        del seen, batch


def _run(model: Model, layout: Layout) -> None:
    """A pass whose logits nobody asks for."""
    if layout.cache is None and layout.positions is None:
        forward(model, layout.tokens, layout.mask, keep=1)
        return
    never = torch.full((len(layout.tokens),), NEVER)
    timer, held = clock(model), layout.positions
    with timer.starting_at(never):
        if held is not None:
            timer.announce(held)
        forward(
            model, layout.tokens, layout.mask, layout.cache, keep=1,
            positions=None if held is None else held.positions,
        )  # fmt: skip


def padded_batches(
    model: Model, texts: Sequence[Sequence[int]], rows: int, padding: float = 1.0
) -> Iterator[list[int]]:
    """Numbers of rows whose logits are all asked for, and that leave each other as they are.

    Args:
        model: the bridge.
        texts: the rows.
        rows: so many at most.
        padding: the share of a batch that padding may be.
    """
    alone = must_run_apart(model, map(len, texts))
    return batched(texts, 1 if alone else rows, most_tokens(model), padding)


def batched(
    texts: Sequence[Sequence[int]], rows: int, tokens: int, padding: float = 1.0
) -> Iterator[list[int]]:
    """Numbers of rows that run together, long ones first.

    Args:
        texts: the rows.
        rows: so many at most.
        tokens: so many at most, with padding.
        padding: the share of them that padding may be.
    """
    batch: list[int] = []
    own = 0
    for number in sorted(range(len(texts)), key=lambda number: -len(texts[number])):
        own += len(texts[number])
        whole = (len(batch) + 1) * len(texts[batch[0]]) if batch else own
        full = len(batch) == rows or whole > tokens or own < (1 - padding) * whole
        if batch and full:
            yield batch
            batch, own = [], len(texts[number])
        batch.append(number)
    if batch:
        yield batch


def states_at(
    model: Model, passages: Sequence[Passage], places: Sequence[Place], batch_size: int = 64
) -> dict[Place, Float[Tensor, position * width]]:
    """States at the spans of all rows, in order, in float32 on the CPU.

    Args:
        model: the bridge.
        passages: what to run, as it is: without padding that shows, and with what is attached.
        places: where to look.
        batch_size: rows in a batch; the result does not depend on it.
    """
    count = sum(len(passage.span) for passage in passages)
    found: dict[Place, Tensor] = {}
    for batch in run_passages(model, passages, batch_size, dict.fromkeys(places, as_it_is)):
        for place, states in batch.seen.items():
            kept = found.setdefault(
                place, torch.empty(count, *states.shape[1:], dtype=torch.float32)
            )
            kept[batch.place] = states.float().cpu()
    return found


def as_it_is(states: Float[Tensor, kept * width]) -> Tensor:
    """The states themselves."""
    return states


def _keeper(
    cells: Int[Tensor, " kept"], place: Place, kept: dict[Place, Tensor], look: Look
) -> Callable[[Tensor], None]:
    """A hook that keeps what `look` makes of what it sees at some cells of a batch.

    Cells that several passages share are looked at once.
    """
    once, again = torch.unique(cells, return_inverse=True)
    alone = torch.equal(again, torch.arange(len(cells)))

    def hook(values: Tensor) -> None:
        found = look(values.flatten(0, 1)[once.to(values.device)])
        kept[place] = found if alone else found[again.to(found.device)]

    return hook
