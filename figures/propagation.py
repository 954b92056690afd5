"""Token representations of an answer before and after one round over its graph."""

from __future__ import annotations

from typing import Any

from figures.fitted import fitted
from workbench import plots
from workbench.analysis.propagations import propagation


def figure() -> Any:
    """The longest of the first hundred held-out answers, at the layer of the best head."""
    made = fitted()
    answer = max((made.held[k] for k in range(100)), key=lambda one: len(one.tokens))
    return plots.propagation(propagation(answer, made.tae.heads[0][0], depth=1))
