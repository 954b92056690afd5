"""DSAS: a logistic gate per layer and token around any method's edit of states.

x ← x + α·g_l(x)·(T(x) − x), g_l(x) = sigmoid(w_l·x + b_l)

T is the other method's edit; g_l is a logistic regression on principal components that tells, at
the edited layer l, mean states of texts to be steered from those of texts to be left alone.
Ferrando et al. 2025, "Dynamically Scaled Activation Steering" (arXiv 2512.03661). There these are
toxic texts and a control set of neutral ones, beside which the direction has texts of its own.
Here incorrect answers are to be steered, and `neutral` texts left alone; where none are given,
correct answers are, so that such a gate never saw plain text, and what it does there says nothing
of the paper's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench import storage
from workbench.checks import require_number, require_whole
from workbench.data.plain import read_texts
from workbench.data.questions import QuestionSet, require_questions
from workbench.doors import door_of_class
from workbench.editing.gates import Gate, Gated
from workbench.errors import WorkbenchError
from workbench.methods.around import AroundMethod
from workbench.methods.memo import Memo
from workbench.methods.registry import METHODS
from workbench.methods.states import Sides, answer_pairs, pair_states, text_states
from workbench.models.identity import Model
from workbench.models.passes import Place
from workbench.stages.logistic_regression import optimum


@METHODS.register("dsas", about="DSAS: a logistic gate per token around another method")
@door_of_class
@dataclass(frozen=True, kw_only=True)
class DynamicScaling(AroundMethod):
    """Settings of a fit.

    Attributes:
        alpha: factor of the gated change; the other method's own α stays as it is.
        of: the method whose edit is gated; see `AroundMethod`.
        components: how many principal components of a layer's states the gate is fitted on; at most
            as many as there are.
        penalty: weight of ½‖w‖² in the regression, in units of the components' own spread.
        neutral: texts to be left alone, about as many as there are incorrect answers to train on;
            or the path of a JSON list of them. By default the questions' correct answers.
        style, shuffle_labels, seed, batch_size: see `Method`; with shuffled labels half of the
            texts that the gate tells apart change sides too.

    Example:
        >>> iti = wb.methods.inference_time(heads=4, alpha=5)
        >>> wb.methods.DynamicScaling(of=iti).fit(model, fold.train, progress=False)
        Gated(z of hearsay, layers (0, 1, 2), alpha=1, sigmoid gate)
    """

    components: int = 16
    penalty: float = 1.0
    neutral: tuple[str, ...] | storage.PathLike = field(default=(), repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        given: Any = self.neutral
        texts = read_texts(given) if isinstance(given, str | os.PathLike) else given
        listed = isinstance(texts, list | tuple)
        if not listed or not all(isinstance(text, str) and text.strip() for text in texts):
            raise WorkbenchError(
                f"neutral={texts!r:.80}", "a list of texts with words in them, or its path"
            )
        object.__setattr__(self, "neutral", tuple(texts))
        require_whole("components", self.components, 1)
        require_number("penalty", self.penalty, above=0)

    def fit(
        self,
        model: Model,
        train: QuestionSet,
        *,
        everything: QuestionSet | None = None,
        memo: Memo | None = None,
        progress: bool = True,
    ) -> Gated:
        """Fit the other method, then a gate at every place that it edits; see `Method.fit`.

        Raises:
            WorkbenchError: a method whose edit has strengths of its own at every token.
        """
        require_questions(train)
        inner = self.fit_inner(model, train, everything, memo, progress=progress)
        fitted = [
            logistic_gate(sides, self.components, self.penalty)
            for sides in self._sides(model, train, inner.places, memo)
        ]
        weight, bias = (torch.stack(own) for own in zip(*fitted, strict=True))
        settings = {**asdict(self), **self.told(inner), "method": "dsas"}
        gate = Gate(weight[:, None], bias[:, None], "sigmoid")
        return Gated.around(inner, gate, alpha=self.alpha, settings=settings)

    def _sides(
        self, model: Model, train: QuestionSet, places: Sequence[Place], memo: Memo | None
    ) -> Iterable[Sides]:
        """States of what is to be left alone, and of what is to be steered, by place."""
        texts = cast("tuple[str, ...]", self.neutral)
        pairs = answer_pairs(
            train, shuffle_labels=self.shuffle_labels and not texts, seed=self.seed
        )
        sides = pair_states(
            model, pairs, places, style=self.style, batch_size=self.batch_size, memo=memo
        )
        if not texts:
            return sides
        alone = text_states(model, texts, places, batch_size=self.batch_size, memo=memo)
        steered = [incorrect for _, incorrect in sides]
        if not self.shuffle_labels:
            return zip(alone, steered, strict=True)
        draw = np.random.default_rng([self.seed, 8])
        order = torch.from_numpy(draw.permutation(len(texts) + len(pairs)))
        mixed = [torch.cat(both)[order] for both in zip(alone, steered, strict=True)]
        return [(own[: len(texts)], own[len(texts) :]) for own in mixed]


def logistic_gate(
    sides: Sides, components: int, penalty: float
) -> tuple[Float[Tensor, " channel"], Float[Tensor, ""]]:
    """Weights and bias of a regression on principal components, as those of the state itself.

    Args:
        sides: states of what is to be left alone, and of what is to be steered.
        components: at most so many; those without variance are left out.
        penalty: weight of ½‖w‖², of components with a standard deviation of 1.
    """
    alone, steered = (own.flatten(start_dim=1).double() for own in sides)
    states = torch.cat([steered, alone])
    label = torch.tensor([1] * len(steered) + [0] * len(alone))
    mean = states.mean(dim=0)
    centred = states - mean
    variance, axes = torch.linalg.eigh(centred.T @ centred / len(states))
    kept = variance.flip(0)[:components]
    kept = kept[kept > 1e-9 * variance[-1]]
    axes = axes.flip(1)[:, : len(kept)] / kept.sqrt()
    solved = optimum((centred @ axes)[:, None], label, penalty)[0].double()
    weight = axes @ solved[:-1]
    return weight.float(), (solved[-1] - weight @ mean).float()
