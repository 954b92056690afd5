"""The demo: TAE fitted, inspected, applied and evaluated on hearsay or a real model, in folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from tqdm.auto import tqdm

from workbench import plots, storage
from workbench.analysis.risk import RiskAuroc, risk_auroc
from workbench.data.plain import plain_texts
from workbench.data.questions import Fold, QuestionSet
from workbench.data.sources import load_questions
from workbench.editing.head_edits import Edit
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.tables import compare, summary
from workbench.methods.controls import random_directions
from workbench.methods.iti import inference_time
from workbench.methods.token_aware import TokenAware
from workbench.models.identity import Model
from workbench.models.loading import load_model
from workbench.pages.demo_parts import (
    Criterion,
    Example,
    choose_alpha,
    example_figures,
    fold_figures,
    worked_examples,
)
from workbench.stages.activations import TokenActivations

COMPARED = ("says_truth", "mc1", "mc2", "mc3")
"""Metrics whose differences from the unedited model are drawn and told."""


def _hearsay_alphas() -> dict[str, tuple[float, ...]]:
    return dict.fromkeys(("ITI", "TAE"), (0.5, 1.0, 1.5, 2.0, 3.0))


@dataclass(frozen=True)
class DemoSettings:
    """What a demo runs on, and its sizes; the defaults are hearsay's.

    Attributes:
        model: for `load_model`.
        questions: for `load_questions`.
        sample: so many of the questions, drawn by the seed; all by default.
        style: prompt format.
        heads: K, the published one by default.
        alphas: α's to choose from, of ITI and of TAE, in each fold on training questions alone.
        criterion: what α is chosen by; see `choose_alpha`.
        folds, seed: how questions are split.
        controls: whose heads and strength the controls have. ITI's cost no uncertainty.
        draws: random directions a fold, half of them opposites of the other half.
        texts: plain texts for side effects, a fold.
        text_kind: `hearsay` or `english`; see `plain_texts`.
        tokens: most tokens of a greedy answer.
        examples: questions shown with their answers.
        drawn: questions that they are taken from.
        risk: judge p̂ by hearsay's ground truth.
    """

    model: Any = "hearsay"
    questions: storage.PathLike = "hearsay"
    sample: int | None = None
    style: str = "bare"
    heads: int = 16
    alphas: Mapping[str, tuple[float, ...]] = field(default_factory=_hearsay_alphas)
    criterion: Criterion = "says_truth"
    folds: int = 2
    seed: int = 0
    controls: Literal["ITI", "TAE"] = "TAE"
    draws: int = 4
    texts: int = 32
    text_kind: str = "hearsay"
    tokens: int = 32
    examples: int = 3
    drawn: int = 24
    risk: bool = True


@dataclass(frozen=True)
class Fitted:
    """One fold's edits, for those who look further.

    Attributes:
        model: the bridge.
        fold: training and test questions.
        edits: ITI's and TAE's, at the chosen α.
    """

    model: Model
    fold: Fold
    edits: dict[str, Edit]


@dataclass(frozen=True)
class DemoResult:
    """Everything that the demo shows.

    Attributes:
        settings: what it ran on.
        questions: all questions that were split into folds.
        table, summary: from `evaluate` and `summary`.
        compared: paired differences from the unedited model, and of TAE from ITI.
        alphas: the chosen α of each method, a mapping a fold.
        risk: how well p̂ finds misaligned tokens, a record a fold; empty where nobody can tell.
        examples: worked examples of the first fold.
        fitted: the first fold's edits.
        files: what was written.
    """

    settings: DemoSettings
    questions: QuestionSet
    table: pd.DataFrame
    summary: pd.DataFrame
    compared: pd.DataFrame
    alphas: list[dict[str, float]]
    risk: list[RiskAuroc]
    examples: list[Example]
    fitted: Fitted
    files: list[Path]


def run_demo(
    folder: storage.PathLike, settings: DemoSettings | None = None, *, progress: bool = True
) -> DemoResult:
    """Evaluate ITI and TAE beside their controls and draw what TAE saw.

    The controls are no edit, random directions and shuffled labels.

    Args:
        folder: receives `results.parquet`, `summary.json` and the figures.
        settings: what to run on, and sizes; hearsay by default.
        progress: show bars.

    Raises:
        WorkbenchError: more questions wanted than there are, or what a part of it refuses.
    """
    chosen = settings or DemoSettings()
    questions = load_questions(chosen.questions).sample(chosen.sample, chosen.seed)
    storage.make_folder(folder)
    model = load_model(chosen.model)
    tables, risks, alphas = [], [], []
    figures: dict[str, Any] = {}
    examples: list[Example] = []
    first: Fitted | None = None
    for fold in tqdm(
        questions.folds(chosen.folds, chosen.seed), desc="folds", disable=not progress
    ):
        methods = {
            "ITI": inference_time(heads=chosen.heads, seed=chosen.seed, style=chosen.style),
            "TAE": TokenAware(heads=chosen.heads, seed=chosen.seed, style=chosen.style),
        }
        method = methods["TAE"]
        activations = method.capture(model, fold.train, progress=progress)
        fitted = fit_methods(model, methods, activations, chosen, progress=progress)
        alphas.append({name: edit.alpha for name, edit in fitted.items()})
        tables.append(
            evaluate(
                model,
                fold.test,
                with_controls(model, methods, fitted, activations, chosen, fold.number),
                fold=fold.number,
                texts=plain_texts(chosen.text_kind, chosen.texts, fold.number),
                style=chosen.style,
                max_new_tokens=chosen.tokens,
                progress=progress,
            )
        )
        if chosen.risk:
            held = method.capture(model, fold.test, progress=progress, unlabelled=False)
            risks.append(risk_auroc(fitted["TAE"], held))
        if first is None:
            first = Fitted(model, fold, fitted)
            examples = worked_examples(
                model, fold, method, fitted["TAE"], count=chosen.examples, drawn=chosen.drawn,
                max_new_tokens=chosen.tokens,
            )  # fmt: skip
            figures |= fold_figures(fold, method, activations, fitted["TAE"])
    assert first is not None
    figures |= example_figures(examples, first.edits["TAE"])
    table = pd.concat(tables, ignore_index=True)
    found, compared = summary(table), differences_of(table)
    plain = compared[compared["against"] == "no edit"]
    metrics = [metric for metric in COMPARED if metric in set(plain["metric"])]
    figures["differences"] = plots.differences(
        plain, metrics, title="Held-out questions, minus no edit"
    )
    files = write_results(folder, table, found, figures, progress=progress)
    return DemoResult(
        chosen, questions, table, found, compared, alphas, risks, examples, first, files
    )


def fit_methods(
    model: Model,
    methods: Mapping[str, TokenAware],
    activations: TokenActivations,
    settings: DemoSettings,
    *,
    progress: bool,
) -> dict[str, Edit]:
    """Every method, fitted on the training questions, at the α that these choose."""
    fitted = {}
    for name, method in methods.items():
        alpha = choose_alpha(
            model, method, activations, settings.alphas[name], settings.criterion,
            max_new_tokens=settings.tokens,
        )  # fmt: skip
        edit = method.fit(model, activations.questions, activations=activations, progress=progress)
        fitted[name] = edit.scaled(alpha)
    return fitted


def with_controls(
    model: Model,
    methods: Mapping[str, TokenAware],
    fitted: Mapping[str, Edit],
    activations: TokenActivations,
    settings: DemoSettings,
    number: int,
) -> dict[str, Edit | Sequence[Edit] | None]:
    """The fitted edits of a fold behind their controls."""
    own = fitted[settings.controls]
    shuffled = replace(methods[settings.controls], shuffle_labels=True, alpha=own.alpha)
    return {
        "no edit": None,
        "random direction": random_directions(own, settings.draws, settings.seed + number),
        "shuffled labels": shuffled.fit(
            model, activations.questions, activations=activations, progress=False
        ),
        **fitted,
    }


def differences_of(table: pd.DataFrame) -> pd.DataFrame:
    """Every method minus no edit, and TAE minus ITI, paired by question; see `compare`."""
    shown = table[table["metric"].isin(COMPARED)]
    two = shown[shown["method"].isin(["ITI", "TAE"])]
    return pd.concat([compare(shown, "no edit"), compare(two, "ITI")], ignore_index=True)


def write_results(
    folder: storage.PathLike,
    table: pd.DataFrame,
    found: pd.DataFrame,
    figures: dict[str, Any],
    *,
    progress: bool,
) -> list[Path]:
    """Write table, summary and figures; images only where a browser can draw them."""
    target = Path(folder)
    files = [
        storage.write_table(target / "results.parquet", table),
        storage.write_json(target / "summary.json", found.to_dict("records")),
    ]
    bar = tqdm(figures.items(), desc="figures", disable=not progress, leave=False)
    with storage.drawing() as image:
        for name, figure in bar:
            files += storage.write_figure(target / name, figure, image=image)
    return files
