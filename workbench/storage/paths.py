"""Paths: what ships in the package, and what a user names."""

from __future__ import annotations

import os
import re
from importlib import resources
from pathlib import Path, PurePath

from workbench.errors import WorkbenchError

PathLike = str | os.PathLike[str]
VARIABLE = re.compile(r"\$\{?(\w+)")
SECRETIVE = re.compile("key|token|secret|passw|credential", re.IGNORECASE)
"""Variables that paths do not fill in, since paths are told and sent."""


def package_path(*parts: str) -> Path:
    """The path of a file that ships inside the package."""
    return Path(str(resources.files("workbench").joinpath(*parts)))


def expanded(path: PathLike) -> str:
    """A path with `~` and environment variables (`$NAME`, `${NAME}`) filled in.

    Raises:
        WorkbenchError: a variable that is named as secrets are.
    """
    typed = os.fspath(path)
    secret = next((name for name in VARIABLE.findall(typed) if SECRETIVE.search(name)), None)
    if secret is not None:
        raise WorkbenchError(
            f"the variable {secret} in a path", "one whose name tells of no key, token or password"
        )
    filled = os.path.expandvars(typed)
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
        unset = VARIABLE.search(str(found))
        mend = f"Set the environment variable {unset[1]}." if unset else ""
        raise WorkbenchError(
            f"no {what} at {os.fspath(path)}", f"the path of an existing {what}", mend
        )
    return found


def require_plain_name(name: str, what: str) -> None:
    """Refuse a name that leads out of the folder in which it is to be one; "" is the folder.

    Raises:
        WorkbenchError: separators, `..`, a drive, or control characters in it.
    """
    parts = PurePath(name).parts
    strange = any(sign in name for sign in "/\\:") or not name.isprintable()
    if name and (strange or parts != (name,) or name in (".", "..")):
        raise WorkbenchError(f"the name {name!r} of {what}", "the name of a folder, not a path")
