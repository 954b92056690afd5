"""The runs of this folder on questions that share no text with their fold's training half.

TruthfulQA asks some questions twice in nearly the same words, and gives the same answer to several.

WORKBENCH_DATA=folder python -m figures.smollm2.apart
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from pathlib import Path

import pandas as pd

import workbench as wb

ALIKE = 0.7
"""From this share of common words on (Jaccard) two questions are nearly the same."""


def words(text: str) -> frozenset[str]:
    """A text's different words."""
    return frozenset(re.findall(r"\w+", text.lower()))


def apart(questions: wb.data.QuestionSet) -> list[str]:
    """The questions with no like question, and no answer, in their fold's training half."""
    found = []
    for fold in questions.folds(2, seed=0):
        trained = [words(one.question) for one in fold.train]
        said = {answer for one in fold.train for answer in one.answers}
        for one in fold.test:
            own = words(one.question)
            alike = max(len(own & other) / len(own | other) for other in trained)
            if alike < ALIKE and not said & {*one.answers} - {"I have no comment."}:
                found.append(one.question)
    return found


def main() -> None:
    """Every method's differences from no edit on those questions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of two answers that are on both sides
        questions = wb.load_questions(f"{os.environ['WORKBENCH_DATA']}/truthfulqa/TruthfulQA.csv")
    kept = apart(questions)
    sys.stdout.write(f"{len(kept)} of {len(questions)} questions\n")
    for run in ("truthfulness", "truthfulness_lofit"):
        table = pd.read_parquet(Path(__file__).parent / run / "results.parquet")
        own = table[table["question"].isin(kept) & table["metric"].isin(["mc1", "mc2"])]
        compared = wb.compare(own, against="no edit", primary=["mc1", "mc2"])
        sys.stdout.write(f"{compared.round(3).to_string()}\n")


if __name__ == "__main__":
    main()
