"""Questions as a user's file holds them."""

import json
from collections.abc import Iterable
from pathlib import Path

from workbench.data.questions import Question


def record_of(question: Question) -> dict:
    """A line of such a file."""
    return {
        "question": question.question,
        "best_answer": question.best_answer,
        "correct_answers": question.correct_answers,
        "incorrect_answers": question.incorrect_answers,
    }


def write_questions(path: Path, asked: Iterable[Question]) -> Path:
    """One question a line, as JSON."""
    path.write_text("\n".join(json.dumps(record_of(question)) for question in asked))
    return path
