"""Records: dataclasses of named tensors that leave as an xarray data set or as a tidy table.

The names of dimensions are those that the annotations give: `Float[Tensor, "token layer"]`.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    import pandas as pd
    import xarray

Named = tuple[tuple[str, ...], Any]
"""Values, with the names of their dimensions."""


class Record:
    """A dataclass whose tensors have the dimensions of their annotations."""

    def coordinates(self) -> Mapping[str, tuple[str, Sequence[Any]]]:
        """Names along dimensions: of a coordinate its dimension and values."""
        return {}

    def attributes(self) -> Mapping[str, Any]:
        """What holds for all: the model, an edit, α."""
        return {}

    def arrays(self) -> dict[str, Named]:
        """Every tensor that is there, by its field's name."""
        hints = typing.get_type_hints(type(self))
        found = {}
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                names = _dimensions(hints[field.name], value.ndim)
                plain = value.detach().cpu()
                half = plain.is_floating_point() and plain.element_size() < 4
                found[field.name] = (names, (plain.float() if half else plain).numpy())
        return found

    def to_xarray(self) -> xarray.Dataset:
        """The tensors with named dimensions and coordinates; numbers along the others."""
        import xarray

        arrays = self.arrays()
        named = {name: ((dim,), list(values)) for name, (dim, values) in self.coordinates().items()}
        sizes = {
            dim: size
            for dims, values in arrays.values()
            for dim, size in zip(dims, values.shape, strict=True)
        }
        numbers = {dim: np.arange(size) for dim, size in sizes.items() if dim not in named}
        return xarray.Dataset(arrays, coords={**numbers, **named}, attrs=dict(self.attributes()))

    def to_frame(self) -> pd.DataFrame:
        """The same as a table: a row for every point that any value has, dimensions as columns."""
        found = self.to_xarray()
        values = list(found.data_vars)
        return found.to_dataframe().dropna(how="all", subset=values).reset_index()


def _dimensions(hint: Any, count: int) -> tuple[str, ...]:
    """The dimensions that an annotation names; of equal ones the second is another's."""
    kinds = [hint, *typing.get_args(hint)]
    text = next((own.dim_str for own in kinds if getattr(own, "dim_str", None)), "")
    names: list[str] = []
    for name in text.split():
        plain = name if name.isidentifier() else f"component_{name}"
        names.append(f"other_{plain}" if plain in names else plain)
    return tuple(names) if len(names) == count else tuple(f"axis_{n}" for n in range(count))
