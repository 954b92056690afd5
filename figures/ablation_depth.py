"""Depth of propagation and number of heads: a study of `figures/ablation`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench import plots, storage
from workbench.runs.study_summary import study_summary


def figure() -> Any:
    """The share of true answers over K, a curve a depth."""
    table = storage.read_table(Path(__file__).parent / "ablation" / "study.parquet")
    found = study_summary(table, ["depth", "heads"])
    return plots.ablation_curves(found, "heads", "says_truth", by="depth")
