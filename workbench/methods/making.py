"""Methods from descriptions, as they stand in the file of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from itertools import product
from typing import Any, get_args, get_type_hints

from workbench.checks import is_number
from workbench.errors import WorkbenchError
from workbench.methods.base import Method
from workbench.methods.registry import METHODS, settings_class
from workbench.registry import Registry
from workbench.stages.directions import RULES
from workbench.stages.token_graph import SIMILARITIES

NAMED: Mapping[str, Registry[Any]] = {
    "kind": METHODS, "direction": RULES, "graph.similarity": SIMILARITIES,
}  # fmt: skip
"""What may be given as an object, and where its name is found."""


def make_method(kind: str, settings: Mapping[str, Any], preset: str | None = None) -> Method:
    """A method's settings from plain values.

    Args:
        kind: one of `METHODS`, or a user's `module:name`.
        settings: numbers, texts, lists and tables; `graph.bins` sets a part of `graph`.
        preset: of tae.

    Raises:
        WorkbenchError: no such kind or setting (with the nearest names), or a value that does not
            fit.
    """
    require_settings(kind, settings)
    make: Any = METHODS.find(kind)
    if preset is not None:
        if not hasattr(make, "preset"):
            raise WorkbenchError(f"a preset of a method of kind {kind}", "presets of tae")
        make = partial(make.preset, preset)
    given = {key: _method_in(value) for key, value in settings.items()}
    values = _nested({key: tupled(value) for key, value in given.items()}, parts_of(kind))
    try:
        made: Method = make(**values)
    except TypeError as error:
        raise WorkbenchError(
            f"the settings {values} of {kind} ({error})", "values that fit"
        ) from error
    return made


def require_settings(
    kind: str, names: Iterable[str], more: Sequence[str] = (), *, called: str = "setting"
) -> None:
    """Refuse names that are no settings of a kind of method.

    Args:
        kind: one of `METHODS`, or a user's `module:name`.
        names: to look at.
        more: names that are allowed beside the settings.
        called: what the names are called in an error.
    """
    known = [*settings_of(kind), *more]
    for name in names:
        if name not in known:
            raise WorkbenchError.unknown(f"the {called} {name!r} of {kind}", name, known)


def named(described: Mapping[str, Any]) -> dict[str, Any]:
    """A method's table with names in place of classes and functions; see `Registry.name_of`.

    Args:
        described: `kind` and settings; a value, or each of a list of values, may be an object.

    Raises:
        WorkbenchError: an object that no name leads to.
    """
    return {key: _name(key, value) for key, value in described.items()}


def _name(key: str, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_name(key, one) for one in value]
    if key in NAMED and (callable(value) or (isinstance(value, str) and value in NAMED[key])):
        return NAMED[key].name_of(value)
    if is_dataclass(value) and not isinstance(value, type):
        kind = {"kind": METHODS.name_of(type(value))} if isinstance(value, Method) else {}
        value = kind | {
            field.name: getattr(value, field.name) for field in fields(value) if field.init
        }
    if isinstance(value, Mapping):
        inside = "" if key == "choose" else f"{key}."
        return {name: _name(f"{inside}{name}", one) for name, one in value.items()}
    if value is None or isinstance(value, str | int | float):
        return value
    raise WorkbenchError(
        f"{key}={value!r:.60}",
        "numbers, texts, lists, tables and settings objects",
        "A run file, a saved edit and another process must be able to read it.",
    )


def settings_of(kind: str) -> list[str]:
    """The names of all settings of a kind of method, those of its parts with a dot."""
    own = [field.name for field in fields(settings_class(kind))]
    parts = parts_of(kind).items()
    return own + [f"{part}.{one.name}" for part, inside in parts for one in fields(inside)]


def parts_of(kind: str) -> dict[str, Any]:
    """The settings of a kind that have settings of their own, and the classes that hold these.

    They are those whose annotation is a dataclass, or one among others. A method within a method is
    no part: it is of any kind, and described by a table that names its kind.
    """
    found: dict[str, Any] = {}
    try:
        hints = get_type_hints(settings_class(kind))
    except NameError:  # of a name that is known to type checkers alone
        return found
    for name, hint in hints.items():
        inside = [one for one in (hint, *get_args(hint)) if is_dataclass(one)]
        inside = [one for one in inside if not issubclass(one, Method)]  # type: ignore[arg-type]
        found |= {name: inside[0]} if inside else {}
    return found


def candidates(described: Mapping[str, Any], kind: str, seed: int, extra: Any = ()) -> list[Method]:
    """All settings that a description leaves to be chosen from.

    Args:
        described: settings; `alpha` may be a list, and `choose` a table of lists.
        kind: of the method.
        seed: where the description has none.
        extra: settings that the description must not have.

    Raises:
        WorkbenchError: a list that is empty or has something else than numbers as α, or a value
            that does not fit.
    """
    own = {"seed": seed, **described, **dict(extra)}
    preset = own.pop("preset", None)
    lists = dict(own.pop("choose", {}))
    if isinstance(own.get("alpha"), list | tuple):
        lists["alpha"] = own.pop("alpha")
    for name, values in lists.items():
        if not isinstance(values, list | tuple) or not values:
            raise WorkbenchError(f"choose.{name}={values!r}", "a list of values")
    for alpha in lists.get("alpha", [own.get("alpha", 1.0)]):
        if not is_number(alpha):
            raise WorkbenchError(f"alpha={alpha!r}", "a number, or a list of numbers")
    return [
        make_method(kind, {**own, **dict(zip(lists, values, strict=True))}, preset)
        for values in product(*lists.values())
    ]


def _method_in(value: Any) -> Any:
    """The method that a table with a `kind` describes; other values as they are."""
    if not isinstance(value, Mapping) or "kind" not in value:
        return value
    own = dict(value)
    return make_method(own.pop("kind"), own, own.pop("preset", None))


def _nested(settings: Mapping[str, Any], parts: Mapping[str, Any]) -> dict[str, Any]:
    """Parts put together: `graph.bins` and tables become one `GraphSettings`."""
    found = {key: value for key, value in settings.items() if "." not in key}
    for part, make in parts.items():
        given = found.get(part)
        inside = dict(given) if isinstance(given, Mapping) else {}
        inside |= {
            key.removeprefix(f"{part}."): value
            for key, value in settings.items()
            if key.startswith(f"{part}.")
        }
        if not inside:
            continue
        if given is not None and not isinstance(given, Mapping):
            raise WorkbenchError(f"{part}={given!r} beside {part}.…", "one of the two")
        try:
            found[part] = make(**inside)
        except TypeError as error:
            raise WorkbenchError(
                f"{part} with {', '.join(inside)} ({error})", f"settings of {make.__name__}"
            ) from error
    return found


def tupled(value: Any) -> Any:
    """Lists as tuples, whatever they hold."""
    return tuple(map(tupled, value)) if isinstance(value, list) else value
