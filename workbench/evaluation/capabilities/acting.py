"""Side effects where an edit acts: on answers, and not on plain text alone.

A gate that is shut on plain text makes the KL there vanish, whatever it does to answers. So the
same is measured on what the unedited model itself answers, on answers that it had right, on its
answers to unrelated questions, and on its long continuations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from workbench import storage
from workbench.checks import require_whole
from workbench.data.questions import Question, QuestionSet
from workbench.editing.divergences import divergences
from workbench.editing.generation import written
from workbench.editing.interventions import Intervention
from workbench.editing.scoring import score
from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.rows import Row, named_rows
from workbench.models.identity import Model
from workbench.models.prompts import Encoded, PromptFormat, encode


@dataclass(frozen=True)
class Acting:
    """On what else side effects are measured, each on so many units; see `truthfulness`.

    Attributes:
        own_answers, right_answers, long_answers: how many questions' answers of each kind.
        unrelated: questions of another kind, or the path of a JSON list of them.
        long_tokens: of a long continuation.
    """

    own_answers: int = 0
    right_answers: int = 0
    long_answers: int = 0
    unrelated: str | Sequence[str] = ()
    long_tokens: int = 200

    def __post_init__(self) -> None:
        for name in ("own_answers", "right_answers", "long_answers"):
            require_whole(name, getattr(self, name), 0)
        require_whole("long_tokens", self.long_tokens, 1)

    def spans(
        self,
        model: Model,
        questions: QuestionSet,
        style: PromptFormat,
        length: int,
        batch_size: int,
        *,
        progress: bool,
    ) -> Iterator[tuple[str, list[str], list[Encoded]]]:
        """What is measured on: the metrics' ending, the units' names and their tokens.

        Args:
            model: the bridge, unedited.
            questions: test questions.
            style: prompt format.
            length: of answers.
            batch_size: prompts continued together.
            progress: show bars.
        """

        def answers(asked: Sequence[str], most: int, **how: Any) -> list[Encoded]:
            prompts = [encode(model, one, None, style) for one in asked]
            return written(
                model, prompts, max_new_tokens=most, batch_size=batch_size, progress=progress, **how
            )

        own = [one.question for one in questions][: self.own_answers]
        if own:
            yield "_own", own, answers(own, length)
        if self.right_answers:
            right = answered_right(model, questions, self.right_answers, style)
            names = [one.question for one in right]
            yield "_right", names, [best_answer(model, one, style) for one in right]
        asked = self.asked()
        if asked:
            yield "_unrelated", asked, answers(asked, length)
        long = [one.question for one in questions][: self.long_answers]
        if long:
            yield "_long", long, answers(long, self.long_tokens, stop=())

    def asked(self) -> list[str]:
        """The unrelated questions."""
        found = self.unrelated
        if isinstance(found, str):
            found = storage.read_json(found)
        if not isinstance(found, list | tuple) or not all(isinstance(one, str) for one in found):
            raise WorkbenchError(
                f"unrelated={self.unrelated!r:.60}", "a list of questions, or of such a file's path"
            )
        if len(set(found)) < len(found):
            raise WorkbenchError("unrelated questions that stand twice", "different ones")
        return list(found)

    def rows(
        self,
        model: Model,
        questions: QuestionSet,
        edits: Sequence[Intervention | None],
        style: PromptFormat,
        length: int,
        batch_size: int,
        *,
        progress: bool,
    ) -> list[list[Row]]:
        """Cross-entropy and KL of all of them, for every edit; see `spans`."""
        found: list[list[Row]] = [[] for _ in edits]
        for ending, names, spans in self.spans(
            model, questions, style, length, batch_size, progress=progress
        ):
            if spans:
                effects = divergences(model, spans, edits, progress=progress)
                for rows, own in zip(found, effects, strict=True):
                    rows += named_rows(names, own, ending)
        return found


def answered_right(
    model: Model, questions: QuestionSet, count: int, style: PromptFormat
) -> list[Question]:
    """Those of the first so many questions that the model answers right by MC1."""
    some = questions.choose(range(min(count, len(questions))))
    best = [-float("inf")] * len(some)
    wrong = [-float("inf")] * len(some)
    place = [0] * len(some)
    for one in score(model, some, style=style):
        answer = some[one.question].answers[place[one.question]]
        place[one.question] += 1
        if not one.label:
            wrong[one.question] = max(wrong[one.question], one.total)
        elif answer == some[one.question].best_answer:
            best[one.question] = one.total
    return [one for one, b, w in zip(some, best, wrong, strict=True) if b > w]


def best_answer(model: Model, question: Question, style: PromptFormat) -> Encoded:
    """A question's best answer behind its prompt."""
    return encode(model, question.question, question.best_answer, style)
