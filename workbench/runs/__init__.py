"""Runs: experiments described in a file, carried out piece by piece, resumable at any moment."""

from workbench.runs.ablation import Study, ablate, read_study, run_study
from workbench.runs.comparison import HeadToHead
from workbench.runs.description import read_config
from workbench.runs.estimating import estimate
from workbench.runs.harness_tasks import harness
from workbench.runs.head_to_head import head_to_head
from workbench.runs.publishing import push_to_hub
from workbench.runs.resumable import run
from workbench.runs.run_config import RunConfig
from workbench.runs.study_summary import select, study_summary

__all__ = [
    "HeadToHead",
    "RunConfig",
    "Study",
    "ablate",
    "estimate",
    "harness",
    "head_to_head",
    "push_to_hub",
    "read_config",
    "read_study",
    "run",
    "run_study",
    "select",
    "study_summary",
]
