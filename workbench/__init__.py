"""workbench: look inside, ablate and compare token-level representation editing.

Every name below is loaded when it is first used, so that `import workbench` costs nothing that
`import torch` does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench import plots
    from workbench.data.questions import Question, QuestionSet
    from workbench.data.sources import (
        load_contrast,
        load_prompts,
        load_questions,
        load_stereotypes,
    )
    from workbench.editing.attaching import edited
    from workbench.editing.combining import combine
    from workbench.editing.generation import generate
    from workbench.editing.head_edits import Edit
    from workbench.editing.scoring import score, score_under
    from workbench.errors import WorkbenchError
    from workbench.evaluation.evaluate import evaluate
    from workbench.evaluation.tables import compare, summary
    from workbench.methods.controls import random_directions
    from workbench.methods.iti import inference_time
    from workbench.methods.saved import load_edit
    from workbench.methods.token_aware import TokenAware
    from workbench.models.loading import load_model
    from workbench.runs.ablation import ablate
    from workbench.stages.aggregation import aggregate
    from workbench.stages.capture import capture
    from workbench.stages.directions import fit_directions
    from workbench.stages.misalignment import fit_estimators
    from workbench.stages.token_graph import GraphSettings, token_graph
    from workbench.stages.vocabulary_screen import fit_vocabulary_screen

_HOME = {
    "ablate": "runs.ablation",
    "aggregate": "stages.aggregation",
    "capture": "stages.capture",
    "compare": "evaluation.tables",
    "summary": "evaluation.tables",
    "Question": "data.questions",
    "QuestionSet": "data.questions",
    "load_contrast": "data.sources",
    "load_prompts": "data.sources",
    "load_questions": "data.sources",
    "load_stereotypes": "data.sources",
    "fit_directions": "stages.directions",
    "Edit": "editing.head_edits",
    "edited": "editing.attaching",
    "load_edit": "methods.saved",
    "WorkbenchError": "errors",
    "evaluate": "evaluation.evaluate",
    "generate": "editing.generation",
    "combine": "editing.combining",
    "random_directions": "methods.controls",
    "inference_time": "methods.iti",
    "TokenAware": "methods.token_aware",
    "fit_estimators": "stages.misalignment",
    "load_model": "models.loading",
    "score": "editing.scoring",
    "score_under": "editing.scoring",
    "fit_vocabulary_screen": "stages.vocabulary_screen",
    "GraphSettings": "stages.token_graph",
    "token_graph": "stages.token_graph",
}

__all__ = [
    "Edit",
    "GraphSettings",
    "Question",
    "QuestionSet",
    "TokenAware",
    "WorkbenchError",
    "ablate",
    "aggregate",
    "capture",
    "combine",
    "compare",
    "edited",
    "evaluate",
    "fit_directions",
    "fit_estimators",
    "fit_vocabulary_screen",
    "generate",
    "inference_time",
    "load_contrast",
    "load_edit",
    "load_model",
    "load_prompts",
    "load_questions",
    "load_stereotypes",
    "plots",
    "random_directions",
    "score",
    "score_under",
    "summary",
    "token_graph",
]


def __getattr__(name: str) -> Any:
    if name == "plots":
        return import_module("workbench.plots")
    if name not in _HOME:
        raise AttributeError(f"module 'workbench' has no attribute {name!r}")
    found = getattr(import_module(f"workbench.{_HOME[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
