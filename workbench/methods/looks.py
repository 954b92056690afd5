"""What gradients make of a choice: changes, and what these cost questions they have not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.editing.divergences import divergences
from workbench.errors import WorkbenchError
from workbench.methods.answer_gradients import Change
from workbench.methods.collected_rows import Rows
from workbench.models.identity import Model
from workbench.stages.gain_per_nat import MEASURED, Choice, Kernel, TextKind

CALIBRATIONS = 3
"""How often a change is measured and resized before it is said to cost the budget."""


@dataclass(frozen=True)
class Look:
    """What changes are made of.

    Attributes:
        rows: gradients.
        choice: of features and the ridge.
        weights: of answers.
    """

    rows: Rows
    choice: Choice
    weights: Float[Tensor, " answer"]

    @cached_property
    def kernel(self) -> Kernel:
        """Inner products of the rows."""
        return self.rows.kernel(self.choice.features)

    def change(self, model: Model, seen: Bool[Tensor, " question"], length: float = 1.0) -> Change:
        """The one that is found on some questions; of a length of 1, its KL in sample is ½."""
        found = self.kernel.solver(seen, self.choice.ridge).solve(self.weights)
        return self.rows.edit(model, found * length, self.choice.features)


def calibrated(
    model: Model, look: Look, fold: Int[Tensor, " question"], budget: float, length: float
) -> tuple[list[Change], float]:
    """Of every fold the change that has not seen it, and at what length they cost the budget.

    To second order that would be √(2·budget), were their KL ½ there as it is in sample; but the KL
    of large changes grows faster than their square.

    Args:
        model: the bridge.
        look: what changes are made of.
        fold: of every question.
        budget: in nats a token.
        length: where to begin.
    """
    trials = [look.change(model, fold != number) for number in range(int(fold.max()) + 1)]
    for _ in range(CALIBRATIONS):
        length *= (budget / cost_of(model, look, fold, trials, length)) ** 0.5
    return trials, length


def cost_of(
    model: Model,
    look: Look,
    fold: Int[Tensor, " question"],
    trials: Sequence[Change],
    length: float,
) -> float:
    """Mean KL on left-out questions' own or right answers, whichever is larger, in nats a token.

    Raises:
        WorkbenchError: a KL of 0, as far as can be told.
    """
    spent: dict[TextKind, list[float]] = {kind: [] for kind in MEASURED}
    for number, trial in enumerate(trials):
        for kind in MEASURED:
            texts = look.rows.left_out(kind, fold == number)
            (effects,) = divergences(model, texts, [trial.scaled(length)])
            spent[kind] += [one.kl for one in effects]
    cost = max(float(np.mean(own)) for own in spent.values() if own)
    if not cost > 0:
        raise WorkbenchError("a change whose KL cannot be told from 0", "a larger budget")
    return cost
