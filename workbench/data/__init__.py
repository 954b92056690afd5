"""What is asked: one file a source; sets of items, and folds that never share one."""

from workbench.data.crows_pairs import PairSet
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
from workbench.data.stereoset import StereotypeSet
from workbench.data.toxicity_prompts import Prompt, PromptSet

__all__ = [
    "SOURCES",
    "TRUTHS",
    "PairSet",
    "Prompt",
    "PromptSet",
    "Question",
    "QuestionSet",
    "StereotypeSet",
    "ground_truth_of",
    "load_contrast",
    "load_pairs",
    "load_prompts",
    "load_questions",
    "load_stereotypes",
    "plain_texts",
]
