"""Tables of texts as they are read: no text leaves its cell, and summaries stay as they were."""

import pandas as pd
import pytest

from workbench.evaluation.text_tables import Table, interval, rows_by_method
from workbench.runs.summary import as_markdown

FOUND = pd.DataFrame(
    [("a|b", "mc1", 0.5, 0.4, 0.6), ("a|b", "mc2", 0.25, 0.1, 0.3), ("c\nd", "mc1", 1, 1, 1)],
    columns=["method", "metric", "mean", "low", "high"],
)


def cells(line):
    """The cells of a Markdown row, where `\\|` is no end of one."""
    found = line.replace(r"\|", "\0").strip("|").split("|")
    return [cell.strip().replace("\0", "|") for cell in found]


def test_no_text_leaves_its_cell():
    rows = rows_by_method(FOUND, ["mc2", "mc1"], lambda row: f"{row['mean']:g}")
    assert rows == [("a|b", "0.25", "0.5"), ("c\nd", "-", "1")]
    lines = Table(("method", "mc2", "mc1"), rows).markdown().split("\n")
    assert lines[1] == "|---|---|---|"
    assert [cells(line) for line in (lines[0], *lines[2:])] == [
        ["method", "mc2", "mc1"], ["a|b", "0.25", "0.5"], ["c d", "-", "1"],
    ]  # fmt: skip


def test_a_short_row_ends_in_empty_cells():
    assert Table(("a", "b", "c"), [("1",), ("1", "", "")]).markdown().split("\n")[2:] == [
        "| 1 | | |", "| 1 |  |  |",
    ]  # fmt: skip


def test_columns_of_a_terminal_are_flush():
    lines = Table(("", "mc1", "m"), [("no edit", "0.5", "-"), ("TAE", "0.25", "1")]).text()
    assert lines.split("\n") == ["          mc1  m", "no edit   0.5  -", "TAE      0.25  1"]


@pytest.mark.parametrize(
    ("form", "said"), [(".3g", "0.5 [0.25, 1]"), ("+.2f", "+0.50 [+0.25, +1.00]")]
)
def test_an_interval_is_in_one_form(form, said):
    assert interval(0.5, 0.25, 1.0, form) == said


def test_a_summary_is_told_as_it_was():
    found = FOUND.assign(model="m", capability="truthfulness", questions=7)
    assert as_markdown(found, None) == (
        "# truthfulness of m\n\nMean [95 % bootstrap interval by question].\n\n"
        "| method | mc1 (n = 7) | mc2 (n = 7) |\n|---|---|---|\n"
        "| a\\|b | 0.5 [0.4, 0.6] | 0.25 [0.1, 0.3] |\n| c d | 1 [1, 1] | - |\n"
    )
