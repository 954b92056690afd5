"""The demo: TAE fitted, inspected, applied and evaluated on hearsay or a real model, in folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pandas as pd
from tqdm.auto import tqdm

from workbench import plots, storage
from workbench.analysis.risk import RiskAuroc, risk_auroc
from workbench.data.plain import plain_texts
from workbench.data.questions import QuestionSet
from workbench.data.sources import load_questions
from workbench.editing.head_edits import Edit
from workbench.editing.interventions import Intervention
from workbench.evaluation.capabilities.rows import NO_EDIT
from workbench.evaluation.capabilities.splits import Split, splits
from workbench.evaluation.choosing import choose
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.tables import compare, summary
from workbench.methods.controls import random_directions
from workbench.methods.memo import Memo
from workbench.methods.stages import Stages
from workbench.models.fingerprints import fingerprint_of_weights
from workbench.models.identity import Model, identify, tokenizer_of
from workbench.models.loading import load_model
from workbench.pages.demo_folds import FoldResult, KeptFolds
from workbench.pages.demo_parts import (
    Example,
    example_figures,
    fold_figures,
    prompts_of,
    worked_examples,
)
from workbench.pages.demo_settings import METHODS, DemoSettings, methods_of
from workbench.runs.identity import digest, environment

COMPARED = ("says_truth", "mc1", "mc2", "mc3")
"""Metrics whose differences from the unedited model are drawn, told and corrected together."""


@dataclass(frozen=True)
class Fitted:
    """One fold's edits, for those who look further.

    Attributes:
        model: the bridge.
        train, test: the fold's questions.
        edits: ITI's and TAE's, at the chosen α.
    """

    model: Model
    train: QuestionSet
    test: QuestionSet
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
        kept: its folds, where `keep` left them.
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
    kept: KeptFolds


def run_demo(
    folder: storage.PathLike,
    settings: DemoSettings | None = None,
    *,
    progress: bool = True,
    keep: bool = False,
) -> DemoResult:
    """Evaluate ITI and TAE beside their controls and draw what TAE saw.

    The controls are no edit, random directions and shuffled labels. A fold that is finished is
    kept in the folder until all is written; where that is interrupted, the same settings, questions
    and model go on there. Nothing is written before all that can be checked has been.

    Args:
        folder: receives `results.parquet`, `summary.json`, `demo.json` and the figures.
        settings: what to run on, and sizes; hearsay by default.
        progress: show bars.
        keep: leave the kept folds for a caller who has more to write; `result.kept` removes them.

    Raises:
        WorkbenchError: more questions wanted than there are, a folder that cannot be made, or what
            a part of it refuses.
    """
    chosen = settings or DemoSettings()
    questions = load_questions(chosen.questions).sample(chosen.sample, chosen.seed)
    folds = splits("truthfulness", lambda: questions, folds=chosen.folds, seed=chosen.seed)
    storage.require_writable(folder)
    model = load_model(chosen.model)
    method = methods_of(chosen)["TAE"]
    method.require_model(model)
    prompts_of(model, questions[:1], method)
    target = storage.make_folder(folder)
    kept = KeptFolds(target / f"folds-{identity_of(chosen, model, questions)}")
    found = [
        kept.fold(one.number, model, partial(run_fold, model, one, chosen, progress=progress))
        for one in tqdm(folds, desc="folds", disable=not progress)
    ]
    test = cast("QuestionSet", folds[0].test)
    first = Fitted(model, folds[0].train, test, dict(found[0].edits))
    examples = worked_examples(
        model, test, method, first.edits["TAE"], count=chosen.examples, drawn=chosen.drawn,
        max_new_tokens=chosen.tokens,
    )  # fmt: skip
    table = pd.concat([one.table for one in found], ignore_index=True)
    means, compared = summary(table, seed=chosen.seed), differences_of(table, chosen.seed)
    figures = {
        **found[0].figures,
        **example_figures(examples, first.edits["TAE"]),
        "differences": drawn_differences(compared),
    }
    record = record_of(chosen, model, compared)
    result = DemoResult(
        chosen, questions, table, means, compared,
        [{name: edit.alpha for name, edit in one.edits.items()} for one in found],
        [one.risk for one in found if one.risk is not None], examples, first,
        write_results(target, table, means, record, figures, progress=progress), kept,
    )  # fmt: skip
    if not keep:
        kept.remove()
    return result


def identity_of(settings: DemoSettings, model: Model, questions: QuestionSet) -> str:
    """A digest of all that the results of a fold depend on."""
    own = {one.name: getattr(settings, one.name) for one in fields(settings)}
    del own["model"], own["questions"]
    tokenizer = tokenizer_of(model).backend_tokenizer.to_str()
    return digest(
        [
            {**own, "alphas": dict(settings.alphas)}, asdict(identify(model)), digest(tokenizer),
            fingerprint_of_weights(model), [asdict(one) for one in questions],
        ]
    )  # fmt: skip


def run_fold(model: Model, split: Split, settings: DemoSettings, *, progress: bool) -> FoldResult:
    """Fit the methods on a fold's training questions and measure them on its test questions."""
    methods, memo = methods_of(settings), Memo()
    fit: dict[str, Any] = {"memo": memo, "progress": progress}
    fitted = {}
    for name, method in methods.items():
        candidates = [replace(method, alpha=alpha) for alpha in settings.alphas[name]]
        chosen = choose(
            model,
            candidates,
            split,
            by=settings.criterion,
            style=settings.style,
            max_new_tokens=settings.tokens,
            **fit,
        )
        fitted[name] = cast("Edit", chosen.fit(model, split.train, **fit))
    own = fitted[settings.controls]
    shuffled = replace(methods[settings.controls], shuffle_labels=True, alpha=own.alpha)
    edits: dict[str, Intervention | Sequence[Intervention] | None] = {
        NO_EDIT: None,
        "random direction": random_directions(own, settings.draws, settings.seed + split.number),
        "shuffled labels": shuffled.fit(model, split.train, **fit),
        **fitted,
    }
    table = evaluate(
        model, split.test, edits, fold=split.number, style=settings.style,
        texts=plain_texts(settings.text_kind, settings.texts, split.number),
        max_new_tokens=settings.tokens, progress=progress,
    )  # fmt: skip
    risk = None
    tae, edit = methods["TAE"], fitted["TAE"]
    if settings.risk:
        test = cast("QuestionSet", split.test)
        held = tae.capture(model, test, progress=progress, unlabelled=False)
        risk = risk_auroc(edit, held)
    stages = Stages(tae, model, split.train, None, None, memo, progress)
    figures = {} if split.number else fold_figures(stages, edit)
    return FoldResult(table, fitted, figures, risk)


