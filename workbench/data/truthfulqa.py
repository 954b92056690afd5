"""TruthfulQA (Lin, Hilton & Evans 2022): its CSV, its copy on the hub, and mc_task.json."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from workbench import storage
from workbench.data.from_hub import rows_of
from workbench.data.questions import Question, QuestionSet
from workbench.data.registry import SOURCES
from workbench.errors import WorkbenchError, kind_of

HUB_NAME = "truthfulqa/truthful_qa"
BEST_INCORRECT = "Best Incorrect Answer"
COLUMNS = ("Question", "Best Answer", "Correct Answers", "Incorrect Answers")


def split_answers(text: str) -> tuple[str, ...]:
    """An official semicolon list: parts trimmed, empty ones and repetitions dropped."""
    parts = (part.strip() for part in text.split(";"))
    return tuple(dict.fromkeys(part for part in parts if part))


def truthfulqa_csv(path: storage.PathLike) -> QuestionSet:
    """TruthfulQA.csv, by its official column names; other columns are ignored.

    Where there is the column `Best Incorrect Answer`, as since January 2025, it is put first among
    the incorrect ones, where the binary choice looks for it.

    Raises:
        WorkbenchError: no such file, a column is missing, or a row is no question; the row is
            named.
    """
    rows = storage.read_csv(path, COLUMNS)
    return _collect(
        (
            (f"{path}, row {number}", row["Question"], row["Best Answer"],
             split_answers(row["Correct Answers"]), _best_first(row), row.get("Category", ""))
            for number, row in enumerate(rows, start=1)
        ),
        str(path),
    )  # fmt: skip


def _best_first(row: Mapping[str, str]) -> tuple[str, ...]:
    """The incorrect answers, the best of them first where it is told."""
    best, others = row.get(BEST_INCORRECT, "").strip(), split_answers(row["Incorrect Answers"])
    return (best, *(one for one in others if one != best)) if best else others


def truthfulqa_mc_task(path: storage.PathLike) -> QuestionSet:
    """mc_task.json: the multiple-choice targets; the best answer is MC1's target.

    Answers are MC2's targets; the best answer joins the correct ones where MC2 lacks it.
    """
    return _collect(_mc_records(storage.read_json(path), str(path)), str(path))


def _mc_records(items: Any, path: str) -> Iterable[tuple[Any, ...]]:
    if not isinstance(items, list):
        raise WorkbenchError(f"{path} holds {kind_of(items)}", "a list of questions")
    for number, item in enumerate(items, start=1):
        where = f"{path}, item {number}"
        try:
            (best,) = [a for a, truth in item["mc1_targets"].items() if truth]
            targets = dict(item["mc2_targets"].items())
            question = str(item["question"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WorkbenchError(
                f"{where} has no question with mc1_targets (one of them true) and mc2_targets",
                "the official shape of mc_task.json",
            ) from error
        correct = tuple(a for a, truth in targets.items() if truth)
        yield where, question, best, correct, tuple(a for a, t in targets.items() if not t), ""


@SOURCES.questions.register(HUB_NAME)
@SOURCES.questions.register("truthful_qa")
@SOURCES.questions.register("truthfulqa", about="TruthfulQA, from the hub")
def truthfulqa_hub(name: str = HUB_NAME) -> QuestionSet:
    """The generation split on the Hugging Face hub."""
    instead = "Without one, give the path of TruthfulQA.csv."
    rows = rows_of(name, "generation", split="validation", instead=instead)
    return _collect(
        (
            (f"{name}, row {number}", row["question"], row["best_answer"],
             tuple(dict.fromkeys(row["correct_answers"])),
             tuple(dict.fromkeys(row["incorrect_answers"])), row["category"])
            for number, row in enumerate(rows, start=1)
        ),
        "truthfulqa",
    )  # fmt: skip


def _collect(records: Iterable[tuple[Any, ...]], name: str) -> QuestionSet:
    """Questions from records.

    A best answer that the correct ones lack is put first among them. An answer on both sides, as
    in one row of the official file, is kept as correct, with a warning.
    """
    questions = []
    for where, question, best, correct, incorrect, category in records:
        best = best.strip()
        if best and best not in correct:
            correct = (best, *correct)
        both = [answer for answer in incorrect if answer in correct]
        if both:
            warnings.warn(
                f"{where}: {question!r} lists {both[0]!r} as correct and as incorrect; it is kept "
                "as correct only",
                stacklevel=2,
            )
            incorrect = tuple(answer for answer in incorrect if answer not in both)
        try:
            questions.append(Question(question.strip(), best, correct, incorrect, category))
        except WorkbenchError as error:
            raise WorkbenchError(f"{where}: {error.came}", error.expected, error.mend) from error
    return QuestionSet(tuple(questions), name)
