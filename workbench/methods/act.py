"""ACT: several directions of heads, one a cluster of questions, each as strong as a probe doubts.

z ← z + α Σ_k σ_k (b₀ + p_k(z)) θ_k

For every head the training questions are clustered by the difference of their correct and incorrect
answers' mean z at the last token (k-means). A logistic regression a cluster, on the answers to its
questions, gives θ_k, the unit normal towards correct answers, and p_k, the probability that z is of
an incorrect one. Every cluster edits the heads at which its regression tells held-back answers
best. σ_k is the standard deviation of z·θ_k. Wang et al. 2025, "Adaptive Activation Steering: A
Tuning-Free LLM Truthfulness Improvement Method for Diverse Hallucinations Categories" (WWW 2025,
arXiv 2406.00034), sections 3.2 to 3.4; that clusters are a head's own, and the numbers of heads and
clusters, are of the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from workbench.checks import require_number, require_share, require_whole
from workbench.data.questions import QuestionSet, require_questions
from workbench.doors import door_of_class
from workbench.editing.state_edits import StateEdit, States
from workbench.errors import WorkbenchError
from workbench.methods.base import OF_GATES, Method
from workbench.methods.memo import Memo
from workbench.methods.registry import METHODS
from workbench.methods.states import answer_states
from workbench.models.identity import Model, identify, shape_of
from workbench.models.passes import Place
from workbench.stages.logistic_regression import optimum

PENALTY = 1.0
"""Of the regressions: ½‖w‖², scikit-learn's default."""


@dataclass(frozen=True, repr=False, kw_only=True)
class DoubtedHeads(StateEdit, kind="doubted_heads"):
    """Adds directions to heads, each as strongly as its probe finds the head's z incorrect.

    Attributes:
        heads: (layer, head) of every row; one stands several times where clusters share it.
        direction: θ.
        spread: σ.
        coefficient, intercept: p = sigmoid(w·z + b).
        base: b₀.
        places, alpha, answer_start, model, settings, positions: see `StateEdit`.
    """

    heads: tuple[tuple[int, int], ...]
    direction: Float[Tensor, "row d_head"]
    spread: Float[Tensor, " row"]
    coefficient: Float[Tensor, "row d_head"]
    intercept: Float[Tensor, " row"]
    base: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        layers = dict.fromkeys(layer for layer, _ in self.heads)
        if set(self.places) != {("z", layer) for layer in layers}:
            raise WorkbenchError(f"heads of layers {list(layers)} at {self.places}", "their z")
        require_number("base", self.base)
        rows, width = len(self.heads), self.model.shape.d_head
        for name in ("direction", "coefficient"):
            self.require_finite(name, (rows, width))
        for name in ("spread", "intercept"):
            self.require_finite(name, (rows,))

    @property
    def label(self) -> str:
        """Heads and α."""
        return f"{len(set(self.heads))} heads, alpha {self.alpha:g}"

    def rows_of(self, number: int) -> tuple[list[int], list[int]]:
        """The rows of a place, and their heads."""
        layer = self.places[number][1]
        rows = [row for row, (at, _) in enumerate(self.heads) if at == layer]
        return rows, [self.heads[row][1] for row in rows]

    def change(self, number: int, state: States) -> States:
        """z and its heads' shifts; see `StateEdit.change`."""
        rows, heads = self.rows_of(number)
        step = self.alpha * self.spread[rows].to(state) * self.gates(number, state)
        shift = step[..., None] * self.direction[rows].to(state)
        return state.index_add(1, torch.tensor(heads, device=state.device), shift)

    def gates(self, number: int, state: States) -> Float[Tensor, "position row"]:
        """b₀ + p of every row; see `StateEdit.gates`."""
        rows, heads = self.rows_of(number)
        inner = (state[:, heads] * self.coefficient[rows].to(state)).sum(dim=-1)
        return self.base + (inner + self.intercept[rows].to(state)).sigmoid()

    def evened(self, means: Float[Tensor, " gate"]) -> DoubtedHeads:
        """The same with constant strengths; see `StateEdit.evened`."""
        rows = [row for number in range(len(self.places)) for row in self.rows_of(number)[0]]
        even = torch.empty_like(self.spread)
        even[rows] = means.to(even)
        # A probe that says ½ everywhere, beside a base of ½, is a strength of 1.
        return replace(
            self, spread=self.spread * even, base=0.5,
            coefficient=torch.zeros_like(self.coefficient),
            intercept=torch.zeros_like(self.intercept),
        )  # fmt: skip


