"""What is tested is not what was fitted on: sentences, target terms and prompts."""

from __future__ import annotations

from bisect import bisect_left

from workbench.data.crows_pairs import PairSet
from workbench.data.questions import QuestionSet
from workbench.data.shared import words_of
from workbench.data.stereoset import StereotypeSet
from workbench.data.toxicity_prompts import PromptSet
from workbench.errors import WorkbenchError


def require_other_sentences(items: StereotypeSet, test: StereotypeSet | PairSet) -> None:
    """Refuse tested sentences, and of stereotypes target terms, that are fitted on."""
    seen = {words_of(text) for item in items for text in item.texts()}
    both = [text for item in test for text in item.texts() if words_of(text) in seen]
    if both:
        raise WorkbenchError(
            f"{len(both)} sentences that are fitted on and tested (first: {both[0]!r:.80})",
            "different sentences to fit and to test on",
            "One source, in the place of `fit` and `test`, is split by target terms.",
        )
    if isinstance(test, StereotypeSet):
        terms = [term for term in test.targets if term in set(items.targets)]
        if terms:
            raise WorkbenchError(
                f"{len(terms)} target terms that are fitted on and tested (first: {terms[0]!r})",
                "different target terms to fit and to test on",
                "One source, in the place of `fit` and `test`, is split by target terms.",
            )


def require_other_prompts(contrast: QuestionSet, prompts: PromptSet) -> None:
    """Refuse prompts that a training text begins with, however its spaces are set."""
    texts = sorted(
        " ".join(text.split())
        for question in contrast
        for answer in question.answers
        for text in (f"{question.question} {answer}", answer)
    )
    both = []
    for prompt in prompts:
        begin = " ".join(prompt.text.split())
        place = bisect_left(texts, begin)
        if place < len(texts) and texts[place].startswith(begin):
            both.append(prompt.text)
    if both:
        raise WorkbenchError(
            f"{len(both)} prompts of {prompts.name or 'the set'} that are trained on too (first: "
            f"number {[prompt.text for prompt in prompts].index(both[0])})",
            "prompts to test on that no training text begins with",
        )
