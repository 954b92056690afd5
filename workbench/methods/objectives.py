"""What fits by descent go down on: a loss of some training rows, under a change with parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from workbench.checks import require_number, require_one_of, require_share, require_whole
from workbench.data.questions import QuestionSet
from workbench.methods.base import Method
from workbench.methods.by_gradient import (
    Around,
    Preference,
    log_probabilities,
    margins,
    predictions,
    preferences,
    reference_margins,
)
from workbench.methods.memo import Memo
from workbench.methods.training_texts import own_answers, said_of, texts_of
from workbench.models.identity import Model
from workbench.stages.gain_per_nat import Answers

Objective = Literal["likelihood", "preference", "truth_per_nat"]
OWN_TOKENS = 30
"""At most so many of the model's own answers count."""


@dataclass(frozen=True)
class Goal:
    """A loss and what it is of.

    Attributes:
        count: of rows.
        loss: of some rows, by their numbers, under what is done around a pass.
    """

    count: int
    loss: Callable[[Sequence[int], Around], Float[Tensor, ""]]


@dataclass(frozen=True, kw_only=True)
class Descent(Method):
    """Methods whose objective can be chosen: what their settings have in common.

    Attributes:
        objective: `likelihood`, the mean −log π of correct answers' tokens; `preference`, see
            `preference_loss`, over pairs of a correct and an incorrect answer; or `truth_per_nat`,
            MC2 less what it costs.
        pairs: at most so many pairs of every question, or so many answers of either side; None for
            all.
        epochs: how often all are gone through.
        step: pairs, or questions, in a step of the optimiser.
        rate: the optimiser's.
        beta: of the preference.
        price: MC2 that a nat of KL a token is worth, of `truth_per_nat` alone; the KL is a weighted
            mean over kinds of training texts, where `NaturalGradient.budget` is of the worse of
            two, on left-out questions.
        alpha, style, shuffle_labels, seed, batch_size: see `Method`.

    Example:
        >>> quick = wb.methods.LoRA(objective="truth_per_nat", rank=2, pairs=1, epochs=1)
        >>> isinstance(quick, wb.methods.Descent), quick.goal(model, fold.train).count
        (True, 12)
    """

    objective: Objective = "preference"
    pairs: int | None = 4
    epochs: int = 3
    step: int = 8
    rate: float = 1e-3
    beta: float = 0.5
    price: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("objective", self.objective, Objective)
        if self.pairs is not None:
            require_whole("pairs", self.pairs, 1)
        for name in ("epochs", "step"):
            require_whole(name, getattr(self, name), 1)
        require_share("rate", self.rate)
        require_number("beta", self.beta, above=0)
        require_number("price", self.price, least=0)

    def goal(self, model: Model, train: QuestionSet, memo: Memo | None = None) -> Goal:
        """What is descended on.

        Args:
            model: the bridge.
            train: the questions.
            memo: what fits share.
        """
        if self.objective == "truth_per_nat":
            return truth_per_nat(model, train, self, memo)
        preferred = preferences(model, train, self, self.pairs)
        if self.objective == "likelihood":
            return likelihood(model, preferred)
        return preference(model, preferred, self)


def likelihood(model: Model, preferred: Sequence[Preference]) -> Goal:
    """The mean −log π of correct answers' tokens."""

    def loss(rows: Sequence[int], around: Around) -> Float[Tensor, ""]:
        own = [preferred[k].chosen for k in rows]
        tokens = sum(len(one.answer_tokens) for one in own)
        return -log_probabilities(model, own, around).sum() / tokens

    return Goal(len(preferred), loss)


def preference(model: Model, preferred: Sequence[Preference], method: Descent) -> Goal:
    """See `preference_loss`."""
    reference = reference_margins(model, preferred, method.batch_size)

    def loss(rows: Sequence[int], around: Around) -> Float[Tensor, ""]:
        gain = margins(model, [preferred[k] for k in rows], around) - reference[list(rows)]
        return preference_loss(gain, method.beta)

    return Goal(len(preferred), loss)


def preference_loss(gain: Float[Tensor, " pair"], beta: float) -> Float[Tensor, ""]:
    """Direct preference optimisation's loss, of what margins have gained over the reference's.

    −log σ(β·gain), a mean over pairs (Rafailov et al. 2023, eq. 7).
    """
    return -logsigmoid(beta * gain).mean()


def truth_per_nat(
    model: Model, train: QuestionSet, method: Descent, memo: Memo | None = None
) -> Goal:
    """What the natural gradient is of, by descent: price · KL − MC2, of questions.

    The KL, of a text's tokens from the unedited model, is a weighted mean over the model's own
    answers and correct ones (`training_texts.WEIGHT`).

    Args:
        model: the bridge.
        train: the questions.
        method: its number of answers, price, style and seed are used. Where labels are shuffled the
            answers of half of the questions change sides (of pairs, with other objectives), those
            whose KL counts too.
        memo: what fits share.
    """
    said = said_of(
        model, train, method.pairs, style=method.style, shuffle_labels=method.shuffle_labels,
        seed=method.seed,
    )  # fmt: skip
    own = own_answers(
        model, train, style=method.style, max_new_tokens=OWN_TOKENS,
        batch_size=method.batch_size, memo=memo,
    )  # fmt: skip
    size = method.batch_size
    with torch.no_grad():
        parts = [said.encoded[k : k + size] for k in range(0, len(said.encoded), size)]
        nats = torch.cat([log_probabilities(model, part) for part in parts]).cpu()
    texts = texts_of(own, said, nats)
    weights = len(train) * texts.weights

    def loss(rows: Sequence[int], around: Around) -> Float[Tensor, ""]:
        place = {number: order for order, number in enumerate(rows)}
        mine = [k for k, number in enumerate(texts.question) if number in place]
        changed = predictions(model, [texts.encoded[k] for k in mine], around)
        device = changed.said.device
        given = [k for k in mine if k >= len(own)]
        told = Answers(
            changed.answers[len(mine) - len(given) :],
            torch.tensor([place[texts.question[k]] for k in given], device=device),
            said.correct[[k - len(own) for k in given]].to(device),
        )
        gain = told.shares()[1].mean()
        weight = weights[mine].to(changed.nats)
        costly = weight.nonzero()[:, 0]
        with torch.no_grad():
            plain = predictions(model, [texts.encoded[mine[k]] for k in costly.tolist()])
        moved = changed.nats[torch.isin(changed.answer, costly)]
        kl = plain.means((plain.nats.exp() * (plain.nats - moved)).sum(dim=-1))
        return method.price * (kl * weight[costly]).sum() / len(rows) - gain

    return Goal(len(train), loss)
