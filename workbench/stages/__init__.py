"""The stages of TAE, in the order of the paper, each an inspectable tensor."""

from workbench.stages.activations import TokenActivations
from workbench.stages.aggregation import Features, aggregate
from workbench.stages.capture import capture
from workbench.stages.directions import (
    RULES,
    Directions,
    Evidence,
    fit_directions,
    mean_difference,
)
from workbench.stages.misalignment import fit_estimators, incorrect_answers, label_answers
from workbench.stages.shortlist_fitting import fit_shortlists
from workbench.stages.shortlists import Shortlists
from workbench.stages.token_graph import (
    SIMILARITIES,
    GraphSettings,
    TokenGraph,
    similarities,
    split_scope,
    token_graph,
    weights_of,
)

__all__ = [
    "RULES",
    "SIMILARITIES",
    "Directions",
    "Evidence",
    "Features",
    "GraphSettings",
    "Shortlists",
    "TokenActivations",
    "TokenGraph",
    "aggregate",
    "capture",
    "fit_directions",
    "fit_estimators",
    "fit_shortlists",
    "incorrect_answers",
    "label_answers",
    "mean_difference",
    "similarities",
    "split_scope",
    "token_graph",
    "weights_of",
]
