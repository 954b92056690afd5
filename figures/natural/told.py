"""The natural gradient against its rivals and its twins, at equal side effects.

python -m figures.natural.told hearsay
python -m figures.natural.told smollm2

Reads `sweep.parquet` of a run whose files were copied into the folder of that name, and writes
`told.md`, `against.parquet` and `fronts.png` beside it. What was run later in the same folds and
refits stands beside it as `sweep_NAME.parquet`; hearsay's rivals are those of
figures/adaptivity/hearsay, its even twin that of hearsay_even.toml. Of hearsay's questions those on
which the method was developed are left out.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

import workbench as wb
from figures.adaptivity.told import KLS, RANGE, by_side_effect, draw, measured_everywhere, together
from figures.natural.unseen import hearsay
from workbench import storage
from workbench.evaluation.fronts import area, first_reached
from workbench.evaluation.statistics import holm
from workbench.evaluation.sweeps import Sweep
from workbench.evaluation.text_tables import Table, interval

HERE = Path(__file__).parent
OWN = "natural gradient"
EVEN = f"{OWN}, even"
PRIMARY = ("LoFiT", "LoRA", EVEN, f"{OWN}, constant")
"""What it is compared with, named before the runs."""
GAINS = {"hearsay": ("mc2", "says_truth", "mc1"), "smollm2": ("mc2", "mc1")}
RIVALS = HERE.parent / "adaptivity" / "hearsay" / "sweep.parquet"
SHOWN = (
    OWN, EVEN, f"{OWN}, constant", "LoFiT", "LoRA", "ITI", "LoRA, by descent on it",
    "vectors, by descent on it",
)  # fmt: skip


def measured(name: str) -> pd.DataFrame:
    """The sweep of a run and of those after it; on hearsay of the questions that count."""
    paths = [HERE / name / "sweep.parquet", *sorted((HERE / name).glob("sweep_*.parquet"))]
    if name == "hearsay":
        paths.insert(1, RIVALS)
    whole = together(paths)
    if name == "hearsay":
        unseen = {one.question for one in hearsay()}
        developed = {one.question for one in wb.load_questions("hearsay")} - unseen
        whole = whole[~whole["question"].isin(developed)]
    return measured_everywhere(whole)


def against(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Its front minus every other's, by gain and side effect; Holm over the primary ones.

    `same` is what it leads by where fronts are looked for in the values that they tell of, as was
    done when the protocol was written.
    """
    effects = np.geomspace(*RANGE[name], 40).tolist()
    parts = []
    for gain in GAINS[name]:
        for side, sweep in by_side_effect(table, gain).items():
            told = area(sweep, OWN, effects)
            same = area(sweep, OWN, effects, apart=False)["difference"]
            # What the others are ahead, turned round.
            ahead, low, high = (
                -told[own] for own in ("difference", "difference_high", "difference_low")
            )
            parts.append(
                told[["method", "area", "low", "high", "p"]]
                .rename(columns={"area": "front"})
                .assign(
                    gain=gain,
                    side_effect=side,
                    ahead=ahead,
                    ahead_low=low,
                    ahead_high=high,
                    same=-same,
                )
            )
    found = pd.concat(parts, ignore_index=True)
    primary = (
        (found["side_effect"] == "worst") & (found["gain"] == "mc2")
        & found["method"].isin(PRIMARY)
    )  # fmt: skip
    if sum(primary) != len(PRIMARY):
        raise SystemExit(f"not all of {', '.join(PRIMARY)} were measured in every fold")
    found.loc[primary, "p_holm"] = holm(found.loc[primary, "p"].tolist())
    return found


def leads(sweep: Sweep, own: str, name: str) -> dict[str, tuple[str, str]]:
    """What a method's front is ahead of every other one's, with its interval, and p."""
    told = area(sweep, own, np.geomspace(*RANGE[name], 40).tolist())
    return {
        str(one["method"]): (
            # What the others are ahead, turned round.
            interval(
                -one["difference"], -one["difference_high"], -one["difference_low"], "+.3f"
            ),
            f"{one['p']:.2g}",
        )
        for one in told.to_dict("records")
    }  # fmt: skip


def of_descent(table: pd.DataFrame, name: str) -> str:
    """What LoRA on the same objective is ahead of others, as a table; "" where it was not run."""
    own = "LoRA, by descent on it"
    sweep = by_side_effect(table, "mc2")["worst"]
    if own not in sweep.gain:
        return ""
    ahead = leads(sweep, own, name)
    others = ("LoRA", "LoFiT", "vectors, by descent on it")
    head = ("mc2, worst KL", f"{own}, is ahead by", "p, uncorrected")
    rows = [(other, *ahead[other]) for other in others]
    return f"\nNot named before the runs:\n\n{Table(head, rows).markdown()}\n"


