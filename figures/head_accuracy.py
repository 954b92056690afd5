"""Where truth can be read: validation accuracy of every head's probe."""

from __future__ import annotations

from typing import Any

from figures.fitted import fitted
from workbench import plots


def figure() -> Any:
    """All heads of hearsay; framed are those that TAE edits."""
    made = fitted()
    return plots.head_accuracy(made.directions, made.tae.heads)
