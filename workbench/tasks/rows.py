"""What every task gives: rows of a unit, a metric and a value; plain texts give rows to any.

`evaluate` adds what the other `COLUMNS` of a table say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from workbench.interventions import Intervention
from workbench.metrics.side_effects import side_effects
from workbench.models import Model

COLUMNS = ("model", "task", "method", "setting", "draw", "fold", "question", "metric", "value")
SIDE_EFFECTS = ("cross_entropy", "kl")


class Row(NamedTuple):
    """One value: of a unit that is resampled whole (a question, a prompt, a term, a text)."""

    question: str
    metric: str
    value: float


Measured = Iterator[list[Row]]
"""The rows of every edit, in the order of the edits."""


def side_effect_rows(model: Model, texts: Sequence[str], edit: Intervention | None) -> list[Row]:
    """Cross-entropy and KL of every plain text."""
    rows = []
    effects = side_effects(model, texts, edit) if texts else []
    for text, effect in zip(texts, effects, strict=True):
        rows += [Row(text, "cross_entropy", effect.cross_entropy), Row(text, "kl", effect.kl)]
    return rows
