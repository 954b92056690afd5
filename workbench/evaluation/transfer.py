"""Transfer: what is fitted on one kind of questions, measured on others.

Kinds are data sets, wordings, prompt formats or whatever else a user tells apart. Every kind has
questions to fit on and others to test on; no question of any kind's test half may be trained on.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from workbench.data.questions import QuestionSet
from workbench.data.shared import shared_questions
from workbench.doors import door, door_of_class
from workbench.editing.interventions import OTHER_STYLE, Intervention
from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.rows import NO_EDIT
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.statistics import holm
from workbench.evaluation.tables import compare
from workbench.methods.base import Method
from workbench.methods.memo import Memo
from workbench.models.identity import Model
from workbench.models.prompts import PromptFormat


@door_of_class
@dataclass(frozen=True)
class Domain:
    """A kind of questions.

    Attributes:
        train: to fit on.
        test: to measure on.
        style: prompt format of both.

    Example:
        >>> wb.evaluation.Domain.of(questions).test
        QuestionSet('hearsay': 12 questions, 120 answers)
    """

    train: QuestionSet
    test: QuestionSet
    style: str | PromptFormat = "bare"

    @classmethod
    def of(
        cls,
        questions: QuestionSet,
        style: str | PromptFormat = "bare",
        *,
        folds: int = 2,
        number: int = 0,
        seed: int = 0,
    ) -> Domain:
        """One fold of a question set.

        Sets with the same facts in the same order, such as two wordings of hearsay's, have the same
        ones in the same fold.
        """
        fold = questions.folds(folds, seed)[number]
        return cls(fold.train, fold.test, style)


@door
def transfer(
    model: Model,
    methods: Mapping[str, Method],
    domains: Mapping[str, Domain],
    *,
    progress: bool = True,
    **settings: Any,
) -> pd.DataFrame:
    """Fit every method on every domain, and measure each fit on all of them.

    Args:
        model: the bridge.
        methods: what to fit, by name; their own `style` gives way to the domain's.
        domains: by name.
        progress: show bars.
        settings: of truthfulness, as for `evaluate`, but for `style`.

    Returns:
        A table of `evaluate`, with further columns `fitted_on` ("" of the unedited model) and
        `tested_on`; a fold is a domain. See `transfers` for what it says.

    Raises:
        WorkbenchError: fewer than two domains, no methods, or a question that one domain trains on
            and another, or the same, tests.

    Example:
        >>> domains = {
        ...     "bare": wb.evaluation.Domain.of(questions),
        ...     "inline": wb.evaluation.Domain.of(questions, "inline"),
        ... }
        >>> methods = {"ITI": wb.methods.inference_time(heads=4, alpha=5)}
        >>> table = wb.evaluation.transfer(model, methods, domains, progress=False)
        >>> sorted(set(table["fitted_on"]))
        ['', 'bare', 'inline']
    """
    if len(domains) < 2 or not methods:
        raise WorkbenchError(
            f"{len(methods)} methods and {len(domains)} domains", "a method, and two domains"
        )
    require_apart(domains)
    edits: dict[str, dict[str, Intervention]] = {name: {} for name in methods}
    for where, domain in domains.items():
        memo = Memo()
        for name, method in methods.items():
            styled = replace(method, style=domain.style)
            edits[name][where] = styled.fit(model, domain.train, memo=memo, progress=progress)
    parts = []
    for number, (where, domain) in enumerate(domains.items()):
        named: dict[str, Any] = {NO_EDIT: None}
        named |= {
            f"{name}, fitted on {source}": edit
            for name, own in edits.items()
            for source, edit in own.items()
        }
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=OTHER_STYLE)  # which is the purpose
            table = evaluate(
                model, domain.test, named, fold=number, progress=progress, style=domain.style,
                **settings,
            )  # fmt: skip
        source = table["method"].str.partition(", fitted on ")[2]
        parts.append(table.assign(fitted_on=source, tested_on=where))
    return pd.concat(parts, ignore_index=True)


@door
def transfers(table: pd.DataFrame, metric: str = "mc2", *, seed: int = 0) -> pd.DataFrame:
    """What every method gains on every domain over the unedited model, by where it was fitted.

    Args:
        table: from `transfer`.
        metric: a measured one, or one of means such as `true_x_info`.
        seed: of bootstrap and permutations.

    Returns:
        Columns `method`, `fitted_on`, `tested_on`, `metric`, `difference`, `low`, `high`, `p`,
        `p_holm` (corrected for all of the matrix) and `questions`.

    Raises:
        WorkbenchError: a table that `transfer` did not make, or no such metric.

    Example:
        >>> domains = {
        ...     "bare": wb.evaluation.Domain.of(questions),
        ...     "inline": wb.evaluation.Domain.of(questions, "inline"),
        ... }
        >>> methods = {"ITI": wb.methods.inference_time(heads=4, alpha=5)}
        >>> table = wb.evaluation.transfer(model, methods, domains, progress=False)
        >>> gains = wb.evaluation.transfers(table, "mc1")
        >>> len(gains), gains["tested_on"].tolist()
        (4, ['bare', 'bare', 'inline', 'inline'])
    """
    for column in ("fitted_on", "tested_on"):
        if column not in table:
            raise WorkbenchError(f"a table without the column {column!r}", "one of `transfer`")
    parts = []
    for where, own in table.groupby("tested_on", sort=False):
        found = compare(own, NO_EDIT, primary=[metric], seed=seed)
        parts.append(found[found["metric"] == metric].assign(tested_on=where))
    both = pd.concat(parts, ignore_index=True)
    split = both["method"].str.partition(", fitted on ")
    both = both.assign(method=split[0], fitted_on=split[2], p_holm=holm(both["p"].tolist()))
    columns = ["method", "fitted_on", "tested_on", "metric", "difference", "low", "high", "p",
               "p_holm", "questions"]  # fmt: skip
    return both[columns]


def require_apart(domains: Mapping[str, Domain]) -> None:
    """Refuse a question that is trained on and tested, whatever the domains.

    The same question is one with the same words, whatever their case and the signs between them, or
    with exactly the same correct and incorrect answers: it may be asked in other words.
    """
    for source, fitted in domains.items():
        for where, tested in domains.items():
            shared = shared_questions(fitted.train, tested.test)
            if shared:
                raise WorkbenchError(
                    f"{len(shared)} questions that {source!r} trains on and {where!r} tests "
                    f"(first: {shared[0]!r:.80})",
                    "domains whose test questions nobody trains on",
                    "Split both by the same folds, or leave the shared questions out.",
                )
