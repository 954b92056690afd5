"""Which answers are explored: the data's own, and what the edited model writes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from workbench.data.questions import Question
from workbench.editing.interventions import Intervention
from workbench.editing.writing import Continuation
from workbench.errors import WorkbenchError, kind_of
from workbench.models.identity import Model, tokenizer_of
from workbench.models.prompts import Encoded, PromptFormat, encode
from workbench.models.tokens import token_texts, tokenize
from workbench.pages.explorer.record import Kind

Answers = Literal["own", "greedy", "both"]


@dataclass(frozen=True)
class Asked:
    """A prompt, what is shown of it, and its answers with their labels."""

    text: str
    prompt: Encoded
    own: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Told:
    """An answer behind its prompt, and where the edit begins."""

    asked: int
    encoded: Encoded
    answer: str
    kind: Kind
    begin: int


def asked_of(
    model: Model, given: Iterable[object], style: PromptFormat, each: int | None
) -> Iterator[Asked]:
    """Prompts of questions or texts."""
    for item in given:
        if isinstance(item, str):
            yield Asked(item, _encoded_text(model, item), ())
        elif isinstance(item, Question):
            right = [(answer, 1) for answer in item.correct_answers[:each]]
            wrong = [(answer, 0) for answer in item.incorrect_answers[:each]]
            prompt = encode(model, item.question, style=style)
            yield Asked(item.question, prompt, (*right, *wrong))
        else:
            raise WorkbenchError(
                f"{kind_of(item)} among the questions", "questions, or texts to go on from"
            )


def _encoded_text(model: Model, text: str) -> Encoded:
    """A text without an answer."""
    tokens, offsets = tokenize(model, text)
    names = token_texts(tokenizer_of(model), tokens)
    return Encoded(tokens, names, offsets, len(tokens), text, len(text))


def told_of(
    model: Model, asked: Sequence[Asked], said: Sequence[Continuation], answers: Answers,
    edit: Intervention, style: PromptFormat,
) -> Iterator[Told]:  # fmt: skip
    """The answers to explore, those of a question one after another."""
    for number, (one, greedy) in enumerate(zip(asked, said, strict=True)):
        for answer, label in one.own if answers != "greedy" else ():
            encoded = encode(model, one.text, answer, style)
            begin = encoded.start - 1
            if edit.answer_start == "plus_three":
                begin = encode(model, one.text, answer, style, "plus_three").start
            yield Told(number, encoded, answer, "correct" if label else "incorrect", begin)
        if answers != "own" and greedy.kept:
            encoded = _continued(one.prompt, greedy)
            yield Told(number, encoded, greedy.text, "greedy", encoded.start - 1)


def _continued(prompt: Encoded, said: Continuation) -> Encoded:
    """A prompt with the tokens that the model wrote behind it."""
    end = len(prompt.text)
    return Encoded(
        tokens=prompt.tokens + said.tokens[: said.kept],
        strings=prompt.strings + said.strings[: said.kept],
        offsets=prompt.offsets + ((end, end),) * said.kept,
        start=len(prompt.tokens),
        text=prompt.text + said.text,
        answer_char=end,
    )
