"""Uncertainty over a large vocabulary at a fraction of the cost, with a measured bound.

Exactly, u costs 2·V·d operations and V·d weights for every token and edited layer: with the
128,256 x 4,096 of Llama-3-8B that is 1.05 GFLOP, and 1.05 GB in 16 bits, 7 % of the model's own
pass for each edited layer. A screen finds logits of rank r in 2·V·r instead, and puts exact ones
in the place of the k largest, 2·d·k more (SVD-softmax; Shim et al. 2017): an eighth of the cost
with r = d/8 and k = 256.
The reduced space is the one that loses least of the logits, in mean square, over hidden states like
those of training answers.

How far u is then off is measured on training questions that the screen was not fitted on, as a
split-conformal bound (Vovk et al. 2005): a new question drawn like them has a mean (or a largest)
error over its answers within the bound with at least the stated probability. An edit of a lower
layer moves the hidden states away from those that the bound was measured on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.data.questions import QuestionSet, require_questions
from workbench.errors import WorkbenchError
from workbench.models.batched_passes import Passage, as_it_is, run_passages
from workbench.models.identity import Model, shape_of
from workbench.models.logit_lens import final_norm, own_scale, unembedding, vocabulary_logits
from workbench.models.passes import Place
from workbench.models.prompts import PromptFormat, encode, prompt_format
from workbench.models.tokens import require_batch_size
from workbench.stages.uncertainty import normalised_entropy

NUMBERS = 1 << 26
"""Most logits and gathered weights at a time: 256 MB in float32."""
ROWS = 8192
"""Rows of the unembedding widened at a time: 128 MB in float32 at a width of 4,096."""
LEAST_VARIANCE = 1e-6
"""As a share of the largest: less may be float32's rounding, which an inverse root blows up."""


