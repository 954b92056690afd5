"""Resampling: how often each unit of a fold is drawn, whatever is measured on it.

Units are questions or plain texts. Means are of all of a fold's units, or of halves of them too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

Array = np.ndarray
SIDES = (((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2)))
"""The quarters of either half, in three halvings."""


def quarters_of(index: pd.Index[Any], seed: int) -> list[list[Array]]:
    """The places of every fold's units among them, in four random parts, fold by fold."""
    generator = np.random.default_rng([seed, 0, 1])
    counts = index.get_level_values("fold").value_counts().sort_index()
    return [np.array_split(generator.permutation(count), 4) for count in counts]


@dataclass(frozen=True)
class Resamples:
    """How often a resample has each unit of a fold; the first is the data, which has each once.

    Attributes:
        index: of the rows, fold and unit.
        rows: of every fold, which of them are its.
        weights: of every fold.
        draws: resamples.
        refits: the places of every refit's folds.
    """

    index: pd.Index[Any]
    rows: Sequence[Array]
    weights: Sequence[Float[Array, "resample _row"]]
    draws: int
    refits: Sequence[Sequence[int]]

    @classmethod
    def of(
        cls, index: pd.Index[Any], draws: int, seed: int | Sequence[int], refits: Sequence[Any]
    ) -> Resamples:
        """Drawn within folds.

        Of several refits a resample has the same units in each, and of units that folds share, as
        plain texts may be, in each fold.
        """
        generator = np.random.default_rng(seed if isinstance(seed, Sequence) else [seed, 0])
        units, known = pd.factorize(index.get_level_values("question"))
        fold_of, together = index.get_level_values("fold"), None
        if len(refits) > 1 or len(known) < len(units):
            whole = len(known)
            together = generator.multinomial(whole, np.full(whole, 1 / whole), draws)
        rows = [np.flatnonzero(fold_of == fold) for fold in sorted(set(fold_of))]
        weights = []
        for own in rows:
            count = len(own)
            if together is None:
                drawn = generator.multinomial(count, np.full(count, 1 / count), draws)
            else:
                drawn = together[:, units[own]]
            weights.append(np.concatenate([np.ones((1, count)), drawn]).astype(np.float32))
        return cls(index, rows, weights, draws, refits)

    def beside(self, index: pd.Index[Any], seed: Sequence[int]) -> Resamples:
        """The same resamples of other rows: of units among these as often, of the others anew.

        The others are drawn by their names and not by what they are measured by, so that two
        metrics of the same texts have the same resamples.
        """
        places = self.index.get_indexer(index)
        known = places >= 0
        anew: dict[Any, Array] = {}
        if not known.all():
            names = "\0".join(map(str, index[~known].get_level_values("question")))
            others = Resamples.of(
                index[~known], self.draws, [*seed, crc32(names.encode())], self.refits
            )
            anew = others.by_fold()
        ours, at = self.by_fold(), self._places()
        fold_of = index.get_level_values("fold")
        rows, weights = [], []
        for fold in sorted(set(fold_of)):
            own = np.flatnonzero(fold_of == fold)
            drawn = np.empty((self.draws + 1, len(own)), dtype=np.float32)
            drawn[:, known[own]] = ours[fold][:, at[places[own[known[own]]]]]
            if not known[own].all():
                drawn[:, ~known[own]] = anew[fold]
            rows.append(own)
            weights.append(drawn)
        return Resamples(index, rows, weights, self.draws, self.refits)

    def by_fold(self) -> dict[Any, Float[Array, "resample _row"]]:
        """The weights of every fold, by its number."""
        folds = sorted(set(self.index.get_level_values("fold")))
        return dict(zip(folds, self.weights, strict=True))

    def _places(self) -> Int[Array, " _row"]:
        """Every row's place in its fold."""
        at = np.empty(len(self.index), dtype=int)
        for own in self.rows:
            at[own] = np.arange(len(own))
        return at

    def means(
        self, wide: pd.DataFrame, quarters: Sequence[Sequence[Array]] | None = None
    ) -> dict[tuple[str, float, int], Float[Array, "part resample fold"]]:
        """Means by method, strength and draw, of all units and, given quarters, of every half.

        In single precision with halves, for their number. NaN of a part of which there is no unit.

        Args:
            wide: values of these rows, in their order.
            quarters: from `quarters_of` these rows.
        """
        if not wide.index.equals(self.index):
            raise ValueError("values of other rows than were drawn")
        kind = float if quarters is None else np.float32
        folds = []
        for place, (rows, weights) in enumerate(zip(self.rows, self.weights, strict=True)):
            values = wide.to_numpy()[rows]
            parts = [np.arange(len(rows)), *([] if quarters is None else sides_of(quarters[place]))]
            own = []
            for part in parts:
                drawn = weights[:, part].astype(float)
                count = drawn.sum(axis=1)
                with np.errstate(invalid="ignore"):
                    own.append((drawn @ values[part] / count[:, None]).astype(kind))
            folds.append(np.stack(own))
        stacked = np.stack(folds, axis=2)
        names: list[Any] = list(wide.columns)
        return {(str(m), float(s), int(d)): stacked[..., k] for k, (m, s, d) in enumerate(names)}

    def shares(self, quarters: Sequence[Sequence[Array]]) -> Float[Array, "side resample fold 1"]:
        """What share of a fold's units every half has."""
        folds = []
        for weights, own in zip(self.weights, quarters, strict=True):
            whole = np.maximum(weights.sum(axis=1), 1)
            folds.append(np.stack([weights[:, side].sum(axis=1) / whole for side in sides_of(own)]))
        return np.stack(folds, axis=2)[..., None].astype(np.float32)


def sides_of(quarters: Sequence[Array]) -> list[Array]:
    """Either half of three halvings."""
    return [np.concatenate([quarters[k] for k in side]) for sides in SIDES for side in sides]
