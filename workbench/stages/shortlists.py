"""Shortlists: at a given layer the logit lens spreads over few words, and u needs no others.

Exactly, u costs 2·V·d operations and V·d weights for every token and edited layer: of SmolLM2's
49,152 words x 576 a fifth of the model's own pass, which twenty edited layers make four passes.
But what a layer's lens says of *any* text is nearly always among the same few words: at SmolLM2's
middle layers all but a thousandth of the probability lies on 1,024 words. So u is read
off a list of words of each layer, as if there were no others.

How they are found is in `shortlist_fitting`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.doors import door_of_class
from workbench.errors import WorkbenchError


@door_of_class
@dataclass(frozen=True, eq=False, repr=False)
class Shortlists:
    """The words that u is read off, layer by layer.

    Attributes:
        layers: that have been looked at, ascending.
        counts: how many words each has; 0 where all are read.
        words: token ids, layer after layer, those with most entropy first.
        error: for each layer, the mean error of u over a question's answers that a share `level` of
            the held-back questions keeps to; 0 where all words are read.
        tolerance: what a new question's error keeps to with probability `level` or more.
        level: that probability.
        vocabulary: how many words there are.

    Example:
        >>> lists = wb.stages.fit_shortlists(model, fold.train, [1, 2], 0.01, level=0.8)
        >>> lists.layers.tolist(), bool((lists.error <= 0.01).all())
        ([1, 2], True)
    """

    layers: Int[Tensor, " layer"]
    counts: Int[Tensor, " layer"]
    words: Int[Tensor, " word"]
    error: Float[Tensor, " layer"]
    tolerance: float
    level: float
    vocabulary: int

    def __repr__(self) -> str:
        read = torch.where(self.counts == 0, self.vocabulary, self.counts)
        return (
            f"Shortlists({len(self.layers)} layers, {int(read.min()):,} to {int(read.max()):,} of "
            f"{self.vocabulary:,} words, u within {self.tolerance:g} on average with probability "
            f"{self.level:g})"
        )

    def of(self, layer: int) -> Int[Tensor, " word"] | None:
        """The words of a layer; None for all."""
        place = self.layers.tolist().index(layer)
        own = torch.split(self.words, self.counts.tolist())[place]
        return own if len(own) else None

    def require_for(self, layers: Sequence[int]) -> None:
        """Refuse lists that lack one of some layers, or that are none."""
        numbers = self.layers.tolist()
        sound = len(self.counts) == len(self.error) == len(numbers) == len(set(numbers))
        sound = sound and int(self.counts.sum()) == len(self.words) and 0 < self.level < 1
        if not sound or set(layers) - set(numbers):
            raise WorkbenchError(
                f"shortlists of {len(self.words)} words of the layers {numbers}",
                f"those of the edited layers {tuple(layers)}",
                "fit_shortlists(model, questions, edit.layers) makes them.",
            )
        for own in torch.split(self.words, self.counts.tolist()):
            known = bool(((own >= 0) & (own < self.vocabulary)).all())
            if not known or len(set(own.tolist())) < len(own):
                raise WorkbenchError(
                    "a shortlist with a word twice, or with a number that is none",
                    f"different numbers from 0 to {self.vocabulary - 1}",
                )

    def require_words(self, count: int) -> None:
        """Refuse another vocabulary than that of a model with so many words."""
        if self.vocabulary != count:
            raise WorkbenchError(
                f"an edit whose shortlists are of {self.vocabulary:,} words, on a model of "
                f"{count:,}",
                "a model of the same vocabulary, or the edit with all words read",
                "replace(edit, shortlists=None) reads all.",
            )
