"""Causal checks of heads: what the preference for truths loses without each, or gains by each.

A question's truth margin in nats is m = log Σ p(a) over its correct answers a minus the same over
its incorrect ones, p(a) the product over a's tokens. A head's effect is m with its z replaced, from
the last prompt token on, minus m as it is. What replaces z: zeros (Michel et al. 2019), its mean
(Wang et al. 2023), its values at another question (Chan et al. 2022), or its values behind a
cleaner context: activation patching (Vig et al. 2020; Zhang & Nanda 2024), where
recovered = Σ (m patched − m corrupt) / Σ (m clean − m corrupt) over questions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from workbench.analysis.head_effects import Head, HeadEffects, RankAgreement, compare_rankings
from workbench.analysis.replacing import Replacement, replaced_totals, states
from workbench.checks import require_one_of
from workbench.data.questions import Question, QuestionSet, require_questions
from workbench.doors import door
from workbench.errors import WorkbenchError
from workbench.models.identity import Model, identify, shape_of
from workbench.models.prompts import Encoded, PromptFormat, encode, prompt_format
from workbench.models.tokens import require_batch_size

__all__ = [
    "ContextPair",
    "HeadEffects",
    "RankAgreement",
    "compare_rankings",
    "knock_out_heads",
    "patch_heads",
]

Ablation = Literal["zero", "mean", "resample"]
Asked = Sequence[Sequence[Encoded]]
"""The answers of every question."""
Source = Callable[[range], Replacement]
"""What takes the place of z in the answers of some questions, by the questions' numbers."""
PART = 8
"""Questions whose replacements are held at a time."""


@dataclass(frozen=True)
class ContextPair:
    """A question behind two contexts.

    Attributes:
        clean: the text before the question from which z is taken.
        corrupt: the text behind which it is put.
        question: with its answers.
    """

    clean: str
    corrupt: str
    question: Question


@door
def knock_out_heads(
    model: Model,
    questions: QuestionSet,
    *,
    kind: Ablation = "zero",
    heads: Sequence[Head] | None = None,
    style: str | PromptFormat = "bare",
    seed: int = 0,
    batch_size: int = 64,
    progress: bool = False,
) -> HeadEffects:
    """Replace every head by itself, from the last prompt token on, and measure truth margins.

    Args:
        model: the bridge.
        questions: what to ask.
        kind: `zero`; `mean`, of the head's z at all replaced positions of all answers; or
            `resample`: every question has one donor, an answer of another question drawn by the
            seed, whose z at the k-th position from its own last prompt token on replaces z at the
            k-th of each of the question's answers. A donor that is too short begins anew. So all
            of a question's answers get the same values, and all of its heads the same donor.
        heads: (layer, head) pairs; all by default.
        style: prompt format.
        seed: draws the donors.
        batch_size: answers run together, counted once a head; the result does not depend on it.
        progress: show a bar, which counts answers' tokens, once a head.

    Raises:
        WorkbenchError: no such kind or head, or a single question to resample from.

    Example:
        >>> wb.analysis.knock_out_heads(model, fold.test.choose([0, 1]), heads=edit.heads)
        HeadEffects(zero, 4 heads of hearsay, 2 questions)
    """
    require_questions(questions)
    require_one_of("kind", kind, Ablation)
    chosen = _require_heads(model, heads)
    layers = sorted({layer for layer, _ in chosen})
    asked = [_encoded(model, question, prompt_format(style)) for question in questions]
    if kind == "zero":
        source = _zeros(model, asked, layers)
    elif kind == "mean":
        source = _constant(asked, _mean(model, asked, layers, batch_size))
    else:
        source = _donated(model, asked, layers, seed, batch_size)
    margins = _margins(model, asked, list(questions), chosen, source, batch_size, progress)
    return _effects(model, kind, chosen, margins)


