"""TruthfulQA's binary choice: the best right answer against one wrong one, in both orders.

Its authors advise it since January 2025 in place of MC1 and MC2, whose answers can be told apart
without the question (Evans, Chua & Lin 2025, "New, improved multiple-choice TruthfulQA"). A choice
between two letters is not decided by how likely an answer's own words are. A model that prefers a
letter, whatever stands there, has ½; one to which both letters are noise may have less or more, so
look at random directions beside. Style can still tell: see `answers_alone`.
"""

from __future__ import annotations

from collections.abc import Sequence

from workbench.data.questions import Question, QuestionSet
from workbench.editing.scoring import AnswerScore
from workbench.evaluation.capabilities.rows import Row

LETTERS = ("(A)", "(B)")


def binary_questions(questions: QuestionSet) -> QuestionSet:
    """Two questions for each, whose answers are letters: the right one first, then the wrong one.

    The wrong one is the first of a question's incorrect answers: the best of them where the CSV
    has the column `Best Incorrect Answer`.
    """
    made = []
    for one in questions:
        options = (one.best_answer, one.incorrect_answers[0])
        for right, wrong, said in ((*LETTERS, options), (*LETTERS[::-1], options[::-1])):
            listed = "".join(f"\n{a} {text}" for a, text in zip(LETTERS, said, strict=True))
            made.append(Question(f"{one.question}{listed}", right, (right,), (wrong,)))
    return QuestionSet(tuple(made), f"{questions.name}, binary")


def binary_rows(questions: QuestionSet, scores: Sequence[AnswerScore]) -> list[Row]:
    """Of every question the share of orders in which the right letter is likelier.

    Args:
        questions: the original ones.
        scores: of the answers of their `binary_questions`.
    """
    nats: dict[tuple[int, int], float] = {(one.question, one.label): one.total for one in scores}
    return [
        Row(
            one.question,
            "binary",
            sum(nats[order, 1] > nats[order, 0] for order in (2 * number, 2 * number + 1)) / 2,
        )
        for number, one in enumerate(questions)
    ]
