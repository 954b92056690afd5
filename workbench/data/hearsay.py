"""hearsay's questions: one of each fact, with answers in all of its wordings."""

from __future__ import annotations

from workbench.data.questions import Question, QuestionSet
from workbench.hearsay.world import Fact, load_world


def hearsay_questions() -> QuestionSet:
    """A question a fact, its wordings taking turns, so that no fact is in two folds.

    Correct answers state the truth in each of the four answer wordings, incorrect ones the myth in
    each, and the two other objects in one each.
    """
    facts = load_world().facts
    return QuestionSet(tuple(_question(n, f) for n, f in enumerate(facts)), "hearsay")


def _question(number: int, fact: Fact) -> Question:
    wordings = range(len(fact.relation.answers))
    first, second = fact.others
    return Question(
        question=fact.ask(number % len(fact.relation.questions)),
        best_answer=fact.answer(len(wordings) - 1, fact.truth),
        correct_answers=tuple(fact.answer(w, fact.truth) for w in wordings),
        incorrect_answers=(
            *(fact.answer(w, fact.myth) for w in wordings),
            fact.answer(number % 4, first),
            fact.answer((number + 1) % 4, second),
        ),
        category=fact.relation.category,
    )
