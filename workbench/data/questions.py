"""Questions with correct and incorrect answers, and folds that never share a question."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbench.checks import require_whole
from workbench.data.item_sets import ItemSet
from workbench.doors import door, door_of_class
from workbench.errors import WorkbenchError, kind_of


@door_of_class
@dataclass(frozen=True)
class Question:
    """One question with its answers, in the form of TruthfulQA.

    Attributes:
        question: the question's text.
        best_answer: one of the correct answers; MC1 asks for it.
        correct_answers: at least one, without repetition.
        incorrect_answers: at least one, none of them also correct.
        category: a free label, "" where there is none.

    Example:
        >>> question = wb.data.Question("Who?", "Me.", ("Me.", "I."), ("You.",))
        >>> question.answers, question.labels
        (('Me.', 'I.', 'You.'), (1, 1, 0))
    """

    question: str
    best_answer: str
    correct_answers: tuple[str, ...]
    incorrect_answers: tuple[str, ...]
    category: str = ""

    def __post_init__(self) -> None:
        at = f"the question {self.question!r}"
        texts = (self.question, self.best_answer, self.category)
        lists = (self.correct_answers, self.incorrect_answers)
        if not all(isinstance(text, str) for text in texts) or not all(
            isinstance(answers, tuple) and all(isinstance(a, str) for a in answers)
            for answers in lists
        ):
            raise WorkbenchError(
                f"{at} has fields {texts} and {lists}", "texts and tuples of texts"
            )
        if not self.question.strip():
            raise WorkbenchError("an empty question", "a question's text")
        for kind, answers in (
            ("correct", self.correct_answers),
            ("incorrect", self.incorrect_answers),
        ):
            if not answers:
                raise WorkbenchError(f"{at} has no {kind} answer", f"at least one {kind} answer")
            if any(not answer.strip() for answer in answers):
                raise WorkbenchError(f"{at} has an empty {kind} answer", "answers with text")
            if len(set(answers)) < len(answers):
                raise WorkbenchError(f"{at} repeats a {kind} answer", "different answers")
        both = set(self.correct_answers) & set(self.incorrect_answers)
        if both:
            raise WorkbenchError(
                f"{at} lists {sorted(both)[0]!r} as correct and as incorrect", "one of the two"
            )
        if self.best_answer not in self.correct_answers:
            raise WorkbenchError(
                f"{at} has the best answer {self.best_answer!r}, which is not among the correct "
                "ones",
                "one of the correct answers",
            )

    @property
    def answers(self) -> tuple[str, ...]:
        """Correct answers, then incorrect ones."""
        return self.correct_answers + self.incorrect_answers

    @property
    def labels(self) -> tuple[int, ...]:
        """1 for a correct and 0 for an incorrect answer, in the order of `answers`."""
        return (1,) * len(self.correct_answers) + (0,) * len(self.incorrect_answers)


class QuestionSet(ItemSet[Question]):
    """Questions in order, all different.

    Example:
        >>> questions
        QuestionSet('hearsay': 24 questions, 240 answers)
        >>> questions[0].question
        'Which city is the capital of Brazil?'
        >>> first, second = questions.folds()
        >>> set(first.test) == set(second.train)
        True
    """

    what = "question"

    @classmethod
    def key(cls, item: Question) -> str:
        """The question's text."""
        return item.question

    def __repr__(self) -> str:
        answers = sum(len(question.answers) for question in self)
        return f"QuestionSet({self.name!r}: {len(self)} questions, {answers} answers)"

    @door
    def folds(self, count: int = 2, seed: int = 0) -> tuple[Fold, ...]:
        """Split into folds; each question is a test question exactly once.

        Args:
            count: number of folds, at least 2.
            seed: shuffles the questions; the same seed gives the same folds.

        Raises:
            WorkbenchError: fewer than 2 folds, or more folds than half of the questions.
        """
        if count < 2 or count * 2 > len(self):
            raise WorkbenchError(
                f"{count} folds of {len(self)} questions",
                "at least 2 folds, and at least twice as many questions as folds",
            )
        require_whole("seed", seed, 0)
        order = np.random.default_rng(seed).permutation(len(self))
        parts = [sorted(map(int, part)) for part in np.array_split(order, count)]
        return tuple(
            Fold(
                number=number,
                train=self.choose(sorted(q for p in parts if p is not part for q in p)),
                test=self.choose(part),
                everything=self,
            )
            for number, part in enumerate(parts)
        )

    @door
    def sample(self, count: int | None, seed: int = 0) -> QuestionSet:
        """So many of the questions, drawn by the seed, in their order; all if there is no count.

        Raises:
            WorkbenchError: more than there are, or fewer than one.
        """
        if count is None:
            return self
        if not 0 < count <= len(self):
            raise WorkbenchError(f"a sample of {count} questions", f"1 to {len(self)}")
        require_whole("seed", seed, 0)
        order = np.random.default_rng([seed, 23]).permutation(len(self))
        return self.choose(sorted(order[:count].tolist()))

    def validation_mask(self, share: float = 0.2, seed: int = 0) -> tuple[bool, ...]:
        """For every question whether it is held back for validation; seeded.

        At least one question is held back and at least one is not.

        Raises:
            WorkbenchError: a share outside (0, 1), or fewer than two questions.
        """
        if not 0 < share < 1 or len(self) < 2:
            raise WorkbenchError(
                f"a validation share of {share} of {len(self)} questions",
                "a share between 0 and 1 of at least 2 questions",
            )
        held = min(max(1, round(share * len(self))), len(self) - 1)
        require_whole("seed", seed, 0)
        chosen = set(np.random.default_rng([seed, 1]).permutation(len(self))[:held].tolist())
        return tuple(number in chosen for number in range(len(self)))


def require_questions(given: object) -> None:
    """Refuse what is no question set, with a hint for folds."""
    if not isinstance(given, QuestionSet):
        hint = "Pass fold.train or fold.test." if isinstance(given, Fold) else ""
        raise WorkbenchError(
            f"{kind_of(given)} instead of questions",
            "a QuestionSet, as load_questions gives it",
            hint,
        )


@dataclass(frozen=True)
class Fold:
    """Training and test questions; `everything` is the whole set, for presets that leak."""

    number: int
    train: QuestionSet
    test: QuestionSet
    everything: QuestionSet
