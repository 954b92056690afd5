"""What a comparison of methods says: its tables, and their Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd

from workbench.doors import door_of_class
from workbench.evaluation.tables import summary
from workbench.evaluation.text_tables import Table, interval, rows_by_method
from workbench.runs.summary import how_told, limit_lines, mean_cell

SHOWN = (
    "true_x_info", "mc1", "mc2", "ended", "cross_entropy", "kl", "kl_own", "kl_right",
    "kl_unrelated", "kl_long",
)  # fmt: skip
"""Metrics whose means are shown, beside the gain, of those that were measured."""


EQUAL = {
    "kl": "equal KL from the unedited model on plain texts",
    "kl_worst": "equal KL from the unedited model, the worst of those measured",
}


@door_of_class
@dataclass(frozen=True)
class HeadToHead:
    r"""What a comparison says.

    Attributes:
        table: `evaluate`'s, at the chosen α.
        differences: `compare`'s, at the chosen α.
        curves: means by method and multiple of α, with intervals; columns as `fronts.curve`'s and
            `side_effect`.
        matched: `fronts.compare_at_side_effects` at some KLs; see `matched_on`.
        areas: `fronts.area`, with `side_effect`.
        costs: columns `method`, `fit_seconds`, `ms_per_token`, `stored`.
        gain: the metric that is gained.
        against: the method that the others are compared with.
        dropped: methods that failed in some fold.
        matched_on: `kl` on plain texts, or `kl_worst`, the worst of those that were measured.

    Example:
        >>> import json
        >>> from dataclasses import asdict
        >>> from pathlib import Path
        >>> few = [json.dumps(asdict(question)) for question in questions.choose(range(8))]
        >>> _ = Path("few.jsonl").write_text("\n".join(few))
        >>> config = wb.runs.RunConfig(
        ...     data={"truthfulness": "few.jsonl"}, multiples=[0.5, 1, 2], texts=2,
        ...     methods={"no edit": {"kind": "none"}, "ITI": {"kind": "iti", "heads": 2}},
        ... )
        >>> found = wb.runs.head_to_head(
        ...     config, "comparison", against="ITI", model=model, progress=False
        ... )
        >>> found.against, list(found.costs)
        ('ITI', ['method', 'fit_seconds', 'ms_per_token', 'stored'])
    """

    table: pd.DataFrame
    differences: pd.DataFrame
    curves: pd.DataFrame
    matched: pd.DataFrame
    areas: pd.DataFrame
    costs: pd.DataFrame
    gain: str
    against: str
    dropped: tuple[str, ...] = ()
    matched_on: str = "kl"

    @property
    def equal_kl(self) -> str:
        """What is equal at `matched`, in words."""
        return EQUAL.get(self.matched_on, self.matched_on)


def as_markdown(
    found: HeadToHead,
    primary: Sequence[str] = (),
    seed: int = 0,
    limits: Mapping[str, str] = MappingProxyType({}),
    refits: int = 1,
    metrics: Sequence[str] = (),
    grids: Mapping[str, Sequence[float]] = MappingProxyType({}),
    planned: int = 1,
) -> str:
    """The comparison as Markdown tables.

    Args:
        found: from `head_to_head`.
        primary: metrics whose differences at the chosen α are shown; the gain by default.
        seed: of the bootstrap.
        limits: what those who judged cannot tell, by their names.
        refits: how many there were.
        metrics: those of the first table; by default `SHOWN`.
        grids: the side effects at which each front was read.
        planned: how many refits there are to be.
    """
    kind, test = how_told(refits, planned)
    lines = [
        "# At the α that training questions chose", "",
        f"Mean [95 % {kind}]. Not at equal side effects: see below."
        + (f" Failed in some fold and left out below: {', '.join(found.dropped)}."
           if found.dropped else ""), "",
        _means(found, metrics or SHOWN, seed).markdown(),
    ]  # fmt: skip
    if limits:
        lines += ["", *limit_lines(limits)[:-1]]
    lines += [
        "", f"# Differences from {found.against} at the α that training questions chose", "",
        f"Paired by question [95 %]; p of {test}, corrected for the table (Holm).", "",
        _differences(found, tuple(primary) or (found.gain,)).markdown(),
        "", f"# At {found.equal_kl}: {found.gain}", "",
        f"Interpolated over multiples of α; the difference is from {found.against} [95 %], p of "
        "the bootstrap, corrected for the whole table (Holm). `-`: not measured around this KL.",
        "", _matched(found).markdown(),
    ]  # fmt: skip
    for name, own in found.areas.groupby("side_effect", sort=False):
        grid = grids.get(str(name), ())
        where = f" from {min(grid):.2g} to {max(grid):.2g}" if len(grid) else ""
        lines += [
            "", f"# Front of {found.gain} against {name}: the mean over side effects{where} of the "
            "most that is gained at each, or at a lower one", "",
            "Looked for on one half of a fold's questions and read on the other, both ways round.",
            "",
            _fronts(own, found.against).markdown(),
        ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _means(found: HeadToHead, metrics: Sequence[str], seed: int) -> Table:
    """Means at the chosen α, and what the methods cost."""
    means = summary(found.table, seed=seed)
    known = set(means["metric"])
    metrics = [metric for metric in dict.fromkeys((found.gain, *metrics)) if metric in known]
    costs = {
        row["method"]: (
            f"{row['fit_seconds']:.3g}",
            f"{row['ms_per_token']:.3g}",
            f"{int(row['stored']):,}",
        )
        for row in found.costs.to_dict("records")
    }
    rows = rows_by_method(means, metrics, mean_cell)
    return Table(
        ("method", *metrics, "fit (s)", "ms a token", "stored"),
        [(*row, *costs.get(row[0], ("-", "-", "-"))) for row in rows],
    )


def _differences(found: HeadToHead, metrics: Sequence[str]) -> Table:
    """Paired differences at the chosen α."""
    own = {(row["method"], row["metric"]): row for row in found.differences.to_dict("records")}
    rows = []
    for method in dict.fromkeys(found.differences["method"]):
        cells = [str(method)]
        for one in (own[method, metric] for metric in metrics):
            cells += [
                interval(one["difference"], one["low"], one["high"], "+.3f"),
                f"{one['p_holm']:.2g}",
            ]
        rows.append(cells)
    return Table(("method", *(name for metric in metrics for name in (metric, "p"))), rows)


def _matched(found: HeadToHead) -> Table:
    """Gains at equal KL."""
    rows = []
    for one in found.matched.to_dict("records"):
        gain = apart = p = "-"
        if not np.isnan(one["gain"]):
            gain, apart, p = interval(one["gain"], one["low"], one["high"], ".3f"), "", ""
            if not np.isnan(one["p_holm"]):
                low, high = one["difference_low"], one["difference_high"]
                apart = interval(one["difference"], low, high, "+.3f")
                p = f"{one['p_holm']:.2g}"
        rows.append((f"{one['effect']:.2g}", str(one["method"]), gain, apart, p))
    return Table(("KL", "method", found.gain, "difference", "p"), rows)


def _fronts(areas: pd.DataFrame, against: str) -> Table:
    """Means of the fronts against one side effect, the highest first."""
    rows = []
    for one in areas.sort_values("area", ascending=False).to_dict("records"):
        cells = [str(one["method"]), interval(one["area"], one["low"], one["high"], ".3f")]
        if one["method"] != against:
            apart = (one["difference"], one["difference_low"], one["difference_high"])
            cells += [interval(*apart, "+.3f"), f"{one['p']:.2g}"]
        rows.append(cells)
    return Table(("method", "mean", f"from {against}", "p, uncorrected"), rows)
