"""The optima of many logistic regressions: by conjugate gradients, and by Newton's method."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.errors import WorkbenchError

TOLERANCE = 3e-8
"""Of the squared Newton decrement: probabilities are then within about 1e-4 of the exact ones."""
EXACT = 1e-10
"""The same a row, in float64, at which Newton's method ends."""
CONJUGATE_STEPS, NEWTON_STEPS, HALVINGS = 60, 100, 30
"""At most so many; heads that conjugate gradients do not finish are left to Newton's method."""
SUFFICIENT = 1e-4
"""Share of the promised decrease that a step must bring (Nocedal and Wright 2006, section 3.1)."""
FREE = 1e-10
"""Penalty of the intercept, which is not regularised: so much keeps the Hessian definite."""


def optimum(
    z: Float[Tensor, "row head d_head"], label: Int[Tensor, " row"], penalty: float
) -> Float[Tensor, "head d_head_and_one"]:
    """The optimum for some heads; the last entry is the intercept.

    In float32 by conjugate gradients; in float64 by Newton's method for heads that do not reach it
    so.

    Raises:
        WorkbenchError: values that are not finite.
    """
    inputs = z.transpose(0, 1).to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    mean = inputs.mean(dim=1)
    if not bool(torch.isfinite(mean).all()):
        raise WorkbenchError("activations with NaN or infinite values", "finite activations")
    inputs -= mean[:, None]
    weights, intercept, reached = _conjugate_gradients(inputs, label.float(), penalty)
    intercept = intercept - (weights * mean).sum(dim=1)
    solved = torch.cat([weights, intercept[:, None]], dim=1)
    if not bool(reached.all()):
        solved = solved.double()
        solved[~reached] = _newton(z[:, ~reached].double(), label.double(), penalty)
    return solved


def _conjugate_gradients(
    inputs: Float[Tensor, "head row d_head"], label: Float[Tensor, " row"], penalty: float
) -> tuple[Float[Tensor, "head d_head"], Float[Tensor, " head"], Bool[Tensor, " head"]]:
    """Weights, intercepts of centred inputs, and which heads reached the optimum.

    Preconditioned non-linear conjugate gradients (Polak-Ribière) with line searches along which
    only margins are needed. The preconditioner M is a quarter of the inputs' Gram matrix, the
    Hessian at w = 0. A head is at its optimum when gᵀM⁻¹g, over the least share of M's curvature
    that any search has met, is below `TOLERANCE`: an estimate of the squared Newton decrement,
    which keeps probabilities within about ½ √TOLERANCE of the exact ones.
    """
    heads, rows, _ = inputs.shape
    factor, wrong = torch.linalg.cholesky_ex(_quarter_gram(inputs, penalty))
    failed = (wrong > 0)[:, None, None]
    inverse = torch.cholesky_inverse(
        torch.where(
            failed, torch.eye(factor.shape[-1], device=factor.device, dtype=torch.float32), factor
        )
    )
    weights = inputs.new_zeros(heads, inputs.shape[2])
    intercept = label.mean().logit().repeat(heads)
    margin = intercept[:, None].repeat(1, rows)
    probability = margin.sigmoid()
    before: _Gradient | None = None
    reached = torch.zeros_like(intercept, dtype=torch.bool)
    along, along_intercept = torch.zeros_like(weights), torch.zeros_like(intercept)
    length, share = torch.zeros_like(intercept), torch.ones_like(intercept)
    for _ in range(CONJUGATE_STEPS):
        now = _Gradient.at(inputs, probability - label, weights, penalty, inverse)
        reached = now.decrement < TOLERANCE * share
        if bool((reached | (wrong > 0)).all()):
            break
        along, along_intercept, length = now.conjugate(before, along, along_intercept, length)
        across = torch.bmm(along[:, None], inputs.mT)[:, 0] + along_intercept[:, None]
        line = _Line(margin, across, label, weights, along, penalty)
        step, probability, curvature = line.search(now.slope(along, along_intercept), probability)
        share = torch.minimum(share, (curvature / length).nan_to_num(1.0))
        step = torch.where(reached, 0.0, step)
        weights = torch.addcmul(weights, step[:, None], along)
        intercept = torch.addcmul(intercept, step, along_intercept)
        margin = torch.addcmul(margin, step[:, None], across)
        before = now
    return weights, intercept, reached & (wrong == 0) & torch.isfinite(weights).all(dim=1)


