"""MIG, second half: from an answer's tokens to one feature per head.

X ← W X for `depth` rounds, the graph computed anew from each round's X, then the mean over tokens
(TAE, eq. 4 and 5). Depth 0 is the plain mean; `last` takes the last answer token, which is ITI.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from workbench.data.questions import QuestionSet
from workbench.doors import door, door_of_class
from workbench.errors import WorkbenchError
from workbench.models.identity import ModelIdentity
from workbench.records import Named, Record
from workbench.stages.activations import TokenActivations
from workbench.stages.shards import Shards
from workbench.stages.token_graph import GraphSettings, propagate

Depth = int | Literal["last"]

TOGETHER = 64
"""Answers of one length aggregated at a time, as many as `capture` runs together by default."""


@door_of_class
@dataclass(frozen=True, repr=False)
class Features(Record):
    """One vector per answer, layer and head.

    Attributes:
        values: float32 features.
        question: index of every answer's question.
        label: 1 for a correct answer, 0 for an incorrect one.
        depth, graph: how the tokens were aggregated.
        unlabelled, questions, model: as in the activations.

    Example:
        >>> features = wb.aggregate(acts)
        >>> features.values.shape
        torch.Size([120, 5, 8, 20])
        >>> features.values[features.label == 1].shape
        torch.Size([48, 5, 8, 20])
    """

    values: Float[Tensor, "answer layer head d_head"]
    question: Int[Tensor, " answer"]
    label: Int[Tensor, " answer"]
    depth: Depth
    graph: GraphSettings
    unlabelled: Float[Tensor, "prompt layer head d_head"] | Shards
    questions: QuestionSet
    model: ModelIdentity

    def arrays(self) -> dict[str, Named]:
        """The features."""
        return {"values": super().arrays()["values"]}

    def coordinates(self) -> Mapping[str, tuple[str, Sequence[Any]]]:
        """Every answer's question and whether it is correct."""
        asked = [self.questions[number].question for number in self.question.tolist()]
        return {"question": ("answer", asked), "label": ("answer", self.label.tolist())}

    def attributes(self) -> Mapping[str, Any]:
        """The model and the depth."""
        return {"model": self.model.label, "depth": self.depth}

    def __repr__(self) -> str:
        return f"Features({tuple(self.values.shape)}, depth {self.depth}, of {self.questions!r})"


def aggregate_tokens(
    z: Float[Tensor, "*batch token layer head d_head"],
    depth: Depth = 1,
    graph: GraphSettings | None = None,
) -> Float[Tensor, "*batch layer head d_head"]:
    """The feature of an answer, or of a batch of answers with equally many tokens.

    Raises:
        WorkbenchError: a depth that is neither `"last"` nor a whole number from 0 on.
    """
    settings = graph or GraphSettings()
    require_depth(depth)
    if depth == "last":
        return z[..., -1, :, :, :].float()
    if settings.scope == "layer":
        values = rearrange(z.float(), "... token layer head d -> ... layer token (head d)")
    else:
        values = rearrange(z.float(), "... token layer head d -> ... layer head token d")
    for _ in range(int(depth)):
        values = propagate(values, settings)
    feature = values.mean(dim=-2)
    if settings.scope == "layer":
        feature = rearrange(feature, "... layer (head d) -> ... layer head d", head=z.shape[-2])
    return feature


def require_depth(depth: Depth) -> None:
    """Refuse depths other than `"last"` and whole numbers from 0 on."""
    if depth != "last" and (type(depth) is not int or depth < 0):
        raise WorkbenchError(f"depth={depth!r}", "'last' or a whole number from 0 on")


@door
def aggregate(
    activations: TokenActivations,
    depth: Depth = 1,
    graph: GraphSettings | None = None,
    *,
    answers: Sequence[int] | None = None,
    progress: bool = False,
) -> Features:
    """The features of captured answers.

    Args:
        activations: from `capture`.
        depth: rounds of propagation, or `"last"`.
        graph: the graph's settings.
        answers: numbers of the answers to take; all by default.
        progress: show a bar.

    Raises:
        WorkbenchError: a depth that is neither `"last"` nor a whole number from 0 on; no answers,
            or a number that no answer has.

    Example:
        >>> wb.aggregate(acts)
        Features((120, 5, 8, 20), depth 1, of QuestionSet('hearsay': 12 questions, 120 answers))
        >>> plain_mean = wb.aggregate(acts, depth=0).values
        >>> plain_mean[0].allclose(acts[0].own.mean(dim=0), atol=1e-6)
        True
    """
    settings = graph or GraphSettings()
    require_depth(depth)
    chosen = list(range(len(activations))) if answers is None else list(answers)
    activations.require_answers(chosen)
    z = activations.z
    values = torch.empty(len(chosen), *z.shape[1:], dtype=torch.float32)
    by_length: dict[int, list[int]] = defaultdict(list)
    for place, answer in enumerate(chosen):
        length = int(activations.offsets[answer + 1] - activations.offsets[answer]) - 1
        by_length[length].append(place)
    groups = [
        (length, places[first : first + TOGETHER])
        for length, places in by_length.items()
        for first in range(0, len(places), TOGETHER)
    ]
    for length, places in tqdm(groups, desc="aggregate", disable=not progress, leave=False):
        first_rows = activations.offsets[[chosen[place] for place in places]] + 1
        rows = first_rows[:, None] + torch.arange(length)
        values[places] = aggregate_tokens(z[rows], depth, settings)
    return Features(
        values=values,
        question=activations.question[chosen],
        label=activations.label[chosen],
        depth=depth,
        graph=settings,
        unlabelled=activations.unlabelled,
        questions=activations.questions,
        model=activations.model,
    )
