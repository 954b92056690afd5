"""What a run will cost, from timing small parts of it: before days are spent, not after."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from workbench.doors import door
from workbench.editing.interventions import OTHER_STYLE
from workbench.errors import WorkbenchError
from workbench.evaluation.evaluate import evaluate
from workbench.methods.memo import Memo
from workbench.models.identity import Model
from workbench.runs.jobs import Fit
from workbench.runs.loaded_run import LoadedRun
from workbench.runs.run_config import RunConfig

FEW, MORE = 6, 18
"""Questions that are timed: a cost that grows with them, and one that does not, are told apart."""
COUNTED = ("own_answers", "right_answers", "long_answers")
"""Settings that say on how many questions something is measured."""


@door
def estimate(
    config: RunConfig, model: Model | None = None, *, progress: bool = True
) -> pd.DataFrame:
    """Seconds that a run on truthfulness will take in one process, method by method.

    Every fit is timed on 6 and on 18 training questions, and every measurement on as many test
    questions, of fold 0, after one round that counts for nothing; a straight line through the two
    gives the rest. What methods share (the activations of training questions, passes of the
    unedited model) is counted for each; of several settings the first is timed, and what controls
    sample is left out. It is right to a factor of two or so, on this machine as busy as it is.

    Args:
        config: of truthfulness.
        model: the model, if it is loaded already.
        progress: show a bar.

    Returns:
        Columns `method`, `fits` (how many, those for choosing settings included), `fit_seconds`
        and `measure_seconds` (of all of them), `seconds`.

    Raises:
        WorkbenchError: another capability, or fewer questions than are timed.

    Example:
        >>> config = wb.runs.RunConfig(
        ...     methods={"no edit": {"kind": "none"}, "ITI": {"kind": "iti", "heads": 2}}
        ... )
        >>> told = wb.runs.estimate(config, model, progress=False)
        >>> told["fits"].tolist(), bool((told["seconds"] > 0).all())
        ([0, 2], True)
    """
    if list(config.capabilities) != ["truthfulness"]:
        raise WorkbenchError(
            f"an estimate of {', '.join(config.capabilities)}", "a run on truthfulness alone"
        )
    work = LoadedRun(config, model)
    split = work.splits["truthfulness"][0]
    if min(len(split.train), len(split.test)) < MORE:
        raise WorkbenchError(
            f"{len(split.train)} training and {len(split.test)} test questions",
            f"{MORE} of each to time",
        )
    folds = len(work.made("truthfulness"))
    seen: set[str] = set()
    rows = []
    for name, plan in tqdm(config.plans.items(), desc="methods timed", disable=not progress):
        fits = seconds = 0.0
        edit = None
        for fit in work.fits(name, "truthfulness", 0):
            line, edit = _timed_fits(work, fit)
            if fit.key not in seen:
                count, own = _cost_of_fits(work, fit, line)
                fits, seconds = folds * count, folds * own
        draws = plan.draws if plan.control is not None and plan.control.several else 1
        each = _timed_measurement(work, edit)
        for fit in work.fits(name, "truthfulness", 0):
            if fit.key not in seen and split.inner is not None and len(plan.candidates) > 1:
                inner: Any = split.inner.test
                seconds += folds * len(plan.candidates) * each * len(inner) / len(split.test)
            seen.add(fit.key)
        measured = folds * draws * len(plan.multiples) * each
        rows.append((name, int(fits), seconds, measured, seconds + measured))
    return pd.DataFrame(
        rows, columns=["method", "fits", "fit_seconds", "measure_seconds", "seconds"]
    )


def _timed_fits(work: LoadedRun, fit: Fit) -> tuple[Callable[[float], float], Any]:
    """Seconds by number of training questions, and an edit."""
    split, method = work.split_of(fit), work.candidates(fit)[0]
    edits, spent = [], []
    method.fit(work.model, split.train.choose(range(FEW)), memo=Memo(), progress=False)
    for count in (FEW, MORE):
        train = split.train.choose(range(count))
        begin = time.perf_counter()
        edits.append(method.fit(work.model, train, memo=Memo(), progress=False))
        spent.append(time.perf_counter() - begin)
    return _line(spent), edits[-1]


def _cost_of_fits(
    work: LoadedRun, fit: Fit, seconds: Callable[[float], float]
) -> tuple[int, float]:
    """How many fits a fold needs, and their seconds: one on all questions, those that choose."""
    split, candidates = work.split_of(fit), work.candidates(fit)
    whole = seconds(len(split.train))
    if len(candidates) == 1 or split.inner is None:
        return 1, whole
    different = len({replace(method, alpha=1.0) for method in candidates})
    return 1 + different, whole + different * seconds(len(split.inner.train))


def _timed_measurement(work: LoadedRun, edit: Any) -> float:
    """Seconds of one fold's measurement at one multiple of α."""
    split = work.splits["truthfulness"][0]
    settings = work.settings_of(split)
    texts = work.texts[split.number]
    test: Any = split.test
    spent = []
    for count in (FEW, FEW, MORE):
        share = count / len(test)
        begin = time.perf_counter()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=OTHER_STYLE)
            evaluate(
                work.model, test.choose(range(count)), {"it": edit}, progress=False,
                judges=work.judges, texts=texts[: math.ceil(share * len(texts))],
                **_scaled(settings, share),
            )  # fmt: skip
        spent.append(time.perf_counter() - begin)
    return _line(spent[1:])(len(test))


def _scaled(settings: Mapping[str, Any], share: float) -> dict[str, Any]:
    """Settings that count questions, for a share of them."""
    return {
        key: math.ceil(share * value) if key in COUNTED else value
        for key, value in settings.items()
    }


def _line(spent: list[float]) -> Callable[[float], float]:
    """Seconds by number of questions, through two timings; never falling."""
    slope = max(0.0, (spent[1] - spent[0]) / (MORE - FEW))
    return lambda count: max(spent[0], spent[0] + slope * (count - FEW))
