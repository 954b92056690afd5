"""What methods fit on: pairs of a correct and an incorrect answer, and states at their tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.checks import is_whole
from workbench.data.questions import QuestionSet
from workbench.errors import WorkbenchError
from workbench.methods.memo import Memo
from workbench.models.batched_passes import Passage, states_at
from workbench.models.identity import Model
from workbench.models.passes import Place
from workbench.models.prompts import PromptFormat, encode, prompt_format
from workbench.models.tokens import tokenize

Over = Literal["mean", "last"] | int
"""The mean over an answer's tokens, its last token, or the mean of so many last tokens."""

Sides = tuple[Tensor, Tensor]
"""The states of the positive and of the negative answers of pairs, a row a pair."""


@dataclass(frozen=True)
class Pair:
    """A correct and an incorrect answer to a question.

    Attributes:
        number: of the question in its set.
        question: its text.
        positive: the correct answer.
        negative: the incorrect one.
    """

    number: int
    question: str
    positive: str
    negative: str


def answer_pairs(train: QuestionSet, *, shuffle_labels: bool = False, seed: int = 0) -> list[Pair]:
    """As many pairs of every question as it has correct or incorrect answers, whichever are more.

    The answers of the shorter side are repeated in turn.

    Args:
        train: the questions.
        shuffle_labels: a control: half of the pairs, drawn by the seed, change sides.
        seed: draws them.
    """
    pairs = [
        Pair(number, q.question, q.correct_answers[k % len(q.correct_answers)],
             q.incorrect_answers[k % len(q.incorrect_answers)])
        for number, q in enumerate(train)
        for k in range(max(len(q.correct_answers), len(q.incorrect_answers)))
    ]  # fmt: skip
    if not shuffle_labels:
        return pairs
    order = np.random.default_rng([seed, 7]).permutation(len(pairs))
    turned = set(order[: len(pairs) // 2].tolist())
    return [
        Pair(p.number, p.question, p.negative, p.positive) if k in turned else p
        for k, p in enumerate(pairs)
    ]


def answer_states(
    model: Model,
    answers: Sequence[tuple[str, str]],
    places: Sequence[Place],
    *,
    style: str | PromptFormat,
    over: Over = "mean",
    batch_size: int = 64,
    memo: Memo | None = None,
) -> list[Float[Tensor, answer * width]]:
    """States of answers at some places, one a place: [answer, head, d_head] for z, else d_model.

    Args:
        model: the bridge.
        answers: questions, each with an answer.
        places: where to look.
        style: prompt format.
        over: which of an answer's tokens.
        batch_size: answers run together; the states do not depend on it.
        memo: of this model.

    Raises:
        WorkbenchError: no answers, or `over` is neither mean, last nor a number from 1 on.
    """
    if not answers:
        raise WorkbenchError("no answers", "at least one")
    if over not in ("mean", "last") and (not is_whole(over) or over < 1):
        raise WorkbenchError(f"over={over!r}", "mean, last or a number of last tokens")
    key = (style, over, tuple(places), tuple(answers))
    return (memo or Memo()).get(
        "states", key, lambda: _states(model, answers, places, style, over, batch_size)
    )


def _states(
    model: Model, answers: Sequence[tuple[str, str]], places: Sequence[Place],
    style: str | PromptFormat, over: Over, batch_size: int,
) -> list[Tensor]:  # fmt: skip
    passages = []
    for question, answer in answers:
        encoded = encode(model, question, answer, prompt_format(style))
        end = len(encoded.tokens)
        first = {"mean": encoded.start, "last": end - 1}.get(str(over))
        if first is None:
            first = max(encoded.start, end - int(over))
        passages.append(Passage(encoded.tokens, range(first, end)))
    return _means(model, passages, places, batch_size)


def text_states(
    model: Model,
    texts: Sequence[str],
    places: Sequence[Place],
    *,
    batch_size: int = 64,
    memo: Memo | None = None,
) -> list[Float[Tensor, text * width]]:
    """Mean states of whole texts behind their first token, as `answer_states`.

    Args:
        model: the bridge.
        texts: of two tokens or more, a beginning-of-sequence token among them.
        places: where to look.
        batch_size: texts run together; the states do not depend on it.
        memo: of this model.

    Raises:
        WorkbenchError: a text of one token, or one that is longer than the model's context.
    """

    def run() -> list[Tensor]:
        passages = []
        for text in texts:
            tokens = tokenize(model, text)[0]
            if len(tokens) < 2:
                raise WorkbenchError(f"the text {text!r}, one token", "two tokens or more")
            passages.append(Passage(tokens, range(1, len(tokens))))
        return _means(model, passages, places, batch_size)

    return (memo or Memo()).get("states of texts", (tuple(places), tuple(texts)), run)


def _means(
    model: Model, passages: Sequence[Passage], places: Sequence[Place], batch_size: int
) -> list[Tensor]:
    """The mean over every passage's span, a tensor a place."""
    found = states_at(model, passages, places, batch_size)
    lengths = torch.tensor([len(passage.span) for passage in passages])
    number = torch.arange(len(passages)).repeat_interleave(lengths)
    means = []
    for place in places:
        states = found[place]
        total = torch.zeros(len(passages), *states.shape[1:], dtype=torch.float32).index_add_(
            0, number, states
        )
        means.append(total / lengths.view(-1, *[1] * (states.ndim - 1)))
    return means


def held_back(pairs: Sequence[Pair], mask: Sequence[bool]) -> Bool[Tensor, " pair"]:
    """For every pair whether its question is a validation question."""
    return torch.tensor([mask[pair.number] for pair in pairs])


def pair_states(
    model: Model,
    pairs: Sequence[Pair],
    places: Sequence[Place],
    *,
    style: str | PromptFormat,
    over: Over = "mean",
    batch_size: int = 64,
    memo: Memo | None = None,
) -> Iterator[Sides]:
    """For every place, the states of the pairs' positive and of their negative answers.

    Answers that several pairs share are run once, and for all ways to label them.

    Args:
        model: the bridge.
        pairs: from `answer_pairs`.
        places: where to look.
        style: prompt format.
        over: which of an answer's tokens.
        batch_size: answers run together.
        memo: of this model.
    """
    answers = sorted({(p.question, text) for p in pairs for text in (p.positive, p.negative)})
    row = {answer: number for number, answer in enumerate(answers)}
    positive = torch.tensor([row[pair.question, pair.positive] for pair in pairs])
    negative = torch.tensor([row[pair.question, pair.negative] for pair in pairs])
    states = answer_states(
        model, answers, places, style=style, over=over, batch_size=batch_size, memo=memo
    )
    return ((own[positive], own[negative]) for own in states)
