"""A real model, by one command: the demo's comparison on sampled questions, and a page to explore.

The weights are those that `workbench fetch` has fetched. TruthfulQA's file is the user's own;
without it the project's own questions of fact are asked, of which other models know the answers
too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from workbench import storage
from workbench.models.identity import identify
from workbench.pages.demo import DemoResult, run_demo
from workbench.pages.demo_settings import DemoSettings
from workbench.pages.explorer.running import explore

VARIABLE = "WORKBENCH_TRUTHFULQA"
"""The environment variable that tells where TruthfulQA.csv is."""
SETTINGS = DemoSettings(
    model="smollm2", sample=80, style="chat", heads=24,
    alphas={"ITI": (5.0, 10.0, 15.0), "TAE": (4.0, 8.0, 12.0)},
    criterion="mc2", controls="ITI", draws=2, texts=12, text_kind="english", tokens=32,
    drawn=8, risk=False,
)  # fmt: skip
"""Sizes for ten minutes on two cores. α's are of the published ones' order (ITI 15, TAE 12)."""


@dataclass(frozen=True)
class RealSettings:
    """What to run on a real model.

    Attributes:
        demo: the comparison.
        explored: held-out questions on the page; 0 for none.
        alphas: strengths on the page, as multiples of the edit's own α.
    """

    demo: DemoSettings = SETTINGS
    explored: int = 4
    alphas: tuple[float, ...] = (0.0, 0.5, 1.0)


def asked(path: storage.PathLike | None = None) -> storage.PathLike:
    """The questions to ask: a path, that of the environment variable, or the project's own."""
    return path or os.environ.get(VARIABLE) or "hearsay"


def run_real(
    folder: storage.PathLike, settings: RealSettings | None = None, *, progress: bool = True
) -> DemoResult:
    """Run the comparison and write the page; see `run_demo`.

    Args:
        folder: receives tables, figures and `explorer.html`.
        settings: what to run.
        progress: show bars.
    """
    chosen = settings or RealSettings(replace(SETTINGS, questions=asked()))
    result = run_demo(folder, chosen.demo, progress=progress, keep=True)
    if chosen.explored:
        result = replace(result, files=[*result.files, _page(result, chosen, progress=progress)])
    result.kept.remove()
    return result


def _page(result: DemoResult, settings: RealSettings, *, progress: bool) -> Path:
    """The page to explore TAE's edit of the first fold on its held-out questions."""
    first = result.fitted
    edit = first.edits["TAE"]
    page = explore(
        first.model, edit, first.test[: settings.explored], answers="both",
        alphas=[multiple * edit.alpha for multiple in settings.alphas], style=settings.demo.style,
        max_new_tokens=settings.demo.tokens, progress=progress,
    )  # fmt: skip
    out = result.kept.folder.parent / "explorer.html"
    return page.save(out, f"{identify(first.model).label} under TAE")


def introduction(result: DemoResult) -> str:
    """What was run, in words."""
    model, own = identify(result.fitted.model), result.settings
    shape = model.shape
    count = f"{len(result.questions)} questions"
    if own.questions == "hearsay":
        source = (
            f"{count} of the project's own (hearsay's facts, each with its popular error). This is "
            "not TruthfulQA:\nfor that, name its CSV with --questions or in the environment "
            f"variable {VARIABLE}.\nsays_truth, says_myth: which of the fact's names stands first "
            f"in the first line of the greedy\nanswer (at most {own.tokens} tokens; no denial is "
            "understood). ended: it is one line with a full stop."
        )
    else:
        source = f"{count} of {Path(str(own.questions)).name}."
    return (
        f"{model.label}: {shape.layers} layers x {shape.heads} heads, {shape.vocabulary:,} words. "
        f"{own.heads} heads are edited.\nAsked in the style {own.style!r}, in {own.folds} folds: "
        f"{source}"
    )
