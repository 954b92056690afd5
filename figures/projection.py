"""Held-out answers on the direction of the best head: correct and incorrect ones."""

from __future__ import annotations

from typing import Any

import workbench as wb
from figures.fitted import fitted
from workbench import plots
from workbench.analysis.projection import projections


def figure() -> Any:
    """The best head by validation accuracy, on questions that it was not fitted on."""
    made = fitted()
    layer, head = made.tae.heads[0]
    held = wb.aggregate(made.held)
    return plots.projection(
        projections(held, made.directions, layer, head, fitted_on=made.fold.train),
        standardised=True,
    )