@dataclass(frozen=True, eq=False, repr=False)
class VocabularyScreen:
    """A reduced unembedding: logits are about (W · lift) (drop · h).

    Attributes:
        drop: from hidden states to the reduced space.
        lift: from the reduced space to hidden states.
        top: how many of the largest logits are computed exactly.
        mean_bound: for every layer, how far u may be off on average over a question's answers.
        worst_bound: the same for the largest error; both infinite where there were too few
            questions for the level.
        level: the probability with which each bound holds for a new question.
    """

    drop: Float[Tensor, "rank d_model"]
    lift: Float[Tensor, "d_model rank"]
    top: int
    mean_bound: Float[Tensor, " layer"]
    worst_bound: Float[Tensor, " layer"]
    level: float
    _reduced: WeakKeyDictionary[Any, tuple[Any, Tensor, Tensor]] = field(
        default_factory=WeakKeyDictionary
    )

    def __repr__(self) -> str:
        worst = float(self.mean_bound.max()) if len(self.mean_bound) else math.inf
        return (
            f"VocabularyScreen(rank {len(self.drop)} of {len(self.lift)}, top {self.top}, mean "
            f"error of u at most {worst:.2g} with probability {self.level:g} in every layer)"
        )

    def logits(
        self, model: Model, residual: Float[Tensor, "row d_model"]
    ) -> Float[Tensor, "row vocabulary"]:
        """Screened logits of residual-stream rows, the largest ones exact."""
        weight, bias = unembedding(model)
        lifted, drop = self._reduced_weight(model, weight)
        hidden = final_norm(model, residual.to(weight.device))
        low = (hidden.float() @ drop.T).to(weight.dtype)
        logits = torch.nn.functional.linear(low, lifted, bias).float()
        likely = logits.topk(self.top, dim=-1).indices
        exact = torch.einsum("nkd,nd->nk", weight[likely], hidden).float()
        if bias is not None:
            exact = exact + bias[likely]
        logits.scatter_(1, likely, exact)
        return own_scale(model, logits)

    def _reduced_weight(self, model: Model, weight: Tensor) -> tuple[Tensor, Tensor]:
        """W · lift and drop on the model's device, made again when the weights change."""
        key = (weight.data_ptr(), weight._version, weight.dtype, weight.device)
        if model not in self._reduced or self._reduced[model][0] != key:
            lift = self.lift.to(weight.device)
            parts = [(part.float() @ lift).to(weight.dtype) for part in torch.split(weight, ROWS)]
            self._reduced[model] = key, torch.cat(parts), self.drop.to(weight.device)
        _, lifted, drop = self._reduced[model]
        return lifted, drop

    def uncertainty(
        self, model: Model, residual: Float[Tensor, "row d_model"]
    ) -> Float[Tensor, " row"]:
        """U of residual-stream rows, as many at a time as keep to `NUMBERS` logits and weights."""
        shape = shape_of(model)
        rows = max(1, NUMBERS // (shape.vocabulary + self.top * shape.d_model))
        parts = [
            normalised_entropy(self.logits(model, part)) for part in torch.split(residual, rows)
        ]
        return torch.cat(parts)


def fit_vocabulary_screen(
    model: Model,
    questions: QuestionSet,
    rank: int | None = None,
    top: int = 256,
    *,
    level: float = 0.95,
    style: str | PromptFormat = "bare",
    seed: int = 0,
    batch_size: int = 32,
) -> VocabularyScreen:
    r"""Fit a screen on half of the training questions and measure its error on the other half.

    Args:
        model: the bridge.
        questions: training questions.
        rank: of the reduced logits; an eighth of d_model by default.
        top: largest logits to compute exactly.
        level: probability of the bounds.
        style: prompt format.
        seed: draws the halves.
        batch_size: answers run together.

    Raises:
        WorkbenchError: a rank or top that the model does not have, or fewer than two questions.

    Example:
        >>> screen = wb.stages.fit_vocabulary_screen(model, fold.train, top=16, level=0.8)
        >>> len(screen.drop), bool(screen.mean_bound.max() < 0.1)
        (20, True)
        >>> with wb.edited(model, edit, screen=screen):
        ...     answers = wb.generate(model, "Q: What is the capital of Australia?\nA:")
        >>> answers[0].text
        ' Canberra is the capital of Australia.'
    """
    require_questions(questions)
    require_batch_size(batch_size)
    shape = shape_of(model)
    rank = max(1, shape.d_model // 8) if rank is None else rank
    if not 1 <= rank <= shape.d_model or not 1 <= top <= shape.vocabulary:
        raise WorkbenchError(
            f"rank={rank} and top={top}",
            f"1 to {shape.d_model} (d_model) and 1 to {shape.vocabulary} (the vocabulary)",
        )
    if len(questions) < 2 or not 0 < level < 1:
        raise WorkbenchError(
            f"{len(questions)} questions and level={level}",
            "two questions or more, and a level between 0 and 1",
        )
    order = np.random.default_rng([seed, 3]).permutation(len(questions)).tolist()
    fitted, held = order[: len(order) // 2], order[len(order) // 2 :]
    second = torch.zeros(shape.d_model, shape.d_model, dtype=torch.float64)
    for _, _, residual in _residuals(model, questions, fitted, style, batch_size):
        hidden = final_norm(model, residual).double().cpu()
        second += hidden.T @ hidden
    drop, lift = _reduction(unembedding(model)[0], second / second.trace(), rank)
    nothing = torch.empty(0)
    screen = VocabularyScreen(drop, lift, top, nothing, nothing, level)
    total, worst = torch.zeros(2, len(questions), shape.layers)
    count = torch.zeros(len(questions), shape.layers)
    for numbers, layer, residual in _residuals(model, questions, held, style, batch_size):
        exact = normalised_entropy(vocabulary_logits(model, residual))
        error = (screen.uncertainty(model, residual) - exact).abs().cpu()
        total[:, layer].index_add_(0, numbers, error)
        count[:, layer].index_add_(0, numbers, torch.ones_like(error))
        worst[:, layer] = worst[:, layer].scatter_reduce(0, numbers, error, "amax")
    mean = total[held] / count[held]
    return VocabularyScreen(
        drop, lift, top, conformal_bound(mean, level), conformal_bound(worst[held], level), level
    )


def _reduction(
    weight: Float[Tensor, "vocabulary d_model"],
    second: Float[Tensor, "d_model d_model"],
    rank: int,
) -> tuple[Float[Tensor, "rank d_model"], Float[Tensor, "d_model rank"]]:
    """The best rank-r logits for hidden states with this second moment.

    With C = E[h hᵀ], the mean square of (W − R) h is that of (W − R) C^½, of which the singular
    value decomposition leaves the least: R = (W C^½ U) (Uᵀ C^−½).
    """
    values, vectors = torch.linalg.eigh(second)
    root = values.clamp(min=LEAST_VARIANCE * float(values.max())).sqrt()
    half, inverse = (vectors * root) @ vectors.T, (vectors / root) @ vectors.T
    gram = weight.new_zeros(weight.shape[1], weight.shape[1], dtype=torch.float64)
    for part in torch.split(weight, ROWS):
        gram += part.double().T @ part.double()
    kept = torch.linalg.eigh(half @ gram.cpu() @ half).eigenvectors[:, -rank:]
    return (kept.T @ inverse).float(), (half @ kept).float()


def conformal_bound(
    errors: Float[Tensor, "question layer"], level: float
) -> Float[Tensor, " layer"]:
    """The ⌈(n + 1)·level⌉-th smallest of each column's n errors; infinite if there is none."""
    rank = math.ceil((len(errors) + 1) * level)
    if rank > len(errors):
        return torch.full((errors.shape[1],), torch.inf)
    return errors.sort(dim=0).values[rank - 1]


def _residuals(
    model: Model,
    questions: QuestionSet,
    numbers: Sequence[int],
    style: str | PromptFormat,
    batch_size: int,
) -> Iterator[tuple[Int[Tensor, " row"], int, Float[Tensor, "row d_model"]]]:
    """Question numbers, layer and residual stream of the answers' positions."""
    chosen = prompt_format(style)
    passages, question = [], []
    for number in numbers:
        for answer in questions[number].answers:
            encoded = encode(model, questions[number].question, answer, chosen)
            passages.append(Passage(encoded.tokens, range(encoded.start - 1, len(encoded.tokens))))
            question += [number] * len(passages[-1].span)
    asked = torch.tensor(question)
    places: list[Place] = [("resid_pre", layer) for layer in range(shape_of(model).layers)]
    for batch in run_passages(model, passages, batch_size, dict.fromkeys(places, as_it_is)):
        for (_, layer), residual in batch.seen.items():
            yield asked[batch.place], layer, residual
