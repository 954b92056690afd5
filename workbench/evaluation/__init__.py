"""Evaluation: what an edit gains and what it costs, as tables with honest intervals."""

from workbench.evaluation.answers_alone import answers_alone
from workbench.evaluation.capabilities.splits import Split, splits
from workbench.evaluation.changes import changes, outcomes
from workbench.evaluation.choosing import choose
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.harness.wrapping import lm_eval
from workbench.evaluation.judges.base import Judge
from workbench.evaluation.judges.causal import CausalJudge, published_judge
from workbench.evaluation.judges.classifier import ClassifierJudge
from workbench.evaluation.judges.endpoint import EndpointJudge
from workbench.evaluation.judges.hearsay import HearsayJudge
from workbench.evaluation.judges.references import Measure
from workbench.evaluation.judges.registry import JUDGES, MEASURES
from workbench.evaluation.judges.rudeness import RudenessJudge
from workbench.evaluation.lengths import lengths_alone
from workbench.evaluation.metrics.ground_truth import object_tokens, verdict_of
from workbench.evaluation.metrics.registry import METRICS
from workbench.evaluation.statistics import bootstrap_interval, holm, paired_difference
from workbench.evaluation.tables import compare, summary
from workbench.evaluation.transfer import Domain, transfer, transfers

__all__ = [
    "JUDGES",
    "MEASURES",
    "METRICS",
    "CausalJudge",
    "ClassifierJudge",
    "Domain",
    "EndpointJudge",
    "HearsayJudge",
    "Judge",
    "Measure",
    "RudenessJudge",
    "Split",
    "answers_alone",
    "bootstrap_interval",
    "changes",
    "choose",
    "compare",
    "evaluate",
    "holm",
    "lengths_alone",
    "lm_eval",
    "object_tokens",
    "outcomes",
    "paired_difference",
    "published_judge",
    "splits",
    "summary",
    "transfer",
    "transfers",
    "verdict_of",
]