@door
def patch_heads(
    model: Model,
    pairs: Sequence[ContextPair],
    heads: Sequence[Head] | None = None,
    *,
    style: str | PromptFormat = "bare",
    batch_size: int = 64,
    progress: bool = False,
) -> HeadEffects:
    """Put every head's z behind the clean context in its place behind the corrupt one.

    Contexts are tokenised apart, and may differ in length: the k-th position of an answer, from
    the last prompt token on, gets what is at the k-th of the same answer behind the clean context.

    Args:
        model: the bridge.
        pairs: questions behind two contexts each; see `hearsay_contexts`.
        heads: (layer, head) pairs; all by default.
        style: prompt format, which the contexts go before.
        batch_size: answers run together, counted once a head; the result does not depend on it.
        progress: show a bar, which counts answers' tokens, once a head.

    Raises:
        WorkbenchError: no pairs or the same twice, no such head, a chat format, or an answer that
            tokenises differently behind the two contexts.

    Example:
        >>> pairs = wb.analysis.hearsay_contexts(2)
        >>> effects = wb.analysis.patch_heads(model, pairs, heads=[(1, 1)])
        >>> effects.clean > effects.margin  # a careful speaker before, and a gossip
        tensor([True, True])
        >>> effects.recovered.shape
        torch.Size([5, 8])
    """
    chosen, given = _require_heads(model, heads), prompt_format(style)
    layers = sorted({layer for layer, _ in chosen})
    if not pairs or len({(p.corrupt, p.question.question) for p in pairs}) < len(pairs):
        raise WorkbenchError(f"{len(pairs)} pairs of contexts", "at least one, all different")
    clean = [_encoded(model, p.question, _behind(given, p.clean)) for p in pairs]
    corrupt = [_encoded(model, p.question, _behind(given, p.corrupt)) for p in pairs]
    _require_same_answers(clean, corrupt)
    asked = [pair.question for pair in pairs]

    def source(part: range) -> Replacement:
        return Replacement(*states(model, [a for n in part for a in clean[n]], layers, batch_size))

    nothing = _zeros(model, clean, [])
    wanted = _margins(model, clean, asked, (), nothing, batch_size, progress=False)
    margins = _margins(model, corrupt, asked, chosen, source, batch_size, progress)
    return replace(_effects(model, "patch", chosen, margins), clean=wanted[:, 0].float())


def _require_heads(model: Model, heads: Sequence[Head] | None) -> tuple[Head, ...]:
    """The heads that were asked for, or all; refused where a model does not have them."""
    shape = shape_of(model)
    known = [(layer, head) for layer in range(shape.layers) for head in range(shape.heads)]
    chosen = known if heads is None else [(layer, head) for layer, head in heads]
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(known):
        raise WorkbenchError(
            f"the heads {chosen}",
            f"different (layer, head) pairs of {shape.layers} layers x {shape.heads} heads",
        )
    return tuple(chosen)


def _encoded(model: Model, question: Question, style: PromptFormat) -> list[Encoded]:
    return [encode(model, question.question, answer, style) for answer in question.answers]


def _behind(style: PromptFormat, context: str) -> PromptFormat:
    """The format with a context before the question."""
    if style.chat:
        raise WorkbenchError("a context in a chat format", "a format with a primer, such as bare")
    return replace(style, primer=style.primer + context)


def _require_same_answers(clean: Asked, corrupt: Asked) -> None:
    for behind_clean, behind_corrupt in zip(clean, corrupt, strict=True):
        for wanted, answer in zip(behind_clean, behind_corrupt, strict=True):
            if wanted.answer_tokens != answer.answer_tokens:
                raise WorkbenchError(
                    f"the answer {answer.text[answer.answer_char :]!r}, "
                    "which tokenises differently",
                    "the same tokens behind both contexts",
                    "End the contexts in a line break.",
                )


def _parts(count: int) -> list[range]:
    return [range(first, min(first + PART, count)) for first in range(0, count, PART)]


def _zeros(model: Model, asked: Asked, layers: Sequence[int]) -> Source:
    shape = shape_of(model)
    return _constant(
        asked, {n: torch.zeros(1, shape.heads, shape.d_head, dtype=torch.float32) for n in layers}
    )


