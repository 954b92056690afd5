"""Depth of propagation and number of heads as a map: the study of `figures/ablation`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench import plots, storage
from workbench.runs.study_summary import study_summary


def figure() -> Any:
    """MC2 by depth and number of heads."""
    table = storage.read_table(Path(__file__).parent / "ablation" / "study.parquet")
    return plots.ablation_map(study_summary(table, ["depth", "heads"]), "heads", "depth", "mc2")
