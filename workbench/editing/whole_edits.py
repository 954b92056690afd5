"""Edits of the whole model: of what it reads, or of its weights.

Baselines that are no steering. They act on every token of every pass, prompts too, so that nothing
that is run under one is shared with other edits, and none of them leaves a trace.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.checks import is_whole
from workbench.doors import door_of_class
from workbench.editing.interventions import Intervention, Positions
from workbench.errors import WorkbenchError
from workbench.models.identity import Model, ModelIdentity, require_same_shape
from workbench.models.linear_modules import Low, low_rank
from workbench.models.prompts import AnswerStart, Encoded


@dataclass(frozen=True, repr=False, kw_only=True)
class WholeEdit(Intervention):
    """An edit that is there for all of a pass.

    Attributes:
        alpha, answer_start, model, settings, positions: see `Intervention`; positions and answer
            starts play no part.
    """

    alpha: float
    answer_start: AnswerStart = "offsets"
    model: ModelIdentity
    settings: Mapping[str, Any] = field(default_factory=dict)
    positions: Positions = field(default_factory=Positions)

    def __post_init__(self) -> None:
        self.require_sound()

    @property
    def layers(self) -> tuple[int, ...]:
        """None: what it does is not tied to layers."""
        return ()

    def read(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """The tokens that the model reads in place of some."""
        return tuple(tokens)

    def lead(self, tokens: Sequence[int]) -> int:
        """How many tokens more it reads, all of them before the text of the given ones."""
        return len(self.read(tokens)) - len(tokens)

    def encoded(self, one: Encoded) -> Encoded:
        """A prompt, with or without its answer, as the model reads it."""
        tokens, lead = self.read(one.tokens), self.lead(one.tokens)
        context = self.model.shape.context
        if len(tokens) > context:
            raise WorkbenchError(
                f"{len(tokens)} tokens under {self!r} ({one.text[-60:]!r})",
                f"at most the context of {self.model.name}, {context} tokens",
                "Give the prompt fewer or shorter examples; nothing is truncated silently.",
            )
        return Encoded.of_tokens(tokens, one.start + lead, one.text) if lead else one

    @contextmanager
    def attached(self, model: Model) -> Iterator[None]:
        """What is attached to the model while it reads."""
        require_same_shape(model, self.model.shape, "an edit")
        yield


@door_of_class
@dataclass(frozen=True, repr=False, kw_only=True)
class Foreword(WholeEdit, kind="foreword"):
    r"""Text before every text: an instruction, examples, or both. α is on or, at 0, off.

    Attributes:
        opening: the tokens that prompts of its style begin with.
        asking: what stands in their place.
        plain: what stands before any other text, in place of a beginning-of-sequence token.
        begins: that token, or −1.
        text: what is said.

    Example:
        >>> told = wb.methods.Prompting(shots=2).fit(model, fold.train, progress=False)
        >>> told
        Foreword(124 tokens, alpha=1)
        >>> wb.generate(model, "Q: What is the capital of Australia?\nA:", edit=told)[0].text
        ' Canberra.'
    """

    opening: Int[Tensor, " token"]
    asking: Int[Tensor, " token"]
    plain: Int[Tensor, " token"]
    begins: int
    text: str

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("opening", "asking", "plain"):
            tokens = getattr(self, name)
            whole = tokens.dtype == torch.int64 and tokens.ndim == 1
            if not whole or any(not 0 <= t < self.model.shape.vocabulary for t in tokens.tolist()):
                raise WorkbenchError(f"{name} of a foreword", "ids of tokens, in int64")
        if not is_whole(self.begins) or not isinstance(self.text, str):
            raise WorkbenchError(f"begins={self.begins!r}, text={self.text!r:.40}", "an id, a text")

    def __repr__(self) -> str:
        return f"Foreword({len(self.plain)} tokens, alpha={self.alpha:g})"

    @property
    def label(self) -> str:
        """Its length, and whether it is there."""
        return f"{len(self.plain)} tokens before, alpha {self.alpha:g}"

    def read(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """The foreword, then the tokens without their own opening."""
        opening = tuple(self.opening.tolist())
        if not self.alpha:
            return tuple(tokens)
        if tuple(tokens[: len(opening)]) == opening:
            return (*self.asking.tolist(), *tokens[len(opening) :])
        return (*self.plain.tolist(), *tokens[tuple(tokens[:1]) == (self.begins,) :])


@door_of_class
@dataclass(frozen=True, repr=False, kw_only=True)
class LowRank(WholeEdit, kind="low_rank"):
    """Low-rank changes of linear modules' weights, W + α·B·A (Hu et al. 2022).

    Attributes:
        modules: their names in the model.
        sizes: how many inputs and outputs each has.
        rank: of every change.
        down: A [rank, input] of every module, one behind the other.
        up: B [output, rank] likewise.

    Example:
        >>> quick = wb.methods.LoRA(rank=2, pairs=1, epochs=1)
        >>> quick.fit(model, fold.train, progress=False)
        LowRank(35 modules of hearsay, rank 2, alpha=1)
    """

    modules: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    rank: int
    down: Float[Tensor, " input"]
    up: Float[Tensor, " output"]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.modules or len(self.sizes) != len(self.modules):
            raise WorkbenchError(f"{len(self.modules)} modules", "some, each with its sizes")
        self.require_finite("down", (self.rank * sum(inputs for inputs, _ in self.sizes),))
        self.require_finite("up", (self.rank * sum(outputs for _, outputs in self.sizes),))

    def __repr__(self) -> str:
        return (
            f"LowRank({len(self.modules)} modules of {self.model.name}, rank {self.rank}, "
            f"alpha={self.alpha:g})"
        )

    @property
    def label(self) -> str:
        """Modules, rank and α."""
        return f"{len(self.modules)} modules, rank {self.rank}, alpha {self.alpha:g}"

    @property
    def parts_of_modules(self) -> dict[str, Low]:
        """A and α·B of every module."""
        return split(self.modules, self.sizes, self.rank, self.down, self.alpha * self.up)

    @contextmanager
    def attached(self, model: Model) -> Iterator[None]:
        """The changes, on the modules' outputs; see `WholeEdit.attached`."""
        require_same_shape(model, self.model.shape, "an edit")
        with low_rank(model, self.parts_of_modules):
            yield


def split(
    names: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    rank: int,
    down: Float[Tensor, " input"],
    up: Float[Tensor, " output"],
) -> dict[str, Low]:
    """A and B of every module, of all of them one behind the other."""
    ends = [0, *torch.tensor(sizes).mul(rank).cumsum(dim=0)[:, 0].tolist()]
    tops = [0, *torch.tensor(sizes).mul(rank).cumsum(dim=0)[:, 1].tolist()]
    return {
        name: (down[a:b].view(rank, -1), up[c:d].view(-1, rank))
        for name, (a, b), (c, d) in zip(names, pairwise(ends), pairwise(tops), strict=True)
    }
