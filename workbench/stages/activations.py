"""Activations: head outputs at the tokens of many answers, ragged and flat; if asked for, u too.

An answer has the positions from the last prompt token to its last token: n + 1 rows for n tokens,
since the token graph reads the answer's own tokens and misalignment is predicted from the token
before each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.data.questions import QuestionSet
from workbench.doors import door_of_class
from workbench.errors import WorkbenchError
from workbench.models.identity import ModelIdentity
from workbench.models.prompts import Encoded
from workbench.records import Named, Record
from workbench.stages.shards import Shards, take


@dataclass(frozen=True, repr=False)
class AnswerActivations(Record):
    """One answer's slice of `TokenActivations`.

    Attributes:
        z: head outputs at the last prompt token and at each answer token.
        entropies: u, or None where it was not captured; see `uncertainty`.
        tokens: ids of the answer's tokens.
        strings: their texts.
        question, answer: the texts.
        label: 1 for a correct answer, 0 for an incorrect one.
    """

    z: Float[Tensor, "position layer head d_head"]
    entropies: Float[Tensor, "position layer"] | None
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
    def uncertainty(self) -> Float[Tensor, "position layer"]:
        """Normalised entropy of the vocabulary distribution read off each layer, in [0, 1].

        NaN at layers that were not asked for.

        Raises:
            WorkbenchError: it was not captured.
        """
        return _asked_for(self.entropies)

    @property
    def own(self) -> Float[Tensor, "token layer head d_head"]:
        """z at the answer's tokens."""
        return self.z[1:]

    @property
    def preceding(self) -> Float[Tensor, "token layer head d_head"]:
        """z at the token before each answer token, the first being the last prompt token."""
        return self.z[:-1]

    def arrays(self) -> dict[str, Named]:
        """z, and u where it was captured."""
        names = {"z": "z", "entropies": "uncertainty"}
        return {names[name]: own for name, own in super().arrays().items()}

    def coordinates(self) -> Mapping[str, tuple[str, Sequence[Any]]]:
        """The tokens' texts."""
        return {"token": ("position", ["<prompt>", *self.strings])}

    def attributes(self) -> Mapping[str, Any]:
        """The question, the answer, and whether it is correct."""
        return {"question": self.question, "answer": self.answer, "label": self.label}


