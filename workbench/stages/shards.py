"""Shards: rows of activations in several safetensors files, mapped and read as they are asked for.

A layer of them, or the rows of an answer, is indexed as it would be in one tensor in memory; what
is returned is float32 and all that is held.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench import storage
from workbench.errors import WorkbenchError

Rows = int | slice | Int[Tensor, "*row"] | Bool[Tensor, " row"]


class Shards:
    """Activations [row, layer, head, d_head] on disk.

    Args:
        files: safetensors files, in order.
        name: the tensor in each of them.
        index: the rows of all files together that this selection holds; all by default.

    Raises:
        WorkbenchError: a file is missing or truncated, or lacks the tensor, or they do not fit.
    """

    def __init__(
        self, files: Sequence[Path], name: str, index: Int[Tensor, " row"] | None = None
    ) -> None:
        self.files, self.name, self.index = tuple(files), name, index
        self._parts = [storage.map_tensor(file, name) for file in files]
        for file, part in zip(files, self._parts, strict=True):
            if part.ndim != 4 or part.shape[1:] != self._parts[0].shape[1:]:
                raise WorkbenchError(
                    f"{file} holds {name} of shape {tuple(part.shape)}",
                    f"shape (rows, {', '.join(map(str, self._parts[0].shape[1:]))})",
                )
        self._ends = torch.tensor([len(part) for part in self._parts]).cumsum(0)

    def __repr__(self) -> str:
        return f"Shards({len(self.files)} files, {tuple(self.shape)})"

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.index is None else len(self.index)

    @property
    def shape(self) -> torch.Size:
        """Rows, layers, heads and d_head."""
        return torch.Size((len(self), *self._parts[0].shape[1:]))

    def select(self, rows: Int[Tensor, " row"]) -> Shards:
        """Some of the rows, still on disk."""
        rows = self._numbers(rows)
        chosen = rows if self.index is None else self.index[rows]
        return Shards(self.files, self.name, chosen)

    def _numbers(self, rows: Rows) -> Int[Tensor, "*row"]:
        """Numbers from 0 on of rows that are given as a tensor in memory would take them."""
        if isinstance(rows, Tensor) and rows.dtype != torch.bool and rows.numel():
            least, most = int(rows.min()), int(rows.max())
            if least < -len(self) or most >= len(self):
                raise WorkbenchError(
                    f"row {least if least < 0 else most} of {len(self)}",
                    f"{-len(self)} to {len(self) - 1}",
                )
        numbers: Tensor = torch.arange(len(self))[rows]
        return numbers

    def __getitem__(self, key: Rows | tuple[Rows, int]) -> Float[Tensor, ...]:
        """Rows, or a layer of rows, in float32 in memory."""
        rows, layer = key if isinstance(key, tuple) else (key, None)
        wanted = self._numbers(rows)
        flat = wanted.flatten() if self.index is None else self.index[wanted.flatten()]
        shape = self.shape[1:] if layer is None else self.shape[2:]
        values = torch.empty(len(flat), *shape, dtype=torch.float32)
        shard = torch.searchsorted(self._ends, flat, right=True)
        for number in sorted(set(shard.tolist())):
            here = shard == number
            begin = int(self._ends[number]) - len(self._parts[number])
            part = self._parts[number]
            values[here] = (part if layer is None else part[:, layer])[flat[here] - begin].float()
        return values.view(*wanted.shape, *shape)


def take(
    z: Float[Tensor, "position layer head d_head"] | Shards, rows: Int[Tensor, " row"]
) -> Float[Tensor, "row layer head d_head"] | Shards:
    """Some rows of activations, in memory or on disk as they are."""
    return z.select(rows) if isinstance(z, Shards) else z[rows]
