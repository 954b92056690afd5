"""The questions that benchmarks of real models ask."""

from __future__ import annotations

import os
import warnings

from workbench.data.questions import QuestionSet
from workbench.data.sources import load_questions
from workbench.errors import WorkbenchError
from workbench.models.fetching import fetched

SOURCE = os.environ.get("WORKBENCH_TRUTHFULQA", "hearsay")
"""TruthfulQA.csv, if it is at hand; the questions of hearsay otherwise."""
NAME = "hearsay's questions" if SOURCE == "hearsay" else "TruthfulQA"


def first_questions(count: int) -> QuestionSet:
    """So many of the source's questions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of one answer that is on both sides
        return load_questions(SOURCE).choose(range(count))


def real_model_is_here() -> bool:
    """Whether SmolLM2's weights are at hand; what to do is printed where they are not."""
    try:
        fetched("smollm2")
    except WorkbenchError as missing:
        print(f"skipped: {missing}")
        return False
    return True
