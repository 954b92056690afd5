"""Controls that belong beside every method.

Random directions ask whether the direction matters. Even and drawn strengths ask whether it matters
*where* an adaptive edit is strong: both have its mean strength at every head, and tell nothing of
the token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.data.questions import QuestionSet
from workbench.doors import door
from workbench.editing.added_vectors import AddedVector
from workbench.editing.affine_edits import AffineChange
from workbench.editing.attaching import edited
from workbench.editing.conditions import Conditional
from workbench.editing.drawn_strengths import DrawnHeads
from workbench.editing.gates import Gated
from workbench.editing.generation import generate
from workbench.editing.head_edits import Edit, HeadEdit
from workbench.editing.interventions import Intervention
from workbench.editing.state_edits import StateEdit
from workbench.errors import WorkbenchError
from workbench.methods.act import DoubtedHeads
from workbench.models.identity import Model
from workbench.models.prompts import PromptFormat, encode, prompt_format
from workbench.registry import Registry

Sample = Float[Tensor, "token gate"]
Derived = Callable[[Intervention, Sample | None, int, int], Intervention | Sequence[Intervention]]


@dataclass(frozen=True)
class Control:
    """What stands beside a method: the same fit, with something taken from it.

    Attributes:
        settings: of the fit, beside the method's own.
        derived: makes edits of the fitted one, its strengths on training questions (see
            `strength_sample`; None unless `sampled`), a number of draws and a seed; None leaves the
            fitted edit.
        sampled: whether it needs those strengths.
        several: whether it makes several edits, one a draw.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    derived: Derived | None = None
    sampled: bool = False
    several: bool = False


CONTROLS: Registry[Control] = Registry("control")
"""By the names that run files call them; the method they are of is called TAE."""


