"""Memo: stages that several fits share, made once for each content."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

Value = TypeVar("Value")

MOST: Mapping[str, int] = {"activations": 4, "states": 4, "features": 2}
"""How many values of a stage are kept; of stages that are not named here, all."""


class Memo:
    """Values of stages by what they depend on, for one model.

    Of the stages that take much memory only the last few are kept, so ask for those of one kind
    one after another.

    Attributes:
        made: how often each stage was computed.
    """

    def __init__(self) -> None:
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
