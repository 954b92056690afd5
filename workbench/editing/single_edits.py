"""The short way through a layer where one edit serves all rows, as in generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class SingleEdit:
    """A layer of one edit as matrices over the channels of all heads: z + (α·σ·s) Θ.

    Attributes:
        step: α·σ.
        of_risk, of_doubt: α·σ·β and α·σ·(1 − β).
        estimators, intercept: of p̂.
        directions: Θ.
        shift: what is added everywhere where s = 1; None where it is not.
    """

    step: Float[Tensor, "1 edited"]
    of_risk: Float[Tensor, "1 edited"]
    of_doubt: Float[Tensor, "1 edited"]
    estimators: Float[Tensor, "edited channel"]
    intercept: Float[Tensor, " edited"]
    directions: Float[Tensor, "edited channel"]
    shift: Float[Tensor, "1 channel"] | None

    def apply(
        self,
        z: Float[Tensor, "batch position head d_head"],
        where: Bool[Tensor, "batch position"] | None,
        uncertainty: Float[Tensor, "batch position"] | None,
    ) -> Float[Tensor, "batch position head d_head"]:
        """The edited z; see `EditedLayer.apply`."""
        flat = z.reshape(-1, self.directions.shape[1]).to(self.step.dtype)
        step = self.step
        if self.shift is None:
            risk = torch.nn.functional.linear(flat, self.estimators, self.intercept).sigmoid_()
            if uncertainty is not None:
                step = torch.addcmul(step, self.of_doubt, uncertainty.reshape(-1, 1))
            step = torch.addcmul(step, self.of_risk, risk)
        elif where is None:
            return (flat + self.shift).to(z.dtype).view(z.shape)
        if where is not None:
            step = step * where.reshape(-1, 1)
        moved = torch.addmm(flat, step.expand(len(flat), -1), self.directions)
        return moved.to(z.dtype).view(z.shape)


def over_all_heads(
    rows: Float[Tensor, "edited d_head"], heads: Sequence[int], count: int
) -> Float[Tensor, "edited channel"]:
    """Rows in the places of their heads among the channels of so many heads."""
    whole = rows.new_zeros(len(rows), count, rows.shape[1])
    whole[range(len(rows)), heads] = rows
    return whole.flatten(start_dim=1)
