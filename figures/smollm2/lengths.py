"""The runs of this folder against controls: of answers' lengths alone, and of answers alone.

WORKBENCH_DATA=folder python -m figures.smollm2.lengths
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import pandas as pd

import workbench as wb


def main() -> None:
    """The controls' means, and every method's differences from them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of two answers that are on both sides
        questions = wb.load_questions(f"{os.environ['WORKBENCH_DATA']}/truthfulqa/TruthfulQA.csv")
    model = wb.load_model("smollm2")
    for run in ("truthfulness", "truthfulness_lofit"):
        table = pd.read_parquet(Path(__file__).parent / run / "results.parquet")
        folds = table.drop_duplicates("question").set_index("question")["fold"]
        lengths = wb.evaluation.lengths_alone(model, questions)
        controls = [lengths.assign(fold=lengths["question"].map(folds))]
        for fold in sorted(folds[[one.question for one in questions]].unique()):
            held = [bool(folds[one.question] == fold) for one in questions]
            train, test = (
                questions.choose([n for n, own in enumerate(held) if own is side])
                for side in (False, True)
            )
            controls.append(wb.evaluation.answers_alone(model, train, test, fold=int(fold)))
        kept = table[table["metric"].isin(["mc1", "mc2", "mc3"])]
        blind = pd.concat(controls)
        letters = wb.summary(blind[blind["metric"] == "binary"])
        sys.stdout.write(f"{letters.to_string()}\n")
        whole = pd.concat([kept, blind[blind["metric"].isin(["mc1", "mc2", "mc3"])]])
        for control in ("lengths alone", "answers alone"):
            means = wb.summary(whole).query("method == @control")
            compared = wb.compare(whole, against=control, primary=["mc1", "mc2"])
            for shown in (means, compared):
                sys.stdout.write(f"{shown.to_string()}\n")


if __name__ == "__main__":
    main()
