"""Logistic regressions, one per head, solved together: L2-regularised, to the exact optimum."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import WorkbenchError


@dataclass(frozen=True)
class Probes:
    """A logistic regression per layer and head.

    Attributes:
        coefficient: weights of z.
        intercept: constants.
    """

    coefficient: Float[Tensor, "layer head d_head"]
    intercept: Float[Tensor, "layer head"]

    def logit(self, z: Float[Tensor, "*row layer head d_head"]) -> Float[Tensor, "*row layer head"]:
        """Log-odds of label 1."""
        return (z.float() * self.coefficient).sum(dim=-1) + self.intercept

    def probability(
        self, z: Float[Tensor, "*row layer head d_head"]
    ) -> Float[Tensor, "*row layer head"]:
        """Probability of label 1, in [0, 1]."""
        return self.logit(z).sigmoid()

    def accuracy(
        self, z: Float[Tensor, "row layer head d_head"], label: Int[Tensor, " row"]
    ) -> Float[Tensor, "layer head"]:
        """Share of rows on whose side of ½ the probability falls, in [0, 1]."""
        right = (self.logit(z) > 0) == label.bool()[:, None, None]
        return right.float().mean(dim=0)


def fit_probes(
    z: Float[Tensor, "row layer head d_head"], label: Int[Tensor, " row"], penalty: float = 1.0
) -> Probes:
    """Fit one regression per layer and head.

    Minimises Σ log-loss + penalty/2 · ‖w‖² (the intercept is free), which is scikit-learn's
    objective at C = 1/penalty, by Newton's method in float64 with step halving.

    Raises:
        WorkbenchError: only one label, or values that are not finite.
    """
    if int(label.min()) == int(label.max()):
        raise WorkbenchError(
            f"{len(label)} rows that all have the label {int(label[0])}", "rows of both labels"
        )
    if not bool(torch.isfinite(z).all()):
        raise WorkbenchError("activations with NaN or infinite values", "finite activations")
    solved = [_newton(z[:, layer].double(), label.double(), penalty) for layer in range(z.shape[1])]
    weights = torch.stack(solved).float()
    return Probes(coefficient=weights[..., :-1].contiguous(), intercept=weights[..., -1])


def _newton(
    z: Float[Tensor, "row head d_head"], label: Float[Tensor, " row"], penalty: float
) -> Float[Tensor, "head d_head_and_one"]:
    """The optimum for every head of one layer; the last entry is the intercept."""
    inputs = torch.cat([z, torch.ones_like(z[..., :1])], dim=-1).transpose(0, 1)
    ridge = torch.full((inputs.shape[-1],), penalty, dtype=z.dtype, device=z.device)
    ridge[-1] = 1e-10
    weights = inputs.new_zeros(inputs.shape[0], inputs.shape[-1])

    def loss(w: Tensor) -> Tensor:
        margin = torch.einsum("hnd,hd->hn", inputs, w)
        fit = torch.nn.functional.softplus(margin) - label * margin
        return fit.sum(dim=1) + 0.5 * (ridge * w * w).sum(dim=1)

    value = loss(weights)
    for _ in range(100):
        probability = torch.einsum("hnd,hd->hn", inputs, weights).sigmoid()
        gradient = torch.einsum("hnd,hn->hd", inputs, probability - label) + ridge * weights
        curvature = probability * (1 - probability)
        hessian = torch.einsum("hnd,hne->hde", inputs * curvature[..., None], inputs)
        step = torch.linalg.solve(hessian + torch.diag(ridge), gradient)
        decrement = (gradient * step).sum(dim=1)
        if float(decrement.max()) < 1e-10 * len(label):
            break
        size = torch.ones_like(value)
        for _ in range(30):
            trial = loss(weights - size[:, None] * step)
            worse = trial > value - 1e-4 * size * decrement + 1e-12 * value.abs()
            if not bool(worse.any()):
                break
            size = torch.where(worse, size / 2, size)
        weights = weights - size[:, None] * step
        value = loss(weights)
    return weights