def differences_of(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Every method minus no edit, and TAE minus ITI, paired by question; see `compare`.

    Holm's correction is for each of the two by itself.
    """
    shown = table[table["metric"].isin(COMPARED)]
    two = shown[shown["method"].isin(METHODS)]
    pairs = [compare(shown, NO_EDIT, seed=seed), compare(two, "ITI", seed=seed)]
    return pd.concat(pairs, ignore_index=True)


def drawn_differences(compared: pd.DataFrame) -> Any:
    """The figure of the differences from no edit."""
    plain = compared[compared["against"] == NO_EDIT]
    metrics = [metric for metric in COMPARED if metric in set(plain["metric"])]
    return plots.differences(
        plain, metrics, title="Held-out questions, minus no edit", comparisons=len(plain)
    )


def record_of(settings: DemoSettings, model: Model, compared: pd.DataFrame) -> dict[str, Any]:
    """What was run, in the words of a run's manifest, for the report."""
    own = {"heads": settings.heads, "style": settings.style}
    alphas = {name: list(settings.alphas[name]) for name in METHODS}
    chosen = {
        name: {"alpha": offered, "criterion": settings.criterion}
        if len(offered) > 1
        else {"alpha": offered[0]}
        for name, offered in alphas.items()
    }
    metrics = set(compared["metric"])
    return {
        "seed": settings.seed,
        "run": {
            "model_identity": asdict(identify(model)),
            "data": {"truthfulness": str(settings.questions)},
            "methods": {
                NO_EDIT: {"kind": "none"},
                "random direction": {
                    "kind": "random", "of": settings.controls, "draws": settings.draws
                },
                "shuffled labels": {"kind": "shuffled", "of": settings.controls},
                "ITI": {"kind": "iti", **own, **chosen["ITI"]},
                "TAE": {"kind": "tae", **own, **chosen["TAE"]},
            },
        },
        "shown": {
            "against": NO_EDIT, "primary": [metric for metric in COMPARED if metric in metrics]
        },
        "made with": [environment()],
    }  # fmt: skip


def write_results(
    folder: Path,
    table: pd.DataFrame,
    found: pd.DataFrame,
    record: Mapping[str, Any],
    figures: Mapping[str, Any],
    *,
    progress: bool,
) -> list[Path]:
    """Write table, summary, record and figures; images only where a browser can draw them."""
    results = storage.write_table(folder / "results.parquet", table)
    told = {**record, "results": storage.fingerprint(results)}
    files = [
        results,
        storage.write_json(folder / "summary.json", found.to_dict("records")),
        storage.write_json(folder / "demo.json", told),
    ]
    bar = tqdm(figures.items(), desc="figures", disable=not progress, leave=False)
    with storage.drawing() as image:
        for name, figure in bar:
            files += storage.write_figure(folder / name, figure, image=image)
    return files
