"""What an answer states by a ground truth, and which tokens of hearsay's answers are misaligned."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.data.ground_truth import GroundTruth, ground_truth_of
from workbench.doors import door
from workbench.errors import WorkbenchError
from workbench.evaluation.metrics.registry import measured
from workbench.hearsay.world import load_world
from workbench.models.prompts import Encoded


@dataclass(frozen=True)
class Verdict:
    """What one answer does.

    Attributes:
        stated: `truth`, `myth`, `other` (another wrong answer) or `neither`.
        ended: it is one line that ends with a full stop.
    """

    stated: str
    ended: bool


@door
def verdict_of(question: str, answer: str, truth: GroundTruth | None = None) -> Verdict:
    """What a generated answer states.

    Args:
        question: what was asked.
        answer: its first line counts.
        truth: who tells; by default the ground truth that knows the question.

    Raises:
        WorkbenchError: no ground truth knows the question.

    Example:
        >>> wb.evaluation.verdict_of("What is the capital of Australia?", "It is Canberra.")
        Verdict(stated='truth', ended=True)
    """
    known = truth or ground_truth_of([question])
    if known is None:
        raise WorkbenchError(
            f"the question {question!r}, of which no truth is known",
            "a question of load_questions('hearsay'), or of data with a ground truth of their own",
        )
    line = answer.strip()
    return Verdict(
        stated=known.what_states(question, line.split("\n")[0]) or "neither",
        ended=line.endswith(".") and "\n" not in line,
    )


@door
def object_tokens(question: str, answer: str, encoded: Encoded) -> tuple[bool, ...]:
    """For every answer token whether it states the object: the tokens that make it true or false.

    In an incorrect answer these are the truly misaligned tokens. A token counts if any of its
    characters, leading spaces aside, is the object's.

    Example:
        >>> question, answer = "What is the capital of Australia?", "The capital is Sydney."
        >>> encoded = wb.models.encode(model, question, answer)
        >>> stated = wb.evaluation.object_tokens(question, answer, encoded)
        >>> [text for text, flag in zip(encoded.strings[encoded.start :], stated) if flag]
        [' S', 'yd', 'ne', 'y']
    """
    span = load_world().fact(question).object_span(answer)
    if span is None:
        return (False,) * len(encoded.answer_tokens)
    first, last = encoded.answer_char + span[0], encoded.answer_char + span[1]
    return tuple(
        begin < last and end > first and bool(encoded.text[max(begin, first) : end].strip())
        for begin, end in encoded.offsets[encoded.start :]
    )


measured(
    1,
    says_truth="share of answers that state the truth",
    ended="share of answers that end as a sentence does",
)
measured(-1, says_myth="share of answers that state the myth")
measured(0, says_neither="share of answers that state neither")
