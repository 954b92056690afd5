"""Choosing: which of several settings serves a capability best, on training questions alone."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from workbench.doors import door
from workbench.editing.interventions import Intervention
from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.rows import NO_EDIT
from workbench.evaluation.capabilities.splits import Split
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.judges.base import Judge
from workbench.evaluation.tables import summary
from workbench.methods.base import Method
from workbench.methods.memo import Memo
from workbench.models.identity import Model

PERPLEXITY_LIMIT = 1.2
"""Times the unedited model's: what a harmless continuation may cost, see `choose`."""
CRITERIA = ("icat", "true_x_info", "mc2")
"""What is chosen by, the first of them that is measured, where nothing is said."""
NOT_CHOSEN_BY = (
    "references", "metrics", "binary", "own_answers", "right_answers", "long_answers", "unrelated",
)  # fmt: skip
"""Settings of capabilities whose measures cost time and choose nothing."""


@door
def choose(
    model: Model,
    candidates: Sequence[Method],
    split: Split,
    *,
    by: str | None = None,
    judges: Sequence[Judge] = (),
    memo: Memo | None = None,
    progress: bool = False,
    **settings: Any,
) -> Method:
    """The settings that serve a capability best on the split's inner test data.

    Every candidate is fitted on the inner training questions, those that differ in α alone once
    (on their part of the activations of all training questions, which the fit needs afterwards);
    the smallest α, and then the first, of equally good candidates wins. Good is: the most answers
    that are true and informative (or, without anybody to tell, the highest MC2); the fewest toxic
    continuations whose perplexity is at most 1.2 times the unedited model's; the highest ICAT.
    Where nobody keeps to that perplexity, the smallest α is taken, with a warning.

    Args:
        model: the bridge.
        candidates: what to choose from.
        split: with an inner split.
        by: a metric that is better when larger, instead of those named above.
        judges: as for `evaluate`.
        memo: of this model.
        progress: show bars.
        settings: of the capability, as for `evaluate`.

    Raises:
        WorkbenchError: no candidates, a split without an inner one, or a metric that is not
            measured.

    Example:
        >>> inner = wb.evaluation.Split(
        ...     "truthfulness", 0, fold.train.choose(range(8)), fold.train.choose(range(8, 12)),
        ...     fold.train, "bare",
        ... )
        >>> split = wb.evaluation.Split(
        ...     "truthfulness", 0, fold.train, fold.test, questions, "bare", inner
        ... )
        >>> candidates = [wb.methods.inference_time(heads=4, alpha=alpha) for alpha in (0.1, 5)]
        >>> wb.evaluation.choose(model, candidates, split).alpha
        5
    """
    if not candidates or split.inner is None:
        raise WorkbenchError(
            f"{len(candidates)} candidates to choose from", "at least one, and an inner split"
        )
    if len(candidates) == 1:
        return candidates[0]
    inner = split.inner
    for name in NOT_CHOSEN_BY:
        settings.pop(name, None)
    ordered = sorted(dict.fromkeys(candidates), key=lambda method: abs(method.alpha))
    fitted: dict[Method, Intervention] = {}
    memo = memo or Memo()
    with memo.within(split.train):
        for method in ordered:
            alike = replace(method, alpha=1.0)
            if alike not in fitted:
                fitted[alike] = alike.fit(
                    model, inner.train, everything=inner.everything if method.leaks else None,
                    memo=memo, progress=progress,
                )  # fmt: skip
    edits: dict[str, Intervention | None] = {
        str(number): fitted[replace(method, alpha=1.0)].scaled(method.alpha)
        for number, method in enumerate(ordered)
    }
    table = evaluate(
        model, inner.test, {NO_EDIT: None, **edits}, judges=judges, progress=progress, **settings
    )
    means = _means(table)
    if by is None and "perplexity" in means:
        allowed = PERPLEXITY_LIMIT * means["perplexity"][NO_EDIT]
        good = [name for name in edits if means["perplexity"][name] <= allowed]
        if not good:
            _warn_of_perplexity(
                ordered, [float(means["perplexity"][name]) for name in edits], allowed
            )
        best = min(good or list(edits)[:1], key=lambda name: float(means["share_toxic"][name]))
        return ordered[int(best)]
    metric = by or next(name for name in CRITERIA if name in means)
    if metric not in means:
        raise WorkbenchError.unknown(f"by={by!r}", by, means)
    return ordered[int(max(edits, key=lambda name: float(means[metric][name])))]


def _warn_of_perplexity(
    candidates: Sequence[Method], perplexity: Sequence[float], allowed: float
) -> None:
    told = ", ".join(
        f"α={method.alpha:g} {own:.3g}" for method, own in zip(candidates, perplexity, strict=True)
    )
    warnings.warn(
        f"no candidate keeps the perplexity of continuations within {PERPLEXITY_LIMIT} times the "
        f"unedited model's, {allowed:.3g} ({told}): the smallest α is taken. Offer smaller ones.",
        stacklevel=3,
    )


def _means(table: pd.DataFrame) -> pd.DataFrame:
    """A row a method, a column a metric."""
    return summary(table).pivot_table(index="method", columns="metric", values="mean")
