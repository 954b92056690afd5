"""Capture: head outputs and uncertainty at the tokens of every answer of a question set.

Each answer is run once, unedited, behind its prompt. Kept are the positions from the last prompt
token to the last answer token: n + 1 rows for n answer tokens, since the token graph reads the
answer's own tokens and misalignment is predicted from the token before each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from workbench.data.questions import QuestionSet, require_questions
from workbench.errors import WorkbenchError
from workbench.models import Model, ModelIdentity, identify, shape_of
from workbench.prompts import (
    AnswerStart,
    Encoded,
    PromptFormat,
    encode,
    pad,
    prompt_format,
    require_batch_size,
)
from workbench.running import attached, forward
from workbench.uncertainty import UncertaintyKind, entropy_of_layer

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True, repr=False)
class AnswerActivations:
    """One answer's slice of `TokenActivations`.

    Attributes:
        z: head outputs at the last prompt token and at each answer token.
        uncertainty: normalised entropy of the vocabulary distribution read off each layer.
        tokens: ids of the answer's tokens.
        strings: their texts.
        question, answer: the texts.
        label: 1 for a correct answer, 0 for an incorrect one.
    """

    z: Float[Tensor, "position layer head d_head"]
    uncertainty: Float[Tensor, "position layer"]
    tokens: tuple[int, ...]
    strings: tuple[str, ...]
    question: str
    answer: str
    label: int

    def __repr__(self) -> str:
        kind = "correct" if self.label else "incorrect"
        return (
            f"AnswerActivations({self.question!r}: {kind} answer {self.answer!r}, "
            f"{len(self.tokens)} tokens, z {tuple(self.z.shape)})"
        )

    @property
    def own(self) -> Float[Tensor, "token layer head d_head"]:
        """Z at the answer's tokens."""
        return self.z[1:]

    @property
    def preceding(self) -> Float[Tensor, "token layer head d_head"]:
        """Z at the token before each answer token, the first being the last prompt token."""
        return self.z[:-1]

    def to_xarray(self) -> xarray.Dataset:
        """The slice with named dimensions."""
        import xarray

        names = ["<prompt>", *self.strings]
        return xarray.Dataset(
            {
                "z": (("position", "layer", "head", "d_head"), self.z.numpy()),
                "uncertainty": (("position", "layer"), self.uncertainty.numpy()),
                "token": (("position",), names),
            },
            attrs={"question": self.question, "answer": self.answer, "label": self.label},
        )


