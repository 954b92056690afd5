"""Scoring: log-probabilities of questions' answers, under one edit or under many at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from workbench.data.questions import Question, QuestionSet, require_questions
from workbench.doors import door
from workbench.editing.interventions import Intervention, warn_of_another_style
from workbench.editing.token_scores import score_tokens_under
from workbench.errors import WorkbenchError
from workbench.models.identity import Model
from workbench.models.prompts import AnswerStart, PromptFormat, encode, prompt_format


@dataclass(frozen=True)
class AnswerScore:
    """An answer's log-probabilities in nats.

    Attributes:
        question: number of the question in the set.
        label: 1 for a correct answer, 0 for an incorrect one.
        total: sum over the answer's tokens.
        tokens: one a token.
    """

    question: int
    label: int
    total: float
    tokens: Float[Tensor, " token"]

    def __repr__(self) -> str:
        kind = "correct" if self.label else "incorrect"
        return (
            f"AnswerScore(question {self.question}, {kind}, {self.total:.3f} nats, "
            f"{len(self.tokens)} tokens)"
        )


@door
def score(
    model: Model,
    questions: QuestionSet | Sequence[Question],
    edit: Intervention | None = None,
    *,
    style: str | PromptFormat = "bare",
    answer_start: AnswerStart = "offsets",
    batch_size: int = 64,
    progress: bool = False,
) -> list[AnswerScore]:
    """Score every answer of every question.

    Args:
        model: the bridge.
        questions: what to ask.
        edit: what to apply; None scores the model itself.
        style: prompt format.
        answer_start: how the first scored token is found, whatever is edited: only scores of the
            same tokens can be compared. The published evaluation is `plus_three` for all rows.
            Where the edit begins is the edit's own `answer_start`.
        batch_size: answers run together.
        progress: show a bar.

    Example:
        >>> scores = wb.score(model, fold.test.choose([0]), edit)
        >>> [answer.label for answer in scores]
        [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
        >>> max(scores, key=lambda answer: answer.total).label  # what MC1 asks
        1
    """
    if edit is not None:
        warn_of_another_style(edit, prompt_format(style))
    return score_under(
        model, questions, [edit], style=style, answer_start=answer_start, batch_size=batch_size,
        progress=progress,
    )[0]  # fmt: skip


@door
def score_under(
    model: Model,
    questions: QuestionSet | Sequence[Question],
    edits: Sequence[Intervention | None],
    *,
    style: str | PromptFormat = "bare",
    answer_start: AnswerStart = "offsets",
    batch_size: int = 256,
    progress: bool = False,
) -> list[list[AnswerScore]]:
    """Score every answer of every question under each of several edits.

    Args:
        model: the bridge.
        questions: what to ask.
        edits: what to apply, one after another; None scores the model itself.
        style: prompt format.
        answer_start: see `score`.
        batch_size: rows run together; a row is an answer under an edit.
        progress: show a bar.

    Returns:
        For every edit, what `score` returns for it. Prompts are run once for all of them, which
        saves most where prompts are long and answers begin alike, and little where they are short.

    Example:
        >>> plain, under = wb.editing.score_under(model, fold.test.choose([0]), [None, edit])
        >>> len(plain), under[0].total > plain[0].total  # the first answer is correct
        (10, True)
    """
    chosen = prompt_format(style)
    if not isinstance(questions, Sequence):
        require_questions(questions)
    listed = edits if isinstance(edits, list | tuple) else [edits]
    wrong = [one for one in listed if one is not None and not isinstance(one, Intervention)]
    if wrong or listed is not edits:
        raise WorkbenchError(
            f"{(wrong or [edits])[0]!r:.60} as an edit or edits",
            "a list of fitted edits, of which some may be None",
        )
    rows = [
        (number, label, question.question, answer)
        for number, question in enumerate(questions)
        for answer, label in zip(question.answers, question.labels, strict=True)
    ]
    encoded = [encode(model, q, a, chosen, answer_start) for *_, q, a in rows]
    starts: dict[AnswerStart, list[int]] = {"offsets": [e.start - 1 for e in encoded]}
    if answer_start == "plus_three":
        starts["offsets"] = [encode(model, q, a, chosen).start - 1 for *_, q, a in rows]
    if any(edit is not None and edit.answer_start == "plus_three" for edit in edits):
        starts["plus_three"] = [
            encode(model, q, a, chosen, "plus_three").start for *_, q, a in rows
        ]
    found = score_tokens_under(
        model, encoded, edits,
        starts=[starts["offsets" if edit is None else edit.answer_start] for edit in edits],
        batch_size=batch_size, progress="score" if progress else None,
    )  # fmt: skip
    return [
        [
            AnswerScore(number, label, float(tokens.sum()), tokens)
            for (number, label, *_), tokens in zip(rows, scored, strict=True)
        ]
        for scored in found
    ]
