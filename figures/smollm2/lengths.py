"""The runs of this folder against a control that knows of answers only how long they are.

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
    """The control's means, and every method's differences from it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of two answers that are on both sides
        questions = wb.load_questions(f"{os.environ['WORKBENCH_DATA']}/truthfulqa/TruthfulQA.csv")
    control = wb.evaluation.lengths_alone(wb.load_model("smollm2"), questions)
    for run in ("truthfulness", "truthfulness_lofit"):
        table = pd.read_parquet(Path(__file__).parent / run / "results.parquet")
        table = table[table["metric"].isin(control["metric"])]
        folds = table.drop_duplicates("question").set_index("question")["fold"]
        whole = pd.concat([table, control.assign(fold=control["question"].map(folds))])
        means = wb.summary(whole).query("method == 'lengths alone'")
        compared = wb.compare(whole, against="lengths alone", primary=["mc1", "mc2"])
        for shown in (means, compared):
            sys.stdout.write(f"{shown.to_string()}\n")


if __name__ == "__main__":
    main()
