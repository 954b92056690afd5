"""CrowS-Pairs (Nangia, Vania, Bhalerao & Bowman 2020): sentences that differ in a group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

from workbench import storage
from workbench.data.item_sets import ItemSet
from workbench.data.registry import SOURCES
from workbench.errors import WorkbenchError

Direction = Literal["stereo", "antistereo"]
COLUMNS = ("sent_more", "sent_less", "stereo_antistereo", "bias_type")


@dataclass(frozen=True)
class SentencePair:
    """Two sentences that differ in the words for a group.

    Attributes:
        more: the sentence that is more stereotyping.
        less: the one that is less so.
        direction: `stereo`, where `more` shows a stereotype of a disadvantaged group, or
            `antistereo`, where `less` goes against one.
        bias_type: one of the authors' nine, e.g. `religion`.
        number: the pair's row in the file, from 1.
    """

    more: str
    less: str
    direction: Direction
    bias_type: str
    number: int

    def __post_init__(self) -> None:
        for name in ("more", "less", "bias_type"):
            text = getattr(self, name)
            if not isinstance(text, str) or not text.strip():
                raise WorkbenchError(f"a sentence pair has {name} = {text!r}", "a text")
        if self.direction not in get_args(Direction):
            raise WorkbenchError(
                f"a sentence pair has the direction {self.direction!r}",
                " or ".join(get_args(Direction)),
            )
        if self.more == self.less:
            raise WorkbenchError("a sentence pair has the same sentence twice", "different ones")

    def texts(self) -> tuple[str, str]:
        """Both sentences."""
        return self.more, self.less


class PairSet(ItemSet[SentencePair]):
    r"""Pairs in order; the same sentences may stand in it twice, as in the official file.

    Example:
        >>> from pathlib import Path
        >>> _ = Path("pairs.csv").write_text(
        ...     "sent_more,sent_less,stereo_antistereo,bias_type\n"
        ...     "They are late.,We are late.,stereo,nationality\n"
        ... )
        >>> wb.data.load_pairs("pairs.csv")[0].more
        'They are late.'
    """

    what = "pair"

    @classmethod
    def key(cls, item: SentencePair) -> int:
        """The pair's row."""
        return item.number


@SOURCES.pairs.register(".csv", about="CrowS-Pairs")
def crows_pairs_csv(path: storage.PathLike) -> PairSet:
    """crows_pairs_anonymized.csv, by its official column names; other columns are ignored.

    All rows are kept, the one pair that the official file has twice included, as published
    scores count it twice.

    Raises:
        WorkbenchError: no such file, a column is missing, there is no row, or a row is no pair;
            the row is named.
    """
    pairs = tuple(
        _pair(row, number, f"{path}, row {number}")
        for number, row in enumerate(storage.read_csv(path, COLUMNS), start=1)
    )
    if not pairs:
        raise WorkbenchError(f"{path} has a header and no rows", "at least one pair")
    return PairSet(pairs, str(path))


def _pair(row: dict[str, str], number: int, where: str) -> SentencePair:
    try:
        return SentencePair(
            more=row["sent_more"].strip(),
            less=row["sent_less"].strip(),
            direction=cast("Direction", row["stereo_antistereo"].strip()),
            bias_type=row["bias_type"].strip(),
            number=number,
        )
    except WorkbenchError as error:
        raise WorkbenchError(f"{where}: {error.came}", error.expected, error.mend) from error
