"""What a run fits and measures on, and who judges it: folds, judges and plain texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from workbench.data.plain import plain_texts, read_texts
from workbench.data.toxicity_prompts import PromptSet
from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.splits import Split, splits
from workbench.evaluation.judges.base import Judge, toxicity_judge
from workbench.evaluation.judges.making import make_judge
from workbench.runs.run_config import SOURCE, TEXTS, RunConfig

REFIT = 1_009
"""What the seeds of refits are apart."""


def splits_of(config: RunConfig, capability: Any) -> list[Split]:
    """A capability's folds, those of the first refit first; errors with the key they come from."""
    source = config.data.get(capability, SOURCE)
    found: list[Split] = []
    try:
        for refit in range(config.refits):
            own = splits(capability, source, folds=config.folds, seed=seed_of(config, refit))
            found += [replace(one, number=len(found) + one.number) for one in own]
        return found
    except WorkbenchError as error:
        came = f"data.{capability}: {error.came}"
        raise WorkbenchError(came, error.expected, error.mend) from error


def seed_of(config: RunConfig, refit: int) -> int:
    """The seed of a refit: the run's own for the first."""
    return config.seed + REFIT * refit


def refit_of(config: RunConfig, fold: int, splits: Sequence[Split]) -> int:
    """Which refit a fold is of."""
    return fold // (len(splits) // config.refits)


def judges_for(split: Split, judges: Sequence[Judge]) -> list[Judge]:
    """The judges of a split: those described, and for prompts that name one, their own.

    Raises:
        WorkbenchError: continuations of prompts have nobody to judge them.
    """
    own = [judge for judge in judges if judge.name == "toxicity"]
    if split.capability != "harmlessness":
        return [judge for judge in judges if judge not in own]
    if not own and isinstance(split.test, PromptSet) and split.test.judge:
        own = [make_judge("toxicity", {"kind": split.test.judge})]
    return [toxicity_judge(own)]


def texts_of(config: RunConfig, folds: int) -> dict[int, list[str]]:
    """Plain texts for side effects, every fold its own.

    Raises:
        WorkbenchError: a file that holds no list of different texts, or too few of them.
    """
    if isinstance(config.texts, int):
        return {fold: plain_texts(TEXTS, config.texts, seed=fold) for fold in range(folds)}
    path, count = config.text_source()
    found = read_texts(path)
    least = folds * (count or 1)
    if len(found) < least:
        raise WorkbenchError(f"{path} holds {len(found)} texts", f"at least {least}")
    return {fold: found[fold::folds][:count] for fold in range(folds)}
