"""A control: MC1, MC2 and MC3 of a model that knows of answers only how many tokens they have.

Every token has the same log-probability, −c nats: the multiple choice of TruthfulQA then tells what
it gives to a model that an edit has ruined. The methods of the run beside are compared with it.

    WORKBENCH_DATA=folder python -m figures.smollm2.lengths
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import workbench as wb
from workbench.evaluation.metrics.truth import multiple_choice

NATS = 2.0
"""c, about what a token of SmolLM2's answers has; from 1 on MC2 is the same to .003."""
METRICS = ("mc1", "mc2", "mc3")
NAME = "lengths alone"


def scores(nats: float) -> dict[str, dict[str, float]]:
    """MC1, MC2 and MC3 of every question."""
    model = wb.load_model("smollm2")
    style = wb.models.prompt_format("bare")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of two answers that are on both sides
        questions = wb.load_questions(f"{os.environ['WORKBENCH_DATA']}/truthfulqa/TruthfulQA.csv")
    found = {}
    for q in questions:
        right, wrong = (
            [-nats * len(wb.models.encode(model, q.question, a, style).answer_tokens) for a in own]
            for own in (q.correct_answers, q.incorrect_answers)
        )
        own = multiple_choice(right, wrong, q.correct_answers.index(q.best_answer))
        found[q.question] = {metric: getattr(own, metric) for metric in METRICS}
    return found


def main() -> None:
    """The control's means, and every method's differences from it."""
    found = scores(NATS)
    for run in ("truthfulness", "truthfulness_lofit"):
        table = pd.read_parquet(Path(__file__).parent / run / "results.parquet")
        table = table[table["metric"].isin(METRICS)]
        plain = table[table["method"] == "no edit"]
        values = [found[q][m] for q, m in zip(plain["question"], plain["metric"], strict=True)]
        whole = pd.concat([table, plain.assign(method=NAME, value=np.array(values))])
        means = wb.summary(whole).query(f"method == '{NAME}'")
        compared = wb.compare(whole, against=NAME, primary=["mc1", "mc2"])
        for shown in (means, compared):
            sys.stdout.write(f"{shown.to_string()}\n")


if __name__ == "__main__":
    main()
