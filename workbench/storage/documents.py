"""Documents: JSON, JSON Lines, TOML and CSV."""

from __future__ import annotations

import csv
import io
import json
import tomllib
from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError
from workbench.storage.files import beside, read_text, write_text
from workbench.storage.paths import PathLike


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
            try:
                values.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise WorkbenchError(
                    f"{path}, line {number}, is not valid JSON: {error.msg}",
                    "one JSON value a line",
                ) from error
    return values


def read_toml(path: PathLike) -> dict[str, Any]:
    """A TOML file's table."""
    try:
        return tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise WorkbenchError(f"{path} is not valid TOML: {error}", "a TOML document") from error


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
