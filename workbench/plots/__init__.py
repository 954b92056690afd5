"""Plots: records in, plotly figures out; no computing, no drawing, no files."""

from workbench.plots.ablation_curves import ablation_curves
from workbench.plots.ablation_map import ablation_map
from workbench.plots.agreement import agreement
from workbench.plots.changes import changes
from workbench.plots.differences import differences
from workbench.plots.drift import drift
from workbench.plots.front import front
from workbench.plots.head_accuracy import head_accuracy
from workbench.plots.projection import projection
from workbench.plots.propagation import propagation
from workbench.plots.strength_over_generation import strength_over_generation
from workbench.plots.token_arcs import token_arcs
from workbench.plots.token_graph import token_graph
from workbench.plots.token_risk import token_risk
from workbench.plots.trajectory import trajectory
from workbench.plots.transfer import transfer

__all__ = [
    "ablation_curves",
    "ablation_map",
    "agreement",
    "changes",
    "differences",
    "drift",
    "front",
    "head_accuracy",
    "projection",
    "propagation",
    "strength_over_generation",
    "token_arcs",
    "token_graph",
    "token_risk",
    "trajectory",
    "transfer",
]
