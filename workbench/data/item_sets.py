"""What all data sets are: different items in a fixed order, under a name."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar, overload

from workbench.doors import door
from workbench.errors import WorkbenchError

Item = TypeVar("Item")
Own = TypeVar("Own", bound="ItemSet[Any]")


@dataclass(frozen=True, repr=False)
class ItemSet(Sequence[Item], Generic[Item]):
    """Items in order, at least one.

    Attributes:
        items: different ones, by what the subclass calls their `key`.
        name: the source, for messages and tables.
    """

    what: ClassVar[str] = "item"
    items: tuple[Item, ...]
    name: str = ""

    def __post_init__(self) -> None:
        if not self.items:
            raise WorkbenchError(
                f"the {self.what} set {self.name!r} is empty", f"at least one {self.what}"
            )
        seen: dict[Hashable, int] = {}
        for number, item in enumerate(self.items):
            first = seen.setdefault(self.key(item), number)
            if first != number:
                raise WorkbenchError(
                    f"{self.describe(item)} stands twice in {self.name or 'the set'} (numbers "
                    f"{first} and {number})",
                    f"different {self.what}s, so that no fold sees another's",
                )

    @classmethod
    def key(cls, item: Item) -> Hashable:
        """What may stand in a set only once."""
        raise NotImplementedError

    @classmethod
    def describe(cls, item: Item) -> str:
        """An item in a message about a repetition."""
        return repr(cls.key(item))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}: {len(self)} {self.what}s)"

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    @overload
    def __getitem__(self, key: int) -> Item: ...

    @overload
    def __getitem__(self: Own, key: slice) -> Own: ...

    def __getitem__(self, key: int | slice) -> Any:
        """An item by its number, or the set of a slice."""
        if isinstance(key, slice):
            return replace(self, items=self.items[key])
        return self.items[key]

    @door
    def choose(self: Own, numbers: Sequence[int]) -> Own:
        """The items of the given numbers, in this order.

        Raises:
            WorkbenchError: a number that none has.
        """
        beyond = [number for number in numbers if not -len(self) <= number < len(self)]
        if beyond:
            raise WorkbenchError(
                f"the number {beyond[0]} of {len(self)} {self.what}s", f"0 to {len(self) - 1}"
            )
        return replace(self, items=tuple(self.items[number] for number in numbers))
