"""Questions on which nothing of the natural gradient was tried: they alone count.

The method was developed on 160 of hearsay's questions, and on 450 of TruthfulQA's (300 to fit on,
150 to look at); all were drawn by the same seed before the first try. Of TruthfulQA those that
figures/adaptivity had scored were left out of the draw.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import workbench as wb
from workbench import storage
from workbench.data import QuestionSet

SEED, HEARSAY, TRUTHFULQA = 1119, 160, 450
SCORED = Path(__file__).parent.parent / "adaptivity" / "smollm2" / "sweep.parquet"


def hearsay() -> QuestionSet:
    """Those of hearsay."""
    return _without(wb.load_questions("hearsay"), set(), HEARSAY)


def truthfulqa() -> QuestionSet:
    """Those of TruthfulQA; the environment's WORKBENCH_DATA holds truthfulqa/TruthfulQA.csv."""
    folder = Path(os.environ["WORKBENCH_DATA"])
    everything = wb.load_questions(folder / "truthfulqa" / "TruthfulQA.csv")
    scored = set(storage.read_table(SCORED, ("question",))["question"])
    return _without(everything, scored, TRUTHFULQA)


def _without(everything: QuestionSet, kept: set[str], developed: int) -> QuestionSet:
    """Those that are kept, and those that are left when so many of the others are drawn."""
    drawn = [number for number, q in enumerate(everything) if q.question not in kept]
    random.Random(SEED).shuffle(drawn)
    seen = set(drawn[:developed])
    return everything.choose([n for n in range(len(everything)) if n not in seen])
