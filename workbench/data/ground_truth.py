"""Ground truth: what is known of some questions, so that answers to them need no judge."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

from workbench.doors import door
from workbench.registry import Registry


@runtime_checkable
class GroundTruth(Protocol):
    """What tells true answers from false ones."""

    def knows(self, question: str) -> bool:
        """Whether it can tell of this question."""
        ...

    def what_states(self, question: str, answer: str) -> str | None:
        """What an answer states: `truth`, `myth` (the popular error), `other`, None for nothing."""
        ...


TRUTHS: Registry[Callable[[], GroundTruth]] = Registry("ground truth", "workbench.data")
"""What loads a ground truth, by the name of the data that it is of."""


@door
def ground_truth_of(questions: Iterable[str]) -> GroundTruth | None:
    """The ground truth that knows all of some questions, wherever these come from, if there is one.

    Example:
        >>> question = "What is the capital of Australia?"
        >>> wb.data.ground_truth_of([question]).what_states(question, "I hear it is Sydney.")
        'myth'
    """
    asked = list(questions)
    found = (load() for load in TRUTHS.values())
    return next((truth for truth in found if all(map(truth.knows, asked))), None)
