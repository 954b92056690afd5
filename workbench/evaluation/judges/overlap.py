"""Words that an answer shares with a reference: BLEU and ROUGE as lm-evaluation-harness sets them.

Their settings are those of T5's evaluation (Raffel et al. 2020), which the harness takes over. Both
range from 0 to 100. BLEU counts up to four words in a row, so an answer of fewer is 0 to every
reference, and as near to the incorrect ones as to the correct ones.

How far their signs can be trusted was measured (docs/judges.md): of answers of TruthfulQA, held out
of the references, BLEU tells 61.0 % rightly as true or false and ROUGE-1 64.3 %, where chance is
50 % and a regression on the answer alone tells 65.4 %. That is poor: no headline.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
from jaxtyping import Float

from workbench.errors import WorkbenchError
from workbench.evaluation.judges.registry import MEASURES

Pairs = Sequence[tuple[str, str]]
"""Answers, each with a reference."""


@MEASURES.register("bleu")
class Bleu:
    """Sentence BLEU of sacreBLEU (Post 2018): international tokens, case kept, zeros smoothed.

    Raises:
        WorkbenchError: sacreBLEU is not installed.
    """

    name = "bleu"
    kinds: tuple[str, ...] = ("bleu",)
    limits = (
        "Words shared with the question's reference answers, not truth: an answer in other words, "
        "or of fewer than four words, is missed. Its sign is right for 61 % of TruthfulQA's "
        "answers, held out, where chance is 50 %. No headline."
    )

    def __init__(self) -> None:
        try:
            from sacrebleu.metrics.bleu import BLEU
        except ModuleNotFoundError:
            raise WorkbenchError.lacking("sacrebleu", "BLEU", "judges") from None
        self._bleu = BLEU(
            smooth_method="exp", tokenize="intl", lowercase=False, effective_order=False
        )
        self.identity = f"sacrebleu {version('sacrebleu')}: sentences, intl tokens, smoothed exp"

    def likeness(self, pairs: Pairs) -> Float[np.ndarray, "pair kind"]:
        """BLEU of each answer and its reference."""
        scores = [self._bleu.corpus_score([answer], [[told]]).score for answer, told in pairs]
        return np.array(scores, dtype=float).reshape(-1, 1)


@MEASURES.register("rouge")
class Rouge:
    """F-measures of ROUGE-1, ROUGE-2 and ROUGE-L over lines (Lin 2004), without stemming.

    A full stop between spaces counts as the end of a line.

    Raises:
        WorkbenchError: rouge-score is not installed.
    """

    name = "rouge"
    kinds: tuple[str, ...] = ("rouge1", "rouge2", "rougeL")
    limits = (
        "Words shared with the question's reference answers, not truth: an answer in other words "
        "is missed, and a negation counts as one word among many. ROUGE-1's sign is right for 64 % "
        "of TruthfulQA's answers, held out, where chance is 50 %. No headline."
    )

    def __init__(self) -> None:
        try:
            from rouge_score.rouge_scorer import RougeScorer
        except ModuleNotFoundError:
            raise WorkbenchError.lacking("rouge-score", "ROUGE", "judges") from None
        self._types = ("rouge1", "rouge2", "rougeLsum")
        self._scorer = RougeScorer(self._types, use_stemmer=False)
        self.identity = f"rouge-score {version('rouge-score')}: {', '.join(self._types)}, unstemmed"

    def likeness(self, pairs: Pairs) -> Float[np.ndarray, "pair kind"]:
        """The three F-measures of each answer and its reference."""
        rows = []
        for answer, told in pairs:
            found = self._scorer.score(_lines(told), _lines(answer))
            rows.append([100 * found[kind].fmeasure for kind in self._types])
        return np.array(rows, dtype=float).reshape(-1, len(self.kinds))


def _lines(text: str) -> str:
    return text.replace(" . ", ".\n")
