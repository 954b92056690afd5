"""Gathering: run rows of tokens in batches and keep what hooks see at some of their positions.

Rows of similar length run together, longest first. What is seen is gathered on the model's device
at the positions that are kept, and copied to the host while the next batch runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.models import Model, shape_of
from workbench.prompts import pad
from workbench.running import attached, forward
from workbench.uncertainty import UncertaintyKind, entropy_of_layer

Look = Callable[[int, Float[Tensor, "kept d_model"]], Tensor]


@dataclass(frozen=True)
class Run:
    """Tokens to run, and the positions at which to keep what hooks see."""

    tokens: Sequence[int]
    span: range


@dataclass(frozen=True)
class Gathered:
    """What one batch showed at the positions that are kept, on the model's device.

    Attributes:
        place: numbers of the positions, counted over the spans of all rows.
        runs: how many rows the batch held.
        z: head outputs [kept, head, d_head], by layer.
        looked: what `look` made of the residual stream, by layer.
    """

    place: Int[Tensor, " kept"]
    runs: int
    z: dict[int, Tensor]
    looked: dict[int, Tensor]


def gather(
    model: Model,
    runs: Sequence[Run],
    batch_size: int,
    *,
    z: bool = True,
    look: Look | None = None,
) -> Iterator[Gathered]:
    """Run all rows of tokens, batch after batch.

    Args:
        model: the bridge.
        runs: what to run.
        batch_size: rows in a batch; what is gathered does not depend on it.
        z: keep head outputs.
        look: is told the layer and its residual stream at the kept positions.
    """
    starts = np.cumsum([0, *(len(run.span) for run in runs)]).tolist()
    layers = range(shape_of(model).layers)
    order = sorted(range(len(runs)), key=lambda index: -len(runs[index].tokens))
    for begin in range(0, len(order), batch_size):
        batch = [runs[index] for index in order[begin : begin + batch_size]]
        at = (
            torch.tensor([row for row, run in enumerate(batch) for _ in run.span]),
            torch.tensor([position for run in batch for position in run.span]),
        )
        seen: dict[int, Tensor] = {}
        looked: dict[int, Tensor] = {}
        keep = {layer: _keeper(at, layer, seen) for layer in layers if z}
        looks = {layer: _keeper(at, layer, looked, look) for layer in layers if look is not None}
        tokens, mask = pad(model, [run.tokens for run in batch])
        with attached(model, keep, looks, site="projection"):
            forward(model, tokens, mask, keep=1)
        place = [
            starts[index] + number
            for index in order[begin : begin + batch_size]
            for number in range(len(runs[index].span))
        ]
        yield Gathered(torch.tensor(place), len(batch), seen, looked)


def _keeper(
    at: tuple[Tensor, Tensor], layer: int, kept: dict[int, Tensor], look: Look | None = None
) -> Callable[[Tensor], None]:
    """A hook that keeps what it sees at some rows and positions, or what `look` makes of it."""

    def hook(values: Tensor) -> None:
        kept[layer] = values[at] if look is None else look(layer, values[at])

    return hook


def fill(
    model: Model,
    runs: Sequence[Run],
    uncertainty: UncertaintyKind | None,
    dtype: torch.dtype,
    batch_size: int,
    bar: Any,
) -> tuple[Float[Tensor, "position layer head d_head"], Float[Tensor, "position kept_layer"]]:
    """Z and, if asked for, the uncertainty at the spans of all rows, in order, on the CPU.

    Args:
        model: the bridge.
        runs: what to run.
        uncertainty: its kind; None keeps none, and returns no columns.
        dtype: of the z that is returned.
        batch_size: rows in a batch; the result does not depend on it.
        bar: is told how many rows are done.
    """
    look = None if uncertainty is None else _entropy(model, uncertainty)
    shape = shape_of(model)
    count = sum(len(run.span) for run in runs)
    z = torch.empty(count, shape.layers, shape.heads, shape.d_head, dtype=dtype)
    entropies = torch.empty(count, shape.layers if uncertainty else 0)
    pending: _OnItsWay | None = None
    for batch in gather(model, runs, batch_size, look=look):
        if pending is not None:
            pending.land(z, entropies)
        pending = _OnItsWay.of(batch, dtype)
        bar.update(batch.runs)
    if pending is not None:
        pending.land(z, entropies)
    return z, entropies


def _entropy(model: Model, kind: UncertaintyKind) -> Look:
    return lambda _layer, residual: entropy_of_layer(model, residual, kind)


@dataclass(frozen=True)
class _OnItsWay:
    """A batch's values on their way to the CPU, in pinned memory where they come from a GPU."""

    place: Int[Tensor, " kept"]
    z: list[Tensor]
    entropies: list[Tensor]
    arrived: list[torch.cuda.Event]

    @classmethod
    def of(cls, batch: Gathered, dtype: torch.dtype) -> _OnItsWay:
        z = [_to_host(batch.z[layer].to(dtype)) for layer in sorted(batch.z)]
        entropies = [_to_host(batch.looked[layer]) for layer in sorted(batch.looked)]
        arrived = []
        for device in {value.device for value in batch.z.values() if value.is_cuda}:
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
