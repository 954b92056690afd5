"""A control of multiple choice: a model that knows of answers only how many tokens they have.

An edit that ruins a model moves MC1 and MC2 to there, and not to zero: where every token is as
likely, a short answer is likelier than a long one, whatever they say. What is to be evidence of
truth must be told from this, not from the unedited model alone. Lengths tie often (the best answer
with the shortest wrong one in 89 of TruthfulQA's 817 questions, in SmolLM2's tokens), which
log-probabilities hardly ever do: lost, as MC1 has it, such ties would set the control too low, so
they are shared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import pandas as pd

from workbench.data.questions import QuestionSet, require_questions
from workbench.doors import door
from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.rows import COLUMNS
from workbench.evaluation.metrics.truth import multiple_choice
from workbench.models.identity import Model, identify
from workbench.models.prompts import AnswerStart, PromptFormat, encode, prompt_format


@door
def lengths_alone(
    model: Model,
    questions: QuestionSet,
    *,
    nats: float = 2.0,
    fold: int = 0,
    style: str | PromptFormat = "bare",
    answer_start: AnswerStart = "offsets",
) -> pd.DataFrame:
    """MC1, MC2 and MC3 where every token of an answer has the same log-probability.

    Args:
        model: the bridge, of which the tokenizer alone is asked.
        questions: what to ask.
        nats: a token's surprise; SmolLM2's answers have about 2. Above 0, MC1 and MC3 do not depend
            on it; MC2 goes from the share of correct answers, at 0, to that of the shortest ones.
        fold: what the table calls the questions' fold.
        style: prompt format.
        answer_start: how the first scored token is found; see `score`.

    Returns:
        Rows as `evaluate` has them, of the method "lengths alone", MC1 and MC3 as if ties were
        broken at random: to be put below a table of the
        same questions, `pd.concat([table, lengths_alone(...)])`, and compared with it.

    Raises:
        WorkbenchError: a surprise that is no number from 0 on.

    Example:
        >>> import pandas as pd
        >>> control = wb.evaluation.lengths_alone(model, fold.test)
        >>> means = wb.summary(pd.concat([table, control])).query("metric == 'mc2'")
        >>> means.set_index("method")["mean"].round(2).to_dict()
        {'no edit': 0.41, 'TAE': 0.96, 'lengths alone': 0.24}
    """
    require_questions(questions)
    if not isinstance(nats, int | float) or not 0 <= nats < math.inf:
        raise WorkbenchError(f"nats={nats!r:.60}", "a number from 0 on")
    chosen, rows = prompt_format(style), []
    common = (identify(model).label, "truthfulness", "lengths alone", f"{nats:g} nats a token", 0)
    for one in questions:
        right, wrong = (
            [-nats * len(encode(model, one.question, answer, chosen, answer_start).answer_tokens)
             for answer in answers]
            for answers in (one.correct_answers, one.incorrect_answers)
        )  # fmt: skip
        best = one.correct_answers.index(one.best_answer)
        found = {
            "mc1": _ahead(right[best], wrong),
            "mc2": multiple_choice(right, wrong, best).mc2,
            "mc3": fmean(_ahead(own, wrong) for own in right),
        }
        rows += [(*common, fold, one.question, name, value) for name, value in found.items()]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _ahead(own: float, wrong: Sequence[float]) -> float:
    """How probably an answer is ahead of all wrong ones if ties are broken at random."""
    return 1 / (1 + wrong.count(own)) if own == max(wrong) else float(own > max(wrong))
