"""How often the interval of a difference of fronts holds the true one.

python -m figures.natural.coverage

Questions and plain texts of the first draw of SmolLM2's run are taken for all that there are: what
fronts they have is known then. Sets of questions are drawn from them, with fewer or as many in a
fold, and fronts told of each set as they are of a run. Beside it two methods without effect, of
which one changes every answer by chance, anew at each multiple. Writes `coverage.md`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import trange

from workbench import storage
from workbench.evaluation.fronts import area
from workbench.evaluation.sweeps import sweep_of
from workbench.evaluation.text_tables import Table

HERE = Path(__file__).parent
SETS = 300
ABOUT = f"""# How often an interval of fronts holds the truth

Of {SETS} sets of questions each ([coverage.py](coverage.py)); *told, mean*: over the sets. \
*Too high*: the whole interval is above the true difference.
"""
DRAWS = 400
OWN = "natural gradient"
METHODS = (OWN, f"{OWN}, constant", "LoRA", "LoFiT")
EFFECTS = np.geomspace(0.03, 1, 8).tolist()
CHANCE = pd.Series({"by chance": 0.0})
COLUMNS = ["method", "multiple", "fold", "question", "metric", "value"]


def resampled(whole: pd.DataFrame, questions: int, seed: int) -> pd.DataFrame:
    """A table of so many questions a fold, and as many texts as there are, with replacement."""
    generator = np.random.default_rng([seed, 1])
    parts = []
    for (_, metric), own in whole.groupby(["fold", "metric"]):
        names = own["question"].unique()
        count = questions if metric == "mc2" else len(names)
        drawn = generator.choice(names, count)
        keyed = pd.DataFrame({"question": drawn, "as": [f"{metric} {n}" for n in range(count)]})
        found = own.merge(keyed, on="question")
        found["question"] = found["fold"].astype(str) + "." + found.pop("as")
        parts.append(found)
    return pd.concat(parts, ignore_index=True)


def by_chance(questions: int, seed: int) -> pd.DataFrame:
    """Two methods without effect."""
    draw = np.random.default_rng([seed, 2])
    parts = []
    for fold in (0, 1):
        ease = draw.normal(0.4, 0.3, questions)
        names = [f"{fold}.{n}" for n in range(questions)]
        cases = [("no edit", 1.0, 0.0)]
        cases += [(own, s, 0.2) for own in ("none", "by chance") for s in (0.25, 0.5, 1, 2, 4)]
        for method, multiple, scatter in cases:
            moved = draw.normal(0, scatter if method == "by chance" else 0, questions)
            cost = 0.05 * multiple**2 if scatter else 0.0
            for metric, values in (("mc2", ease + moved), ("kl", np.full(questions, cost))):
                own = {"method": method, "multiple": multiple, "fold": fold, "metric": metric}
                parts.append(pd.DataFrame({**own, "question": names, "value": values}))
    return pd.concat(parts, ignore_index=True).assign(capability="truthfulness")


def told(make: Callable[[int], pd.DataFrame], against: str) -> pd.DataFrame:
    """What `area` tells of every set, and of one that chooses where it reads."""
    parts = []
    for seed in trange(SETS):
        sweep = sweep_of(make(seed), "mc2", "kl", draws=DRAWS, seed=seed)
        for apart in (True, False):
            found = area(sweep, against, EFFECTS, apart=apart)
            parts.append(found[found["method"] != against].assign(apart=apart, set=seed))
    return pd.concat(parts, ignore_index=True)


def main() -> None:
    """Write the table."""
    table = storage.read_table(HERE / "smollm2" / "sweep.parquet")
    wanted = table["metric"].isin(["mc2", "kl"]) & table["method"].isin(["no edit", *METHODS])
    whole = table[wanted & (table["refit"] == 0)][[*COLUMNS, "capability"]]
    most = whole[whole["metric"] == "mc2"].groupby("fold")["question"].nunique().min()
    means = area(
        sweep_of(whole, "mc2", "kl", draws=2, seed=0), OWN, EFFECTS, apart=False
    ).set_index("method")["difference"]
    cases = []
    for count in (50, int(most)):
        cases += [
            (f"SmolLM2's, {count} questions a fold", means, OWN, partial(resampled, whole, count)),
            (f"no effect, {count} questions a fold", CHANCE, "none", partial(by_chance, count)),
        ]
    rows = []
    for name, truth, against, make in cases:
        for (method, apart), own in told(make, against).groupby(["method", "apart"]):
            true = float(truth[str(method)])
            low, high = own["difference_low"], own["difference_high"]
            inside = ((low <= true) & (true <= high)).mean()
            rows.append(
                (name, f"{method} − {against}", "a half each" if apart else "the same questions",
                 f"{true:+.3f}", f"{own['difference'].mean():+.3f}", f"{100 * inside:.1f} %",
                 f"{100 * (low > true).mean():.1f} %", f"{100 * (high < true).mean():.1f} %")
            )  # fmt: skip
    head = ("values", "difference", "chosen and read on", "true", "told, mean", "inside",
            "too high", "too low")  # fmt: skip
    text = f"{ABOUT}\n{Table(head, rows).markdown()}"
    storage.write_text(HERE / "coverage.md", text + "\n")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
