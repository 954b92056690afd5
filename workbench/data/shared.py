"""Questions that two sets share, in the same words or in others."""

from __future__ import annotations

import re
import unicodedata

from workbench.data.questions import Question, QuestionSet


def shared_questions(train: QuestionSet, test: QuestionSet) -> list[str]:
    """The questions of one set that the other has too.

    They have the same words, whatever their case and the signs between them, or exactly the same
    correct and incorrect answers: they may be asked in other words. What means the same in other
    words and has other answers is not found.
    """
    words = {words_of(one.question) for one in train}
    answers = {_answers(one) for one in train}
    return [q.question for q in test if words_of(q.question) in words or _answers(q) in answers]


def words_of(text: str) -> str:
    """A text's words and what else has a meaning, whatever their case and the signs between them.

    Letters with their marks, digits, and one by one currencies, signs of mathematics, `#`, `%`, `&`
    and `°`; a hyphen where it is a minus, before a number and behind nothing.
    """
    found, before = [], " "
    for sign in unicodedata.normalize("NFC", text.casefold().replace("−", "-")):
        kind = unicodedata.category(sign)
        if kind[0] in "LMN" or sign == "_":
            found.append(sign)
        elif kind in ("Sc", "Sm") or sign in "#%&°":
            found.append(f" {sign} ")
        else:
            found.append("\0" if sign == "-" and before in " (" else " ")
        before = sign
    return " ".join(re.sub("\0(?=[0-9])", " - ", "".join(found)).replace("\0", " ").split())


def _answers(question: Question) -> tuple[frozenset[str], frozenset[str]]:
    return frozenset(question.correct_answers), frozenset(question.incorrect_answers)
