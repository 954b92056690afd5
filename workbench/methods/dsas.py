"""DSAS: a logistic gate per layer and token around any method's edit of states.

x ← x + α·g_l(x)·(T(x) − x), g_l(x) = sigmoid(w_l·x + b_l)

T is the other method's edit; g_l is a logistic regression on principal components that tells, at
the edited layer l, mean states of texts to be steered from those of texts to be left alone.
Ferrando et al. 2025, "Dynamically Scaled Activation Steering" (arXiv 2512.03661). There these are
toxic texts and a control set of neutral ones, beside which the direction has texts of its own;
here they are incorrect and correct answers, since a fit is given nothing else. So the gate never
saw plain text, and what it does there says nothing of the paper's.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.checks import require_number, require_whole
from workbench.data.questions import QuestionSet, require_questions
from workbench.doors import door_of_class
from workbench.editing.gates import Gate, Gated
from workbench.methods.around import AroundMethod
from workbench.methods.memo import Memo
from workbench.methods.registry import METHODS
from workbench.methods.states import Sides, answer_pairs, pair_states
from workbench.models.identity import Model
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
        style, shuffle_labels, seed, batch_size: see `Method`.

    Example:
        >>> iti = wb.methods.inference_time(heads=4, alpha=5)
        >>> wb.methods.DynamicScaling(of=iti).fit(model, fold.train, progress=False)
        Gated(z of hearsay, layers (0, 1, 2), alpha=1, sigmoid gate)
    """

    components: int = 16
    penalty: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
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
        pairs = answer_pairs(train, shuffle_labels=self.shuffle_labels, seed=self.seed)
        fitted = [
            logistic_gate(sides, self.components, self.penalty)
            for sides in pair_states(
                model, pairs, inner.places, style=self.style, batch_size=self.batch_size, memo=memo
            )
        ]
        weight, bias = (torch.stack(own) for own in zip(*fitted, strict=True))
        settings = {**asdict(self), **self.told(inner), "method": "dsas"}
        gate = Gate(weight[:, None], bias[:, None], "sigmoid")
        return Gated.around(inner, gate, alpha=self.alpha, settings=settings)


def logistic_gate(
    sides: Sides, components: int, penalty: float
) -> tuple[Float[Tensor, " channel"], Float[Tensor, ""]]:
    """Weights and bias of a regression on principal components, as those of the state itself.

    Args:
        sides: states of correct answers, which are to be left alone, and of incorrect ones.
        components: at most so many; those without variance are left out.
        penalty: weight of ½‖w‖², of components with a standard deviation of 1.
    """
    correct, incorrect = (own.flatten(start_dim=1).double() for own in sides)
    states = torch.cat([incorrect, correct])
    label = torch.tensor([1] * len(incorrect) + [0] * len(correct))
    mean = states.mean(dim=0)
    centred = states - mean
    variance, axes = torch.linalg.eigh(centred.T @ centred / len(states))
    kept = variance.flip(0)[:components]
    kept = kept[kept > 1e-9 * variance[-1]]
    axes = axes.flip(1)[:, : len(kept)] / kept.sqrt()
    solved = optimum((centred @ axes)[:, None], label, penalty)[0].double()
    weight = axes @ solved[:-1]
    return weight.float(), (solved[-1] - weight @ mean).float()
