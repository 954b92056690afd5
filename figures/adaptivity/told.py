"""What adaptivity adds: every adaptive method minus its even twin, at equal side effects.

python -m figures.adaptivity.told hearsay
python -m figures.adaptivity.told smollm2
python -m figures.adaptivity.told smollm2_refits

Reads `sweep.parquet` of a run whose files were copied into the folder of that name, and writes
`told.md`, `twins.parquet` and `fronts.png` beside it. What was run later in the same folds and
refits stands beside it: constants that were fitted (`sweep_constant.parquet`), DSAS with neutral
texts (`sweep_neutral.parquet`). They are told apart, uncorrected. Of `smollm2_refits` the sweeps
are those of ../natural/smollm2.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from workbench import plots, storage
from workbench.evaluation.fronts import area, compare_at_side_effects, curve
from workbench.evaluation.statistics import holm
from workbench.evaluation.sweeps import Sweep, sweeps_of, worst_of
from workbench.evaluation.text_tables import Table, interval

HERE = Path(__file__).parent
KLS = ("kl", "kl_own", "kl_right")
TWIN = ", even"
CONSTANT = ", constants fitted"
NEUTRAL = ", neutral texts"
GATED = ("LoFiT", "ITI")
"""What DSAS was put around."""
KEY = ["method", "refit", "draw", "fold", "question", "metric", "multiple"]
GAINS = {
    "hearsay": ("says_truth", "mc2"),
    "smollm2": ("mc1", "mc2"),
    "smollm2_refits": ("mc2", "mc1"),
}
PRIMARY = {**GAINS, "smollm2_refits": ("mc2",)}
"""What is corrected (Holm), against the worst side effect."""
RANGE = {"hearsay": (0.001, 0.1), "smollm2": (0.03, 1.0), "smollm2_refits": (0.03, 1.0)}
"""Nats a token between which fronts are read; named before the runs."""
EQUAL = (0.001, 0.002, 0.004)
"""KLs in nats a token at which fitted constants are compared."""
DRAWS = 4_000
SHOWN = {
    "hearsay": (
        "LoFiT", "LoRA", "TAE", "TAE, even", "DSAS around LoFiT", "DSAS around LoFiT, even",
        "CLAS on preferences", "CLAS on preferences, even",
    ),
    "smollm2": (
        "LoFiT", "LoRA", "TAE", "TAE, even", "DSAS around ITI", "DSAS around ITI, even",
        "CLAS on preferences", "CLAS on preferences, even",
    ),
    "smollm2_refits": (
        "LoFiT", "LoRA", "TAE", "TAE, even", "DSAS around ITI", "DSAS around ITI, even",
        "CLAS on preferences", "CLAS on preferences, even",
    ),
}  # fmt: skip
"""What the figure has room for."""


def together(paths: Sequence[Path]) -> pd.DataFrame:
    """Sweeps of the same folds and refits as one; a method is of the last that has it."""
    parts = [storage.read_table(paths[0])]
    first = _unedited(parts[0])
    for path in paths[1:]:
        later = storage.read_table(path)
        if not _unedited(later).index.equals(first.index) or not np.allclose(
            _unedited(later), first, atol=1e-4
        ):
            raise SystemExit(f"{path} differs from {paths[0]} without an edit, or in its folds")
        later = later[later["method"] != "no edit"]
        parts = [one[~one["method"].isin(later["method"].unique())] for one in parts]
        parts.append(later)
    return pd.concat(parts, ignore_index=True)


def _unedited(table: pd.DataFrame) -> pd.Series:
    """MC2 without an edit, by question."""
    own = table[(table["method"] == "no edit") & (table["metric"] == "mc2")]
    key = [column for column in KEY if column in own]  # of one draw of folds there is no refit
    return own.set_index(key)["value"].sort_index()


def measured_everywhere(table: pd.DataFrame) -> pd.DataFrame:
    """Without the methods whose fit failed in some fold."""
    folds = table.groupby("method")["fold"].nunique()
    return table[table["method"].isin(folds[folds == folds.max()].index)]


def measured(name: str) -> pd.DataFrame:
    """The sweep of a run; of `smollm2_refits` that beside which its own was run, and its own."""
    if name != "smollm2_refits":
        return measured_everywhere(storage.read_table(HERE / name / "sweep.parquet"))
    beside = HERE.parent / "natural" / "smollm2"
    whole = together([beside / "sweep.parquet", beside / "sweep_twins.parquet"])
    return measured_everywhere(whole[~whole["method"].str.startswith("natural gradient")])


def among(table: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """The rows of some methods, and of no edit."""
    return table[table["method"].isin(["no edit", *methods])]


def by_side_effect(table: pd.DataFrame, gain: str) -> dict[str, Sweep]:
    """By side effect, and the worst of them."""
    found = sweeps_of(table, gain, KLS, draws=DRAWS)
    return {**found, "worst": worst_of(list(found.values()))}


def against_twins(table: pd.DataFrame, name: str, twin: str = TWIN) -> pd.DataFrame:
    """Fronts of adaptive methods minus their twins'; Holm over the worst alone."""
    effects = np.geomspace(*RANGE[name], 40).tolist()
    rows = []
    for gain in GAINS[name]:
        for side, sweep in by_side_effect(table, gain).items():
            for other in [method for method in sweep.gain if method.endswith(twin)]:
                pair = sweep.among([other.removesuffix(twin), other])
                row = area(pair, other, effects).set_index("method").iloc[0]
                rows.append(
                    (gain, side, other.removesuffix(twin), row["area"], row["difference"],
                     row["difference_low"], row["difference_high"], row["p"])
                )  # fmt: skip
    columns = ["gain", "side_effect", "method", "front", "difference", "low", "high", "p"]
    found = pd.DataFrame(rows, columns=columns)
    primary = (found["side_effect"] == "worst") & found["gain"].isin(PRIMARY[name])
    found.loc[primary, "p_holm"] = holm(found.loc[primary, "p"].tolist())
    return found