@door_of_class
@dataclass(frozen=True, repr=False)
class TokenActivations(Sequence[AnswerActivations]):
    """Ragged activations of many answers: flat positions plus offsets.

    Attributes:
        z: float32 head outputs; answer k has the rows `offsets[k]` to `offsets[k + 1]`. Where they
            were captured to a folder they stay there, and are read as they are indexed.
        entropies: u, or None where it was not captured; see `uncertainty`.
        offsets: one more than there are answers.
        encoded: tokens, texts and span of every answer.
        question: index of every answer's question in `questions`.
        label: 1 for a correct answer, 0 for an incorrect one.
        unlabelled: z at the last token of `Q: q A: a Q: other q`, a row an answer; the spread of
            an edit is measured on it.
        asked: which q and which other q these prompts have, as indices in `questions`.
        questions: the question set.
        model: the model that was run.
        made: how it was captured: style, answer_start, uncertainty and its layers, and seed.

    Example:
        >>> acts
        TokenActivations(120 answers to QuestionSet('hearsay': 12 questions, 120 answers)
        by hearsay, z (1154, 5, 8, 20))
        >>> acts[0].strings, acts[0].z.shape
        ((' Br', 'as', 'il', 'ia', '.'), torch.Size([6, 5, 8, 20]))
        >>> [acts[number].label for number in acts.of_questions([3])]
        [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    """

    z: Float[Tensor, "position layer head d_head"] | Shards
    entropies: Float[Tensor, "position layer"] | None
    offsets: Int[Tensor, " answer_plus_one"]
    encoded: tuple[Encoded, ...]
    question: Int[Tensor, " answer"]
    label: Int[Tensor, " answer"]
    unlabelled: Float[Tensor, "prompt layer head d_head"] | Shards
    asked: Int[Tensor, "prompt 2"]
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

    @property
    def uncertainty(self) -> Float[Tensor, "position layer"]:
        """Normalised entropy per position and layer; see `AnswerActivations`."""
        return _asked_for(self.entropies)

    def require_answers(self, numbers: Sequence[int]) -> None:
        """Refuse numbers that no answer has, and none at all."""
        wrong = [number for number in numbers if not 0 <= number < len(self)]
        if wrong or not len(numbers):
            raise WorkbenchError(
                f"the answer {wrong[0]}" if wrong else "no answers",
                f"numbers from 0 to {len(self) - 1}",
            )

    def __iter__(self) -> Iterator[AnswerActivations]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, key):  # type: ignore[no-untyped-def]
        """One answer's activations (views, not copies); slices are refused."""
        if not isinstance(key, int | np.integer):
            raise WorkbenchError(f"the index {key!r}", "an answer's number")
        if not -len(self) <= key < len(self):
            raise IndexError(f"answer {key} of {len(self)}")
        index = range(len(self))[key]
        rows = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        encoded = self.encoded[index]
        return AnswerActivations(
            z=self.z[rows],
            entropies=None if self.entropies is None else self.entropies[rows],
            tokens=encoded.answer_tokens,
            strings=encoded.strings[encoded.start :],
            question=self.questions[int(self.question[index])].question,
            answer=encoded.text[encoded.answer_char :],
            label=int(self.label[index]),
        )

    def rows_of(self, answer: int) -> Int[Tensor, " position"]:
        """The rows of an answer: its last prompt token, then its own tokens."""
        return torch.arange(int(self.offsets[answer]), int(self.offsets[answer + 1]))

    def choose(self, numbers: Sequence[int]) -> TokenActivations:
        """The activations of the given questions, in this order.

        Unlabelled prompts stay where both of their questions do, so that nothing of another
        question is seen.
        """
        place = {number: new for new, number in enumerate(numbers)}
        prompts = [n for n, pair in enumerate(self.asked.tolist()) if place.keys() >= {*pair}]
        prompts.sort(key=lambda prompt: place[int(self.asked[prompt, 0])])
        answers = answers_in_order(self.question, numbers)
        spans = [range(int(self.offsets[k]), int(self.offsets[k + 1])) for k in answers]
        rows = torch.tensor([row for span in spans for row in span])
        return TokenActivations(
            z=take(self.z, rows),
            entropies=None if self.entropies is None else self.entropies[rows],
            offsets=torch.tensor([0, *np.cumsum([len(span) for span in spans])]),
            encoded=tuple(self.encoded[k] for k in answers),
            question=torch.tensor([place[int(self.question[k])] for k in answers]),
            label=self.label[answers],
            unlabelled=take(self.unlabelled, torch.tensor(prompts, dtype=torch.long)),
            asked=torch.tensor(
                [[place[number] for number in self.asked[prompt].tolist()] for prompt in prompts],
                dtype=torch.long,
            ).reshape(-1, 2),
            questions=self.questions.choose(numbers),
            model=self.model,
            made=self.made,
        )

    def of_questions(self, numbers: Iterable[int]) -> list[int]:
        """The answers of the given questions, in order."""
        wanted = set(numbers)
        return [k for k, q in enumerate(self.question.tolist()) if q in wanted]


def answers_in_order(question: Int[Tensor, " answer"], numbers: Sequence[int]) -> list[int]:
    """The answers of the given questions, in the order of the questions.

    Args:
        question: the number of every answer's question.
        numbers: of the questions that are wanted.
    """
    place = {number: new for new, number in enumerate(numbers)}
    own = question.tolist()
    return sorted((k for k, q in enumerate(own) if q in place), key=lambda k: place[own[k]])


def _asked_for(entropies: Tensor | None) -> Tensor:
    if entropies is None:
        raise WorkbenchError(
            "the uncertainty of activations that were captured without it",
            "capture(..., uncertainty='logit_lens'), or the method's capture(uncertainty=True)",
        )
    return entropies
