"""What each layer thinks of the truth's and the myth's token, without and with edits."""

from __future__ import annotations

from typing import Any

from figures.fitted import fitted, question
from workbench import plots
from workbench.analysis.trajectories import trajectory


def figure() -> Any:
    """One held-out question whose answer TAE mends."""
    made, asked = fitted(), question()
    table = trajectory(
        made.model, asked, {"no edit": None, "ITI": made.iti, "TAE": made.tae},
        truth=asked.correct_answers[0], myth=asked.incorrect_answers[0],
    )  # fmt: skip
    return plots.trajectory(table)