@dataclass(frozen=True, repr=False)
class TokenActivations(Sequence[AnswerActivations]):
    """Ragged activations of many answers: flat positions plus offsets.

    Attributes:
        z: float32 head outputs; answer k has the rows `offsets[k]` to `offsets[k + 1]`.
        uncertainty: normalised entropy per position and layer, in [0, 1].
        offsets: one more than there are answers.
        encoded: tokens, texts and span of every answer.
        question: index of every answer's question in `questions`.
        label: 1 for a correct answer, 0 for an incorrect one.
        unlabelled: z at the last token of `Q: q A: a Q: other q`, a row an answer; the spread of
            an edit is measured on it.
        questions: the question set.
        model: the model that was run.
        made: how it was captured: style, answer_start, uncertainty and seed.
    """

    z: Float[Tensor, "position layer head d_head"]
    uncertainty: Float[Tensor, "position layer"]
    offsets: Int[Tensor, " answer_plus_one"]
    encoded: tuple[Encoded, ...]
    question: Int[Tensor, " answer"]
    label: Int[Tensor, " answer"]
    unlabelled: Float[Tensor, "prompt layer head d_head"]
    questions: QuestionSet
    model: ModelIdentity
    made: Mapping[str, Any]

    def __repr__(self) -> str:
        return (
            f"TokenActivations({len(self)} answers to {self.questions!r} by {self.model.name}, "
            f"z {tuple(self.z.shape)})"
        )

    def __len__(self) -> int:
        return len(self.encoded)

    def __iter__(self) -> Iterator[AnswerActivations]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, key):  # type: ignore[no-untyped-def]
        """One answer's activations (views, not copies); slices are refused."""
        if not isinstance(key, int):
            raise WorkbenchError(f"the index {key!r}", "an answer's number")
        if not -len(self) <= key < len(self):
            raise IndexError(f"answer {key} of {len(self)}")
        index = range(len(self))[key]
        rows = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        encoded = self.encoded[index]
        return AnswerActivations(
            z=self.z[rows],
            uncertainty=self.uncertainty[rows],
            tokens=encoded.answer_tokens,
            strings=encoded.strings[encoded.start :],
            question=self.questions[int(self.question[index])].question,
            answer=encoded.text[encoded.answer_char :],
            label=int(self.label[index]),
        )

    def choose(self, numbers: Sequence[int]) -> TokenActivations:
        """The activations of the given questions, in this order, with their unlabelled prompts."""
        place = {number: new for new, number in enumerate(numbers)}
        answers = sorted(self.of_questions(numbers), key=lambda k: place[int(self.question[k])])
        spans = [range(int(self.offsets[k]), int(self.offsets[k + 1])) for k in answers]
        rows = torch.tensor([row for span in spans for row in span])
        return TokenActivations(
            z=self.z[rows],
            uncertainty=self.uncertainty[rows],
            offsets=torch.tensor([0, *np.cumsum([len(span) for span in spans])]),
            encoded=tuple(self.encoded[k] for k in answers),
            question=torch.tensor([place[int(self.question[k])] for k in answers]),
            label=self.label[answers],
            unlabelled=self.unlabelled[answers] if len(self.unlabelled) else self.unlabelled,
            questions=self.questions.choose(numbers),
            model=self.model,
            made=self.made,
        )

    def of_questions(self, numbers: Iterable[int]) -> list[int]:
        """The answers of the given questions, in order."""
        wanted = set(numbers)
        return [k for k, q in enumerate(self.question.tolist()) if q in wanted]


def capture(
    model: Model,
    questions: QuestionSet,
    *,
    style: str | PromptFormat = "bare",
    answer_start: AnswerStart = "offsets",
    uncertainty: UncertaintyKind = "logit_lens",
    batch_size: int = 64,
    seed: int = 0,
    unlabelled: bool = True,
    progress: bool = True,
) -> TokenActivations:
    """Run every answer of every question once and keep its heads' outputs.

    Args:
        model: the bridge.
        questions: what to ask.
        style: prompt format of the answers.
        answer_start: how the answer's first token is found.
        uncertainty: kind of uncertainty to record beside z.
        batch_size: answers run together; longest together with longest.
        seed: draws the other question of every unlabelled prompt.
        unlabelled: also run the unlabelled prompts, which fits need for the spread.
        progress: show a bar.

    Returns:
        Activations in float32 on the CPU. Besides them no more than one batch is ever held.

    Raises:
        WorkbenchError: an answer without tokens, or a prompt longer than the context.
    """
    require_questions(questions)
    chosen = prompt_format(style)
    answers = [
        (number, question.question, answer, label)
        for number, question in enumerate(questions)
        for answer, label in zip(question.answers, question.labels, strict=True)
    ]
    encoded = [encode(model, q, a, chosen, answer_start) for _, q, a, _ in answers]
    lengths = [len(e.tokens) - e.start + 1 for e in encoded]
    offsets = torch.tensor([0, *np.cumsum(lengths)])
    shape = shape_of(model)
    z = torch.empty(int(offsets[-1]), shape.layers, shape.heads, shape.d_head)
    entropies = torch.empty(int(offsets[-1]), shape.layers)
    spans = [range(e.start - 1, len(e.tokens)) for e in encoded]
    fill(model, [e.tokens for e in encoded], spans, z, entropies, uncertainty,
         batch_size=batch_size, label="capture" if progress else None)  # fmt: skip
    plain = z[:0]
    if unlabelled:
        plain = capture_unlabelled(
            model, questions, style=chosen, batch_size=batch_size, seed=seed, progress=progress
        )
    return TokenActivations(
        z=z,
        uncertainty=entropies,
        offsets=offsets,
        encoded=tuple(encoded),
        question=torch.tensor([number for number, *_ in answers]),
        label=torch.tensor([label for *_, label in answers]),
        unlabelled=plain,
        questions=questions,
        model=identify(model),
        made=how_captured(chosen, answer_start, uncertainty, seed),
    )


