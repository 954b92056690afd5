"""Token trees: sequences that begin alike, held as a tree, so that a pass runs each token once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor


@dataclass(frozen=True)
class TokenTree:
    """Several sequences of tokens with their common beginnings merged.

    Attributes:
        tokens: the ids, every token behind the one that it follows.
        parent: number of the token that each follows; −1 at a root.
        depth: how many tokens come before each in its sequence.
        paths: for every sequence, the numbers of its tokens.
    """

    tokens: tuple[int, ...]
    parent: tuple[int, ...]
    depth: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]]) -> TokenTree:
        """Merge sequences."""
        place: dict[tuple[int, int], int] = {}
        tokens: list[int] = []
        parents: list[int] = []
        depths: list[int] = []
        paths: list[tuple[int, ...]] = []
        for sequence in sequences:
            parent = -1
            path: list[int] = []
            for depth, token in enumerate(sequence):
                if (parent, token) not in place:
                    place[parent, token] = len(tokens)
                    tokens.append(token)
                    parents.append(parent)
                    depths.append(depth)
                parent = place[parent, token]
                path.append(parent)
            paths.append(tuple(path))
        return cls(tuple(tokens), tuple(parents), tuple(depths), tuple(paths))

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def is_chain(self) -> bool:
        """Whether there is a single sequence."""
        return self.parent == tuple(range(-1, len(self) - 1))

    def seen(self) -> Bool[Tensor, "token token"]:
        """Which tokens each token attends to: those before it in its sequence, and itself."""
        found = torch.eye(len(self), dtype=torch.bool)
        for number, parent in enumerate(self.parent):
            if parent >= 0:
                found[number] |= found[parent]
        return found
