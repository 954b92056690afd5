"""Tables of texts, to be read: as Markdown, in a terminal, or as HTML, by the report's template."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Table:
    """Texts in rows and columns.

    Attributes:
        head: names of the columns.
        rows: of as many texts each; in Markdown also of fewer, and the last columns stay empty.
        caption: what it shows.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    def markdown(self) -> str:
        r"""A line a row; a text cannot end its cell.

        Example:
            >>> print(Table(("method", "mc2"), [("a|b", "0.5"), ("none",)]).markdown())
            | method | mc2 |
            |---|---|
            | a\|b | 0.5 |
            | none | |
        """
        below = "|---" * len(self.head) + "|"
        return "\n".join([self._line(self.head), below, *map(self._line, self.rows)])

    def _line(self, cells: Sequence[str]) -> str:
        texts = [plain_markdown(cell).replace("|", r"\|") for cell in cells]
        return f"| {' | '.join(texts)} |" + " |" * (len(self.head) - len(cells))

    def text(self) -> str:
        """Columns for a terminal, the first flush left and the others flush right.

        Example:
            >>> print(Table(("", "mc2"), [("no edit", "0.5"), ("TAE", "0.75")]).text())
                      mc2
            no edit   0.5
            TAE      0.75
        """
        names = [row[0] for row in self.rows]
        cells = [list(row[1:]) for row in self.rows]
        return pd.DataFrame(cells, names, list(self.head[1:])).to_string()


def plain_markdown(text: str) -> str:
    r"""A text as a line of Markdown in which nothing is a tag or begins another block.

    Example:
        >>> plain_markdown("<b>one</b>\n# two")
        '&lt;b>one&lt;/b> # two'
    """
    return " ".join(text.split()).replace("<", "&lt;")


def interval(mean: float, low: float, high: float, form: str = ".3g") -> str:
    """A mean with its interval, each in the same form.

    Example:
        >>> interval(0.5, 0.25, 0.751, ".2f")
        '0.50 [0.25, 0.75]'
    """
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"


Record = Mapping[Hashable, Any]
"""A row of a table by the names of its columns."""


def rows_by_method(
    found: pd.DataFrame, metrics: Sequence[str], cell: Callable[[Record], str], absent: str = "-"
) -> list[tuple[str, ...]]:
    """A row a method: its name, and a cell for every metric.

    Args:
        found: a row a method and metric, such as `summary`'s or `compare`'s of one capability.
        metrics: the columns, in their order.
        cell: the text of a row of `found`.
        absent: the text where a method has no value.
    """
    cells = {(row["method"], row["metric"]): cell(row) for row in found.to_dict("records")}
    return [
        (str(method), *(cells.get((method, metric), absent) for metric in metrics))
        for method in dict.fromkeys(found["method"])
    ]
