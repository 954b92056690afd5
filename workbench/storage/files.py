"""Files of any content: read, and written so that none is half-written.

Every writer fills a temporary file beside its target and renames it into place; a reader therefore
sees either the old content or the new, never a part.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.storage.folders import make_folder, writing_to
from workbench.storage.paths import PathLike, existing


def read_text(path: PathLike) -> str:
    """A UTF-8 text file; a byte-order mark at its start is dropped.

    Raises:
        WorkbenchError: no such file, or not UTF-8.
    """
    source = existing(path)
    try:
        return source.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise WorkbenchError(
            f"{source} is not UTF-8 (byte {error.start})", "text in UTF-8", "Save it as UTF-8."
        ) from error
    except OSError as error:
        raise WorkbenchError(
            f"{source} cannot be read ({error.strerror})", "a text file"
        ) from error


def write_text(path: PathLike, text: str) -> Path:
    """Write a UTF-8 text file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def read_bytes(path: PathLike) -> bytes:
    """A file's content.

    Raises:
        WorkbenchError: no such file, or it cannot be read, as a folder.
    """
    with _readable(path) as file:
        return file.read()


def write_bytes(path: PathLike, content: bytes) -> Path:
    """Write a binary file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return Path(path)


@contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends without an exception."""
    with beside(Path(path)) as temporary:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """A temporary file in the same folder, gone in the end."""
    make_folder(target.parent)
    with writing_to(target.parent):
        handle, name = tempfile.mkstemp(
            dir=target.parent, prefix=f".{target.name}.", suffix=target.suffix
        )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def move(source: PathLike, target: PathLike) -> Path:
    """Put a file in the place of another, on the same disk: the old one is seen, or the new one."""
    return Path(source).replace(target)


def fingerprint(path: PathLike) -> str:
    """SHA-256 of a file's content, as hexadecimal digits.

    Raises:
        WorkbenchError: no such file, or it cannot be read, as a folder.
    """
    with _readable(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _readable(path: PathLike) -> BufferedReader:
    """A file's bytes, to be closed."""
    place = existing(path)
    try:
        return place.open("rb")
    except OSError as error:
        raise WorkbenchError(f"{place} cannot be read ({error.strerror})", "a file") from error


@contextmanager
def mapped(path: PathLike) -> Iterator[memoryview]:
    """A file's bytes, read when they are touched.

    Raises:
        WorkbenchError: no such file, or it cannot be read, as a folder.
    """
    with _readable(path) as file:
        if not file.seek(0, os.SEEK_END):
            yield memoryview(b"")
            return
        with (
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
            memoryview(content) as view,
        ):
            yield view


def unpack(archive: PathLike, inside: str, target: PathLike, digest: str) -> Path:
    """Take a file out of a zip archive, whole or not at all.

    Args:
        archive: the zip file, such as a wheel.
        inside: the file's path in it.
        target: where to write it.
        digest: its SHA-256.

    Raises:
        WorkbenchError: no zip archive, no such file in it, or one of another content.
    """
    place = existing(archive, "archive")
    found = hashlib.sha256()
    with replacing(target) as temporary:
        try:
            with (
                zipfile.ZipFile(place) as held,
                held.open(inside) as source,
                temporary.open("wb") as written,
            ):
                while part := source.read(1 << 20):
                    found.update(part)
                    written.write(part)
        except (zipfile.BadZipFile, KeyError) as error:
            raise WorkbenchError(f"{place} ({error})", f"a zip archive with {inside}") from error
        if found.hexdigest() != digest:
            raise WorkbenchError(
                f"{inside} of {place} with the SHA-256 {found.hexdigest()}", digest
            )
    return Path(target)
