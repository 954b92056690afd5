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

    Letters with their marks, and digits. One by one currencies and `# % & ° + × ÷`; a dash between
    two numbers, or before one and behind no word; `* / ^ = < >` between what is counted or named.
    """
    plain = re.sub(r"\s+", " ", unicodedata.normalize("NFC", text.casefold()))
    plain = "".join("-" if _is_dash(sign) else sign for sign in plain)
    found = []
    for place, sign in enumerate(plain):
        if _is_of_a_word(sign):
            found.append(sign)
        elif unicodedata.category(sign) == "Sc" or sign in "#%&°+×÷":
            found.append(f" {sign} ")
        else:
            meant = sign in "-*/^=<>" and _has_operands(plain, place)
            found.append(f" {sign} " if meant else " ")
    return " ".join("".join(found).split())


def _is_of_a_word(sign: str) -> bool:
    return unicodedata.category(sign)[0] in "LMN" or sign == "_"


def _is_dash(sign: str) -> bool:
    return unicodedata.category(sign) == "Pd" or sign == "\N{MINUS SIGN}"


def _has_operands(plain: str, place: int) -> bool:
    """Whether a sign stands between numbers (or names, where it compares), or is a minus."""
    sign, before, after = plain[place], plain[:place].rstrip(), plain[place + 1 :]
    if sign in "=<>":
        return before[-1:].isalnum() and bool(re.match(r" ?[-(]?\.?\w", after))
    if (before[-1:].isdigit() or before[-1:] == ")") and re.match(r" ?[-(]?\.?\d", after):
        return True
    behind_a_word = place > 0 and _is_of_a_word(plain[place - 1])
    amount = bool(re.match(r"\.?\d", after)) or unicodedata.category(after[:1] or " ") == "Sc"
    return sign == "-" and amount and not behind_a_word


def _answers(question: Question) -> tuple[frozenset[str], frozenset[str]]:
    return frozenset(question.correct_answers), frozenset(question.incorrect_answers)
