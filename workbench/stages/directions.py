"""Directions: where truth lies in each head, how wide activations spread there, which heads tell.

θ is the difference of the mean features of correct and incorrect answers, σ the standard deviation
of unlabelled activations along θ, and heads are ranked by how well a logistic probe on their
features does on validation questions (ITI, Li et al. 2023, section 3; TAE, section 3.1).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.checks import is_whole
from workbench.data.questions import QuestionSet
from workbench.doors import door, door_of_class
from workbench.errors import WorkbenchError
from workbench.models.identity import ModelIdentity
from workbench.records import Named, Record
from workbench.registry import Registry
from workbench.stages.activations import TokenActivations
from workbench.stages.aggregation import Features
from workbench.stages.probes import Probes, fit_probes
from workbench.stages.shards import Shards, take

FEW = 20
"""Held-back answers under which a head's accuracy says next to nothing."""
ON_FEW = "heads are ranked by accuracies on"
"""How the warning of so few begins."""


@dataclass(frozen=True, repr=False)
class Evidence:
    """What a direction rule sees: the features of a fold's training answers.

    Attributes:
        values: the features.
        label: 1 for correct answers (permuted under shuffled labels).
        probes: fitted on the training questions without the validation ones.
        seed: of all that is drawn.

    Example:
        >>> features = wb.aggregate(acts)
        >>> seen = wb.stages.Evidence(features.values, features.label, directions.probes, seed=0)
        >>> wb.stages.RULES.find("probe")(seen).shape  # what a rule makes of it
        torch.Size([5, 8, 20])
    """

    values: Float[Tensor, "answer layer head d_head"]
    label: Int[Tensor, " answer"]
    probes: Probes
    seed: int


Rule = Callable[[Evidence], Float[Tensor, "layer head d_head"]]
RULES: Registry[Rule] = Registry("direction rule")
"""What makes a direction a head of training answers' features, by name; its length is not used."""


