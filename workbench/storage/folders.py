"""Folders: made, filled as a whole, and taken away."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock

from workbench.errors import WorkbenchError
from workbench.storage.paths import PathLike

ALIVE = ".alive"
"""Ends the name of a file that a process locks while it works in the folder of that name."""


DENIED = (errno.EROFS, errno.EACCES, errno.EPERM)
"""What the system says where nobody, or not this user, may write."""
LATE = 60.0
"""Seconds after which what another machine has written is to be seen; network file systems keep
for half a minute that there is no such name."""


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


def require_writable(path: PathLike) -> None:
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
    with _temporary(f".{target.name}.", target.parent) as made:
        inside = made / "whole"
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
    with _temporary(".workbench-", beside) as made:
        yield made


@contextmanager
def _temporary(prefix: str, within: PathLike | None) -> Iterator[Path]:
    with writing_to(within or tempfile.gettempdir()):
        made = tempfile.TemporaryDirectory(prefix=prefix, dir=within)
    with made as name:
        yield Path(name)


@contextmanager
def writing_to(folder: PathLike) -> Iterator[None]:
    """A block that makes something in a folder.

    Raises:
        WorkbenchError: it may not, as where the disk is read-only.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DENIED:
            raise
        raise WorkbenchError(
            f"{folder} cannot be written to ({error.strerror})", "a folder that can be"
        ) from error


@contextmanager
def scratch_of_this_process(beside: PathLike, name: str) -> Iterator[Path]:
    """The same under a name that later processes know: they remove what a killed one has left."""
    place = Path(beside)
    for left in place.glob(f".{name}-*{ALIVE}"):
        with suppress(OSError), FileLock(left, blocking=False):  # a Timeout is an OSError
            remove_folder(left.with_suffix(""))
            left.unlink(missing_ok=True)
    own = place / f".{name}-{uuid4().hex[:8]}"
    held = own.with_suffix(ALIVE)
    with locked(held):
        own.mkdir()
        try:
            yield own
        finally:
            remove_folder(own)
            held.unlink(missing_ok=True)


@contextmanager
def locked(file: PathLike) -> Iterator[None]:
    """A block that one process of all that name this file is in at a time."""
    place = make_folder(Path(file).parent)
    with ExitStack() as held:
        with writing_to(place):
            held.enter_context(FileLock(file))
        yield


def awaited(path: PathLike) -> Path:
    """A path that another process has written; on another machine it may be seen late."""
    place, until = Path(path), time.monotonic() + LATE
    while not place.exists() and time.monotonic() < until:
        with suppress(OSError):
            list(place.parent.iterdir())  # which asks the server again
        time.sleep(1)
    return place


def size_of(folder: PathLike) -> int:
    """Bytes of all files in a folder and its folders, while others may still write there."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(place) / name).stat().st_size
    return total