def _quarter_gram(
    inputs: Float[Tensor, "head row d_head"], penalty: float
) -> Float[Tensor, "head d_head d_head"]:
    """A quarter of XᵀX from some 16 rows a channel, and the penalty on the diagonal.

    How many rows they are changes the way to the optimum, not the optimum.
    """
    stride = max(1, inputs.shape[1] // (16 * inputs.shape[2]))
    some = inputs[:, ::stride]
    gram = torch.bmm(some.mT, some) * (inputs.shape[1] / some.shape[1] / 4)
    gram.diagonal(dim1=1, dim2=2).add_(penalty)
    return gram


@dataclass(frozen=True)
class _Gradient:
    """A gradient g and s = M⁻¹g, for the weights and for the intercept."""

    g: Float[Tensor, "head d_head"]
    s: Float[Tensor, "head d_head"]
    g_intercept: Float[Tensor, " head"]
    s_intercept: Float[Tensor, " head"]
    decrement: Float[Tensor, " head"]

    @classmethod
    def at(
        cls, inputs: Tensor, residual: Tensor, weights: Tensor, penalty: float, inverse: Tensor
    ) -> _Gradient:
        g = torch.bmm(residual[:, None], inputs)[:, 0].add_(weights, alpha=penalty)
        s = torch.bmm(g[:, None], inverse)[:, 0]
        g_intercept = residual.sum(dim=1)
        s_intercept = g_intercept * (4 / inputs.shape[1])
        return cls(g, s, g_intercept, s_intercept, (g * s).sum(dim=1) + g_intercept * s_intercept)

    def slope(self, along: Tensor, along_intercept: Tensor) -> Float[Tensor, " head"]:
        """The derivative of the loss along a direction."""
        return (self.g * along).sum(dim=1) + self.g_intercept * along_intercept

    def conjugate(
        self, before: _Gradient | None, along: Tensor, along_intercept: Tensor, length: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The next direction p: −s, and a share of the last direction where that descends.

        Returns:
            The direction for weights and intercept, and its squared length pᵀMp.
        """
        if before is None:
            return -self.s, -self.s_intercept, self.decrement
        share = (self.s * (self.g - before.g)).sum(dim=1)
        share = share + self.s_intercept * (self.g_intercept - before.g_intercept)
        share = (share / before.decrement).clamp(min=0).nan_to_num(0.0, 0.0)
        tilt = self.slope(along, along_intercept)
        share = torch.where(self.decrement > share * tilt, share, 0.0)
        return (
            torch.addcmul(-self.s, share[:, None], along),
            torch.addcmul(-self.s_intercept, share, along_intercept),
            self.decrement - 2 * share * tilt + share.square() * length,
        )


@dataclass(frozen=True)
class _Line:
    """The loss along a direction: its derivative needs margins only."""

    margin: Float[Tensor, "head row"]
    across: Float[Tensor, "head row"]
    label: Float[Tensor, " row"]
    weights: Float[Tensor, "head d_head"]
    along: Float[Tensor, "head d_head"]
    penalty: float

    def search(self, slope: Tensor, probability: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The step at which the slope is at most a tenth, and the probabilities there.

        Also the least curvature on the way.

        Newton's method on the derivative, which grows along the line; steps that leave the
        interval in which it changes sign are halved back into it.
        """
        square = self.across.square()
        curved = self.penalty * self.along.square().sum(dim=1)
        tilted = self.penalty * (self.weights * self.along).sum(dim=1)
        step, low = torch.zeros_like(slope), torch.zeros_like(slope)
        high = torch.full_like(slope, torch.inf)
        derivative, least = slope, high
        for _ in range(HALVINGS):
            spread = torch.addcmul(probability, probability, probability, value=-1)
            curvature = (spread * square).sum(dim=1) + curved
            least = torch.minimum(least, curvature)
            trial = step - derivative / curvature
            inside = (trial > low) & (trial < high)
            middle = torch.where(high.isinf(), 2 * step + 1, (low + high) / 2)
            step = torch.where(inside, trial, middle)
            probability = torch.addcmul(self.margin, step[:, None], self.across).sigmoid_()
            pull = ((probability - self.label) * self.across).sum(dim=1)
            derivative = pull + tilted + step * curved
            if not bool((derivative.abs() > 0.1 * slope.abs()).any()):
                break
            low = torch.where(derivative < 0, step, low)
            high = torch.where(derivative > 0, step, high)
        return step, probability, least


def _newton(
    z: Float[Tensor, "row head d_head"], label: Float[Tensor, " row"], penalty: float
) -> Float[Tensor, "head d_head_and_one"]:
    """The optimum for every head, in the precision of z; the last entry is the intercept."""
    with_ones = torch.cat([z, torch.ones_like(z[..., :1])], dim=-1)
    inputs = rearrange(with_ones, "row head d -> head row d")
    ridge = torch.full((inputs.shape[-1],), penalty, dtype=z.dtype, device=z.device)
    ridge[-1] = FREE
    weights = inputs.new_zeros(inputs.shape[0], inputs.shape[-1])

    def loss(w: Tensor) -> Tensor:
        margin = torch.einsum("hnd,hd->hn", inputs, w)
        fit = torch.nn.functional.softplus(margin) - label * margin
        return fit.sum(dim=1) + 0.5 * (ridge * w * w).sum(dim=1)

    value = loss(weights)
    for _ in range(NEWTON_STEPS):
        probability = torch.einsum("hnd,hd->hn", inputs, weights).sigmoid()
        gradient = torch.einsum("hnd,hn->hd", inputs, probability - label) + ridge * weights
        curvature = probability * (1 - probability)
        hessian = torch.einsum("hnd,hne->hde", inputs * curvature[..., None], inputs)
        step = _solved(hessian + torch.diag(ridge), gradient)
        decrement = (gradient * step).sum(dim=1)
        if float(decrement.max()) < EXACT * len(label):
            break
        size = torch.ones_like(value)
        for _ in range(HALVINGS):
            trial = loss(weights - size[:, None] * step)
            worse = trial > value - SUFFICIENT * size * decrement + 1e-12 * value.abs()
            if not bool(worse.any()):
                break
            size = torch.where(worse, size / 2, size)
        weights = weights - size[:, None] * step
        value = loss(weights)
    return weights


def _solved(
    hessian: Float[Tensor, "head size size"], gradient: Float[Tensor, "head size"]
) -> Float[Tensor, "head size"]:
    """H⁻¹g of positive definite matrices; of singular ones with a ridge that rounding needs."""
    factor, wrong = torch.linalg.cholesky_ex(hessian)
    if bool(wrong.any()):
        least = hessian.diagonal(dim1=1, dim2=2).amax(dim=1) * 1e-13 * hessian.shape[1]
        ridged = hessian + torch.diag_embed(least[:, None].expand(-1, hessian.shape[1]))
        factor = torch.linalg.cholesky(ridged)
    return torch.cholesky_solve(gradient[..., None], factor)[..., 0]
