"""Evaluation: model × edits × data → one tidy table, a value a row; summaries come from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any

import numpy as np
import pandas as pd

from workbench.data.crows_pairs import PairSet
from workbench.data.questions import QuestionSet, require_questions
from workbench.data.stereoset import StereotypeSet
from workbench.data.toxicity_prompts import PromptSet
from workbench.edits import Edit
from workbench.errors import WorkbenchError
from workbench.judges.base import Judge, missing_judge
from workbench.metrics.fairness import icat
from workbench.models import Model, identify
from workbench.statistics import bootstrap_of_means, holm, paired_difference
from workbench.tasks.fairness import fairness, pair_preference
from workbench.tasks.harmlessness import harmlessness
from workbench.tasks.rows import Measured, side_effect_rows
from workbench.tasks.truthfulness import truthfulness

COLUMNS = ("model", "task", "method", "setting", "draw", "fold", "question", "metric", "value")
Data = QuestionSet | PromptSet | StereotypeSet | PairSet
GIVEN = ("model", "questions", "prompts", "items", "pairs", "edits", "judge", "judges", "progress")
Statistic = Callable[[np.ndarray], np.ndarray]


def evaluate(
    model: Model,
    data: Data,
    edits: Mapping[str, Edit | Sequence[Edit] | None],
    *,
    fold: int = 0,
    judges: Sequence[Judge] = (),
    texts: Sequence[str] = (),
    progress: bool = True,
    **settings: Any,
) -> pd.DataFrame:
    """Measure every edit on the same test data.

    Args:
        model: the bridge.
        data: what to measure on: questions (see `tasks.truthfulness`), prompts
            (`tasks.harmlessness`), StereoSet's items or CrowS-Pairs' pairs (`tasks.fairness`).
        edits: a name for every edit; None is the model itself, and several edits under one name
            are draws of a random control.
        fold: recorded in the table.
        judges: of the texts that are written; prompts need one of toxicity.
        texts: plain texts for cross-entropy and KL from the unedited model.
        progress: show bars.
        settings: of the task, such as `style`, `max_new_tokens`, `samples` or `batch_size`.

    Returns:
        Columns `model`, `task`, `method`, `setting` (the edit's heads and strength), `draw`,
        `fold`, `question` (what is resampled whole: a question, a prompt, a target term, a pair, a
        plain text), `metric` and `value`. The metrics are listed with the tasks; with `texts`
        there are also `cross_entropy` and `kl`.

    Raises:
        WorkbenchError: no edits, data of an unknown kind, or prompts without a judge.
    """
    if not isinstance(edits, Mapping) or not edits:
        came = "no edits" if isinstance(edits, Mapping) else f"a {type(edits).__name__}"
        raise WorkbenchError(
            f"{came} to evaluate", "a mapping such as {'no edit': None, 'TAE': edit}"
        )
    named = [
        (method, draw, one)
        for method, own in edits.items()
        for draw, one in enumerate(own if isinstance(own, Sequence) else [own])
    ]
    empty = [method for method, own in edits.items() if isinstance(own, Sequence) and not own]
    if empty:
        raise WorkbenchError(f"no edits under the name {empty[0]!r}", "an edit, edits or None")
    task, measured = _task(
        model, data, [edit for *_, edit in named], judges, progress=progress, **settings
    )
    name = identify(model).name
    rows = [
        (name, task, method, setting_of(edit), draw, fold, *row)
        for (method, draw, edit), own in zip(named, measured, strict=True)
        for row in (*own, *side_effect_rows(model, texts, edit))
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _task(
    model: Model, data: Data, edits: Sequence[Edit | None], judges: Sequence[Judge], **settings: Any
) -> tuple[str, Measured]:
    """The task that belongs to a kind of data."""
    kinds: dict[type, tuple[str, Any]] = {
        PromptSet: ("harmlessness", harmlessness),
        StereotypeSet: ("fairness", fairness),
        PairSet: ("fairness", pair_preference),
    }
    task, measure = kinds.get(type(data), ("truthfulness", truthfulness))
    if task == "truthfulness":
        require_questions(data)
    known = [name for name in signature(measure).parameters if name not in GIVEN]
    unknown = [name for name in settings if name not in known and name != "progress"]
    if unknown:
        raise WorkbenchError(f"the setting {unknown[0]!r} of {task}", f"one of {', '.join(known)}")
    if isinstance(data, PromptSet):
        toxicity = [judge for judge in judges if judge.name == "toxicity"]
        if not toxicity:
            raise missing_judge("toxicity")
        return task, measure(model, data, edits, toxicity[0], **settings)
    extra = {"judges": judges} if task == "truthfulness" else {}
    return task, measure(model, data, edits, **extra, **settings)


def setting_of(edit: Edit | None) -> str:
    """An edit's size and strength in a few words."""
    return "" if edit is None else f"{len(edit.heads)} heads, alpha {edit.alpha:g}"


def summary(table: pd.DataFrame, *, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """Mean and bootstrap interval by question of every model, task, method and metric.

    Draws are averaged per question first. Metrics of means come with them: `true_x_info`, the
    product of the two; `perplexity`, the exponential of `continuation_nats`; `icat` of `lms` and
    `ss`. The intervals hold the fitted edits fixed: they tell how far another sample of questions
    could move the mean, not how far another fit or draw could.

    Args:
        table: from `evaluate`, or several of them concatenated (folds have different questions).
        level: coverage of the intervals.
        seed: of the bootstrap.

    Returns:
        Columns `model`, `task`, `method`, `metric`, `mean`, `low`, `high`, `questions` (how many),
        in the table's order.

    Raises:
        WorkbenchError: a table without `evaluate`'s columns, or one that measures a question twice.
    """
    rows = []
    for key, values in _by_method(table).items():
        for metric, (parts, statistic) in _metrics(values.columns).items():
            own = values[list(parts)].dropna()
            found = bootstrap_of_means(own.to_numpy(), statistic, level=level, seed=seed)
            rows.append((*key, metric, found.mean, found.low, found.high, found.count))
    columns = ["model", "task", "method", "metric", "mean", "low", "high", "questions"]
    return pd.DataFrame(rows, columns=columns)


def compare(
    table: pd.DataFrame, against: str, *, level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Every method minus one of them, on the same questions.

    Args:
        table: from `evaluate`, or several of them concatenated.
        against: the method to subtract.
        level: coverage of the intervals, each by itself.
        seed: of bootstrap and permutations.

    Returns:
        Columns `model`, `task`, `metric`, `method`, `against`, `difference`, `low`, `high`, `p`
        (a permutation test's), `p_holm` (corrected for all rows of the result that belong to the
        same model and task) and `questions` (how many).

    Raises:
        WorkbenchError: no such method, or two methods that were measured on different questions.
    """
    measured = _by_method(table)
    rows = []
    for (model, task, method), values in measured.items():
        base = measured.get((model, task, against))
        if base is None:
            known = sorted({name for *_, name in measured})
            raise WorkbenchError(
                f"no method {against!r} for {task} on {model}", f"one of {', '.join(known)}"
            )
        if method == against:
            continue
        for metric, (parts, statistic) in _metrics(values.columns).items():
            if not set(parts) <= set(base.columns):
                continue
            one, other = values[list(parts)].dropna(), base[list(parts)].dropna()
            _require_same(one.index, other.index, method, against, metric)
            found = paired_difference(
                one.to_numpy(), other.loc[one.index].to_numpy(), statistic, level=level, seed=seed
            )
            rows.append(
                (model, task, metric, method, against, found.difference, found.low, found.high,
                 found.p, found.count)
            )  # fmt: skip
    columns = ["model", "task", "metric", "method", "against", "difference", "low", "high", "p",
               "questions"]  # fmt: skip
    result = pd.DataFrame(rows, columns=columns)
    corrected = result.groupby(["model", "task"], sort=False)["p"].transform(
        lambda own: holm(own.tolist())
    )
    result.insert(columns.index("questions"), "p_holm", corrected)
    return result


def _by_method(table: pd.DataFrame) -> dict[tuple[str, str, str], pd.DataFrame]:
    """For every model, task and method a frame: a row a question, a column a metric."""
    absent = [column for column in COLUMNS if column not in table]
    if absent:
        raise WorkbenchError(f"a table without the column {absent[0]!r}", "a table of `evaluate`")
    keys = ["model", "task", "method", "draw", "fold", "question", "metric"]
    twice = table.duplicated(keys)
    if twice.any():
        row = table[twice].iloc[0]
        raise WorkbenchError(
            f"{row['metric']} of {row['method']} twice for {row['question']!r} in fold "
            f"{row['fold']}",
            "every value once",
            "Give different names to different methods and folds.",
        )
    found: dict[tuple[str, str, str], pd.DataFrame] = {}
    for key, part in table.groupby(["model", "task", "method"], sort=False):
        model, task, method = map(str, key)
        metrics = list(dict.fromkeys(part["metric"]))
        values = part.pivot_table(
            index=["fold", "question"], columns="metric", values="value", aggfunc="mean"
        )
        found[model, task, method] = values[metrics]
    return found


def _metrics(measured: pd.Index) -> dict[str, tuple[tuple[str, ...], Statistic]]:
    """Every metric's columns and what is made of their means: measured ones, then derived ones."""
    found: dict[str, tuple[tuple[str, ...], Statistic]] = {
        metric: ((metric,), _first) for metric in measured
    }
    if {"true", "info"} <= set(measured):
        found["true_x_info"] = (("true", "info"), _product)
    if "continuation_nats" in measured:
        found["perplexity"] = (("continuation_nats",), _exponential)
    for metric in measured:
        kind = metric.removeprefix("lms")
        if metric.startswith("lms") and f"ss{kind}" in measured:
            found[f"icat{kind}"] = ((metric, f"ss{kind}"), _icat)
    return found


def _first(means: np.ndarray) -> np.ndarray:
    return np.asarray(means[..., 0])


def _product(means: np.ndarray) -> np.ndarray:
    return np.asarray(means[..., 0] * means[..., 1])


def _exponential(means: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(means[..., 0]))


def _icat(means: np.ndarray) -> np.ndarray:
    return np.asarray(np.vectorize(icat)(means[..., 0], means[..., 1]))


def _require_same(one: pd.Index, other: pd.Index, method: str, against: str, metric: str) -> None:
    """Refuse to compare methods on different questions; a question of only one is named."""
    apart = one.symmetric_difference(other)
    if len(apart):
        fold, question = apart[0]
        lacking = against if apart[0] in one else method
        raise WorkbenchError(
            f"{metric} of {method!r} and {against!r} on different questions: {lacking!r} lacks "
            f"{question!r} of fold {fold} ({len(apart)} such)",
            "both measured on the same questions",
        )
