"""Checks of plain values that many settings share; a truth value is no number in any of them."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, TypeGuard, get_args

from workbench.errors import WorkbenchError


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a finite number."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: object) -> TypeGuard[int]:
    """Whether it is a whole number, of Python's own kind, which files can hold."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_share(value: object) -> TypeGuard[float]:
    """Whether it is a number from 0 to 1."""
    return is_number(value) and bool(0 <= value <= 1)


def require_whole(name: str, value: object, least: int) -> None:
    """Refuse what is no whole number from `least` on."""
    if not is_whole(value) or value < least:
        raise WorkbenchError(f"{name}={value!r:.60}", f"a whole number from {least} on")


def require_number(
    name: str, value: object, *, least: float | None = None, above: float | None = None
) -> None:
    """Refuse what is no finite number, is less than the least, or not above a limit."""
    limits = "" if least is None else f" from {least:g} on"
    limits += "" if above is None else f" above {above:g}"
    if (
        not is_number(value)
        or (least is not None and value < least)
        or (above is not None and value <= above)
    ):
        raise WorkbenchError(f"{name}={value!r:.60}", f"a finite number{limits}")


def require_share(name: str, value: object) -> None:
    """Refuse what is no number between 0 and 1, both left out."""
    if not is_number(value) or not 0 < value < 1:
        raise WorkbenchError(f"{name}={value!r:.60}", "a share between 0 and 1")


def require_one_of(name: str, value: Any, kinds: Any) -> None:
    """Refuse a value that is none of a literal type's."""
    if value not in get_args(kinds):
        raise WorkbenchError.unknown(f"{name}={value!r}", value, get_args(kinds))