def _constant(asked: Asked, values: dict[int, Float[Tensor, "1 head d_head"]]) -> Source:
    """The same at every position."""
    return lambda part: Replacement(
        values, [[0] * len(answer.answer_tokens) for number in part for answer in asked[number]]
    )


def _mean(
    model: Model, asked: Asked, layers: Sequence[int], batch_size: int
) -> dict[int, Float[Tensor, "1 head d_head"]]:
    """The mean of z over all positions that are replaced, by layer."""
    total: dict[int, Tensor] = {}
    count = 0
    for part in _parts(len(asked)):
        answers = [answer for number in part for answer in asked[number]]
        by_layer, rows = states(model, answers, layers, batch_size)
        count += rows[-1].stop
        for layer, z in by_layer.items():
            sums = z.double().sum(dim=0, keepdim=True)
            total[layer] = total[layer] + sums if layer in total else sums
    return {layer: sums / count for layer, sums in total.items()}


def _donated(
    model: Model, asked: Asked, layers: Sequence[int], seed: int, batch_size: int
) -> Source:
    """z of a donor a question, by the position's number; see `knock_out_heads`."""
    count = len(asked)
    if count < 2:
        raise WorkbenchError("one question to resample from", "at least two")
    draw = np.random.default_rng([seed, 17])
    others = [asked[(n + 1 + int(draw.integers(count - 1))) % count] for n in range(count)]
    donors = [answers[int(draw.integers(len(answers)))] for answers in others]

    def source(part: range) -> Replacement:
        values, rows = states(model, [donors[n] for n in part], layers, batch_size)
        samples = [
            [of_donor[k % len(of_donor)] for k in range(len(answer.answer_tokens))]
            for number, of_donor in zip(part, rows, strict=True)
            for answer in asked[number]
        ]
        return Replacement(values, samples)

    return source


def _margins(
    model: Model,
    asked: Asked,
    questions: Sequence[Question],
    heads: Sequence[Head],
    source: Source,
    batch_size: int,
    progress: bool,
) -> Float[Tensor, "question edit"]:
    """Truth margins without any replacement, then with that of each head."""
    require_batch_size(batch_size)
    edits = [None, *heads]
    margins = []
    tokens = sum(len(answer.answer_tokens) for answers in asked for answer in answers)
    with tqdm(
        total=tokens * len(edits), desc="heads", unit="token", unit_scale=True,
        disable=not progress, leave=False,
    ) as bar:  # fmt: skip
        for part in _parts(len(asked)):
            encoded = [answer for number in part for answer in asked[number]]
            totals = replaced_totals(model, encoded, edits, source(part), batch_size, bar)
            by_question = torch.split(totals, [len(asked[number]) for number in part], dim=1)
            margins += [
                truth_margin(of_answers, questions[number])
                for number, of_answers in zip(part, by_question, strict=True)
            ]
    return torch.stack(margins)


def truth_margin(totals: Float[Tensor, "*row answer"], question: Question) -> Float[Tensor, "*row"]:
    """The log-probability of all correct answers minus that of all incorrect ones, in nats.

    Args:
        totals: log-probabilities of a question's answers, in the order of `answers`.
        question: whose they are.
    """
    correct = len(question.correct_answers)
    return totals[..., :correct].logsumexp(-1) - totals[..., correct:].logsumexp(-1)


def _effects(
    model: Model, kind: str, heads: Sequence[Head], margins: Float[Tensor, "question edit"]
) -> HeadEffects:
    shape = shape_of(model)
    effect = torch.full((len(margins), shape.layers, shape.heads), torch.nan, dtype=torch.float32)
    layer, head = torch.tensor(heads).unbind(dim=1)
    effect[:, layer, head] = (margins[:, 1:] - margins[:, :1]).float()
    return HeadEffects(effect, margins[:, 0].float(), kind, identify(model))
