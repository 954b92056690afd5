"""What TAE's strength is made of, token by token along a generation."""

from __future__ import annotations

from typing import Any

from figures.fitted import fitted, question, trace_of
from workbench import plots


def figure() -> Any:
    """One held-out question."""
    made = fitted()
    return plots.strength_over_generation(
        trace_of(made.tae), beta=made.tae, title=question().question
    )
