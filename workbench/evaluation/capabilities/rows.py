"""What every capability gives: rows of a unit, a metric and a value; plain texts give rows to any.

`evaluate` adds what the other `COLUMNS` of a table say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from workbench.data.crows_pairs import PairSet
from workbench.data.questions import QuestionSet
from workbench.data.stereoset import StereotypeSet
from workbench.data.toxicity_prompts import PromptSet
from workbench.editing.divergences import SideEffects
from workbench.editing.interventions import Intervention
from workbench.evaluation.metrics.side_effects import side_effects_under
from workbench.models.identity import Model

COLUMNS = (
    "model",
    "capability",
    "method",
    "setting",
    "draw",
    "fold",
    "question",
    "metric",
    "value",
)
Data = QuestionSet | PromptSet | StereotypeSet | PairSet
"""What capabilities are measured on."""
NO_EDIT = "no edit"
"""The method that is the unedited model."""
SIDE_EFFECTS = ("cross_entropy", "kl", "cross_entropy_unrelated", "kl_unrelated")
"""What is measured on texts and questions that are no fold's own."""


class Row(NamedTuple):
    """One value: of a unit that is resampled whole (a question, a prompt, a term, a text)."""

    question: str
    metric: str
    value: float


Measured = Iterator[list[Row]]
"""The rows of every edit, in the order of the edits."""


def side_effect_rows(
    model: Model,
    texts: Sequence[str],
    edits: Sequence[Intervention | None],
    *,
    progress: bool = False,
) -> list[list[Row]]:
    """Cross-entropy and KL of every plain text, for every edit."""
    if not texts:
        return [[] for _ in edits]
    found = side_effects_under(model, texts, edits, progress=progress)
    return [named_rows(texts, own) for own in found]


def named_rows(units: Sequence[str], effects: Sequence[SideEffects], what: str = "") -> list[Row]:
    """Rows of side effects.

    Args:
        units: what they were measured on.
        effects: one a unit.
        what: is added to the metrics' names.
    """
    return [
        row
        for unit, effect in zip(units, effects, strict=True)
        for row in (
            Row(unit, f"cross_entropy{what}", effect.cross_entropy),
            Row(unit, f"kl{what}", effect.kl),
        )
    ]
