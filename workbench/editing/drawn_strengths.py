"""A control: heads are moved with strengths that are drawn without regard to what stands there."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from workbench.doors import door_of_class
from workbench.editing.head_edits import HeadEdit


@door_of_class
@dataclass(frozen=True, repr=False, kw_only=True)
class DrawnHeads(HeadEdit, kind="drawn_heads"):
    """An edit of heads with strengths of a table, of which token and position choose a row.

    Attributes:
        strengths: the table; a row holds s of all heads.
        heads, direction, spread, alpha: see `HeadEdit`.
        estimators: of p̂, for a threshold alone.
        answer_start, model, settings, positions: see `Intervention`.

    Example:
        >>> sample = wb.methods.strength_sample(model, edit, fold.train, "bare", most=4)
        >>> drawn = wb.methods.resampled(edit, sample, draws=2)[0]
        >>> drawn.strengths.shape == sample.shape, drawn.reads_misalignment
        (True, False)
    """

    strengths: Float[Tensor, "sample edited"]

    def __post_init__(self) -> None:
        self.require_heads()
        self.require_finite("strengths", (max(1, len(self.strengths)), len(self.heads)))

    def __repr__(self) -> str:
        return (
            f"DrawnHeads({len(self.heads)} heads of {self.model.name}, layers {self.layers}, "
            f"alpha={self.alpha:g}, {len(self.strengths)} strengths a head)"
        )

    @property
    def label(self) -> str:
        """Heads and α."""
        return f"{len(self.heads)} heads, alpha {self.alpha:g}"

    @property
    def factors(self) -> tuple[float, float]:
        """Neither p̂ nor u counts."""
        return 0.0, 0.0

    @property
    def reads_uncertainty(self) -> None:
        """None."""


def tickets_of(
    tokens: Int[Tensor, "batch position"], positions: Int[Tensor, "batch position"]
) -> Int[Tensor, "batch position"]:
    """Numbers that look random and depend on a token and its position alone, not on the batch.

    The first two factors are xxHash's primes, shifts and the third are of Wellons' search for
    mixers of 32 bits (hash-prospector).
    """
    mixed = (tokens * 0x9E3779B1 + positions * 0x85EBCA77) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 15)) * 0x2C1B3C6D) & 0xFFFFFFFF
    return mixed ^ (mixed >> 13)
