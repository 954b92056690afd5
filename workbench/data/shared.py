"""Questions that two sets share, in the same words or in others."""

from __future__ import annotations

import re

from workbench.data.questions import Question, QuestionSet


def shared_questions(train: QuestionSet, test: QuestionSet) -> list[str]:
    """The questions of one set that the other has too.

    They have the same words, whatever their case and the signs between them, or exactly the same
    correct and incorrect answers: they may be asked in other words. What means the same in other
    words and has other answers is not found.
    """
    words = {_words(one.question) for one in train}
    answers = {_answers(one) for one in train}
    return [q.question for q in test if _words(q.question) in words or _answers(q) in answers]


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def _answers(question: Question) -> tuple[frozenset[str], frozenset[str]]:
    return frozenset(question.correct_answers), frozenset(question.incorrect_answers)
