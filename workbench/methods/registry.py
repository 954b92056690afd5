"""The methods that there are, by the names that run files and the command line call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_type_hints

from workbench.errors import WorkbenchError
from workbench.methods.base import Method
from workbench.registry import Registry

METHODS: Registry[Callable[..., Method]] = Registry("kind of method", "workbench.methods")
"""Subclasses of `Method`, and functions that return one with settings of their own."""


def settings_class(kind: str) -> Any:
    """The dataclass that holds a kind's settings.

    Raises:
        WorkbenchError: no such kind, or a user's that is no `Method`.
    """
    found: Any = METHODS.find(kind)
    made = found if isinstance(found, type) else get_type_hints(found).get("return")
    if not isinstance(made, type) or not issubclass(made, Method):
        raise WorkbenchError(
            f"the kind of method {kind!r}, which is {found!r:.80}",
            "a subclass of workbench.methods.base.Method, or a function that is said to return one",
        )
    return made