def fronts(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Every method's front against the worst side effect."""
    effects = np.geomspace(*RANGE[name], 40).tolist()
    parts = []
    for gain in GAINS[name]:
        sweep = by_side_effect(table, gain)["worst"]
        first = next(iter(sweep.gain))
        parts.append(area(sweep, first, effects).assign(gain=gain))
    return pd.concat(parts, ignore_index=True)


def at_equal_kl(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """What adaptive methods gain more than their mean and than fitted constants, at the same KL."""
    parts = []
    for gain in GAINS[name]:
        sweep = by_side_effect(table, gain)["worst"]
        for constant in [method for method in sweep.gain if method.endswith(CONSTANT)]:
            own = constant.removesuffix(CONSTANT)
            for other in (own + TWIN, constant):
                found = compare_at_side_effects(sweep.among([own, other]), other, EQUAL)
                parts.append(found[found["method"] == own].assign(gain_of=gain, other=other))
    return pd.concat(parts, ignore_index=True).dropna(subset="difference")


def tables_of(twins: pd.DataFrame) -> list[str]:
    """A table a gain: a row a method, a column a side effect."""
    lines = []
    for gain, own in twins.groupby("gain", sort=False):
        cells = own.set_index(["method", "side_effect"])
        rows = []
        for method in own["method"].unique():
            row = [str(method)]
            for side in ("worst", *KLS):
                one = cells.loc[(method, side)]
                row.append(interval(one["difference"], one["low"], one["high"], "+.3f"))
                if side == "worst":
                    p = one.get("p_holm", one["p"])
                    row.append("" if pd.isna(p) else f"{p:.2g}")
            rows.append(tuple(row))
        p = "p (Holm)" if "p_holm" in own else "p"
        head = (str(gain), "worst", p, "plain texts", "own answers", "right answers")
        lines += [Table(head, rows).markdown(), ""]
    return lines


def constants(table: pd.DataFrame, name: str) -> list[str]:
    """Adaptive methods minus constants that were fitted along the same vectors."""
    fits = [own for own in table["method"].unique() if own.endswith(CONSTANT)]
    own = [fit.removesuffix(CONSTANT) for fit in fits]
    table = among(table, [*fits, *own, *(one + TWIN for one in own)])
    fitted = against_twins(table, name, CONSTANT).drop(columns="p_holm")
    alike = at_equal_kl(table, name)
    rows = [
        (str(one["gain_of"]), str(one["method"]), str(one["other"]), f"{one['effect']:g}",
         f"{one['gain']:.3f}",
         interval(one["difference"], one["difference_low"], one["difference_high"], "+.3f"))
        for one in alike.to_dict("records")
    ]  # fmt: skip
    head = ("gain", "method", "minus", "worst KL", "the method's", "difference")
    return [
        "# Adaptive minus constants that were fitted along the same vectors", "",
        "Asked later; uncorrected. Behind the largest KL that they were measured at, the "
        "constants' front is level.", "",
        *tables_of(fitted), "At the same KL, where both were measured in every fold:", "",
        Table(head, rows).markdown(), "",
    ]  # fmt: skip


def neutral(table: pd.DataFrame, name: str) -> list[str]:
    """DSAS with neutral texts: minus its twin, minus what it gates, and minus DSAS without them."""
    own = [f"DSAS around {inner}{NEUTRAL}" for inner in GATED]
    twins = against_twins(among(table, [*own, *(one + TWIN for one in own)]), name)
    others = [
        (f"DSAS around {inner}{NEUTRAL}", other)
        for inner in GATED
        for other in (inner, f"DSAS around {inner}")
    ]
    return [
        "# DSAS with neutral texts", "", "Run later; uncorrected. Minus its even twin:", "",
        *tables_of(twins.drop(columns="p_holm")),
        "Minus what it gates, and minus DSAS against correct answers:", "",
        pairs(table, name, others).markdown(), "",
    ]  # fmt: skip


def pairs(table: pd.DataFrame, name: str, wanted: Sequence[tuple[str, str]]) -> Table:
    """Fronts of some methods minus those of some others, against every side effect."""
    shown = among(table, [method for pair in wanted for method in pair])
    effects = np.geomspace(*RANGE[name], 40).tolist()
    rows = []
    for gain in GAINS[name]:
        for side, sweep in by_side_effect(shown, gain).items():
            for own, other in wanted:
                one = area(sweep.among([own, other]), other, effects).iloc[0].to_dict()
                told = interval(
                    one["difference"], one["difference_low"], one["difference_high"], "+.3f"
                )
                rows.append((gain, side, own, f"{one['area']:.3f}", other, told))
    return Table(("gain", "side effect", "method", "front", "minus", "difference"), rows)


LATER = {"constant": constants, "neutral": neutral}
"""What was run after the first tables were read, by name."""


def markdown(twins: pd.DataFrame, whole: pd.DataFrame, name: str) -> str:
    """Both as tables."""
    low, high = RANGE[name]
    lines = [
        f"# Adaptive minus even twin: the mean of the front over KLs from {low:g} to {high:g}", "",
        "Paired [95 %], of several refits by Student's t over questions and refits, of one by a "
        "bootstrap of questions; p of the worst side effect corrected (Holm).", "",
        *tables_of(twins),
    ]  # fmt: skip
    lines += ["# Fronts against the worst side effect", ""]
    for gain, own in whole.groupby("gain", sort=False):
        ordered = own.sort_values("area", ascending=False)
        rows = [
            (str(one["method"]), interval(one["area"], one["low"], one["high"], ".3f"))
            for one in ordered.to_dict("records")
        ]
        lines += [Table((str(gain), "mean of the front"), rows).markdown(), ""]
    return "\n".join(lines)


def draw(table: pd.DataFrame, shown: Sequence[str], title: str, path: Path) -> None:
    """Fronts of some methods' MC2 against the worst KL, where there is a browser to draw them."""
    with storage.drawing() as image:
        if not image:
            return
        sweep = by_side_effect(table, "mc2")["worst"]
        kept = [method for method in shown if method in sweep.gain]
        curves = pd.concat([curve(sweep, method) for method in kept], ignore_index=True)
        figure = plots.front(
            curves, gain="MC2", side_effect="worst KL (nats a token)", title=title
        )  # fmt: skip
        storage.write_bytes(path, storage.picture(figure, scale=1.5))


def main() -> None:
    """Write the tables and the figure."""
    name = sys.argv[1]
    folder = HERE / name
    table = measured(name)
    twins, whole = against_twins(table, name), fronts(table, name)
    text = markdown(twins, whole, name)
    if name == "smollm2_refits":
        gated = pairs(table, name, [("DSAS around ITI", "ITI")])
        text += f"\n# A gate minus what it gates, uncorrected\n\n{gated.markdown()}\n"
    for later, tell in LATER.items():
        path = folder / f"sweep_{later}.parquet"
        if path.exists():
            added = storage.read_table(path)
            added = added[~added["method"].isin(table["method"].unique())]
            text += "\n" + "\n".join(tell(pd.concat([table, added], ignore_index=True), name))
    storage.write_table(folder / "twins.parquet", twins)
    storage.write_text(folder / "told.md", text)
    sys.stdout.write(text)
    title = "MC2 against the worst of three KLs: adaptive methods and their even twins"
    draw(table, SHOWN[name], title, folder / "fronts.png")


if __name__ == "__main__":
    main()
