"""The published code's deviations from the paper, paired differences from `figures/deviations`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import workbench as wb
from workbench import plots, storage


def figure() -> Any:
    """Three metrics that were named before the run."""
    table = storage.read_table(Path(__file__).parent / "deviations" / "results.parquet")
    metrics = ["mc1", "mc2", "says_truth"]
    found = wb.compare(table, "corrected", primary=metrics)
    return plots.differences(found, metrics)
