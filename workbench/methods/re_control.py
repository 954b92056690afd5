"""RE-Control: at every position, the final state climbs a learnt value function.

V is fitted by temporal difference on the states h_1 … h_T of answers with a reward r each:
Σ_t (V(h_t) − sg V(h_{t+1}))² + (V(h_T) − r)², where sg stops the gradient. The edit is n steps of
h ← h + α ∇V(h). Kong et al. 2024, "Aligning Large Language Models with Representation Editing: A
Control Perspective", sections 4.2 and 4.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import linear, relu
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from workbench.checks import require_share, require_whole
from workbench.data.ground_truth import ground_truth_of
from workbench.data.questions import QuestionSet, require_questions
from workbench.doors import door_of_class
from workbench.editing.generation import generate
from workbench.editing.state_edits import StateEdit, States
from workbench.errors import WorkbenchError
from workbench.methods.base import OF_OTHERS, Method
from workbench.methods.memo import Memo
from workbench.methods.registry import METHODS
from workbench.models.batched_passes import Passage, states_at
from workbench.models.identity import Model, identify, shape_of
from workbench.models.passes import Place
from workbench.models.prompts import encode, prompt_format

WEIGHTS = ("first", "first_bias", "second", "second_bias", "last", "last_bias")
PATIENCE = 5  # epochs without a lower validation loss
STEP = 32  # answers in a step of the optimiser


@dataclass(frozen=True, repr=False, kw_only=True)
class ValueAscent(StateEdit, kind="value_ascent"):
    """Gradient ascent on a value function.

    Attributes:
        steps: n.
        first, first_bias, second, second_bias, last, last_bias: weights of V, a row a place.
        places, alpha, answer_start, model, settings, positions: see `StateEdit`; α is the length of
            a step, in units of the gradient.
    """

    steps: int
    first: Float[Tensor, "place hidden d_model"]
    first_bias: Float[Tensor, "place hidden"]
    second: Float[Tensor, "place hidden hidden"]
    second_bias: Float[Tensor, "place hidden"]
    last: Float[Tensor, "place 1 hidden"]
    last_bias: Float[Tensor, "place 1"]

    def change(self, number: int, state: States) -> States:
        """The state after n steps; see `StateEdit.change`."""
        weights = [getattr(self, name)[number].to(state) for name in WEIGHTS]
        for _ in range(self.steps):
            state = state + self.alpha * slope(weights, state)
        return state


@METHODS.register("re_control", about="RE-Control: a value function steers the states")
@door_of_class
@dataclass(frozen=True, kw_only=True)
class ReControl(Method):
    """Settings of a fit.

    Attributes:
        alpha: α; the published 1.0 is for a model 4,096 wide, the default the largest that leaves
            hearsay's validation questions answered in whole sentences.
        steps: n.
        hidden: width of V's two hidden layers; by default d_model, at most 1,024.
        sampled: answers sampled for every question, beside those that it comes with; they are
            rewarded where they state the truth, so for questions with a ground truth alone.
        rate: the optimiser's.
        epochs: at most so many; fitting stops earlier where the validation questions' loss does
            not fall any more.
        validation_share: share of the training questions that only tell when to stop.
        style, shuffle_labels, seed, batch_size: see `Method`; rewards are permuted over answers.

    Example:
        >>> wb.methods.ReControl(epochs=2).fit(model, fold.train, progress=False)
        ValueAscent(final_norm of hearsay, layers (4,), alpha=0.3)
    """

    alpha: float = 0.3
    steps: int = 30
    hidden: int | None = None
    sampled: int = 0
    rate: float = 1e-3
    epochs: int = 30
    validation_share: float = 0.2
    LACKS: ClassVar[tuple[str, ...]] = OF_OTHERS

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("steps", 1), ("sampled", 0), ("epochs", 1)):
            require_whole(name, getattr(self, name), least)
        if self.hidden is not None:
            require_whole("hidden", self.hidden, 1)
        require_share("rate", self.rate)
        require_share("validation_share", self.validation_share)

    def fit(
        self,
        model: Model,
        train: QuestionSet,
        *,
        everything: QuestionSet | None = None,  # noqa: ARG002 - it does not leak
        memo: Memo | None = None,
        progress: bool = True,
    ) -> ValueAscent:
        """Fit on training questions; see `Method.fit`."""
        require_questions(train)
        place: Place = ("final_norm", shape_of(model).layers - 1)
        passages, reward, question = self._answers(model, train)
        key = (place, tuple((passage.tokens, passage.span) for passage in passages))
        states = (memo or Memo()).get(
            "trajectories", key, lambda: states_at(model, passages, [place], self.batch_size)[place]
        )
        if self.shuffle_labels:
            draw = torch.Generator().manual_seed(self.seed)
            reward = reward[torch.randperm(len(reward), generator=draw)]
        held = torch.tensor(train.validation_mask(self.validation_share, self.seed))[question]
        own = torch.split(states, [len(passage.span) for passage in passages])
        weights = fit_value(own, reward, held, self, progress=progress)
        named: dict[str, Any] = {n: own[None] for n, own in zip(WEIGHTS, weights, strict=True)}
        return ValueAscent(
            places=(place,), steps=self.steps, alpha=self.alpha, model=identify(model),
            settings={"method": "re_control", **asdict(self), "style": self.style_name},
            **named,
        )  # fmt: skip

    def _answers(
        self, model: Model, train: QuestionSet
    ) -> tuple[list[Passage], Float[Tensor, " answer"], Int[Tensor, " answer"]]:
        """Answers, from the last prompt token on, their rewards, and the questions' numbers."""
        style = prompt_format(self.style)
        rows: list[tuple[Passage, float, int]] = []
        for number, question in enumerate(train):
            for answer, label in zip(question.answers, question.labels, strict=True):
                encoded = encode(model, question.question, answer, style)
                span = range(encoded.start - 1, len(encoded.tokens))
                rows.append((Passage(encoded.tokens, span), label, number))
        rows += self._sampled(model, train)
        passages, rewards, numbers = zip(*rows, strict=True)
        return list(passages), torch.tensor(rewards).float(), torch.tensor(numbers)

    def _sampled(self, model: Model, train: QuestionSet) -> list[tuple[Passage, float, int]]:
        """The same of sampled answers, 1 for those that state the truth."""
        if not self.sampled:
            return []
        truth = ground_truth_of(question.question for question in train)
        if truth is None:
            raise WorkbenchError(
                f"sampled answers to {train!r}, whose truth is not known",
                "questions with a ground truth, such as hearsay's, or sampled=0",
            )
        asked = [number for number in range(len(train)) for _ in range(self.sampled)]
        style = prompt_format(self.style)
        said = generate(
            model, [encode(model, train[number].question, None, style) for number in asked],
            max_new_tokens=32, temperature=1.0, seed=self.seed, stop=("\n",),
            batch_size=self.batch_size,
        )  # fmt: skip
        rows = []
        for number, one in zip(asked, said, strict=True):
            tokens = one.prompt_tokens + one.tokens[: one.kept]
            span = range(len(one.prompt_tokens) - 1, len(tokens))
            stated = truth.what_states(train[number].question, one.text.strip())
            rows.append((Passage(tokens, span), float(stated == "truth"), number))
        return rows


