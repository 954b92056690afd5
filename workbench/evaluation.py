"""Evaluation: model × edits × questions → one tidy table, a value a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from workbench.data.questions import QuestionSet, require_questions
from workbench.edits import Edit
from workbench.errors import WorkbenchError
from workbench.generation import generate
from workbench.hearsay.world import load_world
from workbench.metrics.ground_truth import judge
from workbench.metrics.side_effects import side_effects
from workbench.metrics.truth import multiple_choice
from workbench.models import Model, identify
from workbench.prompts import AnswerStart, PromptFormat, encode, prompt_format
from workbench.scoring import AnswerScore, score_under
from workbench.statistics import bootstrap_mean

COLUMNS = ("model", "method", "draw", "fold", "unit", "metric", "value")


def evaluate(
    model: Model,
    questions: QuestionSet,
    edits: Mapping[str, Edit | Sequence[Edit] | None],
    *,
    fold: int = 0,
    style: str | PromptFormat = "bare",
    answer_start: AnswerStart = "offsets",
    texts: Sequence[str] = (),
    max_new_tokens: int = 32,
    batch_size: int = 64,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure every edit on the same test questions.

    Args:
        model: the bridge.
        questions: test questions.
        edits: a name for every edit; None is the model itself, and several edits under one name
            are draws of a random control.
        fold: recorded in the table.
        style: prompt format.
        answer_start: how the first scored token is found, the same for all edits; see `score`.
        texts: plain texts for cross-entropy and KL from the unedited model.
        max_new_tokens: length of greedy answers, on hearsay's questions.
        batch_size: prompts continued together.
        progress: show a bar.

    Returns:
        Columns `model`, `method`, `draw`, `fold`, `unit` (a question, or a plain text), `metric`
        and `value`.
        Metrics: `mc1`, `mc2`, `mc3`; with `texts` also `cross_entropy` and `kl`; on hearsay also
        `says_truth`, `says_myth`, `says_neither` and `ended` of the greedy answers.

    Raises:
        WorkbenchError: no edits.
    """
    require_questions(questions)
    if not isinstance(edits, Mapping) or not edits:
        came = "no edits" if isinstance(edits, Mapping) else f"a {type(edits).__name__}"
        raise WorkbenchError(
            f"{came} to evaluate", "a mapping such as {'no edit': None, 'TAE': edit}"
        )
    known = load_world().by_question
    on_hearsay = all(question.question in known for question in questions)
    name = identify(model).name
    rows: list[dict[str, Any]] = []
    draws = {
        method: list(edit) if isinstance(edit, Sequence) else [edit]
        for method, edit in edits.items()
    }
    empty = [method for method, own in draws.items() if not own]
    if empty:
        raise WorkbenchError(f"no edits under the name {empty[0]!r}", "an edit, edits or None")
    scores = iter(
        score_under(
            model, questions, [edit for own in draws.values() for edit in own], style=style,
            answer_start=answer_start, progress=progress,
        )
    )  # fmt: skip
    for method in tqdm(edits, desc="evaluate", disable=not progress, leave=False):
        for draw, one in enumerate(draws[method]):
            found = _multiple_choice(questions, next(scores))
            if on_hearsay:
                found += _ground_truth(model, questions, one, style, max_new_tokens, batch_size)
            if texts:
                found += _side_effects(model, texts, one)
            rows += [
                dict(zip(COLUMNS, (name, method, draw, fold, *values), strict=True))
                for values in found
            ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


Row = tuple[str, str, float]


def _side_effects(model: Model, texts: Sequence[str], edit: Edit | None) -> list[Row]:
    rows: list[Row] = []
    for text, effect in zip(texts, side_effects(model, texts, edit), strict=True):
        rows += [(text, "cross_entropy", effect.cross_entropy), (text, "kl", effect.kl)]
    return rows


def _multiple_choice(questions: QuestionSet, scores: Sequence[AnswerScore]) -> list[Row]:
    rows: list[Row] = []
    for number, question in enumerate(questions):
        mine = [s for s in scores if s.question == number]
        result = multiple_choice(
            [s.total for s in mine if s.label],
            [s.total for s in mine if not s.label],
            question.correct_answers.index(question.best_answer),
        )
        rows += [(question.question, m, getattr(result, m)) for m in ("mc1", "mc2", "mc3")]
    return rows


def _ground_truth(
    model: Model,
    questions: QuestionSet,
    edit: Edit | None,
    style: str | PromptFormat,
    max_new_tokens: int,
    batch_size: int,
) -> list[Row]:
    chosen = prompt_format(style)
    prompts = [encode(model, question.question, None, chosen) for question in questions]
    written = generate(
        model, prompts, edit=edit, max_new_tokens=max_new_tokens, batch_size=batch_size
    )
    rows: list[Row] = []
    for question, continuation in zip(questions, written, strict=True):
        verdict = judge(question.question, continuation.text)
        stated = "neither" if verdict.stated == "other" else verdict.stated
        rows += [
            (question.question, f"says_{kind}", float(stated == kind))
            for kind in ("truth", "myth", "neither")
        ]
        rows.append((question.question, "ended", float(verdict.ended)))
    return rows


def summary(table: pd.DataFrame, *, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """Mean and bootstrap interval by question of every model, method and metric.

    Draws are averaged per question first. The intervals hold the fitted edits fixed: they tell how
    far another sample of questions could move the mean, not how far another fit or draw could.

    Args:
        table: from `evaluate`, or several of them concatenated (folds have different questions).
        level: coverage of the intervals.
        seed: of the bootstrap.

    Returns:
        Columns `model`, `method`, `metric`, `mean`, `low`, `high`, `units`, in the table's order.
    """
    keys = ["model", "method", "metric"]
    rows = []
    for key, part in table.groupby(keys, sort=False):
        values = part.groupby("unit", sort=True)["value"].mean().to_numpy()
        found = bootstrap_mean(values, level=level, seed=seed)
        rows.append((*key, found.mean, found.low, found.high, found.count))
    return pd.DataFrame(rows, columns=[*keys, "mean", "low", "high", "units"])
