"""Answers along a truth direction: how well one head tells correct answers from incorrect ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.data.questions import QuestionSet
from workbench.doors import door, door_of_class
from workbench.errors import WorkbenchError
from workbench.evaluation.statistics import Interval, bootstrap_interval
from workbench.records import Record
from workbench.stages.aggregation import Features
from workbench.stages.directions import Directions, auroc


@door_of_class
@dataclass(frozen=True, repr=False)
class Projections(Record):
    """Where answers lie along one head's direction.

    Attributes:
        value: f·θ of every answer's feature f, in the units of z.
        label: 1 for a correct answer, 0 for an incorrect one.
        question: every answer's question, as typed.
        spread: the direction's σ, in the units of z.
        auroc: the share of pairs of a correct and an incorrect answer, of any questions, in which
            the correct one lies further along θ; ties count half. The interval is by question, and
            NaN where some resample has answers of one kind alone.
        layer, head: of the direction.
        fitted: how many of the answers' questions the direction was fitted on.

    Example:
        >>> features = wb.aggregate(acts)
        >>> found = wb.analysis.projections(features, directions, 1, 1, fitted_on=fold.train)
        >>> found
        Projections(layer 1, head 1: 120 answers, AUROC 0.80, 12 of 12 questions fitted on)
        >>> found.held_out
        False
    """

    value: Float[Tensor, " answer"]
    label: Int[Tensor, " answer"]
    question: tuple[str, ...]
    spread: float
    auroc: Interval
    layer: int
    head: int
    fitted: int

    def coordinates(self) -> Mapping[str, tuple[str, Sequence[Any]]]:
        """Every answer's question."""
        return {"question": ("answer", self.question)}

    def attributes(self) -> Mapping[str, Any]:
        """Where the direction is, σ and the AUROC."""
        where = {"layer": self.layer, "head": self.head}
        return {**where, "spread": self.spread, "auroc": self.auroc.mean}

    def __repr__(self) -> str:
        return (
            f"Projections(layer {self.layer}, head {self.head}: {len(self.value)} answers, AUROC "
            f"{self.auroc.mean:.2f}, {self.fitted} of {self.auroc.count} questions fitted on)"
        )

    @property
    def standardised(self) -> Float[Tensor, " answer"]:
        """The values in units of σ; NaN where σ is 0."""
        return self.value / (self.spread or torch.nan)

    @property
    def held_out(self) -> bool:
        """Whether the direction was fitted on none of the questions."""
        return self.fitted == 0


@door
def projections(
    features: Features,
    directions: Directions,
    layer: int,
    head: int,
    *,
    fitted_on: QuestionSet,
    seed: int = 0,
) -> Projections:
    """Project the features of answers on one head's direction.

    Args:
        features: from `aggregate`, of any questions.
        directions: from `fit_directions`.
        layer: of the direction.
        head: of the direction.
        fitted_on: the questions that the directions were fitted on, to tell how many of the
            features' questions are among them.
        seed: of the bootstrap.

    Raises:
        WorkbenchError: another shape of model, no such head, another number of questions than the
            directions were fitted on, values that are not finite, or answers of one kind alone.

    Example:
        >>> held_out = wb.aggregate(wb.capture(model, fold.test, progress=False))
        >>> wb.analysis.projections(held_out, directions, 1, 1, fitted_on=fold.train)
        Projections(layer 1, head 1: 120 answers, AUROC 0.78, 0 of 12 questions fitted on)
    """
    layers, heads, _ = directions.vector.shape
    if features.values.shape[1:] != directions.vector.shape:
        raise WorkbenchError(
            f"features of shape {tuple(features.values.shape[1:])} and directions of "
            f"{tuple(directions.vector.shape)}",
            "both of the same model",
        )
    if not (0 <= layer < layers and 0 <= head < heads):
        raise WorkbenchError(
            f"layer {layer} and head {head}", f"one of {layers} layers x {heads} heads"
        )
    if len(fitted_on) != len(directions.validation):
        raise WorkbenchError(
            f"fitted_on={fitted_on!r} of directions that were fitted on "
            f"{len(directions.validation)} questions",
            "the questions that were given to fit_directions",
        )
    value = features.values[:, layer, head].float() @ directions.vector[layer, head].float()
    _require_both(value, features.label)
    asked = sorted(set(features.question.tolist()))
    known = {question.question for question in fitted_on}
    return Projections(
        value=value,
        label=features.label,
        question=tuple(features.questions[n].question for n in features.question.tolist()),
        spread=float(directions.spread[layer, head]),
        auroc=_interval(value, features.label, features.question, seed),
        layer=layer,
        head=head,
        fitted=sum(features.questions[number].question in known for number in asked),
    )


def _require_both(value: Float[Tensor, " answer"], label: Int[Tensor, " answer"]) -> None:
    correct = int(label.sum())
    if not 0 < correct < len(label) or not bool(value.isfinite().all()):
        raise WorkbenchError(
            f"{correct} correct and {len(label) - correct} incorrect answers "
            f"(finite: {bool(value.isfinite().all())})",
            "finite features of at least one correct and one incorrect answer",
        )


def _interval(
    value: Float[Tensor, " answer"],
    label: Int[Tensor, " answer"],
    question: Int[Tensor, " answer"],
    seed: int,
) -> Interval:
    """AUROC with its bootstrap interval by question."""
    rows = np.stack([value.double().numpy(), label.double().numpy()], axis=1)
    return bootstrap_interval(_auroc, rows, question.numpy(), seed=seed)


def _auroc(rows: Float[np.ndarray, "answer 2"]) -> float:
    """Of values and labels; NaN where all labels are equal."""
    value, correct = torch.from_numpy(rows[:, 0]), torch.from_numpy(rows[:, 1] > 0)
    if correct.all() or not correct.any():
        return float("nan")
    return auroc(value[correct], value[~correct])
