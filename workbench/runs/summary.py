"""A run's summary to read: means and differences as Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pandas as pd


def as_markdown(
    found: pd.DataFrame,
    compared: pd.DataFrame | None,
    metrics: Sequence[str] = (),
    failures: Sequence[Mapping[str, Any]] = (),
    limits: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> str:
    """A summary, and differences if there are any, as Markdown tables.

    Args:
        found: from `summary`.
        compared: from `compare`.
        metrics: those to show; all by default.
        failures: what could not be measured, with `method`, `capability`, `fold` and `error`.
        limits: by capability, what those who judged it cannot tell, by their names.
    """
    lines = [
        f"Failed: {f['method']}, {f['capability']}, fold {f['fold']}: {f['error']}\n"
        for f in failures
    ]
    for (model, capability), part in found.groupby(["model", "capability"], sort=False):
        shown = [m for m in dict.fromkeys(part["metric"]) if not metrics or m in metrics]
        cells = part.set_index(["method", "metric"])
        lines += [
            f"# {capability} of {model}",
            "",
            "Mean [95 % bootstrap interval by question].",
            "",
        ]
        counts = part.groupby("metric", sort=False)["questions"].max()
        lines += ["| method | " + " | ".join(f"{m} (n = {counts[m]})" for m in shown) + " |"]
        lines += ["|---" * (len(shown) + 1) + "|"]
        for method in dict.fromkeys(part["method"]):
            row = [
                _cell(cells.loc[(method, m)]) if (method, m) in cells.index else "-" for m in shown
            ]
            lines.append(f"| {method} | " + " | ".join(row) + " |")
        lines += ["", *limit_lines(limits.get(str(capability), {}))]
        if compared is None:
            continue
        own = compared[(compared["capability"] == capability) & (compared["model"] == model)]
        own = own[own["metric"].isin(shown)]
        if own.empty:
            continue
        against = own["against"].iloc[0]
        lines += [
            f"Differences from {against} on the same questions [95 %]; p of a permutation test, "
            "corrected for all comparisons of the capability's primary metrics (Holm).", "",
            "| metric | method | difference | p |", "|---|---|---|---|",
        ]  # fmt: skip
        lines += [
            f"| {r.metric} | {r.method} | {r.difference:+.3g} [{r.low:+.3g}, {r.high:+.3g}] | {p} |"
            for r, p in zip(own.itertuples(), own["p_holm"].map(_p), strict=True)
        ]
        lines.append("")
    return "\n".join(lines)


def limit_lines(limits: Mapping[str, str]) -> list[str]:
    """What judges cannot tell, as a paragraph each."""
    return [line for name, text in limits.items() for line in (f"Limits of {name}: {text}", "")]


def _p(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2g}"


def _cell(row: pd.Series) -> str:
    return f"{row['mean']:.3g} [{row['low']:.3g}, {row['high']:.3g}]"
