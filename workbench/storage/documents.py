"""Documents: JSON, JSON Lines, TOML and CSV."""

from __future__ import annotations

import csv
import io
import json
import re
import tomllib
from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError
from workbench.storage.files import beside, read_text, write_text
from workbench.storage.paths import PathLike

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""How JSON writes half a character."""


def read_json(path: PathLike) -> Any:
    """A JSON file's value.

    Raises:
        WorkbenchError: no such file, or not JSON; the line is named.
    """
    return _parsed(read_text(path), str(path), "a JSON document")


def write_json(path: PathLike, value: Any) -> Path:
    """Write a JSON file whole or not at all; NaN and infinities are refused."""
    return write_text(path, _as_json(value))


def create_json(path: PathLike, value: Any) -> bool:
    """Write a JSON file whole if there is none; of several processes one alone succeeds.

    Returns:
        Whether this call wrote it.
    """
    target = Path(path)
    with beside(target) as temporary:
        temporary.write_text(_as_json(value), encoding="utf-8")
        temporary.chmod(0o644)
        try:
            target.hardlink_to(temporary)
        except FileExistsError:
            return False
    return True


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_json_lines(path: PathLike) -> list[Any]:
    """A JSON Lines file: one value a line, blank lines skipped; item k came from a known line."""
    values = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            values.append(_parsed(line, f"{path}, line {number},", "one JSON value a line"))
    return values


def _parsed(text: str, where: str, expected: str) -> Any:
    """The value of a JSON text; halves of characters, which no file could hold, are refused."""
    try:
        value = json.loads(text, object_pairs_hook=_once)
        if SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        at = f" at line {error.lineno}" if "\n" in text.strip() else ""
        raise WorkbenchError(f"{where} is not valid JSON{at}: {error.msg}", expected) from error
    except KeyError as error:
        raise WorkbenchError(f"{where} has the key {error} twice", "every key once") from error
    except UnicodeEncodeError as error:
        raise WorkbenchError(
            f"{where} holds half a character, \\u{ord(error.object[error.start]):04x}",
            "characters that UTF-8 can write",
        ) from error
    except (RecursionError, ValueError) as error:  # or a number of thousands of digits
        raise WorkbenchError(
            f"{where} is nested too deep, or has too long numbers", expected
        ) from (error)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A table of JSON, of which the last of repeated keys would stay."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise KeyError(next(key for key in keys if keys.count(key) > 1))
    return found


def read_toml(path: PathLike) -> dict[str, Any]:
    """A TOML file's table."""
    text = read_text(path)
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        told = "nested too deep" if isinstance(error, RecursionError) else error
        raise WorkbenchError(f"{path} is not valid TOML: {told}", "a TOML document") from error


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
    """The column names of a CSV file.

    Raises:
        WorkbenchError: no such file, or no CSV.
    """
    try:
        return next(csv.reader(io.StringIO(read_text(path), newline="")), [])
    except csv.Error as error:
        raise WorkbenchError(f"{path}, line 1, is not valid CSV ({error})", "a CSV file") from error


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
