"""Questions of one's own, from CSV, JSON or JSON Lines.

CSV and JSON Lines use the field names of `Question`. In CSV the answers of a cell are separated by
semicolons; in JSON Lines they are lists. `best_answer` may be left out: the first correct answer is
taken. Spaces around a text are dropped, and so are answers that stand twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from workbench import storage
from workbench.data.contrast import BEHAVIOUR, contrast_questions
from workbench.data.questions import Question, QuestionSet
from workbench.data.registry import SOURCES
from workbench.data.truthfulqa import COLUMNS, split_answers, truthfulqa_csv, truthfulqa_mc_task
from workbench.errors import WorkbenchError

OWN_COLUMNS = ("question", "correct_answers", "incorrect_answers")


@SOURCES.questions.register(".csv", about="TruthfulQA.csv, or a table of one's own")
def csv_questions(path: storage.PathLike) -> QuestionSet:
    """A CSV file with TruthfulQA's columns or with those of `Question`."""
    if set(COLUMNS) <= set(storage.csv_columns(path)):
        return truthfulqa_csv(path)
    rows = storage.read_csv(path, OWN_COLUMNS)
    records = [
        {
            **{name: cell.strip() for name, cell in row.items()},
            "correct_answers": split_answers(row["correct_answers"]),
            "incorrect_answers": split_answers(row["incorrect_answers"]),
        }
        for row in rows
    ]
    return QuestionSet(
        tuple(_question(r, f"{path}, row {n}") for n, r in enumerate(records, start=1)), str(path)
    )


@SOURCES.questions.register(
    ".json", about="mc_task.json of TruthfulQA, or behaviours in CAA's shape"
)
def json_questions(path: storage.PathLike) -> QuestionSet:
    """TruthfulQA's mc_task.json, or behaviours, see `data.contrast`."""
    if _behaviours(storage.read_json(path)):
        return contrast_questions(path)
    return truthfulqa_mc_task(path)


@SOURCES.questions.register(".jsonl", about="questions of one's own, or behaviours in CAA's shape")
def json_lines_questions(path: storage.PathLike) -> QuestionSet:
    """A JSON Lines file: an object a line with the fields of `Question`, or a behaviour's."""
    records = storage.read_json_lines(path)
    if _behaviours(records):
        return contrast_questions(path)
    return QuestionSet(
        tuple(_question(r, f"{path}, item {n}") for n, r in enumerate(records, start=1)), str(path)
    )


def _behaviours(records: Any) -> bool:
    first = records[0] if isinstance(records, list) and records else None
    return isinstance(first, Mapping) and set(BEHAVIOUR) <= set(first)


def _trimmed(value: Any) -> Any:
    """A text without the spaces around it; something else as it is."""
    return value.strip() if isinstance(value, str) else value


def _listed(answers: Iterable[str]) -> tuple[str, ...]:
    """Answers without the spaces around them and without empty ones, each once."""
    return tuple(dict.fromkeys(filter(None, map(str.strip, answers))))


def _question(record: Any, where: str) -> Question:
    if not isinstance(record, Mapping) or any(name not in record for name in OWN_COLUMNS):
        raise WorkbenchError(f"{where} is {record!r}", f"the fields {', '.join(OWN_COLUMNS)}")
    for name in OWN_COLUMNS[1:]:
        answers = record[name]
        if not isinstance(answers, list | tuple) or not all(isinstance(a, str) for a in answers):
            raise WorkbenchError(f"{where} has {name} = {answers!r}", "a list of texts")
    correct, incorrect = (_listed(record[name]) for name in OWN_COLUMNS[1:])
    try:
        return Question(
            question=_trimmed(record["question"]),
            best_answer=_trimmed(record.get("best_answer")) or (correct[0] if correct else ""),
            correct_answers=correct,
            incorrect_answers=incorrect,
            category=record.get("category") or "",
        )
    except WorkbenchError as error:
        raise WorkbenchError(f"{where}: {error.came}", error.expected, error.mend) from error
