"""Editing: what changes a model's activations; answers written and scored under an edit."""

from workbench.editing.attaching import edited
from workbench.editing.combining import combine, conflict
from workbench.editing.generation import generate
from workbench.editing.head_edits import Edit
from workbench.editing.interventions import Intervention, Positions
from workbench.editing.scoring import score, score_under
from workbench.editing.state_edits import StateEdit

__all__ = [
    "Edit",
    "Intervention",
    "Positions",
    "StateEdit",
    "combine",
    "conflict",
    "edited",
    "generate",
    "score",
    "score_under",
]
