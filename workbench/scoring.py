"""Scoring: log-probabilities of answers under an edit, and multiple choice from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from workbench.data.questions import Question, QuestionSet
from workbench.editing import Edit, edited
from workbench.models import Model
from workbench.positions import clock
from workbench.prompts import (
    AnswerStart,
    Encoded,
    PromptFormat,
    encode,
    pad,
    prompt_format,
    require_batch_size,
)
from workbench.running import Site, forward


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


def score_tokens(
    model: Model,
    encoded: Sequence[Encoded],
    edit: Edit | None = None,
    *,
    starts: Sequence[int] | None = None,
    batch_size: int = 64,
    site: Site = "hook_z",
    progress: str | None = None,
) -> list[Float[Tensor, " token"]]:
    """Log-probability of every answer token, edited from the last prompt token on.

    An edit that is attached already applies as well; its trace then numbers the answers in the
    order in which they are run, long ones first.

    Args:
        model: the bridge.
        encoded: prompts with their answers.
        edit: what to apply; None scores the model itself.
        starts: first edited position of every answer, instead of its last prompt token.
        batch_size: rows run together; the result does not depend on it.
        site: where to edit.
        progress: the label of a bar, or None for none.

    Returns:
        Nats in float32 on the CPU, a tensor an answer, in the order given.
    """
    results: list[Tensor] = [torch.empty(0)] * len(encoded)
    begins = [e.start - 1 for e in encoded] if starts is None else list(starts)
    require_batch_size(batch_size)
    order = sorted(range(len(encoded)), key=lambda index: -len(encoded[index].tokens))
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    with edited(model, edit, site=site, record=False):
        for batch in tqdm(batches, desc=progress, disable=progress is None, leave=False):
            tokens, mask = pad(model, [encoded[index].tokens for index in batch])
            with clock(model).starting_at(torch.tensor([begins[index] for index in batch])):
                logits, _ = forward(model, tokens, mask)
            rows = torch.tensor([r for r, i in enumerate(batch) for _ in encoded[i].answer_tokens])
            places = torch.tensor(
                [p for i in batch for p in range(encoded[i].start, len(encoded[i].tokens))]
            )
            predicted = logits[rows, places - 1].float().log_softmax(dim=-1)
            found = predicted.gather(1, tokens[rows, places][:, None])[:, 0].cpu()
            lengths = [len(encoded[index].answer_tokens) for index in batch]
            for index, part in zip(batch, torch.split(found, lengths), strict=True):
                results[index] = part
    return results


def score(
    model: Model,
    questions: QuestionSet | Sequence[Question],
    edit: Edit | None = None,
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
    """
    chosen = prompt_format(style)
    rows = [
        (number, label, question.question, answer)
        for number, question in enumerate(questions)
        for answer, label in zip(question.answers, question.labels, strict=True)
    ]
    encoded = [encode(model, q, a, chosen, answer_start) for *_, q, a in rows]
    starts = None
    if edit is not None and edit.answer_start == "plus_three":
        starts = [encode(model, q, a, chosen, "plus_three").start for *_, q, a in rows]
    elif answer_start == "plus_three":
        starts = [encode(model, q, a, chosen).start - 1 for *_, q, a in rows]
    label_of_bar = "score" if progress else None
    found = score_tokens(
        model, encoded, edit, starts=starts, batch_size=batch_size, progress=label_of_bar
    )
    return [
        AnswerScore(number, label, float(tokens.sum()), tokens)
        for (number, label, *_), tokens in zip(rows, found, strict=True)
    ]
