"""Memo: stages that several fits share, made once for each content."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from workbench.data.questions import QuestionSet

Value = TypeVar("Value")

MOST: Mapping[str, int] = {
    "activations": 4,
    "states": 4,
    "features": 2,
    "gradients": 1,
    "second gradients": 1,
}
"""How many values of a stage are kept; of stages that are not named here, all."""


class Memo:
    """Values of stages by what they depend on, for one model.

    Of the stages that take much memory only the last few are kept, so ask for those of one kind
    one after another.

    Args:
        folder: for activations, which processes that are given the same one share; they are kept in
            memory by default.

    Attributes:
        made: how often each stage was computed.
        larger: questions whose activations will be asked for too, see `within`.

    Example:
        >>> memo = wb.methods.Memo()
        >>> for heads in (1, 2):
        ...     method = wb.TokenAware(heads=heads)
        ...     made = method.fit(model, fold.train, memo=memo, progress=False)
        >>> memo.made["activations"], memo.made["directions"]
        (1, 1)
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.larger: QuestionSet | None = None
        self.made: Counter[str] = Counter()
        self._kept: dict[str, OrderedDict[Hashable, Any]] = {}
        self._seconds: dict[tuple[str, Hashable], float] = {}
        self._seen: set[tuple[str, Hashable]] = set()
        self._saved = 0.0

    def get(self, stage: str, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a stage, computed if it is not kept.

        Args:
            stage: its name.
            key: all that the value depends on, but for the model.
            make: computes it.
        """
        kept = self._kept.setdefault(stage, OrderedDict())
        if key not in kept:
            begin, before = time.perf_counter(), self._saved
            kept[key] = make()
            spent = time.perf_counter() - begin
            self._seconds[stage, key] = spent + self._saved - before
            self.made[stage] += 1
            while len(kept) > MOST.get(stage, len(kept)):
                kept.popitem(last=False)
        elif (stage, key) not in self._seen:
            self._saved += self._seconds[stage, key]
        self._seen.add((stage, key))
        kept.move_to_end(key)
        value: Value = kept[key]
        return value

    def keys(self, stage: str) -> list[Any]:
        """What the kept values of a stage depend on."""
        return list(self._kept.get(stage, ()))

    @contextmanager
    def within(self, questions: QuestionSet) -> Iterator[None]:
        """A block whose fits see some of these questions, all of which will be fitted on later.

        What is captured of some is then taken from what is captured of all.
        """
        before, self.larger = self.larger, questions
        try:
            yield
        finally:
            self.larger = before

    @contextmanager
    def timed(self) -> Iterator[list[float]]:
        """Seconds that a block takes, or would have taken if nothing had been kept.

        Yields:
            A list that holds the seconds after the block.
        """
        self._seen, before, begin = set(), self._saved, time.perf_counter()
        found: list[float] = []
        yield found
        found.append(time.perf_counter() - begin + self._saved - before)
