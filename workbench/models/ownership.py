"""Whose hooks are on a model: one thread's at a time, since hooks act in everybody's passes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from workbench.errors import WorkbenchError
from workbench.models.identity import Model


class Ownership:
    """Which thread is within blocks with hooks on a model."""

    def __init__(self) -> None:
        self._owner: threading.Thread | None = None
        self._blocks = 0
        self._lock = threading.Lock()

    @property
    def taken(self) -> bool:
        """Whether anybody is within a block with hooks on the model."""
        return self._blocks > 0

    @contextmanager
    def block(self) -> Iterator[None]:
        """A block in which hooks are on the model; those of one thread may hold one another.

        Raises:
            WorkbenchError: another thread is within such a block, whose hooks would act here.
        """
        here = threading.current_thread()
        with self._lock:
            if self._blocks and self._owner is not here:
                raise two_threads()
            self._owner, self._blocks = here, self._blocks + 1
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1


def two_threads() -> WorkbenchError:
    """The error of a model whose hooks would act in another thread's passes."""
    return WorkbenchError(
        "a model that two threads use at once, one of them with hooks or an edit on it",
        "one thread at a time for each loaded model, and blocks that end where they began",
        "Load it once a thread, or hold a lock of your own around its use.",
    )


_OWNERSHIPS: WeakKeyDictionary[Any, Ownership] = WeakKeyDictionary()


def ownership(model: Model) -> Ownership:
    """The model's."""
    return _OWNERSHIPS.setdefault(model, Ownership())
