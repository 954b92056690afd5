"""Gathering: run rows of tokens in batches and keep what hooks see at some of their positions.

Rows of similar length run together, longest first. What is seen is gathered on the model's device
at the positions that are kept, and copied from a GPU to the host while the next batch runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.models import Model, device_of, shape_of
from workbench.prompts import pad
from workbench.running import Place, attached, forward
from workbench.uncertainty import UncertaintyKind, entropy_reader

Look = Callable[[Float[Tensor, "kept *width"]], Tensor]


MOST_TOKENS: Mapping[str, int] = {"cpu": 1 << 12, "cuda": 1 << 15}
"""Most tokens of a batch, padding included: passes of seconds, and bounded memory."""


@dataclass(frozen=True)
class Run:
    """Tokens to run, and the positions at which to keep what hooks see.

    Attributes:
        tokens: ids.
        span: the positions, in order.
        rows: where among all that is kept each of them belongs; by default behind what the runs
            before keep.
    """

    tokens: Sequence[int]
    span: Sequence[int]
    rows: Sequence[int] | None = None


@dataclass(frozen=True)
class Gathered:
    """What one batch showed at the positions that are kept, on the model's device.

    Attributes:
        place: where each position belongs among all that is kept.
        tokens: how many tokens were run, without padding.
        seen: what was made of the states, by place; a row a kept position.
    """

    place: Int[Tensor, " kept"]
    tokens: int
    seen: dict[Place, Tensor]


def gather(
    model: Model, runs: Sequence[Run], batch_size: int, looks: Mapping[Place, Look]
) -> Iterator[Gathered]:
    """Run all rows of tokens, batch after batch.

    Args:
        model: the bridge.
        runs: what to run.
        batch_size: rows in a batch; what is gathered does not depend on it.
        looks: for every place what to make of its states at the kept positions.
    """
    starts = np.cumsum([0, *(len(run.span) for run in runs)]).tolist()
    rows = [
        range(start, start + len(run.span)) if run.rows is None else run.rows
        for start, run in zip(starts, runs, strict=False)
    ]
    most = MOST_TOKENS.get(device_of(model).type, MOST_TOKENS["cpu"])
    for numbers in batched([run.tokens for run in runs], batch_size, most):
        batch = [runs[number] for number in numbers]
        at = (
            torch.tensor([row for row, run in enumerate(batch) for _ in run.span]),
            torch.tensor([position for run in batch for position in run.span]),
        )
        seen: dict[Place, Tensor] = {}
        hooks = {place: _keeper(at, place, seen, look) for place, look in looks.items()}
        tokens, mask = pad(model, [run.tokens for run in batch])
        with attached(model, hooks, "module"):
            forward(model, tokens, mask, keep=1)
        place = [row for number in numbers for row in rows[number]]
        yield Gathered(torch.tensor(place), sum(len(run.tokens) for run in batch), seen)


def batched(texts: Sequence[Sequence[int]], rows: int, tokens: int) -> Iterator[list[int]]:
    """Numbers of rows that run together, long ones first: so many rows, and tokens with padding."""
    order = sorted(range(len(texts)), key=lambda number: -len(texts[number]))
    begin = 0
    while begin < len(order):
        longest = len(texts[order[begin]])
        count = max(1, min(rows, tokens // longest))
        yield order[begin : begin + count]
        begin += count


def collect(
    model: Model, runs: Sequence[Run], places: Sequence[Place], batch_size: int = 64
) -> dict[Place, Float[Tensor, position * width]]:
    """States at the spans of all rows, in order, in float32 on the CPU.

    Args:
        model: the bridge.
        runs: what to run, as it is: without padding that shows, and with what is attached.
        places: where to look.
        batch_size: rows in a batch; the result does not depend on it.
    """
    count = sum(len(run.span) for run in runs)
    found: dict[Place, Tensor] = {}
    for batch in gather(model, runs, batch_size, dict.fromkeys(places, as_it_is)):
        for place, states in batch.seen.items():
            kept = found.setdefault(place, torch.empty(count, *states.shape[1:]))
            kept[batch.place] = states.float().cpu()
    return found


def as_it_is(states: Float[Tensor, kept * width]) -> Tensor:
    """The states themselves."""
    return states


def _keeper(
    at: tuple[Tensor, Tensor], place: Place, kept: dict[Place, Tensor], look: Look
) -> Callable[[Tensor], None]:
    """A hook that keeps what `look` makes of what it sees at some rows and positions."""

    def hook(values: Tensor) -> None:
        kept[place] = look(values[at])

    return hook


def fill(
    model: Model,
    runs: Sequence[Run],
    uncertainty: UncertaintyKind | None,
    dtype: torch.dtype,
    batch_size: int,
    bar: Any,
    layers: Sequence[int] | None = None,
) -> tuple[Float[Tensor, "position layer head d_head"], Float[Tensor, "position kept_layer"]]:
    """Z and, if asked for, the uncertainty at the spans of all rows, where they belong, on the CPU.

    Args:
        model: the bridge.
        runs: what to run.
        uncertainty: its kind; None keeps none, and returns no columns.
        dtype: of the z that is returned.
        batch_size: most rows in a batch; the result does not depend on it.
        bar: is told how many tokens are done.
        layers: where to read the uncertainty, in order; at all layers by default.
    """
    shape = shape_of(model)
    looks: dict[Place, Look] = {("z", layer): as_it_is for layer in range(shape.layers)}
    if uncertainty is not None:
        read = entropy_reader(model, uncertainty)
        looks |= {("resid_pre", layer): read for layer in layers or range(shape.layers)}
    count = sum(len(run.span) for run in runs)
    z = torch.empty(count, shape.layers, shape.heads, shape.d_head, dtype=dtype)
    entropies = torch.empty(count, len(layers or range(shape.layers)) if uncertainty else 0)
    pending: _OnItsWay | None = None
    for batch in gather(model, runs, batch_size, looks):
        if pending is not None:
            pending.land(z, entropies)
        pending = _OnItsWay.of(batch, dtype)
        bar.update(batch.tokens)
        del batch  # which would be held while the next one runs
        if not pending.arrived:
            pending.land(z, entropies)
            pending = None
    if pending is not None:
        pending.land(z, entropies)
    return z, entropies


@dataclass(frozen=True)
class _OnItsWay:
    """A batch's values on their way to the CPU, in pinned memory where they come from a GPU.

    Attributes:
        place: the row of each.
        z: a tensor a layer.
        entropies: a tensor a layer that is read.
        arrived: when they are there; none where they were on the CPU.
    """

    place: Int[Tensor, " kept"]
    z: list[Tensor]
    entropies: list[Tensor]
    arrived: list[torch.cuda.Event]

    @classmethod
    def of(cls, batch: Gathered, dtype: torch.dtype) -> _OnItsWay:
        seen = {place: batch.seen[place] for place in sorted(batch.seen)}
        z = [_to_host(own.to(dtype)) for (point, _), own in seen.items() if point == "z"]
        entropies = [_to_host(own) for (point, _), own in seen.items() if point != "z"]
        arrived = []
        for device in {value.device for value in batch.seen.values() if value.is_cuda}:
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(device))
            arrived.append(event)
        return cls(batch.place, z, entropies, arrived)

    def land(self, z: Tensor, entropies: Tensor) -> None:
        """Write the values to their rows."""
        for event in self.arrived:
            event.synchronize()
        for layer, values in enumerate(self.z):
            z[self.place, layer] = values
        for layer, values in enumerate(self.entropies):
            entropies[self.place, layer] = values


def _to_host(values: Tensor) -> Tensor:
    if not values.is_cuda:
        return values
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)
