"""Tables, in parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.errors import WorkbenchError
from workbench.storage.files import replacing
from workbench.storage.paths import PathLike, existing

if TYPE_CHECKING:
    import pandas as pd

MOST = 200_000_000
"""Values of a table that is read; a run of all of TruthfulQA with twenty methods has a million."""
FEW, DENSE = 10_000, 20
"""More rows than these, and more than so many a byte, are one row repeated."""


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
        _require_size(source)
        table = pd.read_parquet(source)
    except WorkbenchError:
        raise
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


def _require_size(source: Path) -> None:
    """Refuse a table that would fill memory: a file of a few bytes can hold any number of rows."""
    import pyarrow.parquet

    told, size = pyarrow.parquet.read_metadata(source), source.stat().st_size
    values = told.num_rows * max(1, told.num_columns)
    if values > MOST or told.num_rows > max(FEW, DENSE * size):
        raise WorkbenchError(
            f"{source} of {told.num_rows:,} rows and {told.num_columns} columns in {size:,} bytes",
            f"a table of at most {MOST:,} values, and of rows that are not all alike",
        )