def by_draw(table: pd.DataFrame, name: str) -> str:
    """What it leads the primary ones by in every refit; "" of a single one."""
    if "refit" not in table or table["refit"].nunique() < 2:
        return ""
    each = [
        leads(by_side_effect(one, "mc2")["worst"], OWN, name) for _, one in table.groupby("refit")
    ]
    head = ("mc2, worst KL, ahead of", *(f"refit {number + 1}" for number in range(len(each))))
    rows = [(other, *(ahead[other][0] for ahead in each)) for other in PRIMARY]
    about = "Every refit by itself, intervals over questions alone:"
    return f"\n{about}\n\n{Table(head, rows).markdown()}\n"


def at_strength(table: pd.DataFrame, name: str, rival: str = "TAE") -> str:
    """What part of a rival's KL gains as much as it does at its chosen strength; "" without it.

    Of means over the folds of every refit, between two multiples as fronts are.
    """
    if rival not in set(table["method"]):
        return ""
    rows = []
    for gain in GAINS[name]:
        sweep = by_side_effect(table, gain)["worst"].among([OWN, rival])
        one = sweep.multiples[rival].index(1.0)
        shares, more = [], []
        for folds in sweep.refits:
            gains, effects = (
                {method: own[:, list(folds)].mean(axis=1) for method, own in side.items()}
                for side in (sweep.gain, sweep.side_effect)
            )
            wanted, cost = gains[rival][:, one], effects[rival][:, one]
            roots = np.sqrt(effects[OWN])
            shares.append(first_reached(gains[OWN], roots, wanted) ** 2 / cost)
            more.append(first_reached(roots, gains[OWN], np.sqrt(cost / 2)) - wanted)
        for what, values, pattern in (
            (f"part of {rival}'s KL for its gain", shares, ".2f"),
            ("gains more at half of its KL", more, "+.3f"),
        ):
            draws = [replace(sweep, refits=()).told(own[:, None], 0.95) for own in values]
            each = replace(sweep, refits=tuple((n,) for n in range(len(values))))
            whole = each.told(np.stack(values, axis=1), 0.95)
            cells = [interval(one.mean, one.low, one.high, pattern) for one in (*draws, whole)]
            rows.append((gain, what, *(cells if len(draws) > 1 else cells[:1])))
    count = len(rows[0]) - 3
    head = ("", f"beside {rival}", *(f"refit {n + 1}" for n in range(count)), "mean")
    about = f"Beside {rival} at the strength that training questions chose, worst KL:"
    return f"\n{about}\n\n{Table(head, rows).markdown()}\n"


def markdown(found: pd.DataFrame, name: str, refits: int) -> str:
    """As tables."""
    low, high = RANGE[name]
    lines = [
        f"# Fronts over KLs from {low:g} to {high:g}, and how far the natural gradient leads", "",
        "Paired [95 %]; p of the primary comparisons, corrected (Holm). A front is looked for on "
        "one half of a fold's questions and read on the other; *chosen where read*: on the same "
        "ones.", "",
        f"Intervals and p are over questions and {refits} refits, by Student's t." if refits > 1
        else "A single refit: intervals are over questions alone, as p is.", "",
    ]  # fmt: skip
    for gain, own in found.groupby("gain", sort=False):
        cells = own.set_index(["method", "side_effect"])
        order = own[own["side_effect"] == "worst"].sort_values("front", ascending=False)
        rows = []
        for method in order["method"]:
            worst = cells.loc[(method, "worst")]
            row = [str(method), interval(worst["front"], worst["low"], worst["high"], ".3f")]
            for side in ("worst", *KLS):
                one = cells.loc[(method, side)]
                told = interval(one["ahead"], one["ahead_low"], one["ahead_high"], "+.3f")
                row.append("" if method == OWN else told)
                if side == "worst":
                    holmed = one["p_holm"]
                    row.append("" if pd.isna(holmed) else f"{holmed:.2g}")
                    row.append("" if method == OWN else f"{one['same']:+.3f}")
            rows.append(tuple(row))
        head = (str(gain), "front, worst KL", "ahead, worst KL", "p (Holm)", "chosen where read",
                "plain texts", "own answers", "right answers")  # fmt: skip
        lines += [Table(head, rows).markdown(), ""]
    return "\n".join(lines)


def main() -> None:
    """Write the tables and the figure."""
    name = sys.argv[1]
    table = measured(name)
    found = against(table, name)
    refits = table["refit"].nunique() if "refit" in table else 1
    text = markdown(found, name, refits) + by_draw(table, name) + of_descent(table, name)
    text += at_strength(table, name)
    storage.write_table(HERE / name / "against.parquet", found)
    storage.write_text(HERE / name / "told.md", text)
    sys.stdout.write(text)
    title = "MC2 against the worst of three KLs: the natural gradient, its twins and rivals"
    draw(table, SHOWN, title, HERE / name / "fronts.png")


if __name__ == "__main__":
    main()
