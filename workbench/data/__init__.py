"""What is asked: one file a source; sets of items, and folds that never share one."""

from workbench.data.ground_truth import TRUTHS, ground_truth_of
from workbench.data.plain import plain_texts
from workbench.data.questions import Question, QuestionSet
from workbench.data.registry import SOURCES
from workbench.data.sources import (
    load_contrast,
    load_pairs,
    load_prompts,
    load_questions,
    load_stereotypes,
)

__all__ = [
    "SOURCES",
    "TRUTHS",
    "Question",
    "QuestionSet",
    "ground_truth_of",
    "load_contrast",
    "load_pairs",
    "load_prompts",
    "load_questions",
    "load_stereotypes",
    "plain_texts",
]
