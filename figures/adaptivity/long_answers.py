"""What becomes of edits along answers of 200 tokens on SmolLM2: drift, repetition, collapse.

WORKBENCH_DATA=folder python -m figures.adaptivity.long_answers

Fits ITI, TAE and DSAS around ITI as `smollm2.toml` does, on its first fold's training questions,
and writes `long_answers/` beside itself: the table, `drifts.md` and a figure.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import workbench as wb
from workbench import storage
from workbench.evaluation.text_tables import Table, interval

HERE = Path(__file__).parent / "long_answers"
ASKED, TOKENS = 12, 200
SHOWN = ("entropy", "kl", "repeated", "moved", "strength", "gate")


def main() -> None:
    """Write them."""
    model = wb.load_model("smollm2")
    data = Path(os.environ["WORKBENCH_DATA"]) / "truthfulqa" / "TruthfulQA.csv"
    split = wb.evaluation.splits("truthfulness", {"questions": str(data), "limit": 80})[0]
    iti = wb.methods.inference_time(heads=24, alpha=10.0)
    methods = {
        "ITI": iti,
        "TAE": wb.TokenAware(heads=24, alpha=8.0, tolerance=0.005),
        "DSAS around ITI": wb.methods.DynamicScaling(
            of=wb.methods.inference_time(heads=24, alpha=20.0)
        ),
    }
    edits = {name: method.fit(model, split.train) for name, method in methods.items()}
    test: Any = split.test
    asked = [question.question for question in test][:ASKED]
    table = wb.analysis.drift(
        model, asked, {"no edit": None, **edits}, tokens=TOKENS, batch_size=ASKED, progress=True
    )
    HERE.mkdir(exist_ok=True)
    storage.write_table(HERE / "drift.parquet", table)
    found = wb.analysis.drifts(table)
    rows = [
        (
            str(one["quantity"]), str(one["edit"]), f"{one['first']:.3g}", f"{one['last']:.3g}",
            interval(one["change"], one["low"], one["high"], "+.3g"),
        )
        for quantity in SHOWN
        for one in found[found["quantity"] == quantity].to_dict("records")
    ]  # fmt: skip
    head = ("quantity", "edit", "first quarter", "last quarter", "change")
    text = (
        f"# From the first to the last quarter of greedy answers of at most {TOKENS} tokens, "
        f"{ASKED} questions\n\nMeans, and their change [95 % by question]; quarters of each "
        f"answer's own length.\n\n{Table(head, rows).markdown()}\n"
    )
    storage.write_text(HERE / "drifts.md", text)
    sys.stdout.write(text)
    with storage.drawing() as image:
        if image:
            figure = wb.plots.drift(
                table, SHOWN, title="Greedy answers of 200 tokens, SmolLM2-135M-Instruct"
            )
            storage.write_bytes(HERE / "drift.png", storage.picture(figure, scale=1.5))


if __name__ == "__main__":
    main()
