"""Analysis: what a researcher asks of one model, one head or one answer."""

from workbench.analysis.agreements import Agreement, agreement, agreement_of_heads
from workbench.analysis.causal import knock_out_heads, patch_heads
from workbench.analysis.drifting import drift, drifts
from workbench.analysis.head_effects import HeadEffects, compare_rankings
from workbench.analysis.hearsay_beliefs import beliefs
from workbench.analysis.hearsay_contexts import hearsay_contexts
from workbench.analysis.projection import Projections, projections
from workbench.analysis.propagations import Propagation, propagation
from workbench.analysis.risk import risk_auroc
from workbench.analysis.trajectories import trajectory

__all__ = [
    "Agreement",
    "HeadEffects",
    "Projections",
    "Propagation",
    "agreement",
    "agreement_of_heads",
    "beliefs",
    "compare_rankings",
    "drift",
    "drifts",
    "hearsay_contexts",
    "knock_out_heads",
    "patch_heads",
    "projections",
    "propagation",
    "risk_auroc",
    "trajectory",
]
