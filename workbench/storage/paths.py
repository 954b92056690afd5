"""Paths: what ships in the package, and what a user names."""

from __future__ import annotations

import os
import re
from importlib import resources
from pathlib import Path

from workbench.errors import WorkbenchError

PathLike = str | os.PathLike[str]


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
    found = Path(os.fspath(path))
    try:
        found = Path(expanded(path))
        there = found.exists()
    except (OSError, RuntimeError, ValueError):  # a name too long, no such user, a null in it
        there = False
    if not there:
        unset = re.search(r"\$\{?(\w+)", str(found))
        mend = f"Set the environment variable {unset[1]}." if unset else ""
        raise WorkbenchError(f"no {what} at {found}", f"the path of an existing {what}", mend)
    return found
