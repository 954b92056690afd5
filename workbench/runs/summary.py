"""A run's summary to read: means and differences as Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pandas as pd

from workbench.evaluation.text_tables import (
    Record,
    Table,
    interval,
    plain_markdown,
    rows_by_method,
)


def as_markdown(
    found: pd.DataFrame,
    compared: pd.DataFrame | None,
    metrics: Sequence[str] = (),
    failures: Sequence[Mapping[str, Any]] = (),
    limits: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    refits: int = 1,
    planned: int = 1,
) -> str:
    """A summary, and differences if there are any, as Markdown tables.

    Args:
        found: from `summary`.
        compared: from `compare`.
        metrics: those to show; all by default.
        failures: what could not be measured, with `method`, `capability`, `fold` and `error`.
        limits: by capability, what those who judged it cannot tell, by their names.
        refits: how many there were.
        planned: how many there are to be.
    """
    interval_kind, test = how_told(refits, planned)
    lines = [
        plain_markdown(f"Failed: {f['method']}, {f['capability']}, fold {f['fold']}: {f['error']}")
        + "\n"
        for f in failures
    ]
    for (model, capability), part in found.groupby(["model", "capability"], sort=False):
        shown = [m for m in dict.fromkeys(part["metric"]) if not metrics or m in metrics]
        counts = part.groupby("metric")["questions"].max()
        means = Table(
            ("method", *(f"{metric} (n = {counts[metric]})" for metric in shown)),
            rows_by_method(part, shown, mean_cell),
        )
        lines += [
            f"# {capability} of {model}",
            "",
            f"Mean [95 % {interval_kind}].",
            "",
            means.markdown(),
        ]
        lines += ["", *limit_lines(limits.get(str(capability), {}))]
        if compared is None:
            continue
        own = compared[(compared["capability"] == capability) & (compared["model"] == model)]
        own = own[own["metric"].isin(shown)]
        if own.empty:
            continue
        against = own["against"].iloc[0]
        rows = [
            (
                str(row["metric"]), str(row["method"]),
                interval(row["difference"], row["low"], row["high"], "+.3g"), _p(row["p_holm"]),
            )
            for row in own.to_dict("records")
        ]  # fmt: skip
        lines += [
            f"Differences from {against} on the same questions [95 %]; p of {test}, "
            "corrected for all comparisons of the capability's primary metrics (Holm).", "",
            Table(("metric", "method", "difference", "p"), rows).markdown(), "",
        ]  # fmt: skip
    return "\n".join(lines)


def how_told(refits: int, planned: int = 1) -> tuple[str, str]:
    """What intervals are over, and what p is of, in words."""
    so_far = f", the first of {planned} refits" if planned > refits else ""
    if refits == 1:
        return f"bootstrap interval by question{so_far}", "a permutation test"
    few = "; of two draws it says little: take three or more" if refits == 2 else ""
    count = f"the first {refits} of {planned}" if planned > refits else f"{refits}"
    return f"interval by question and refit ({count}), by Student's t{few}", "Student's t"


def limit_lines(limits: Mapping[str, str]) -> list[str]:
    """What judges cannot tell, as a paragraph each."""
    told = [plain_markdown(f"Limits of {name}: {text}") for name, text in limits.items()]
    return [line for text in told for line in (text, "")]


def _p(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2g}"


def mean_cell(row: Record) -> str:
    """A mean with its interval, from a row of `summary`."""
    return interval(row["mean"], row["low"], row["high"])
