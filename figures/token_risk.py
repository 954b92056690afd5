"""Tokens of an edited answer, coloured by the strength with which TAE edits as they are written."""

from __future__ import annotations

from typing import Any

from figures.fitted import fitted, question, trace_of
from workbench import plots


def figure() -> Any:
    """One held-out question, every edited layer."""
    made = fitted()
    return plots.token_risk(trace_of(made.tae), title=f"TAE, α = 2: {question().question}")