def how_captured(
    style: str | PromptFormat, answer_start: AnswerStart, uncertainty: UncertaintyKind, seed: int
) -> dict[str, Any]:
    """What distinguishes activations of the same questions and model."""
    return {
        "style": prompt_format(style),
        "answer_start": answer_start,
        "uncertainty": uncertainty,
        "seed": seed,
    }


def capture_unlabelled(
    model: Model,
    questions: QuestionSet,
    *,
    style: str | PromptFormat = "bare",
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
) -> Float[Tensor, "prompt layer head d_head"]:
    """Z at the last token of `Q: question A: answer Q: other question`, a prompt an answer.

    The other question is drawn from the same set, so nothing outside of it is seen. With a single
    question, the question itself follows.
    """
    chosen = prompt_format(style)
    draw = np.random.default_rng([seed, 2])
    rows = []
    for number, question in enumerate(questions):
        for answer in question.answers:
            others = len(questions) - 1
            other = (number + 1 + int(draw.integers(others))) % len(questions) if others else 0
            asked = questions[other].question
            before = chosen.asking.split("{question}")[0] if not chosen.chat else ""
            text = encode(
                model, question.question, answer, chosen, after=chosen.between + before + asked
            )
            rows.append(text.tokens)
    shape = shape_of(model)
    z = torch.empty(len(rows), shape.layers, shape.heads, shape.d_head)
    spans = [range(len(row) - 1, len(row)) for row in rows]
    fill(model, rows, spans, z, None, "logit_lens", batch_size=batch_size,
         label="unlabelled" if progress else None)  # fmt: skip
    return z


def fill(
    model: Model,
    rows: Sequence[Sequence[int]],
    spans: Sequence[range],
    z: Float[Tensor, "position layer head d_head"],
    entropies: Float[Tensor, "position layer"] | None,
    uncertainty: UncertaintyKind,
    *,
    batch_size: int,
    label: str | None,
) -> None:
    """Run token rows in batches and write z (and entropies) at their spans into flat tensors.

    Rows of similar length run together; the result does not depend on the batches.
    """
    require_batch_size(batch_size)
    starts = np.cumsum([0, *map(len, spans)])
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
    layers = range(shape_of(model).layers)
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    for batch in tqdm(batches, desc=label, disable=label is None, leave=False):
        tokens, mask = pad(model, [rows[index] for index in batch])
        row = torch.tensor([r for r, index in enumerate(batch) for _ in spans[index]])
        position = torch.tensor([p for index in batch for p in spans[index]])
        place = torch.tensor(
            [starts[index] + n for index in batch for n in range(len(spans[index]))]
        )

        def keep_z(layer: int, row=row, position=position, place=place):  # type: ignore[no-untyped-def]
            def look(values: Tensor) -> None:
                z[place, layer] = values[row, position].float().cpu()

            return look

        def keep_entropy(layer: int, row=row, position=position, place=place):  # type: ignore[no-untyped-def]
            def look(residual: Tensor) -> None:
                if entropies is not None:
                    at = residual[row, position]
                    entropies[place, layer] = entropy_of_layer(model, at, uncertainty).cpu()

            return look

        residual_hooks = {n: keep_entropy(n) for n in layers} if entropies is not None else {}
        with attached(model, {n: keep_z(n) for n in layers}, residual_hooks):
            forward(model, tokens, mask, keep=1)
