"""What a user of the workbench adds in a file of their own; `test_extension.py` uses it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from workbench.data.questions import QuestionSet
from workbench.data.sources import load_prompts, load_questions, load_stereotypes
from workbench.data.toxicity_prompts import Prompt, PromptSet
from workbench.editing.interventions import Intervention, Positions
from workbench.editing.state_edits import StateEdit
from workbench.methods.base import Method
from workbench.models.identity import ModelIdentity, identify


@dataclass(frozen=True, repr=False, kw_only=True)
class Shrunk(StateEdit):
    """Scales states towards nothing."""

    by: torch.Tensor

    def change(self, number, state):
        return state * (1 - self.alpha * self.by[number])


@dataclass(frozen=True, kw_only=True)
class Shrinking(Method):
    """Shrinks a layer's MLP output.

    Attributes:
        layer: which.
    """

    layer: int = 1

    def fit(self, model, train, *, everything=None, memo=None, progress=True):
        return Shrunk(
            places=(("mlp_out", self.layer),), by=torch.tensor([0.25]), alpha=self.alpha,
            model=identify(model), settings={"seed": self.seed, "method": "shrinking"},
        )  # fmt: skip


@dataclass(frozen=True)
class How:
    """Which layer, and by how much."""

    layer: int = 1
    by: float = 0.25


@dataclass(frozen=True, kw_only=True)
class ShrinkingMore(Method):
    """The same with settings in a table."""

    how: How = How()

    def fit(self, model, train, *, everything=None, memo=None, progress=True):
        return Shrunk(
            places=(("mlp_out", self.how.layer),), by=torch.tensor([self.how.by]),
            alpha=self.alpha, model=identify(model), settings={"seed": self.seed},
        )  # fmt: skip


@dataclass(frozen=True, repr=False, kw_only=True)
class Unknown(Intervention):
    """An edit that says nowhere what it changes."""

    alpha: float
    model: ModelIdentity
    layers = (1,)
    label = "unknown"
    answer_start: str = "offsets"
    positions: Positions = field(default_factory=Positions)
    settings: dict = field(default_factory=dict)


class Same:
    """How like an answer is to a reference: 1 where they are the same text."""

    name, identity, kinds = "same", "compares texts", ("same",)

    def likeness(self, pairs):
        return np.array([[float(one == other)] for one, other in pairs])


def neighbours(tokens, settings):
    """Tokens are alike that stand side by side."""
    *batch, count, _ = tokens.shape
    place = torch.arange(count)
    near = (place[:, None] - place).abs() <= 1
    return near.float().expand(*batch, count, count)


def median_difference(seen):
    """The medians' difference in place of the means'."""
    correct = seen.label.bool()
    return seen.values[correct].median(dim=0).values - seen.values[~correct].median(dim=0).values


def margin(correct, incorrect, best):
    """Nats between the best answer and the likeliest incorrect one."""
    return float(correct[best] - incorrect.max())


def spread_of_choices(correct, incorrect, best):
    return float(np.std([*correct, *incorrect]))


def few_questions():
    """Questions, as a loader of one's own gives them."""
    return QuestionSet(load_questions("hearsay").items[::20], "mine")


def few_prompts():
    """Prompts of known toxicity, so that a method can be fitted on them too."""
    texts = [prompt.text for prompt in load_prompts("hearsay").items[:8]]
    return PromptSet(tuple(Prompt(text, k % 2) for k, text in enumerate(texts)), "scenes")


def few_stereotypes():
    return load_stereotypes("hearsay").choose(range(12))


def more_stereotypes():
    """Of other target terms."""
    whole, few = load_stereotypes("hearsay"), few_stereotypes()
    other = [n for n, item in enumerate(whole) if item.target.casefold() not in few.targets]
    return whole.choose(other[:6])


def no_questions():
    return ["What?"]


class Brevity:
    """Judges short answers to be informative."""

    identity = "counts characters"
    limits = "It cannot read."

    def __init__(self, name: str, longest: int = 40) -> None:
        self.name, self.longest = name, longest

    def scores(self, prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
        return [float(len(answer) <= self.longest) for answer in answers]
