"""Folders: made, filled as a whole, and taken away."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.storage.paths import PathLike


def make_folder(path: PathLike) -> Path:
    """A folder to write into, made if it is not there.

    Raises:
        WorkbenchError: a file is in its place, or it cannot be made.
    """
    place = Path(path).expanduser()
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkbenchError(
            f"{place} cannot be used as a folder ({error.strerror})", "a folder, or a new path"
        ) from error
    return place


def require_room(path: PathLike) -> None:
    """Refuse a path at which no folder can be made, without making one.

    Raises:
        WorkbenchError: it or a part of it is a file, or it cannot be written to.
    """
    place = Path(path).expanduser().absolute()
    there = next(one for one in (place, *place.parents) if one.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "is a file" if not there.is_dir() else "cannot be written to"
        raise WorkbenchError(
            f"{place} cannot be used as a folder ({there} {why})", "a folder, or a new path"
        )


def remove_folder(path: PathLike) -> None:
    """Remove a folder with all that is in it; one that is not there is no matter."""
    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def whole_folder(path: PathLike) -> Iterator[Path]:
    """A folder to fill, which takes its name when the block ends; one that is there is kept."""
    target = Path(path)
    make_folder(target.parent)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as name:
        inside = Path(name) / "whole"
        inside.mkdir()
        yield inside
        try:
            inside.rename(target)
        except OSError:
            if not target.is_dir():
                raise


@contextmanager
def scratch(beside: PathLike | None = None) -> Iterator[Path]:
    """A folder that is gone after the block, in another folder or where temporary files are."""
    with tempfile.TemporaryDirectory(prefix=".workbench-", dir=beside) as name:
        yield Path(name)


def size_of(folder: PathLike) -> int:
    """Bytes of all files in a folder and its folders, while others may still write there."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(place) / name).stat().st_size
    return total