@door
def random_directions(edit: Intervention, draws: int, seed: int = 0) -> list[Intervention]:
    """Several draws of `random_direction`, every second one the opposite of the one before.

    A random direction is as likely as its opposite. Taking both (antithetic draws) cancels what
    moves answers one way or the other by chance, and leaves what a direction does as such.

    Args:
        edit: a fitted edit.
        draws: how many; an even number.
        seed: draws the directions.

    Raises:
        WorkbenchError: an odd number of draws, or none; an edit without directions.

    Example:
        >>> first, second = wb.methods.random_directions(edit, draws=2)
        >>> second.direction.equal(-first.direction)
        True
    """
    if draws < 2 or draws % 2:
        raise WorkbenchError(f"{draws} random directions", "an even number from 2 on")
    found: list[Intervention] = []
    for pair in range(draws // 2):
        one = random_direction(edit, seed * 1_000_003 + pair)
        found += [one, _opposite(one)]
    return found


def random_direction(edit: Intervention, seed: int = 0) -> Intervention:
    """The same places, lengths, strengths and α along random directions.

    A random direction is not orthogonal to θ: their cosine is about 1/√d_head, 0.22 on hearsay
    and 0.09 at d_head 128. Judge by many draws.

    Args:
        edit: of heads, or one that adds vectors to states, behind a gate or not.
        seed: draws a direction a head, or elsewhere a place, uniformly from the sphere.

    Raises:
        WorkbenchError: an edit of another kind.
    """
    draw = torch.Generator().manual_seed(seed)
    told = {**edit.settings, "direction": f"random (seed {seed})"}
    if isinstance(edit, Edit | DoubtedHeads):
        return replace(edit, direction=_drawn(edit.direction, draw), settings=told)
    if isinstance(edit, AddedVector):
        heads = edit.model.shape.heads if edit.places[0][0] == "z" else 1
        # Every head keeps its length, none its way.
        own = edit.vector.view(len(edit.places), heads, -1)
        drawn = own.norm(dim=-1, keepdim=True) * _drawn(own, draw)
        return replace(edit, vector=drawn.flatten(1), settings=told)
    if isinstance(edit, AffineChange):
        rows = (edit.vector, edit.vectors)
        vector, vectors = (own.norm(dim=-1, keepdim=True) * _drawn(own, draw) for own in rows)
        return replace(edit, vector=vector, vectors=vectors, settings=told)
    if isinstance(edit, Gated | Conditional):
        inner: Any = random_direction(edit.inner, seed)
        return replace(edit, inner=inner, settings=told)
    raise WorkbenchError(
        f"random directions of {edit!r}", "an edit of heads, or one that adds vectors to states"
    )


def _drawn(like: Tensor, draw: torch.Generator) -> Tensor:
    """Random rows of length 1."""
    drawn = torch.randn(like.shape, generator=draw, dtype=torch.float32)
    return torch.nn.functional.normalize(drawn, dim=-1)


def _opposite(edit: Any) -> Any:
    if isinstance(edit, Gated | Conditional):
        return replace(edit, inner=_opposite(edit.inner))
    if isinstance(edit, AffineChange):
        return replace(edit, vector=-edit.vector, vectors=-edit.vectors)
    name = "vector" if isinstance(edit, AddedVector) else "direction"
    return replace(edit, **{name: -getattr(edit, name)})


@door
def strength_sample(
    model: Model,
    edit: Intervention,
    asked: QuestionSet | Sequence[str],
    style: str | PromptFormat = "bare",
    *,
    most: int = 100,
) -> Float[Tensor, "token gate"]:
    """The strengths that an edit has while answers to training questions are written.

    Of heads, s of every head; of states, the gates of every place, one behind the other.

    Args:
        model: the bridge.
        edit: an adaptive edit.
        asked: training questions, of which the first `most` are answered greedily; or texts, which
            are gone on from as they are.
        style: prompt format of questions.
        most: how many.

    Raises:
        WorkbenchError: an edit that has no strengths, or whose goals share heads.

    Example:
        >>> sample = wb.methods.strength_sample(model, edit, fold.train, "bare", most=4)
        >>> sample.shape[1], bool((1 <= sample).all()), bool((sample <= 2).all())
        (4, True, True)
    """
    states = isinstance(edit, AffineChange | Gated | Conditional | DoubtedHeads)
    if not states and (not isinstance(edit, Edit) or edit.shares_heads):
        raise WorkbenchError(
            f"strengths of {edit!r}", "an edit of heads of one goal, or one with gates"
        )
    chosen = prompt_format(style)
    prompts: list[Any] = list(asked)[:most]
    if isinstance(asked, QuestionSet):
        prompts = [encode(model, one.question, None, chosen) for one in prompts]
    with edited(model, edit) as trace:
        written = generate(model, prompts, max_new_tokens=24, stop=("\n",))
    if isinstance(edit, StateEdit):
        return trace.gates()
    layer, head = torch.tensor(_of_heads(edit).heads).unbind(dim=1)
    rows = [
        trace[number].first(max(1, answer.kept)).strengths[:, layer, head]
        for number, answer in enumerate(written)
    ]
    return torch.cat(rows)


@door
def evened(edit: Intervention, sample: Float[Tensor, "token gate"]) -> Intervention:
    """The same edit with the mean strength of every head, or gate, at every token.

    Args:
        edit: an edit of heads, or one with gates.
        sample: from `strength_sample`, of the same edit at the same α.

    Example:
        >>> sample = wb.methods.strength_sample(model, edit, fold.train, "bare", most=4)
        >>> wb.methods.evened(edit, sample)
        Edit(4 heads of hearsay, layers (1, 2), alpha=5, constant strength)
    """
    mean = sample.mean(dim=0)
    if isinstance(edit, StateEdit):
        even: Any = edit.evened(mean)
        told = {**edit.settings, "strength": f"even ({float(mean.mean()):.3f} on average)"}
        return replace(even, settings=told)  # type: ignore[no-any-return]
    own = _of_heads(edit)
    return replace(
        own,
        strength=replace(own.strength, kind="constant"),
        shortlists=None,
        spread=own.spread * mean.to(own.spread),
        settings={**own.settings, "strength": f"even ({float(mean.mean()):.3f} on average)"},
    )


@door
def resampled(
    edit: Intervention, sample: Float[Tensor, "token gate"], draws: int = 1, seed: int = 0
) -> list[DrawnHeads]:
    """The same edit with strengths drawn among tokens: those of the heads together, as they were.

    Args:
        edit: an edit of heads.
        sample: from `strength_sample`, of the same edit at the same α.
        draws: how many such edits.
        seed: which strengths a token gets.

    Raises:
        WorkbenchError: no draws, or an edit that is none of heads.

    Example:
        >>> sample = wb.methods.strength_sample(model, edit, fold.train, "bare", most=4)
        >>> wb.methods.resampled(edit, sample)[0].label
        '4 heads, alpha 5'
    """
    if draws < 1:
        raise WorkbenchError(f"{draws} draws of strengths", "at least one")
    own, draw = _of_heads(edit), torch.Generator().manual_seed(seed)
    kept = {field.name: getattr(own, field.name) for field in fields(HeadEdit)}
    return [
        DrawnHeads(
            **{
                **kept,
                "strengths": sample[torch.randperm(len(sample), generator=draw)],
                "settings": {**own.settings, "strength": f"drawn (seed {seed}, draw {number})"},
            }
        )
        for number in range(draws)
    ]


def _of_heads(edit: Intervention) -> Edit:
    if not isinstance(edit, Edit):
        raise WorkbenchError(f"strengths of {edit!r}", "an edit of heads")
    return edit


def _of_random(edit: Intervention, _: Sample | None, draws: int, seed: int) -> list[Intervention]:
    return random_directions(edit, draws, seed)


def _of_even(edit: Intervention, sample: Sample | None, *_: int) -> Intervention:
    return evened(edit, _given(sample))


def _of_resampled(
    edit: Intervention, sample: Sample | None, draws: int, seed: int
) -> list[DrawnHeads]:
    return resampled(edit, _given(sample), draws, seed)


def _given(sample: Sample | None) -> Sample:
    if sample is None:
        raise WorkbenchError("no strengths of the edit", "those of `strength_sample`")
    return sample


CONTROLS.add(
    "shuffled", Control({"shuffle_labels": True}), "control: TAE fitted on shuffled labels"
)
CONTROLS.add(
    "random",
    Control(derived=_of_random, several=True),
    "control: random directions where TAE edits",
)
CONTROLS.add(
    "even",
    Control(derived=_of_even, sampled=True),
    "control: TAE's strengths, taken even over all tokens",
)
CONTROLS.add(
    "resampled",
    Control(derived=_of_resampled, sampled=True, several=True),
    "control: TAE's strengths, drawn without regard to the token",
)
