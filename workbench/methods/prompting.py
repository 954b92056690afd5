"""Prompting: an instruction and correct answers to training questions stand before every text.

The first baseline that a reader asks for: nothing in the model is changed, and what it costs is
measured as of any other edit, on plain texts too. Wu et al. 2025 (AxBench) find it ahead of all
steering. The instruction's default is the workbench's own wording.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from workbench.checks import require_whole
from workbench.data.questions import QuestionSet, require_questions
from workbench.doors import door_of_class
from workbench.editing.whole_edits import Foreword
from workbench.errors import WorkbenchError
from workbench.methods.base import OF_OTHERS, Method
from workbench.methods.memo import Memo
from workbench.methods.registry import METHODS
from workbench.methods.states import answer_pairs
from workbench.models.conversations import conversation
from workbench.models.identity import Model, identify, tokenizer_of
from workbench.models.prompts import PromptFormat, encode, prompt_format
from workbench.models.tokens import tokenize

INSTRUCTION = (
    "Answer with what is literally true of the real world. Popular beliefs, sayings and stories "
    "are often wrong: do not repeat them. If nobody can know the answer, say so."
)


@METHODS.register("prompt", about="prompting: an instruction and true examples, no edit at all")
@door_of_class
@dataclass(frozen=True, kw_only=True)
class Prompting(Method):
    r"""Settings of a fit.

    Attributes:
        alpha: 0 leaves the foreword out; any other number is the same.
        instruction: said first; "" for none.
        shots: how many training questions follow with their best answers; 0 for none.
        style, shuffle_labels, seed, batch_size: see `Method`. Examples are drawn by the seed; of
            shuffled labels, half of the examples are incorrect.

    Example:
        >>> wb.methods.Prompting(shots=1).fit(model, fold.train, progress=False).text[-40:]
        'co?\nA: The capital of Morocco is Rabat.\n'
    """

    instruction: str = INSTRUCTION
    shots: int = 4
    LACKS: ClassVar[tuple[str, ...]] = OF_OTHERS

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("shots", self.shots, 0)
        if not isinstance(self.instruction, str):
            raise WorkbenchError(f"instruction={self.instruction!r:.60}", "a text")
        if not self.instruction.strip() and not self.shots:
            raise WorkbenchError("neither an instruction nor examples", "one of them, or both")

    @property
    def graded(self) -> bool:
        """No: a foreword is there or not."""
        return False

    def fit(
        self,
        model: Model,
        train: QuestionSet,
        *,
        everything: QuestionSet | None = None,  # noqa: ARG002 - it does not leak
        memo: Memo | None = None,  # noqa: ARG002 - nothing is computed
        progress: bool = True,  # noqa: ARG002 - there is no bar
    ) -> Foreword:
        """Draw the examples; see `Method.fit`.

        Raises:
            WorkbenchError: more examples than training questions, a foreword that leaves no room
                in the model's context, or a chat template that takes no instruction.
        """
        require_questions(train)
        if self.shots > len(train):
            raise WorkbenchError(
                f"shots={self.shots} of {len(train)} questions", "as many or fewer"
            )
        style = prompt_format(self.style)
        shown = self._examples(train)
        asked = train[0].question
        text = self._text(model, style, shown)
        whole = self._whole(model, style, shown, asked)
        own = encode(model, asked, None, style).tokens
        alike = _alike_at_the_end(whole, own)
        tokenizer = tokenizer_of(model)
        begins = tokenizer.bos_token_id
        edit = Foreword(
            opening=torch.tensor(own[: len(own) - alike], dtype=torch.int64),
            asking=torch.tensor(whole[: len(whole) - alike], dtype=torch.int64),
            plain=torch.tensor(tokenize(model, text, special=not style.chat)[0], dtype=torch.int64),
            begins=-1 if begins is None else begins,
            text=text, alpha=self.alpha, model=identify(model),
            settings={**asdict(self), "style": self.style_name, "method": "prompt"},
        )  # fmt: skip
        for question in train:
            for answer in question.answers:
                edit.encoded(encode(model, question.question, answer, style))
        return edit

    def _examples(self, train: QuestionSet) -> list[tuple[str, str]]:
        """Questions and the answers that are shown to them."""
        order = np.random.default_rng([self.seed, 10]).permutation(len(train))[: self.shots]
        shown = [(train[int(k)].question, train[int(k)].best_answer) for k in order]
        if not self.shuffle_labels:
            return shown
        turned = answer_pairs(train, shuffle_labels=True, seed=self.seed)
        said = {pair.question: pair.positive for pair in reversed(turned)}
        return [(question, said[question]) for question, _ in shown]

    def _text(self, model: Model, style: PromptFormat, shown: Sequence[tuple[str, str]]) -> str:
        """All that stands before the question."""
        if style.chat:
            return self._conversation(model, shown, None)
        told = f"{self.instruction.strip()}\n\n" if self.instruction.strip() else ""
        examples = [
            style.asking.replace("{question}", question)
            + style.answering.replace("{answer}", answer)
            + style.between
            for question, answer in shown
        ]
        return told + "".join(examples)

    def _whole(
        self,
        model: Model,
        style: PromptFormat,
        shown: Sequence[tuple[str, str]],
        asked: str,
    ) -> tuple[int, ...]:
        """The tokens of the foreword and a question behind it."""
        if style.chat:
            return tokenize(model, self._conversation(model, shown, asked), special=False)[0]
        before = self._text(model, replace(style, primer=""), shown)
        return encode(model, asked, None, replace(style, primer=before + style.primer)).tokens

    def _conversation(
        self, model: Model, shown: Sequence[tuple[str, str]], asked: str | None
    ) -> str:
        """The turns before the question, and the question where there is one."""
        turns = [{"role": "system", "content": self.instruction.strip()}]
        turns = turns if self.instruction.strip() else []
        for question, answer in shown:
            turns.append({"role": "user", "content": question})
            turns.append({"role": "assistant", "content": answer})
        turns += [] if asked is None else [{"role": "user", "content": asked}]
        return conversation(model, turns, asks=asked is not None)


def _alike_at_the_end(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences end alike."""
    count = 0
    while count < min(len(one), len(other)) and one[-count - 1] == other[-count - 1]:
        count += 1
    return count