@dataclass(frozen=True)
class Probed:
    """A cluster's regression at every head.

    Attributes:
        direction, coefficient, intercept, spread: as in `DoubtedHeads`.
        accuracy: of held-back answers; 0 where there were none of both kinds to learn from.
    """

    direction: Float[Tensor, "layer head d_head"]
    coefficient: Float[Tensor, "layer head d_head"]
    intercept: Float[Tensor, "layer head"]
    spread: Float[Tensor, "layer head"]
    accuracy: Float[Tensor, "layer head"]


@METHODS.register("act", about="ACT: clustered directions of heads, as strong as probes doubt")
@door_of_class
@dataclass(frozen=True, kw_only=True)
class AdaptiveSteering(Method):
    """Settings of a fit.

    Attributes:
        alpha: factor of σ.
        heads: how many every cluster edits.
        clusters: of questions, at every head.
        base: b₀, what a state that no probe doubts gets.
        validation_share: share of a cluster's questions by whose answers heads are ranked.
        style, shuffle_labels, seed, batch_size: see `Method`.

    Example:
        >>> act = wb.methods.AdaptiveSteering(heads=4, clusters=2, alpha=5)
        >>> act.fit(model, fold.train, progress=False).label
        '6 heads, alpha 5'
    """

    alpha: float = 12.0
    heads: int = 24
    clusters: int = 3
    base: float = 0.0
    validation_share: float = 0.2
    LACKS: ClassVar[tuple[str, ...]] = OF_GATES

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("heads", "clusters"):
            require_whole(name, getattr(self, name), 1)
        require_number("base", self.base)
        require_share("validation_share", self.validation_share)

    def fit(
        self,
        model: Model,
        train: QuestionSet,
        *,
        everything: QuestionSet | None = None,  # noqa: ARG002 - it does not leak
        memo: Memo | None = None,
        progress: bool = True,  # noqa: ARG002 - there is no bar
    ) -> DoubtedHeads:
        """Fit on training questions; see `Method.fit`.

        Raises:
            WorkbenchError: fewer questions than clusters, more heads than the model has, or no
                head at which any cluster can be ranked.
        """
        require_questions(train)
        shape = shape_of(model)
        if self.heads > shape.layers * shape.heads:
            raise WorkbenchError(f"heads={self.heads}", f"at most {shape.layers * shape.heads}")
        if self.clusters > len(train):
            raise WorkbenchError(
                f"{self.clusters} clusters of {len(train)} questions", "as many questions or more"
            )
        places: list[Place] = [("z", layer) for layer in range(shape.layers)]
        answers = [(q.question, text) for q in train for text in q.answers]
        found = answer_states(
            model, answers, places, style=self.style, over="last", batch_size=self.batch_size,
            memo=memo,
        )  # fmt: skip
        z = torch.stack(found, dim=1)  # answer, layer, head, d_head
        question = torch.tensor([k for k, q in enumerate(train) for _ in q.answers])
        label = torch.tensor([value for q in train for value in q.labels])
        if self.shuffle_labels:
            label = shuffled_within(question, label, self.seed)
        cluster = self._clusters(differences(z, question, label))
        probed = [self._probed(z, question, label, cluster == k) for k in range(self.clusters)]
        return self._edit(model, probed)

    def _clusters(
        self, difference: Float[Tensor, "question layer head d_head"]
    ) -> Int[Tensor, "question layer head"]:
        """k-means of the questions' differences, at every head by itself."""
        from sklearn.cluster import KMeans

        count, layers, heads, _ = difference.shape
        found = torch.empty(count, layers, heads, dtype=torch.long)
        for layer in range(layers):
            for head in range(heads):
                own = KMeans(self.clusters, n_init=10, random_state=self.seed)
                found[:, layer, head] = torch.from_numpy(
                    own.fit_predict(difference[:, layer, head].double().numpy())
                )
        return found

    def _probed(
        self,
        z: Float[Tensor, "answer layer head d_head"],
        question: Int[Tensor, " answer"],
        label: Int[Tensor, " answer"],
        member: Bool[Tensor, "question layer head"],
    ) -> Probed:
        """A cluster's regressions: at every head on most of the cluster's questions there."""
        _, layers, heads, width = z.shape
        solved = torch.zeros(layers, heads, width + 1, dtype=torch.float64)
        accuracy = torch.zeros(layers, heads)
        draw = np.random.default_rng([self.seed, 8])
        for layer in range(layers):
            for head in range(heads):
                own = member[:, layer, head].nonzero().flatten().numpy()
                held = draw.permutation(own)[: round(self.validation_share * len(own))]
                inside = member[question, layer, head]
                out = torch.isin(question, torch.from_numpy(held))
                fit, check = inside & ~out, inside & out
                if not check.any() or len(set(label[fit].tolist())) < 2:
                    continue
                found = optimum(z[fit, layer, head][:, None], 1 - label[fit], PENALTY)[0].double()
                solved[layer, head] = found
                doubt = z[check, layer, head].double() @ found[:-1] + found[-1]
                accuracy[layer, head] = ((doubt <= 0) == label[check].bool()).float().mean()
        coefficient, intercept = solved[..., :-1].float(), solved[..., -1].float()
        direction = -normalize(coefficient, dim=-1)
        spread = (z * direction).sum(dim=-1).std(dim=0, correction=0)
        return Probed(direction, coefficient, intercept, spread, accuracy)

    def _edit(self, model: Model, probed: Sequence[Probed]) -> DoubtedHeads:
        """The best heads of every cluster."""
        rows: list[tuple[int, int, int]] = []
        for number, own in enumerate(probed):
            order = own.accuracy.flatten().sort(descending=True, stable=True)
            best = order.indices[: self.heads][order.values[: self.heads] > 0]
            rows += [(number, *divmod(int(k), own.accuracy.shape[1])) for k in best]
        if not rows:
            raise WorkbenchError(
                "clusters of questions of which none has answers of both kinds to rank heads by",
                "more questions, or fewer clusters",
            )

        def taken(name: str) -> Tensor:
            return torch.stack([getattr(probed[k], name)[layer, head] for k, layer, head in rows])

        heads = tuple((layer, head) for _, layer, head in rows)
        places: list[Place] = [("z", layer) for layer in sorted({layer for layer, _ in heads})]
        return DoubtedHeads(
            places=tuple(places), heads=heads, alpha=self.alpha, base=self.base,
            direction=taken("direction"), spread=taken("spread"),
            coefficient=taken("coefficient"), intercept=taken("intercept"),
            model=identify(model),
            settings={**asdict(self), "style": self.style_name, "method": "act"},
        )  # fmt: skip


def shuffled_within(
    question: Int[Tensor, " answer"], label: Int[Tensor, " answer"], seed: int
) -> Int[Tensor, " answer"]:
    """Labels permuted among every question's own answers, so that it keeps some of both kinds."""
    found, draw = label.clone(), np.random.default_rng([seed, 7])
    for number in sorted(set(question.tolist())):
        own = (question == number).nonzero().flatten()
        found[own] = label[own[torch.from_numpy(draw.permutation(len(own)))]]
    return found


def differences(
    z: Float[Tensor, "answer *place d_head"],
    question: Int[Tensor, " answer"],
    label: Int[Tensor, " answer"],
) -> Float[Tensor, "question *place d_head"]:
    """Mean of correct answers minus mean of incorrect ones, of every question."""
    total = z.new_zeros(int(question.max()) + 1, 2, *z.shape[1:])
    total.index_put_((question, label), z, accumulate=True)
    count = torch.zeros(total.shape[:2]).index_put_(
        (question, label), torch.ones(len(z)), accumulate=True
    )
    mean = total / count.view(*count.shape, *[1] * (z.ndim - 1))
    return mean[:, 1] - mean[:, 0]
