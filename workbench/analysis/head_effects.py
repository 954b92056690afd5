"""Effects of heads on truth margins, and how far they agree with what probes read there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from workbench.doors import door, door_of_class
from workbench.errors import WorkbenchError
from workbench.evaluation.statistics import Interval, bootstrap_mean
from workbench.models.identity import ModelIdentity
from workbench.records import Record

Head = tuple[int, int]
"""Layer and number of a head."""


@door_of_class
@dataclass(frozen=True, repr=False)
class HeadEffects(Record):
    """What replacing each head by itself does to truth margins.

    Attributes:
        effect: change of the margin in nats; NaN for heads that were not asked for.
        margin: without any replacement; of patches, behind the corrupt context.
        kind: `zero`, `mean`, `resample` or `patch`.
        model: the model that was run.
        clean: of patches, the margin behind the clean context.

    Example:
        >>> few = fold.test.choose([0, 1])
        >>> effects = wb.analysis.knock_out_heads(model, few, heads=[(1, 1), (2, 5)])
        >>> effects.effect.shape, effects.top(1)
        (torch.Size([2, 5, 8]), ((1, 1),))
        >>> effects.table()[["layer", "head", "effect"]].round(2).to_dict("list")
        {'layer': [1, 2], 'head': [1, 5], 'effect': [0.49, 0.31]}
    """

    effect: Float[Tensor, "question layer head"]
    margin: Float[Tensor, " question"]
    kind: str
    model: ModelIdentity
    clean: Float[Tensor, " question"] | None = None

    def __repr__(self) -> str:
        return (
            f"HeadEffects({self.kind}, {len(self.heads)} heads of {self.model.label}, "
            f"{len(self.margin)} questions)"
        )

    @property
    def mean(self) -> Float[Tensor, "layer head"]:
        """The effect of every head, averaged over questions."""
        return self.effect.mean(dim=0)

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads that were asked for, in order."""
        return tuple((layer, head) for layer, head in self.mean.isfinite().nonzero().tolist())

    @property
    def recovered(self) -> Float[Tensor, "layer head"]:
        """The share of the clean margin that each patch brings back, sums over questions.

        Raises:
            WorkbenchError: the effects are not those of patches.
        """
        if self.clean is None:
            raise WorkbenchError(f"the recovered share of kind {self.kind!r}", "kind 'patch'")
        return self.effect.sum(dim=0) / (self.clean - self.margin).sum()

    def interval(self, head: Head, level: float = 0.95, seed: int = 0) -> Interval:
        """A head's mean effect with its bootstrap interval over questions.

        Args:
            head: layer and number.
            level: coverage, in (0, 1).
            seed: of the resampling.

        Raises:
            WorkbenchError: the head was not asked for.
        """
        if head not in self.heads:
            raise WorkbenchError(f"the head {head}", "a head whose effect was measured")
        layer, number = head
        values = self.effect[:, layer, number].double().numpy()
        return bootstrap_mean(values, level=level, seed=seed)

    def top(self, count: int = 16) -> tuple[Head, ...]:
        """The heads of largest absolute mean effect, largest first."""
        mean = self.mean
        ordered = sorted(self.heads, key=lambda head: -abs(float(mean[head])))
        return tuple(ordered[:count])

    def table(self, count: int | None = None, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
        """Mean effects with their intervals, largest first.

        Args:
            count: so many heads; all by default.
            level: coverage of the intervals.
            seed: of the resampling.

        Returns:
            A row a head: `layer`, `head`, `effect`, `low`, `high`.
        """
        heads = self.top(len(self.heads) if count is None else count)
        intervals = [self.interval(head, level, seed) for head in heads]
        rows = [
            (*head, interval.mean, interval.low, interval.high)
            for head, interval in zip(heads, intervals, strict=True)
        ]
        return pd.DataFrame(rows, columns=["layer", "head", "effect", "low", "high"])

    def attributes(self) -> Mapping[str, Any]:
        """The kind of replacement, and the model."""
        return {"kind": self.kind, "model": self.model.label}


@dataclass(frozen=True, repr=False)
class RankAgreement:
    """How far two rankings of the same heads agree.

    Attributes:
        correlation: Spearman's, of the probes' accuracy and the absolute mean effect.
        heads: how many were compared.
        count: how many of each ranking's first are taken.
        shared: how many heads are among both.
        expected: the same for two rankings by chance.
        probability: of at least `shared` by chance.
    """

    correlation: float
    heads: int
    count: int
    shared: int
    expected: float
    probability: float

    def __repr__(self) -> str:
        return (
            f"RankAgreement(correlation {self.correlation:.2f} over {self.heads} heads; "
            f"{self.shared} of the first {self.count} shared, {self.expected:.1f} expected, "
            f"probability {self.probability:.2g})"
        )


@door
def compare_rankings(
    accuracy: Float[Tensor, "layer head"], effects: HeadEffects, count: int = 16
) -> RankAgreement:
    """Compare what probes read at heads with what replacing the heads does.

    By chance the shared heads follow the hypergeometric law of `count` drawn from all compared
    heads, of which `count` are marked.

    Args:
        accuracy: of every head's probe; heads without one are NaN.
        effects: of the same model's heads; those that were not asked for are left out.
        count: how many of the first heads to compare; of equal ones the first in order.

    Raises:
        WorkbenchError: another number of heads, fewer than `count` of them, or a ranking in which
            all are equal.

    Example:
        >>> effects = wb.analysis.knock_out_heads(model, fold.test.choose([0]), heads=edit.heads)
        >>> agreed = wb.analysis.compare_rankings(directions.accuracy, effects, count=2)
        >>> agreed.heads, agreed.shared, agreed.expected
        (4, 1, 1.0)
    """
    from scipy import stats

    moved = effects.mean.abs()
    if accuracy.shape != moved.shape:
        raise WorkbenchError(
            f"accuracies of shape {tuple(accuracy.shape)}", f"{tuple(moved.shape)}"
        )
    both = accuracy.isfinite() & moved.isfinite()
    rankings = accuracy[both].double(), moved[both].double()
    heads = int(both.sum())
    if not 0 < count <= heads or any(len(set(ranking.tolist())) < 2 for ranking in rankings):
        raise WorkbenchError(
            f"the first {count} of {heads} heads", "at least so many heads, not all of them equal"
        )
    first, second = (
        set(ranking.argsort(descending=True, stable=True)[:count].tolist()) for ranking in rankings
    )
    chance, shared = stats.hypergeom(heads, count, count), len(first & second)
    correlation = stats.spearmanr(rankings[0].numpy(), rankings[1].numpy()).statistic
    return RankAgreement(
        float(correlation), heads, count, shared, float(chance.mean()), float(chance.sf(shared - 1))
    )
