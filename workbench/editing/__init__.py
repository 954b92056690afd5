"""Editing: what changes a model's activations; answers written and scored under an edit."""

from workbench.editing.added_vectors import AddedVector
from workbench.editing.affine_edits import AffineChange
from workbench.editing.attaching import edited
from workbench.editing.combining import combine, conflict
from workbench.editing.conditions import Condition, Conditional
from workbench.editing.drawn_strengths import DrawnHeads
from workbench.editing.gates import Gate, Gated
from workbench.editing.generation import generate
from workbench.editing.head_edits import Edit, HeadEdit
from workbench.editing.interventions import Intervention, Positions
from workbench.editing.scoring import score, score_under
from workbench.editing.state_edits import StateEdit
from workbench.editing.strengths import Estimators, Strength
from workbench.editing.traced_nats import with_log_probabilities
from workbench.editing.whole_edits import Foreword, LowRank

__all__ = [
    "AddedVector",
    "AffineChange",
    "Condition",
    "Conditional",
    "DrawnHeads",
    "Edit",
    "Estimators",
    "Foreword",
    "Gate",
    "Gated",
    "HeadEdit",
    "Intervention",
    "LowRank",
    "Positions",
    "StateEdit",
    "Strength",
    "combine",
    "conflict",
    "edited",
    "generate",
    "score",
    "score_under",
    "with_log_probabilities",
]
