"""Does the per-token risk find the tokens that are really misaligned? Only hearsay can tell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from workbench.doors import door
from workbench.editing.head_edits import Edit
from workbench.errors import WorkbenchError
from workbench.evaluation.metrics.ground_truth import object_tokens
from workbench.evaluation.statistics import Interval, bootstrap_interval
from workbench.stages.activations import TokenActivations


@dataclass(frozen=True)
class RiskAuroc:
    """AUROC of p̂, averaged over the edited heads, with intervals by question.

    Attributes:
        incorrect: in incorrect answers, object tokens (misaligned) against all others.
        correct: the same in correct answers, where nothing is misaligned: how far p̂ only finds
            the place of the object (0.5 would be none of it).
        between: object tokens of incorrect answers against object tokens of correct ones: how far
            p̂ tells a wrong object from the right one.
    """

    incorrect: Interval
    correct: Interval
    between: Interval


@door
def risk_auroc(
    edit: Edit, activations: TokenActivations, *, draws: int = 200, seed: int = 0
) -> RiskAuroc:
    """Judge an edit's estimators on the answers of held-out hearsay questions.

    Args:
        edit: with misalignment estimators.
        activations: of test questions.
        draws: bootstrap resamples of questions.
        seed: of the resampling.

    Raises:
        WorkbenchError: an edit without estimators.

    Example:
        >>> held_out = wb.capture(model, fold.test, progress=False)
        >>> found = wb.analysis.risk_auroc(edit, held_out, draws=20)
        >>> round(found.incorrect.mean, 2), found.incorrect.count
        (0.68, 12)
    """
    if edit.estimators is None:
        raise WorkbenchError(f"the risk that {edit!r} sees", "an edit with estimators of p̂")
    layer, head = torch.tensor(edit.heads).unbind(dim=1)
    from sklearn.metrics import roc_auc_score

    risk: list[float] = []
    stated: list[bool] = []
    correct: list[bool] = []
    unit: list[int] = []
    for index, answer in enumerate(activations):
        z = answer.preceding[:, layer, head]
        p = edit.estimators.probability(z).mean(dim=-1)
        flags = object_tokens(answer.question, answer.answer, activations.encoded[index])
        risk += p.tolist()
        stated += flags
        correct += [bool(answer.label)] * len(flags)
        unit += [int(activations.question[index])] * len(flags)
    table = np.array([risk, stated, correct], dtype=float).T
    units = np.array(unit)

    def among(kept: np.ndarray, label: int) -> Interval:
        return bootstrap_interval(
            lambda rows: float(roc_auc_score(rows[:, label], rows[:, 0])),
            table[kept], units[kept], draws=draws, seed=seed,
        )  # fmt: skip

    is_correct, is_object = table[:, 2] > 0, table[:, 1] > 0
    table = np.column_stack([table, 1 - table[:, 2]])
    return RiskAuroc(
        incorrect=among(~is_correct, 1),
        correct=among(is_correct, 1),
        between=among(is_object, 3),
    )
