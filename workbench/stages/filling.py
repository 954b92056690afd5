"""Filling: z and, if asked for, u of many rows, copied while the next batch runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.models.batched_passes import Look, Passage, Seen, as_it_is, run_passages
from workbench.models.identity import Model, shape_of
from workbench.models.passes import Place
from workbench.stages.uncertainty import UncertaintyKind, entropy_reader


def fill(
    model: Model,
    passages: Sequence[Passage],
    uncertainty: UncertaintyKind | None,
    dtype: torch.dtype,
    batch_size: int,
    bar: Any,
    layers: Sequence[int] | None = None,
) -> tuple[Float[Tensor, "position layer head d_head"], Float[Tensor, "position kept_layer"]]:
    """Z and, if asked for, the uncertainty at the spans of all rows, where they belong, on the CPU.

    Args:
        model: the bridge.
        passages: what to run.
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
    count = sum(len(passage.span) for passage in passages)
    z = torch.empty(count, shape.layers, shape.heads, shape.d_head, dtype=dtype)
    entropies = torch.empty(
        count, len(layers or range(shape.layers)) if uncertainty else 0, dtype=torch.float32
    )
    pending: _OnItsWay | None = None
    for batch in run_passages(model, passages, batch_size, looks):
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
    def of(cls, batch: Seen, dtype: torch.dtype) -> _OnItsWay:
        seen = {place: batch.seen[place] for place in sorted(batch.seen)}
        z = [_to_host(values.to(dtype)) for (point, _), values in seen.items() if point == "z"]
        entropies = [_to_host(values) for (point, _), values in seen.items() if point != "z"]
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
