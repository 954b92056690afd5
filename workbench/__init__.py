"""workbench: look inside, ablate and compare token-level representation editing.

Every name below is loaded when it is first used, so that `import workbench` costs nothing that
`import torch` does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench import plots
    from workbench.ablation import ablate
    from workbench.aggregation import aggregate
    from workbench.capturing import capture
    from workbench.comparison import compare, summary
    from workbench.data.questions import Question, QuestionSet
    from workbench.data.sources import (
        load_contrast,
        load_prompts,
        load_questions,
        load_stereotypes,
    )
    from workbench.directions import fit_directions
    from workbench.editing import edited
    from workbench.edits import Edit
    from workbench.errors import WorkbenchError
    from workbench.evaluation import evaluate
    from workbench.generation import generate
    from workbench.goals import combine
    from workbench.interventions import load_edit
    from workbench.methods.controls import random_directions
    from workbench.methods.iti import inference_time
    from workbench.methods.token_aware import TokenAware
    from workbench.misalignment import fit_estimators
    from workbench.models import load_model
    from workbench.scoring import score, score_under
    from workbench.token_graphs import GraphSettings, token_graph
    from workbench.vocabulary_screen import fit_vocabulary_screen

_HOME = {
    "ablate": "ablation",
    "aggregate": "aggregation",
    "capture": "capturing",
    "compare": "comparison",
    "summary": "comparison",
    "Question": "data.questions",
    "QuestionSet": "data.questions",
    "load_contrast": "data.sources",
    "load_prompts": "data.sources",
    "load_questions": "data.sources",
    "load_stereotypes": "data.sources",
    "fit_directions": "directions",
    "Edit": "edits",
    "edited": "editing",
    "load_edit": "interventions",
    "WorkbenchError": "errors",
    "evaluate": "evaluation",
    "generate": "generation",
    "combine": "goals",
    "random_directions": "methods.controls",
    "inference_time": "methods.iti",
    "TokenAware": "methods.token_aware",
    "fit_estimators": "misalignment",
    "load_model": "models",
    "score": "scoring",
    "score_under": "scoring",
    "fit_vocabulary_screen": "vocabulary_screen",
    "GraphSettings": "token_graphs",
    "token_graph": "token_graphs",
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
