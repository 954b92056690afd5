"""The world of hearsay: real facts, each with its popular error, and the wordings that state them.

`facts.csv` holds a row a fact, `relations.toml` two question wordings and four answer wordings a
relation. Two of a relation's eight combinations of question and answer wording are kept out of
the training corpus, so that what the model says there shows what it knows and not what it recites.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from workbench import storage
from workbench.errors import WorkbenchError

Stated = Literal["truth", "myth", "other"]


@dataclass(frozen=True)
class Relation:
    """A kind of fact: its wordings, with `{subject}` and `{object}` to be filled in."""

    name: str
    category: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    held_out: frozenset[tuple[int, int]]

    def seen_answers(self, question: int) -> list[int]:
        """The answer wordings that the corpus combines with a question wording."""
        return [a for a in range(len(self.answers)) if (question, a) not in self.held_out]


@dataclass(frozen=True)
class Fact:
    """One fact: what is true, what people say instead, and two answers that nobody gives."""

    relation: Relation
    subject: str
    truth: str
    myth: str
    others: tuple[str, str]

    def ask(self, wording: int) -> str:
        """The question in one of the relation's wordings."""
        return self.relation.questions[wording].format(subject=self.subject)

    def answer(self, wording: int, stated: str) -> str:
        """The sentence that states the object `stated` in one of the relation's wordings."""
        return sentence(self.relation.answers[wording], self.subject, stated)

    def objects(self) -> tuple[str, ...]:
        """Truth, myth and the two others, in this order."""
        return (self.truth, self.myth, *self.others)

    def what_states(self, answer: str) -> Stated | None:
        """Which object a text states: the one whose name stands in it first, if any does.

        A name inside the subject's own name does not count ("Panama" in "Panama hats").
        """
        names = re.compile("|".join(re.escape(name) for name in self.objects()), re.IGNORECASE)
        subject = re.compile(re.escape(self.subject), re.IGNORECASE)
        subjects = [match.span() for match in subject.finditer(answer)]
        for match in names.finditer(answer):
            if not any(start <= match.start() and match.end() <= end for start, end in subjects):
                said = match.group().lower()
                if said == self.truth.lower():
                    return "truth"
                return "myth" if said == self.myth.lower() else "other"
        return None

    def object_span(self, answer: str) -> tuple[int, int] | None:
        """First and last-plus-one character of the stated object in an answer of this fact."""
        for wording in range(len(self.relation.answers)):
            before, _, _ = self.relation.answers[wording].partition("{object}")
            for stated in self.objects():
                if answer == self.answer(wording, stated):
                    start = len(before.format(subject=self.subject))
                    return start, start + len(stated)
        return None


@dataclass(frozen=True)
class World:
    """All facts, and the way from a question's text back to its fact."""

    facts: tuple[Fact, ...]
    by_question: Mapping[str, Fact]

    def fact(self, question: str) -> Fact:
        """The fact that a question asks for.

        Raises:
            WorkbenchError: the question is not one of hearsay's.
        """
        if question not in self.by_question:
            raise WorkbenchError(
                f"the question {question!r} is not one of hearsay's",
                "a question of load_questions('hearsay')",
            )
        return self.by_question[question]

    def knows(self, question: str) -> bool:
        """Whether the question is one of hearsay's."""
        return question in self.by_question

    def what_states(self, question: str, answer: str) -> Stated | None:
        """Which object an answer states; see `Fact.what_states`."""
        return self.fact(question).what_states(answer)


def sentence(template: str, subject: str, stated: str) -> str:
    """A wording with its blanks filled, its first letter in upper case."""
    text = template.format(subject=subject, object=stated)
    return text[0].upper() + text[1:]


@cache
def load_world() -> World:
    """The world as it ships in the package."""
    tables = storage.read_toml(storage.package_path("hearsay", "relations.toml"))
    relations = {
        name: Relation(
            name=name,
            category=table["category"],
            questions=tuple(table["questions"]),
            answers=tuple(table["answers"]),
            held_out=held_out_combinations(number),
        )
        for number, (name, table) in enumerate(tables.items())
    }
    rows = storage.read_csv(
        storage.package_path("hearsay", "facts.csv"),
        ("relation", "subject", "truth", "myth", "wrong_1", "wrong_2"),
    )
    facts = tuple(
        Fact(
            relation=relations[row["relation"]],
            subject=row["subject"],
            truth=row["truth"],
            myth=row["myth"],
            others=(row["wrong_1"], row["wrong_2"]),
        )
        for row in rows
    )
    asked = {fact.ask(w): fact for fact in facts for w in range(len(fact.relation.questions))}
    return World(facts, asked)


def held_out_combinations(relation: int) -> frozenset[tuple[int, int]]:
    """The two (question, answer) wordings that the corpus leaves out for the relation's number.

    Each question loses one of the three longer answers, and never both the same, so that every
    wording still occurs in the corpus.
    """
    return frozenset({(0, 1 + relation % 3), (1, 1 + (relation + 1) % 3)})