@door_of_class
@dataclass(frozen=True, repr=False)
class Directions(Record):
    """Truth directions of all heads.

    Attributes:
        vector: unit vectors θ (zero for a head without any difference).
        spread: σ, in the units of z.
        accuracy: of each head's probe, in [0, 1]; what heads are ranked by.
        chance: accuracy of always giving the validation answers' commoner label.
        probes: fitted on the training questions without the validation ones.
        validation: for every question whether it was held back.
        model: whose heads these are.

    Example:
        >>> directions.vector.shape, directions.spread.shape
        (torch.Size([5, 8, 20]), torch.Size([5, 8]))
        >>> directions.top(3)
        ((1, 1), (1, 2), (2, 5))
    """

    vector: Float[Tensor, "layer head d_head"]
    spread: Float[Tensor, "layer head"]
    accuracy: Float[Tensor, "layer head"]
    chance: float
    probes: Probes
    validation: Bool[Tensor, " question"]
    model: ModelIdentity

    def arrays(self) -> dict[str, Named]:
        """θ, σ and the probes' accuracy."""
        found = super().arrays()
        return {name: found[name] for name in ("vector", "spread", "accuracy")}

    def attributes(self) -> Mapping[str, Any]:
        """The model, and the accuracy of always giving the commoner label."""
        return {"model": self.model.label, "chance": self.chance}

    def __repr__(self) -> str:
        (layer, head), best = self.top(1)[0], float(self.accuracy.max())
        return (
            f"Directions({tuple(self.vector.shape)}, best head layer {layer} head {head}: "
            f"accuracy {best:.2f}, chance {self.chance:.2f})"
        )

    def top(self, count: int) -> tuple[tuple[int, int], ...]:
        """The (layer, head) pairs of the `count` most accurate heads, best first.

        Equally accurate heads come in the order of layers and heads.

        Raises:
            WorkbenchError: fewer than one head, or more than there are.
        """
        layers, heads = self.accuracy.shape
        if not is_whole(count) or not 1 <= count <= layers * heads:
            raise WorkbenchError(
                f"{count} heads of a model with {layers} layers x {heads} heads",
                f"1 to {layers * heads}",
            )
        order = self.accuracy.flatten().sort(descending=True, stable=True).indices[:count]
        return tuple((int(i) // heads, int(i) % heads) for i in order)


@door
def fit_directions(
    features: Features,
    questions: QuestionSet,
    *,
    kind: str | Rule = "mean_difference",
    validation_share: float = 0.2,
    seed: int = 0,
    shuffle_labels: bool = False,
) -> Directions:
    """Directions, spreads and validation accuracies from the features of training answers.

    Args:
        features: from `aggregate`.
        questions: the training questions that the features are of.
        kind: of `RULES`: `mean_difference`, over all training questions; or the validation
            probe's `probe` coefficients; or `random` ones, a control; or one's own: a function of
            `Evidence`, itself or as `module:name`.
        validation_share: share of the questions held back for the ranking of heads; 0.2 in TAE.
        seed: chooses them.
        shuffle_labels: a control: labels permuted over answers before anything is fitted.

    Raises:
        WorkbenchError: the features are of other questions, no such rule, one that gives something
            else than finite numbers a head, or answers that are all held back, or none.

    Example:
        >>> features = wb.aggregate(acts)
        >>> wb.fit_directions(features, fold.train)
        Directions((5, 8, 20), best head layer 1 head 1: accuracy 0.95, chance 0.60)
        >>> drawn = wb.fit_directions(features, fold.train, kind="random")
        >>> drawn.vector.norm(dim=-1).allclose(directions.vector.norm(dim=-1))
        True
    """
    rule = RULES.find(RULES.name_of(kind))
    if features.questions != questions:
        raise WorkbenchError(
            f"features of {len(features.questions)} questions with {len(questions)} other ones",
            "the questions that were captured",
        )
    label = features.label
    if shuffle_labels:
        generator = torch.Generator().manual_seed(seed)
        label = label[torch.randperm(len(label), generator=generator)]
    validation = torch.tensor(questions.validation_mask(validation_share, seed))
    held = validation[features.question]
    if not bool(held.any()) or bool(held.all()):
        raise WorkbenchError(
            f"{int(held.sum())} of {len(held)} answers held back for validation",
            "some answers of validation questions and some of others",
        )
    _warn_of_few(int(held.sum()))
    probes = fit_probes(features.values[~held], label[~held])
    raw = rule(Evidence(features.values, label, probes, seed))
    if not isinstance(raw, Tensor):
        raise WorkbenchError(
            f"the direction rule {kind!r} gives {raw!r:.60}", "a tensor [layer, head, d_head]"
        )
    if raw.shape != probes.coefficient.shape or not bool(raw.isfinite().all()):
        raise WorkbenchError(
            f"the direction rule {kind!r} gives {tuple(raw.shape)}",
            f"finite numbers of shape {tuple(probes.coefficient.shape)}, [layer, head, d_head]",
        )
    vector = torch.nn.functional.normalize(raw, dim=-1)
    correct = float(label[held].float().mean())
    return Directions(
        vector=vector,
        spread=spread_along(features.unlabelled, vector),
        accuracy=probes.accuracy(features.values[held], label[held]),
        chance=max(correct, 1 - correct),
        probes=probes,
        validation=validation,
        model=features.model,
    )


def _warn_of_few(answers: int) -> None:
    """Tell that heads are ranked by noise where their accuracies come from a handful of answers."""
    if answers < FEW:
        warnings.warn(
            f"{ON_FEW} {answers} held-back answers, each uncertain by {0.98 / answers**0.5:.2f} "
            f"either way (95 %), so by little more than chance; fit on more questions, for {FEW} "
            "held-back answers at the least",
            stacklevel=2,
        )


@RULES.register("mean_difference", about="correct minus incorrect answers, on average")
def _mean_difference(seen: Evidence) -> Float[Tensor, "layer head d_head"]:
    return mean_difference(seen.values, seen.label)


@RULES.register("probe", about="the coefficients of each head's probe")
def _of_probes(seen: Evidence) -> Float[Tensor, "layer head d_head"]:
    return seen.probes.coefficient


@RULES.register("random", about="control: drawn directions")
def _random(seen: Evidence) -> Float[Tensor, "layer head d_head"]:
    generator = torch.Generator().manual_seed(seen.seed)
    return torch.randn(seen.probes.coefficient.shape, generator=generator, dtype=torch.float32)


@door
def mean_difference(
    values: Float[Tensor, "answer layer head d_head"], label: Int[Tensor, " answer"]
) -> Float[Tensor, "layer head d_head"]:
    """Mean of the correct answers' features minus mean of the incorrect ones'.

    Example:
        >>> features = wb.aggregate(acts)
        >>> raw = wb.stages.mean_difference(features.values, features.label)
        >>> (raw / raw.norm(dim=-1, keepdim=True)).allclose(directions.vector, atol=1e-6)
        True
    """
    correct = label.bool()
    return values[correct].mean(dim=0) - values[~correct].mean(dim=0)


def spread_along(
    z: Float[Tensor, "prompt layer head d_head"] | Shards,
    vector: Float[Tensor, "layer head d_head"],
) -> Float[Tensor, "layer head"]:
    """Standard deviation of z·θ over prompts (population form), in the units of z.

    Raises:
        WorkbenchError: no prompts.
    """
    if not len(z):
        raise WorkbenchError(
            "activations without unlabelled prompts",
            "capture(..., unlabelled=True)",
            "Of some questions' activations those prompts are left that ask no other question.",
        )
    along = [(z[:, layer] * theta).sum(dim=-1) for layer, theta in enumerate(vector)]
    return torch.stack([values.std(dim=0, correction=0) for values in along])


def token_level_accuracy(
    probes: Probes, activations: TokenActivations, answers: list[int]
) -> Float[Tensor, "layer head"]:
    """Accuracy of the probes on single raw tokens of the given answers.

    Every token carries its answer's label.

    Raises:
        WorkbenchError: no answers.
    """
    if not answers:
        raise WorkbenchError("no answers to rank heads on", "at least one")
    token_rows = [activations.rows_of(answer)[1:] for answer in answers]
    label = torch.cat(
        [
            activations.label[answer].expand(len(rows))
            for answer, rows in zip(answers, token_rows, strict=True)
        ]
    )
    return probes.accuracy(take(activations.z, torch.cat(token_rows)), label)


def auroc(positive: Float[Tensor, " above"], negative: Float[Tensor, " below"]) -> float:
    """The share of (positive, negative) values in the right order, ties counting half.

    By one sort: bootstraps and rankings of layers ask it thousands of times, scikit-learn's takes
    30 times as long, and rounds so that tied layers are not.
    """
    ordered = negative.sort().values
    below = torch.searchsorted(ordered, positive.contiguous())
    not_above = torch.searchsorted(ordered, positive.contiguous(), right=True)
    return int((below + not_above).sum()) / (2 * len(positive) * len(negative))
