"""How often the interval of a difference of fronts holds the true one.

python -m figures.natural.coverage

Questions and plain texts of the first refit of SmolLM2's run are taken for all that there are: what
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
from workbench.evaluation.sweeps import Sweep, sweeps_of, worst_of
from workbench.evaluation.text_tables import Table

HERE = Path(__file__).parent
SETS = 300
ABOUT = f"""# How often an interval of fronts holds the truth

Leads on the natural gradient of fronts of MC2 against the worst of three KLs, of a single refit in
two folds, whose intervals are percentiles; {SETS} sets of questions each: a share of 95 % is
known to ±2.5 points ([coverage.py](coverage.py)). Without effect the KL is that of the multiple.
*Told, mean*: over the sets. *Too high*: the whole interval is above the true difference.
"""
DRAWS = 400
OWN = "natural gradient"
METHODS = (OWN, f"{OWN}, constant", "LoRA", "LoFiT")
KLS = ("kl", "kl_own", "kl_right")
EFFECTS = np.geomspace(0.03, 1, 8).tolist()
CHANCE = pd.Series({"by chance": 0.0})
COLUMNS = ["method", "multiple", "fold", "question", "metric", "value"]


def resampled(whole: pd.DataFrame, questions: int, seed: int) -> pd.DataFrame:
    """A table of so many questions a fold, and as many texts as there are, with replacement.

    A question that is drawn twice is two, each with all that was measured on it.
    """
    generator = np.random.default_rng([seed, 1])
    parts = []
    for _, own in whole.groupby("fold"):
        asked = own["metric"] != "kl"
        for kind, count in ((own[asked], questions), (own[~asked], 0)):
            names = kind["question"].unique()
            drawn = generator.choice(names, count or len(names))
            keyed = pd.DataFrame({"question": drawn, "as": np.arange(len(drawn)).astype(str)})
            found = kind.merge(keyed, on="question")
            which = "q" if count else "t"
            found["question"] = which + found["fold"].astype(str) + "." + found.pop("as")
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


def worst(table: pd.DataFrame, seed: int, draws: int) -> Sweep:
    """MC2 against the worst of the KLs that a table has."""
    sides = [name for name in KLS if name in set(table["metric"])]
    return worst_of(list(sweeps_of(table, "mc2", sides, draws=draws, seed=seed).values()))


def told(make: Callable[[int], pd.DataFrame], against: str) -> pd.DataFrame:
    """What `area` tells of every set, and of one that chooses where it reads."""
    parts = []
    for seed in trange(SETS):
        sweep = worst(make(seed), seed, DRAWS)
        for apart in (True, False):
            found = area(sweep, against, EFFECTS, apart=apart)
            parts.append(found[found["method"] != against].assign(apart=apart, set=seed))
    return pd.concat(parts, ignore_index=True)


def main() -> None:
    """Write the table."""
    table = storage.read_table(HERE / "smollm2" / "sweep.parquet")
    wanted = table["metric"].isin(["mc2", *KLS]) & table["method"].isin(["no edit", *METHODS])
    whole = table[wanted & (table["refit"] == 0)][[*COLUMNS, "capability"]]
    most = whole[whole["metric"] == "mc2"].groupby("fold")["question"].nunique().min()
    means = area(worst(whole, 0, 2), OWN, EFFECTS, apart=False).set_index("method")["difference"]
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