def value(weights: Sequence[Tensor], state: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row"]:
    """V: a perceptron of three layers with rectified linear units, one number a state.

    Args:
        weights: in the order of `WEIGHTS`.
        state: states of any number.
    """
    first, first_bias, second, second_bias, last, last_bias = weights
    inner = relu(linear(relu(linear(state, first, first_bias)), second, second_bias))
    return linear(inner, last, last_bias)[..., 0]


def slope(
    weights: Sequence[Tensor], state: Float[Tensor, "*row d_model"]
) -> Float[Tensor, "*row d_model"]:
    """∇V at every state."""
    with torch.enable_grad():
        leaf = state.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(value(weights, leaf).sum(), leaf)
    return gradient


def temporal_difference(
    values: Float[Tensor, "answer token"],
    real: Bool[Tensor, "answer token"],
    reward: Float[Tensor, " answer"],
) -> Float[Tensor, ""]:
    """The loss, a mean over answers of sums over their tokens.

    Args:
        values: V of every state, padded on the right.
        real: which are no padding.
        reward: r of every answer, to which its last state's value is drawn.
    """
    last = real.sum(dim=1) - 1
    target = values.detach().roll(-1, dims=1).scatter(1, last[:, None], reward[:, None])
    return ((values - target).square() * real).sum() / len(values)


def fit_value(
    states: Sequence[Float[Tensor, "_ d_model"]],
    reward: Float[Tensor, " answer"],
    held: Bool[Tensor, " answer"],
    method: ReControl,
    *,
    progress: bool = False,
) -> list[Tensor]:
    """Fit V by temporal difference, with Adam.

    Args:
        states: of every answer, in the order of its tokens.
        reward: of every answer.
        held: answers that are not fitted on; of all epochs', the weights with their least loss are
            returned.
        method: its width, rate, epochs and seed are used.
        progress: show a bar.

    Returns:
        Weights in the order of `WEIGHTS`.

    Raises:
        WorkbenchError: all answers are held, or none.
    """
    if bool(held.all()) or not bool(held.any()):
        raise WorkbenchError(f"{int(held.sum())} of {len(held)} answers held", "some, and not all")
    draw = torch.Generator().manual_seed(method.seed)
    padded = pad_sequence(list(states), batch_first=True)
    lengths = torch.tensor([len(own) for own in states])
    real = torch.arange(padded.shape[1]) < lengths[:, None]
    width = padded.shape[2]
    weights = _drawn(width, method.hidden or min(width, 1024), draw)
    optimiser = torch.optim.Adam(weights, lr=method.rate)

    def loss(rows: Int[Tensor, " row"]) -> Float[Tensor, ""]:
        longest = int(lengths[rows].max())
        values = value(weights, padded[rows, :longest])
        return temporal_difference(values, real[rows, :longest], reward[rows])

    fitted, validation = (~held).nonzero()[:, 0], held.nonzero()[:, 0]
    best, least, waited = [w.detach().clone() for w in weights], float("inf"), 0
    for _ in tqdm(range(method.epochs), desc="value function", disable=not progress, leave=False):
        order = fitted[torch.randperm(len(fitted), generator=draw)]
        for rows in torch.split(order, STEP):
            optimiser.zero_grad()
            loss(rows).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        with torch.no_grad():
            now = float(loss(validation))
        waited += 1
        if now < least:
            best, least, waited = [w.detach().clone() for w in weights], now, 0
        if waited == PATIENCE:
            break
    return best


def _drawn(width: int, hidden: int, draw: torch.Generator) -> list[Tensor]:
    """First weights, normal with variance 2 over the inputs, and zero biases."""
    weights = []
    for rows, columns in ((hidden, width), (hidden, hidden), (1, hidden)):
        drawn = (
            torch.randn(rows, columns, generator=draw, dtype=torch.float32) * (2 / columns) ** 0.5
        )
        weights += [
            drawn.requires_grad_(),
            torch.zeros(rows, requires_grad=True, dtype=torch.float32),
        ]
    return weights
