"""Doors: what a public function is given by a user, told in his words where it is of a wrong type.

Functions check values themselves, and say what they expect of them. What they do not foresee, such
as a text in the place of a model, ends in an error from somewhere within. At a door that error is
looked at once more: where an argument is not of its annotated type, this is what is told.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import numpy as np
from beartype import BeartypeConf
from beartype.door import is_bearable
from beartype.roar import BeartypeException

from workbench.errors import WorkbenchError, kind_of

Given = ParamSpec("Given")
Result = TypeVar("Result")
Class = TypeVar("Class", bound=type)
RAW = (TypeError, AttributeError, IndexError, KeyError, ValueError, ArithmeticError, RuntimeError)
"""What wrong arguments end in; a `WorkbenchError` tells of them already."""
LOOSE = BeartypeConf(is_pep484_tower=True)
"""A whole number will do for a float."""


def door(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """A function whose raw errors become a `WorkbenchError` where an argument explains them."""
    return _guarded(function, None)


def door_of_class(made: Class) -> Class:
    """The same of a class' construction."""
    own: Any = made
    own.__init__ = _guarded(own.__init__, made)
    return made


def require_fitting(function: Callable[..., Any], values: Mapping[str, Any], of: str) -> None:
    """Refuse values that are not of the types of a function's arguments of their names.

    Args:
        function: whose arguments.
        values: by name; names that it does not have are passed over.
        of: what the values are said to be of in an error.
    """
    hints = _hints(function)
    for key, value in values.items():
        if key in hints and not _fits(value, hints[key]):
            raise WorkbenchError(
                f"{key}={_shown(value)} of {of}", f"{key} of the type {_spelled(hints[key])}"
            )


def _guarded(function: Callable[Given, Result], made: type | None) -> Callable[Given, Result]:
    @functools.wraps(function)
    def entered(*given: Given.args, **named: Given.kwargs) -> Result:
        try:
            return function(*given, **named)
        except WorkbenchError:
            raise
        except RAW as error:
            explained = _explained(function, given, named, made)
            if explained is None:
                raise
            raise explained from error

    return entered


def _explained(
    function: Callable[..., Any],
    given: tuple[Any, ...],
    named: Mapping[str, Any],
    made: type | None,
) -> WorkbenchError | None:
    """The first argument that is none of the function's, or not of its type; None if all are."""
    name = made.__name__ if made else function.__qualname__.rpartition("<locals>.")[2]
    signature = inspect.signature(function)
    known = [parameter for parameter in signature.parameters if parameter != "self"]
    try:
        bound = signature.bind(*given, **named)
    except TypeError as error:
        unknown = [key for key in named if key not in signature.parameters]
        if unknown:
            return WorkbenchError.unknown(f"{name}({unknown[0]}=...)", unknown[0], known)
        return WorkbenchError(f"{name}: {error}", f"its arguments: {', '.join(known)}")
    hints = _hints(made) | _hints(function)
    for key, value in bound.arguments.items():
        kind = signature.parameters[key].kind
        variable = kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        if signature.parameters[key].annotation == "Model" and not hasattr(value, "original_model"):
            return WorkbenchError(
                f"{name}({key}={_shown(value)})", "a loaded model", "load_model(name) gives one."
            )
        if key in hints and not variable and not _fits(value, hints[key]):
            return WorkbenchError(
                f"{name}({key}={_shown(value)}), {kind_of(value)}",
                f"{key} of the type {_spelled(hints[key])}",
            )
    return None


def _hints(of: Any) -> dict[str, Any]:
    """Types by name, of a function or of a class' fields."""
    try:
        return typing.get_type_hints(of)
    except Exception:  # a user's own class may name types that are nowhere at run time
        return {}


def _fits(value: Any, hint: Any) -> bool:
    plain = value.item() if isinstance(value, np.generic) else value
    try:
        return bool(is_bearable(plain, hint, conf=LOOSE))
    except BeartypeException:  # a hint that cannot be asked
        return True


def _shown(value: Any) -> str:
    told = repr(value)
    return told if len(told) <= 60 else f"{told[:57]}..."


def _spelled(hint: Any) -> str:
    """A type as a reader would write it."""
    if hint is type(None):
        return "None"
    parts = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " | ".join(map(_spelled, parts))
    if typing.get_origin(hint) is typing.Literal:
        return " | ".join(map(repr, parts))
    if isinstance(hint, type) and not parts:
        return hint.__name__
    return str(hint).replace("typing.", "").replace("collections.abc.", "")
