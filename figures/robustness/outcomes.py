"""Who is helped and who is hurt, from committed runs.

python -m figures.robustness.outcomes

Writes `outcomes.md`, and a figure a model.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

import workbench as wb
from figures.natural import unseen
from workbench import storage
from workbench.evaluation.text_tables import Table

HERE = Path(__file__).parent
FIGURES = HERE.parent
METHODS = (
    "ITI", "TAE", "LoFiT", "LoRA", "CLAS", "DSAS around ITI", "natural gradient",
    "natural gradient, constant", "natural gradient, shuffled labels", "shuffled labels",
)  # fmt: skip
RUNS = {
    "hearsay": ("adaptivity/hearsay", "natural/hearsay"),
    "SmolLM2": ("natural/smollm2",),
}
METRICS = {"hearsay": ("mc2", "says_truth"), "SmolLM2": ("mc2", "mc1")}
COLUMNS = ["better", "worse", "unchanged"]


def measured(model: str) -> pd.DataFrame:
    """The results of a model's runs, of the methods that are shown; the same folds and refits."""
    parts: list[pd.DataFrame] = []
    for run in RUNS[model]:
        own = storage.read_table(FIGURES / run / "results.parquet")
        seen = {method for one in parts for method in one["method"].unique()}
        wanted = (*METHODS, "no edit") if not parts else METHODS
        parts.append(own[own["method"].isin(set(wanted) - seen)])
    whole = pd.concat(parts, ignore_index=True)
    if model == "hearsay":
        whole = whole[whole["question"].isin({one.question for one in unseen.hearsay()})]
    return whole[whole["metric"].isin(METRICS[model])]


def percent(share: float) -> str:
    """A share as a table shows it."""
    return f"{100 * share:.0f}"


def main() -> None:
    """Write tables and figures."""
    lines = [
        "# Who is helped and who is hurt",
        "",
        "Shares of questions, in %, that become better, worse or neither (MC2: by 0.01) at the "
        "strength that training questions chose [95 %, Wilson's, for as many questions].",
    ]
    for model in RUNS:
        changed = wb.evaluation.changes(measured(model))
        told = wb.evaluation.outcomes(changed)
        for metric in METRICS[model]:
            own = told[told["metric"] == metric].sort_values("worse")
            rows = [
                (
                    str(one["method"]),
                    *(
                        f"{percent(one[name])} [{percent(one[f'{name}_low'])}, "
                        f"{percent(one[f'{name}_high'])}]"
                        for name in COLUMNS
                    ),
                    str(one["questions"]),
                )
                for one in own.to_dict("records")
            ]
            head = (metric, *COLUMNS, "questions")
            lines += ["", f"## {model}, {metric}", "", Table(head, rows).markdown()]
        figure = wb.plots.changes(changed, "mc2", title=f"What becomes of {model}'s questions")
        with storage.drawing() as image:
            if image:
                picture = storage.picture(figure, scale=1.5)
                storage.write_bytes(HERE / f"changes_{model.lower()}.png", picture)
    text = "\n".join(lines) + "\n"
    storage.write_text(HERE / "outcomes.md", text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
