"""What the gallery's figures look at: edits fitted on half of hearsay's questions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import workbench as wb
from workbench.data.questions import Fold
from workbench.editing.head_edits import Edit
from workbench.models.identity import Model
from workbench.stages.activations import TokenActivations
from workbench.stages.directions import Directions


@dataclass(frozen=True)
class Fitted:
    """Edits of one fold, with α as the demo chooses it, and what they were made from."""

    model: Model
    fold: Fold
    activations: TokenActivations
    held: TokenActivations
    directions: Directions
    tae: Edit
    iti: Edit


@cache
def fitted() -> Fitted:
    """The fit, made once for all figures."""
    model = wb.load_model("hearsay")
    fold = wb.load_questions("hearsay").folds(2, seed=0)[0]
    method, other = (
        wb.TokenAware(heads=16, alpha=2.0),
        wb.methods.inference_time(heads=16, alpha=3.0),
    )
    kept: dict[str, Any] = {"progress": False}
    activations = method.capture(model, fold.train, **kept)
    return Fitted(
        model=model,
        fold=fold,
        activations=activations,
        held=method.capture(model, fold.test, unlabelled=False, **kept),
        directions=wb.fit_directions(wb.aggregate(activations), fold.train),
        tae=method.fit(model, fold.train, activations=activations, **kept),
        iti=other.fit(model, fold.train, activations=activations, **kept),
    )


@cache
def question() -> Any:
    """The held-out question that several figures look at: the first whose answer TAE mends."""
    from workbench.editing.generation import generate
    from workbench.evaluation.metrics.ground_truth import verdict_of
    from workbench.models.prompts import encode

    made = fitted()
    asked = list(made.fold.test)[:40]
    prompts = [encode(made.model, one.question) for one in asked]
    before, after = (
        [
            verdict_of(one.question, said.text).stated
            for one, said in zip(
                asked, generate(made.model, prompts, edit=edit, max_new_tokens=32), strict=True
            )
        ]
        for edit in (None, made.tae)
    )
    mended = [b == "myth" and a == "truth" for b, a in zip(before, after, strict=True)]
    return asked[mended.index(True)]


def trace_of(edit: Edit) -> Any:
    """The trace of the greedy answer to `question`."""
    made, prompt = fitted(), f"Q: {question().question}\nA:"
    with wb.edited(made.model, edit) as trace:
        said = wb.generate(made.model, prompt, max_new_tokens=32)[0]
    return trace.only.first(said.kept)
