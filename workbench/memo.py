"""Memo: stages that several fits share, made once for each content."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

Value = TypeVar("Value")

MOST: Mapping[str, int] = {"activations": 2, "states": 2, "features": 2}
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

    def get(self, stage: str, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a stage, computed if it is not kept.

        Args:
            stage: its name.
            key: all that the value depends on, but for the model.
            make: computes it.
        """
        kept = self._kept.setdefault(stage, OrderedDict())
        if key not in kept:
            kept[key] = make()
            self.made[stage] += 1
            while len(kept) > MOST.get(stage, len(kept)):
                kept.popitem(last=False)
        kept.move_to_end(key)
        value: Value = kept[key]
        return value
