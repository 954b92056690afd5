"""Tensors, in safetensors files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.errors import WorkbenchError
from workbench.storage.files import replacing
from workbench.storage.paths import PathLike, existing

if TYPE_CHECKING:
    from torch import Tensor


def write_tensors(path: PathLike, tensors: Mapping[str, Tensor]) -> Path:
    """Write named tensors as a safetensors file, whole or not at all; a full disk is an OSError."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        try:
            save_file({name: value.contiguous() for name, value in tensors.items()}, temporary)
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written: {error}") from error
    return Path(path)


def read_tensors(path: PathLike) -> dict[str, Tensor]:
    """The named tensors of a safetensors file.

    Raises:
        WorkbenchError: no such file, or it is truncated or no safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    source = existing(path)
    try:
        tensors: dict[str, Tensor] = load_file(source)
    except (SafetensorError, OSError, ValueError) as error:
        raise WorkbenchError(
            f"{source} cannot be read as safetensors ({error}); its size is "
            f"{source.stat().st_size} bytes",
            "a complete safetensors file",
            "It may be truncated: copy or write it again.",
        ) from error
    return tensors


def map_tensor(path: PathLike, name: str) -> Tensor:
    """A tensor of a safetensors file, mapped: its pages are read when they are touched.

    Raises:
        WorkbenchError: no such file or tensor, or the file is truncated or no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    source = existing(path)
    try:
        with safe_open(source, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:  # or too large to map
        raise WorkbenchError(
            f"{source} cannot be read as safetensors ({error}); its size is "
            f"{source.stat().st_size} bytes",
            f"a complete safetensors file with {name!r}",
            "It may be truncated: delete it, or copy or write it again.",
        ) from error
    return tensor
