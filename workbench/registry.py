"""Registries: what can be chosen by a name, in a call, a run file or on the command line.

One a kind of thing: methods, edits, judges, similarities, direction rules. An entry registers
itself where it is defined; a user's own registers the same way, or is named `module:name`.
"""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from typing import Any, Generic, TypeVar

from workbench.errors import WorkbenchError

Entry = TypeVar("Entry")
Own = TypeVar("Own", bound=Any)
_CLOSED: ContextVar[bool] = ContextVar("closed", default=False)


@contextmanager
def registered_alone() -> Iterator[None]:
    """A block in which `module:name` leads to what is registered here already, and to no other.

    For files of others that are read and not carried out: no code that they name is run.
    """
    before = _CLOSED.set(True)
    try:
        yield
    finally:
        _CLOSED.reset(before)


class Registry(Mapping[str, Entry], Generic[Entry]):
    """Entries by name, in the order in which they were registered.

    Args:
        what: what an entry is called in errors, such as `kind of method`.
        package: the package whose modules register the workbench's own entries; all of them are
            imported when the registry is first looked at, so that a file put there is found.

    Example:
        >>> list(wb.stages.SIMILARITIES)
        ['mutual_information', 'cosine', 'uniform']
        >>> wb.stages.RULES.about("probe")
        "the coefficients of each head's probe"
        >>> wb.methods.METHODS.find("tae") is wb.TokenAware
        True
    """

    def __init__(self, what: str, package: str = "") -> None:
        self.what, self._package = what, package
        self._entries: dict[str, Entry] = {}
        self._about: dict[str, str] = {}

    def register(self, name: str, about: str = "") -> Callable[[Own], Own]:
        """Give an entry a name, as a decorator: `@SIMILARITIES.register("cosine")`.

        Args:
            name: by which it is chosen.
            about: what it is, in a few words, as reports tell it.

        Raises:
            WorkbenchError: a name that another entry has, or one with a colon.
        """

        def registered(entry: Own) -> Own:
            self.add(name, entry, about)
            return entry

        return registered

    def add(self, name: str, entry: Entry, about: str = "") -> None:
        """Give an entry a name; see `register`. A module that is reloaded may give its own again.

        Raises:
            WorkbenchError: a name that another entry has, or one with a colon.
        """
        if not name or ":" in name:
            raise WorkbenchError(f"the name {name!r} of a {self.what}", "a name without a colon")
        known = self._entries.get(name, entry)
        if known is not entry and known != entry and _place(known) != _place(entry):
            raise WorkbenchError(
                f"a second {self.what} {name!r} ({_place(entry)})",
                f"another name: this one is {_place(known)}",
            )
        self._entries[name], self._about[name] = entry, about

    def about(self, name: str) -> str:
        """What an entry is, in a few words; "" where nothing is told. Also of `module:name`."""
        self._look()
        same = [other for other, own in self._entries.items() if name and _address(own) == name]
        return self._about.get(next(iter(same), name), "")

    def find(self, name: Any, said: str = "") -> Entry:
        """The entry of a name, or what `module:name` leads to.

        Args:
            name: a registered one, or a user's `module:name`, which is imported.
            said: how the name is told in an error; `the kind of method 'tea'` by default.

        Raises:
            WorkbenchError: no such entry (with the nearest names), module, or name in a module.
        """
        self._look()
        if isinstance(name, str) and name in self._entries:
            return self._entries[name]
        if isinstance(name, str) and ":" in name:
            return self._of_user(name)
        raise WorkbenchError.unknown(said or f"the {self.what} {name!r}", str(name), self._entries)

    def name_of(self, entry: Any) -> str:
        """What an entry, or a name of one, is called wherever it is written down.

        A user's own is called `module:name` even where it is registered, so that another process
        finds it without the registration, and a run's identity holds its code.

        Raises:
            WorkbenchError: no such name, or an entry without a name that leads to it, such as a
                function within a function.
        """
        self._look()
        known = self.find(entry) if isinstance(entry, str) else entry
        address = _address(known)
        registered = [name for name, own in self._entries.items() if own is known]
        if address and not (registered and address.split(".")[0] == __package__):
            return address
        if isinstance(entry, str):
            return entry
        if registered:
            return registered[0]
        raise WorkbenchError(
            f"{entry!r:.80} as a {self.what}",
            "one at the top of a module, or one that is registered under a name",
            "A run file, a saved edit and another process must find it again by its name.",
        )

    def _of_user(self, name: str) -> Entry:
        known = [entry for entry in self._entries.values() if _address(entry) == name]
        if known:
            return known[0]
        if _CLOSED.get():
            raise WorkbenchError(
                f"the {self.what} {name!r}, code that these results name",
                "the workbench's own, or what is registered in this process",
                "Nothing of it was run. If you trust it: report(..., trust=True), or --trust.",
            )
        module, _, own = name.partition(":")
        try:
            found: Entry = getattr(import_module(module), own)
        except (Exception, SystemExit) as error:  # whatever a user's module raises
            raise WorkbenchError(
                f"the {self.what} {name!r} ({type(error).__name__}: {error})",
                "module:name of a module that Python finds, such as my_methods:MyMethod",
                "Start in the folder of the module, or put it on PYTHONPATH.",
            ) from error
        return found

    def _look(self) -> None:
        """Import the package's modules once."""
        package, self._package = self._package, ""  # modules look here while they are imported
        try:
            for module in pkgutil.iter_modules(import_module(package).__path__ if package else []):
                import_module(f"{package}.{module.name}")
        except BaseException:
            self._package = package
            raise

    def __getitem__(self, name: str) -> Entry:
        self._look()
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        self._look()
        return iter(self._entries)

    def __len__(self) -> int:
        self._look()
        return len(self._entries)


def _address(entry: Any) -> str:
    """The `module:name` that leads to an entry; "" where none does."""
    module, name = getattr(entry, "__module__", ""), getattr(entry, "__qualname__", "")
    leads = name and getattr(sys.modules.get(module), name, None) is entry
    return f"{module}:{name}" if leads else ""


def _place(entry: Any) -> str:
    """Where an entry is defined; of a value itself."""
    if not hasattr(entry, "__qualname__"):
        return repr(entry)
    return f"{entry.__module__}.{entry.__qualname__}"
