"""Capture: run every answer once, unedited, and keep its heads' outputs, in memory or on disk.

`keeping` says what is kept of which pass, and where; what passes show is put in its place by
`filling`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench import storage
from workbench.data.questions import QuestionSet, require_questions
from workbench.doors import door
from workbench.errors import WorkbenchError
from workbench.models.batched_passes import Passage
from workbench.models.identity import Model, identify, shape_of
from workbench.models.prompts import AnswerStart, PromptFormat, encode, prompt_format
from workbench.models.tokens import require_batch_size
from workbench.models.unwrapping import has_hooks
from workbench.stages.activations import TokenActivations
from workbench.stages.keeping import (
    ToCapture,
    in_memory,
    manifest_of,
    require_same_capture,
    to_disk,
)
from workbench.stages.uncertainty import UncertaintyKind, require_kind

SHARD_BYTES = 1 << 29
"""512 MB, about the weights of SmolLM2-135M in float32."""


@door
def capture(
    model: Model,
    questions: QuestionSet,
    *,
    style: str | PromptFormat = "bare",
    answer_start: AnswerStart = "offsets",
    uncertainty: UncertaintyKind | None = None,
    uncertainty_layers: Sequence[int] | None = None,
    batch_size: int = 64,
    seed: int = 0,
    unlabelled: bool = True,
    folder: storage.PathLike | None = None,
    memory: int = SHARD_BYTES,
    progress: bool = True,
) -> TokenActivations:
    """Run every answer of every question once and keep its heads' outputs.

    Args:
        model: the bridge.
        questions: what to ask.
        style: prompt format of the answers.
        answer_start: how the answer's first token is found.
        uncertainty: kind of uncertainty to record beside z; None records none. Each layer of it
            costs an unembedding of every kept position, no fit reads it.
        uncertainty_layers: the layers to record it at; all by default.
        batch_size: most answers run together; longest together with longest.
        seed: draws the other question of every unlabelled prompt.
        unlabelled: also run the unlabelled prompts, which fits need for the spread.
        folder: where to keep z, as safetensors shards in the model's dtype; in memory, in float32,
            if it is left out. A folder that holds part of the same capture is completed, and one
            that holds all of it is read without running the model.
        memory: with a folder, most bytes of activations to hold at a time, and of a shard.
        progress: show a bar, which counts tokens.

    Returns:
        Activations on the CPU. In memory no more than one batch is held besides them; with a
        folder no more than one batch and one shard, whatever the number of answers.

    Raises:
        WorkbenchError: an answer without tokens, a prompt longer than the context, or a layer that
            the model does not have; with a folder also one of another capture, memory for less
            than one answer, or anything attached to the model.

    Example:
        >>> acts = wb.capture(model, fold.train, uncertainty="logit_lens", progress=False)
        >>> acts.z.shape, acts.uncertainty.shape
        (torch.Size([1154, 5, 8, 20]), torch.Size([1154, 5]))
        >>> acts.unlabelled.shape
        torch.Size([120, 5, 8, 20])
    """
    require_questions(questions)
    require_batch_size(batch_size)
    layers = _require_layers(model, uncertainty, uncertainty_layers)
    chosen = prompt_format(style)
    answers = [
        (number, question.question, answer, label)
        for number, question in enumerate(questions)
        for answer, label in zip(question.answers, question.labels, strict=True)
    ]
    encoded = [encode(model, asked, said, chosen, answer_start) for _, asked, said, _ in answers]
    passages = [Passage(one.tokens, range(one.start - 1, len(one.tokens))) for one in encoded]
    others = unlabelled_runs(model, questions, chosen, seed) if unlabelled else None
    made = how_captured(chosen, answer_start, uncertainty, seed, layers)
    todo = ToCapture(model, passages, others, uncertainty, layers, batch_size)
    if folder is None:
        kept = in_memory(todo, progress=progress)
    else:
        parts = list(todo.parts(memory))
        if has_hooks(model):
            raise WorkbenchError(
                "a capture to a folder while an edit or a hook is attached to the model",
                "the model by itself, whose activations the folder is known to hold",
            )
        place = storage.make_folder(folder)
        require_same_capture(
            place, manifest_of(model, questions, made, passages, memory, unlabelled)
        )
        kept = to_disk(todo, parts, place, progress=progress)
    return TokenActivations(
        z=kept.z,
        entropies=_over_all_layers(kept.entropies, layers, shape_of(model).layers),
        offsets=torch.tensor([0, *np.cumsum([len(passage.span) for passage in passages])]),
        encoded=tuple(encoded),
        question=torch.tensor([number for number, *_ in answers]),
        label=torch.tensor([label for *_, label in answers]),
        unlabelled=kept.unlabelled,
        asked=torch.tensor(unlabelled_pairs(questions, seed))[: len(kept.unlabelled)],
        questions=questions,
        model=identify(model),
        made=made,
    )


def _require_layers(
    model: Model, kind: UncertaintyKind | None, layers: Sequence[int] | None
) -> tuple[int, ...] | None:
    """The layers to read u at; None for all, or where none is asked for."""
    if kind is not None:
        require_kind(kind)
    if layers is None:
        return None
    count = shape_of(model).layers
    chosen = tuple(sorted(set(layers)))
    if kind is None or not chosen or not all(0 <= layer < count for layer in chosen):
        raise WorkbenchError(
            f"uncertainty_layers={list(layers)} with uncertainty={kind!r}",
            f"numbers from 0 to {count - 1}, with uncertainty='logit_lens' or 'amplified'",
        )
    return chosen


def _over_all_layers(
    entropies: Tensor | None, layers: tuple[int, ...] | None, count: int
) -> Float[Tensor, "position layer"] | None:
    """A column a layer, NaN where u was not asked for."""
    if entropies is None or layers is None:
        return entropies
    whole = torch.full((len(entropies), count), torch.nan, dtype=torch.float32)
    whole[:, layers] = entropies
    return whole


def how_captured(
    style: str | PromptFormat,
    answer_start: AnswerStart,
    uncertainty: UncertaintyKind | None,
    seed: int,
    uncertainty_layers: tuple[int, ...] | None = None,
) -> dict[str, Any]:
    """What distinguishes activations of the same questions and model."""
    return {
        "style": prompt_format(style),
        "answer_start": answer_start,
        "uncertainty": uncertainty,
        "uncertainty_layers": uncertainty_layers,
        "seed": seed,
    }


def unlabelled_pairs(questions: QuestionSet, seed: int) -> list[tuple[int, int]]:
    """Of every answer the question, and another that is drawn to follow it.

    It is drawn from the same set, so nothing outside of it is seen. With a single question, the
    question itself follows.
    """
    draw, others = np.random.default_rng([seed, 2]), len(questions) - 1
    return [
        (number, (number + 1 + int(draw.integers(others))) % len(questions) if others else 0)
        for number, question in enumerate(questions)
        for _ in question.answers
    ]


def unlabelled_runs(
    model: Model, questions: QuestionSet, style: PromptFormat, seed: int
) -> list[Passage]:
    """`Q: question A: answer Q: other question`, kept at its last token; a prompt an answer."""
    before = style.asking.split("{question}")[0] if not style.chat else ""
    answers = [answer for question in questions for answer in question.answers]
    passages = []
    for answer, (number, other) in zip(answers, unlabelled_pairs(questions, seed), strict=True):
        after = style.between + before + questions[other].question
        try:
            text = encode(model, questions[number].question, answer, style, after=after)
        except WorkbenchError as error:
            raise WorkbenchError(
                f"{error.came}, which is question {number} with an answer and question {other} "
                "behind it",
                error.expected,
                "u is made of such unlabelled prompts. Capture without them (unlabelled=False), or "
                "shorten the questions.",
            ) from error
        passages.append(Passage(text.tokens, range(len(text.tokens) - 1, len(text.tokens))))
    return passages
