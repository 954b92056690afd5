"""Plots: records in, plotly figures out; no computing, no drawing, no files."""

from workbench.plots.differences import differences
from workbench.plots.front import front
from workbench.plots.head_accuracy import head_accuracy
from workbench.plots.propagation import propagation
from workbench.plots.strength_over_generation import strength_over_generation
from workbench.plots.token_arcs import token_arcs
from workbench.plots.token_graph import token_graph
from workbench.plots.token_risk import token_risk

__all__ = [
    "differences",
    "front",
    "head_accuracy",
    "propagation",
    "strength_over_generation",
    "token_arcs",
    "token_graph",
    "token_risk",
]
