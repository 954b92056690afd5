"""The demo: TAE fitted, inspected, applied and evaluated on hearsay, in two folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from workbench import plots, storage
from workbench.activations import TokenActivations
from workbench.aggregation import aggregate
from workbench.comparison import summary
from workbench.data.questions import Fold
from workbench.data.sources import load_questions
from workbench.directions import fit_directions
from workbench.editing import edited
from workbench.edits import Edit
from workbench.evaluation import evaluate
from workbench.generation import generate
from workbench.hearsay.corpus import plain_documents
from workbench.methods.controls import random_directions
from workbench.methods.iti import inference_time
from workbench.methods.token_aware import TokenAware
from workbench.metrics.ground_truth import judge
from workbench.metrics.risk import RiskAuroc, risk_auroc
from workbench.models import Model, load_model
from workbench.prompts import encode
from workbench.token_graphs import token_graph
from workbench.trace import TokenTrace


@dataclass(frozen=True)
class DemoSettings:
    """Sizes of the demo.

    Attributes:
        heads: K, the published one by default.
        alphas: α's to choose from, for each method and fold on training questions alone.
        folds, seed: how questions are split.
        draws: random directions a fold, half of them opposites of the other half.
        texts: plain texts a fold, for side effects.
        examples: questions shown with their answers.
    """

    heads: int = 16
    alphas: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0, 3.0)
    folds: int = 2
    seed: int = 0
    draws: int = 4
    texts: int = 32
    examples: int = 3


@dataclass(frozen=True)
class Example:
    """A question answered before and after the edit.

    Attributes:
        question: the question.
        before, after: the greedy answers.
        verdicts: what each states.
        trace: what the edit did while the second was written.
    """

    question: str
    before: str
    after: str
    verdicts: tuple[str, str]
    trace: TokenTrace


@dataclass(frozen=True)
class DemoResult:
    """Everything that the demo shows.

    Attributes:
        table, summary: from `evaluate` and `summary`.
        alphas: the chosen α of each method, a mapping a fold.
        risk: how well p̂ finds misaligned tokens, a record a fold.
        examples: worked examples of the first fold.
        files: what was written.
    """

    table: pd.DataFrame
    summary: pd.DataFrame
    alphas: list[dict[str, float]]
    risk: list[RiskAuroc]
    examples: list[Example]
    files: list[Path]


def run_demo(
    folder: storage.PathLike, settings: DemoSettings | None = None, *, progress: bool = True
) -> DemoResult:
    """Evaluate ITI and TAE beside their controls on hearsay and draw what TAE saw.

    The controls are no edit, random directions and shuffled labels.

    Args:
        folder: receives `results.parquet`, `summary.json` and the figures.
        settings: sizes.
        progress: show bars.
    """
    chosen = settings or DemoSettings()
    storage.make_folder(folder)
    model = load_model("hearsay")
    folds = load_questions("hearsay").folds(chosen.folds, chosen.seed)
    tables, risks, examples, alphas = [], [], [], []
    figures: dict[str, Any] = {}
    bar = tqdm(folds, desc="folds", disable=not progress)
    for fold in bar:
        methods = {
            "ITI": inference_time(heads=chosen.heads, seed=chosen.seed),
            "TAE": TokenAware(heads=chosen.heads, seed=chosen.seed),
        }
        method = methods["TAE"]
        activations = method.capture(model, fold.train, progress=progress)
        fitted: dict[str, Edit] = {}
        for name, settings_of in methods.items():
            alpha = choose_alpha(model, settings_of, activations, chosen.alphas)
            fitted[name] = settings_of.fit(
                model, fold.train, activations=activations, progress=progress
            ).scaled(alpha)
        alphas.append({name: edit.alpha for name, edit in fitted.items()})
        tae = fitted["TAE"]
        shuffled = replace(method, shuffle_labels=True, alpha=tae.alpha)
        edits: dict[str, Edit | Sequence[Edit] | None] = {
            "no edit": None,
            "random direction": random_directions(tae, chosen.draws, chosen.seed + fold.number),
            "shuffled labels": shuffled.fit(
                model, fold.train, activations=activations, progress=False
            ),
            **fitted,
        }
        texts = plain_documents(chosen.texts, seed=fold.number)
        tables.append(
            evaluate(
                model,
                fold.test,
                edits,
                fold=fold.number,
                texts=texts,
                max_new_tokens=32,
                progress=progress,
            )
        )
        risks.append(
            risk_auroc(tae, method.capture(model, fold.test, progress=progress, unlabelled=False))
        )
        if fold.number == 0:
            examples = worked_examples(model, fold, tae, chosen)
            directions = fit_directions(
                aggregate(activations, method.depth), fold.train, seed=chosen.seed
            )
            figures["head_accuracy"] = plots.head_accuracy(directions, tae.heads)
            answer = max(
                activations, key=lambda a: (a.question == fold.train[0].question, len(a.tokens))
            )
            figures["token_graph"] = plots.token_graph(token_graph(answer, layer=tae.heads[0][0]))
    means = torch.cat([example.trace.strengths.nanmean(dim=2).flatten() for example in examples])
    known = means[~means.isnan()]
    for number, example in enumerate(examples, start=1):
        figures[f"strength_{number}"] = plots.token_risk(
            example.trace, limits=(float(known.min()), float(known.max())),
            title=f"Strength of TAE: {example.question} → {example.after.strip()}",
        )  # fmt: skip
    table = pd.concat(tables, ignore_index=True)
    found = summary(table)
    files = write_results(folder, table, found, figures, progress=progress)
    return DemoResult(table, found, alphas, risks, examples, files)


def choose_alpha(
    model: Model, method: TokenAware, activations: TokenActivations, alphas: Sequence[float]
) -> float:
    """The α whose greedy answers to held-back training questions state the truth most often.

    The method is fitted on the other training questions; the smallest of equally good ones wins.
    """
    train = activations.questions
    held = train.validation_mask(method.validation_share, method.seed)
    rest = activations.choose([number for number, out in enumerate(held) if not out])
    asked = [train[number].question for number, out in enumerate(held) if out]
    prompts = [encode(model, question) for question in asked]
    edit = method.fit(model, rest.questions, activations=rest, progress=False)

    def truth(alpha: float) -> int:
        said = generate(model, prompts, edit=edit.scaled(alpha), max_new_tokens=32)
        verdicts = [judge(q, s.text).stated for q, s in zip(asked, said, strict=True)]
        return verdicts.count("truth")

    return max(sorted(alphas), key=truth)


def worked_examples(model: Model, fold: Fold, edit: Edit, settings: DemoSettings) -> list[Example]:
    """Test questions, answered without and with the edit.

    Of those that the seed draws, all but the last are the first whose answer the edit changes, and
    the last is the first whose answer it leaves; drawn ones fill up where there are too few.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    numbers = torch.randperm(len(fold.test), generator=generator)[: 8 * settings.examples]
    asked = [fold.test[int(number)].question for number in numbers]
    prompts = [encode(model, question) for question in asked]
    before = generate(model, prompts, max_new_tokens=32)
    with edited(model, edit) as trace:
        after = generate(model, prompts, max_new_tokens=32)
    examples = [
        Example(
            question=question,
            before=b.text,
            after=a.text,
            verdicts=(judge(question, b.text).stated, judge(question, a.text).stated),
            trace=trace[row].first(a.kept),
        )
        for row, (question, b, a) in enumerate(zip(asked, before, after, strict=True))
    ]
    changed = [one for one in examples if one.before != one.after]
    left = [one for one in examples if one.before == one.after]
    return [*changed[: settings.examples - 1], *left, *changed[settings.examples - 1 :]][
        : settings.examples
    ]


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
