"""What is fitted on one wording or prompt format of hearsay's questions, measured on the others.

python -m figures.robustness.transfer

Writes `transfer.parquet`, `transfer.md` and a figure.
"""

from __future__ import annotations

import sys
from pathlib import Path

import workbench as wb
from figures.natural import unseen
from workbench import storage
from workbench.evaluation.text_tables import Table, interval

HERE = Path(__file__).parent
METHODS = {
    "ITI": wb.methods.inference_time(heads=16, alpha=2.0),
    "LoFiT": wb.methods.LoFiT(heads=8),
    "LoRA": wb.methods.LoRA(epochs=3),
    "natural gradient": wb.methods.NaturalGradient(budget=0.03),
}
KINDS = {
    "hearsay": ("hearsay", "bare"),
    "in other words": ("hearsay_reworded", "bare"),
    "in another format": ("hearsay", "inline"),
}


def main() -> None:
    """Fit, measure and write."""
    model = wb.load_model("hearsay")
    counted = {one.question for one in unseen.hearsay()}
    places = [n for n, one in enumerate(wb.load_questions("hearsay")) if one.question in counted]
    domains = {
        name: wb.evaluation.Domain.of(wb.load_questions(source).choose(places), style)
        for name, (source, style) in KINDS.items()
    }
    table = wb.evaluation.transfer(model, METHODS, domains, max_new_tokens=32)
    storage.write_table(HERE / "transfer.parquet", table)
    lines = [
        "# Fitted here, measured there",
        "",
        "Gains over the unedited model, paired by question [95 %]; p by permutation, corrected "
        "for the whole table (Holm).",
    ]
    for metric in ("mc2", "says_truth"):
        gains = wb.evaluation.transfers(table, metric)
        rows = [
            (
                str(one["method"]), str(one["fitted_on"]), str(one["tested_on"]),
                interval(one["difference"], one["low"], one["high"], "+.3f"),
                f"{one['p_holm']:.2g}",
            )
            for one in gains.to_dict("records")
        ]  # fmt: skip
        head = ("method", "fitted on", "measured on", metric, "p")
        lines += ["", Table(head, rows).markdown()]
        if metric == "mc2":
            figure = wb.plots.transfer(gains, title="Gains of MC2, by where it was fitted")
            with storage.drawing() as image:
                if image:
                    storage.write_bytes(HERE / "transfer.png", storage.picture(figure, scale=1.5))
    text = "\n".join(lines) + "\n"
    storage.write_text(HERE / "transfer.md", text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
