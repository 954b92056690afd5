"""A control of multiple choice: a classifier that never sees the question.

A decision tree on features of answers alone gets 79.6 % of TruthfulQA's MC1 (Turner & Kurzeja 2025,
"Gaming TruthfulQA"). What an edit gains there may be style, which this control knows too: words and
parts of words of the answers, weighed by a logistic regression, fitted on training questions.
"""

from __future__ import annotations

import pandas as pd

from workbench.data.questions import QuestionSet, require_questions
from workbench.doors import door
from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.rows import COLUMNS
from workbench.evaluation.metrics.truth import multiple_choice
from workbench.models.identity import Model, identify

NAME = "answers alone"


@door
def answers_alone(
    model: Model, train: QuestionSet, test: QuestionSet, *, fold: int = 0, penalty: float = 1.0
) -> pd.DataFrame:
    """MC1, MC2, MC3 and the binary choice of answers that are judged without their questions.

    An answer's log-probability is that of being correct by a logistic regression on the tf-idf of
    its words, pairs of words, and three to five letters in a row.

    Args:
        model: of a table that this is put beside; its name alone is asked.
        train: the questions to fit on.
        test: other questions.
        fold: what the table calls the questions' fold.
        penalty: the regression's C, the inverse of its penalty.

    Returns:
        Rows as `evaluate` has them, of the method "answers alone".

    Raises:
        WorkbenchError: questions that are on both sides, or a penalty that is not above 0.

    Example:
        >>> import pandas as pd
        >>> control = wb.evaluation.answers_alone(model, fold.train, fold.test)
        >>> means = wb.summary(pd.concat([table, control])).query("metric == 'mc1'")
        >>> means.set_index("method")["mean"].round(2).to_dict()
        {'no edit': 0.25, 'TAE': 0.92, 'answers alone': 0.25}
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    require_questions(train)
    require_questions(test)
    both = {one.question for one in train} & {one.question for one in test}
    if both:
        raise WorkbenchError(
            f"{len(both)} questions to fit on and to test on (first: {min(both)!r:.80})",
            "different ones, such as a fold's",
        )
    if not penalty > 0:
        raise WorkbenchError(f"penalty={penalty!r}", "a number above 0")
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", sublinear_tf=True)
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    judge = make_pipeline(
        make_union(words, letters),
        LogisticRegression(C=penalty, class_weight="balanced", max_iter=1000),
    )
    judge.fit([a for one in train for a in one.answers], [y for one in train for y in one.labels])
    common = (identify(model).label, "truthfulness", NAME, f"tf-idf, C {penalty:g}", 0, fold)
    rows = []
    for one in test:
        nats = judge.predict_log_proba(list(one.answers))[:, 1].tolist()
        right, wrong = nats[: len(one.correct_answers)], nats[len(one.correct_answers) :]
        best = one.correct_answers.index(one.best_answer)
        found = multiple_choice(right, wrong, best)
        values = {name: getattr(found, name) for name in ("mc1", "mc2", "mc3")}
        values["binary"] = float(right[best] > wrong[0])
        rows += [(*common, one.question, name, value) for name, value in values.items()]
    return pd.DataFrame(rows, columns=list(COLUMNS))
