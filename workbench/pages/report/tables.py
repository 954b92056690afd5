"""Tables of the page: texts only, numbers written as the run's own summary writes them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from workbench.evaluation.changes import LEAST, OUTCOMES
from workbench.evaluation.text_tables import Record, Table, rows_by_method
from workbench.pages.report.results import Contest, Results
from workbench.runs.comparison import EQUAL

NONE = "\u2013"
NOISE = 1e-12
WIDTH = 4
"""Columns of metrics side by side: what a printed page holds."""


def number(value: float, sign: str = "") -> str:
    """Three digits, zero without a sign or rounding errors; a dash where there is no value."""
    if math.isnan(value):
        return NONE
    value = 0.0 if abs(value) < NOISE else value
    return format(value, f"{sign}.3g" if value else ".3g").replace("-", "−")


def probability(value: float) -> str:
    """A p-value in two digits; a dash where there is none."""
    return NONE if math.isnan(value) else f"{value:.2g}"


def interval(mean: float, low: float, high: float, sign: str = "") -> str:
    """`0.51 [0.4, 0.6]`, which breaks before the bracket alone; a dash where there is no value."""
    if math.isnan(mean):
        return NONE
    return f"{number(mean, sign)} [{number(low, sign)},\u00a0{number(high, sign)}]"


def metrics_of(results: Results, found: pd.DataFrame) -> list[str]:
    """The metrics of a part of the summary that the run wants shown."""
    wanted = results.shown.get("metrics", ())
    return [m for m in dict.fromkeys(found["metric"]) if not wanted or m in wanted]


def summary_tables(found: pd.DataFrame, metrics: Sequence[str]) -> list[Table]:
    """Means with intervals of one model and capability, a few metrics side by side.

    Args:
        found: of `summary`.
        metrics: those to show.
    """
    counts = found.groupby("metric")["questions"].max()
    tables = []
    for begin in range(0, len(metrics), WIDTH):
        own = metrics[begin : begin + WIDTH]
        head = ("method", *(f"{metric} (n\u00a0=\u00a0{counts[metric]})" for metric in own))
        rows = rows_by_method(found, own, _mean, NONE)
        tables.append(Table(head, rows, f"Means: {', '.join(own)}"))
    return tables


def outcome_table(found: pd.DataFrame) -> Table:
    """Shares of questions that became better, worse, or neither.

    Args:
        found: of `outcomes`, of one model, capability and metric.
    """
    rows = [
        (
            str(row["method"]),
            *(_per_cent(row[n], row[f"{n}_low"], row[f"{n}_high"]) for n in OUTCOMES),
            str(row["questions"]),
        )
        for row in found.to_dict("records")
    ]
    return Table(("method", *(f"{n} (%)" for n in OUTCOMES), "n"), rows, "Shares of questions")


def _per_cent(share: float, low: float, high: float) -> str:
    return f"{100 * share:.1f} [{100 * low:.1f},\u00a0{100 * high:.1f}]"


def worst_table(changed: pd.DataFrame, most: int) -> Table:
    """The questions that every method hurts most, in the order of the loss.

    Args:
        changed: of `changes`, of one model, capability and metric; losses that are equal, as of
            metrics that are 0 or 1, stand in the order of the column `finer`, where there is one.
        most: questions a method.
    """
    rows = []
    columns = [name for name in ("before", "after", "change", "finer") if name in changed]
    every = changed.groupby(["method", "question"], sort=False, as_index=False)
    means = every[columns].mean()
    order = [name for name in ("change", "finer") if name in columns]
    for method, own in means.groupby("method", sort=False):
        hurt = own[own["change"] <= -LEAST].sort_values(order, kind="stable").head(most)
        rows += [
            (str(method), str(row["question"]), number(row["before"]), number(row["after"]))
            for row in hurt.to_dict("records")
        ]
    return Table(("method", "question", "before", "after"), rows, "Hurt most")


def difference_table(compared: pd.DataFrame, metrics: Sequence[str]) -> Table:
    """Paired differences of one model and capability.

    Args:
        compared: of `compare`.
        metrics: those to show.
    """
    own = pd.concat([compared[compared["metric"] == metric] for metric in metrics])
    head = ("metric", "method", "difference", "p", "p (Holm)", "n")
    rows = tuple(
        (
            str(row["metric"]), str(row["method"]),
            interval(row["difference"], row["low"], row["high"], "+"),
            probability(row["p"]), probability(row["p_holm"]), str(row["questions"]),
        )
        for row in own.to_dict("records")
    )  # fmt: skip
    return Table(head, rows, f"Differences from {own['against'].iloc[0]}")


def contest_tables(contest: Contest) -> list[Table]:
    """Methods at equal KL, the means of their fronts, and what they cost."""
    tables = [_matched(contest)]
    for name, own in contest.areas.groupby("side_effect", sort=False):
        rows = tuple(
            (
                str(row["method"]), interval(row["area"], row["low"], row["high"]),
                _apart(row, contest.against), probability(row["p"]),
            )
            for row in own.sort_values("area", ascending=False).to_dict("records")
        )  # fmt: skip
        caption = (
            f"Mean of the front against {name}: the most that is gained at each side effect, "
            "looked for on one half of a fold's questions and read on the other"
        )
        tables.append(Table(("method", "mean", "difference", "p"), rows, caption))
    costs = tuple(
        (
            str(row["method"]), number(row["fit_seconds"]), number(row["ms_per_token"]),
            f"{int(row['stored']):,}",
        )
        for row in contest.costs.to_dict("records")
    )  # fmt: skip
    head = ("method", "seconds to fit", "milliseconds a token", "numbers stored")
    return [*tables, Table(head, costs, "What the methods cost (fold 0)")]


def _mean(row: Record) -> str:
    return interval(row["mean"], row["low"], row["high"])


def _apart(row: Record, against: str) -> str:
    """A difference with its interval; a dash for the method that it is from."""
    if row["method"] == against:
        return NONE
    return interval(row["difference"], row["difference_low"], row["difference_high"], "+")


def _matched(contest: Contest) -> Table:
    rows = tuple(
        (
            number(row["effect"]), str(row["method"]),
            interval(row["gain"], row["low"], row["high"]), _apart(row, contest.against),
            probability(row["p_holm"]),
        )
        for row in contest.matched.to_dict("records")
    )  # fmt: skip
    head = ("KL", "method", "gain", "difference", "p (Holm)")
    what = EQUAL.get(contest.matched_on, contest.matched_on)
    return Table(head, rows, f"Gain at {what}, in nats a token")
