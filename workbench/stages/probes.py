"""Logistic regressions, one per head, solved together: L2-regularised, to the exact optimum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import WorkbenchError
from workbench.stages.logistic_regression import optimum
from workbench.stages.shards import Shards

BLOCK_BYTES: Mapping[str, int] = {"cpu": 1 << 24, "cuda": 1 << 30}
"""Inputs solved at a time, at least one head's: 16 MB stay in cache, 1 GB fills a GPU."""


@dataclass(frozen=True)
class Probes:
    """A logistic regression per layer and head.

    Attributes:
        coefficient: weights of z.
        intercept: constants.
    """

    coefficient: Float[Tensor, "layer head d_head"]
    intercept: Float[Tensor, "layer head"]

    def __repr__(self) -> str:
        layers, heads, width = self.coefficient.shape
        return f"Probes({layers} layers, {heads} heads, {width} channels)"

    def logit(self, z: Float[Tensor, "*row layer head d_head"]) -> Float[Tensor, "*row layer head"]:
        """Log-odds of label 1."""
        *rows, layers, heads, _ = z.shape
        flat = rearrange(z.to(self.coefficient.dtype), "... layer head d -> (layer head) d (...)")
        weights = rearrange(self.coefficient, "layer head d -> (layer head) 1 d")
        margin = rearrange(torch.bmm(weights, flat), "probe 1 row -> row probe")
        return margin.reshape(*rows, layers, heads) + self.intercept

    def probability(
        self, z: Float[Tensor, "*row layer head d_head"]
    ) -> Float[Tensor, "*row layer head"]:
        """Probability of label 1, in [0, 1]."""
        return self.logit(z).sigmoid()

    def accuracy(
        self, z: Float[Tensor, "row layer head d_head"] | Shards, label: Int[Tensor, " row"]
    ) -> Float[Tensor, "layer head"]:
        """Share of rows on whose side of ½ the probability falls, in [0, 1]."""
        is_one = label.bool()[:, None]
        return torch.stack(
            [
                ((self.layer(number).logit(z[:, number][:, None])[:, 0] > 0) == is_one)
                .float()
                .mean(0)
                for number in range(z.shape[1])
            ]
        )

    def layer(self, number: int) -> Probes:
        """The probes of one layer."""
        return Probes(self.coefficient[number : number + 1], self.intercept[number : number + 1])


def fit_probes(
    z: Float[Tensor, "row layer head d_head"] | Shards,
    label: Int[Tensor, " row"],
    penalty: float = 1.0,
) -> Probes:
    """Fit one regression per layer and head.

    Minimises Σ log-loss + penalty/2 · ‖w‖² (the intercept is free), which is scikit-learn's
    objective at C = 1/penalty. Heads are solved together in float32, `BLOCK_BYTES` of inputs at a
    time, by conjugate gradients; those on which float32 does not reach the optimum are solved in
    float64 by Newton's method.

    Raises:
        WorkbenchError: only one label, or values that are not finite.
    """
    if not 0 <= penalty < float("inf") or not bool(((label == 0) | (label == 1)).all()):
        raise WorkbenchError(
            f"penalty={penalty} and labels {sorted(set(label.tolist()))[:5]}",
            "a finite penalty from 0 on, and labels 0 and 1",
        )
    if int(label.min()) == int(label.max()):
        raise WorkbenchError(
            f"{len(label)} rows that all have the label {int(label[0])}", "rows of both labels"
        )
    rows, layers, heads, width = z.shape
    solved = []
    for layer in range(layers):
        inputs = z[:, layer]
        block_bytes = BLOCK_BYTES.get(inputs.device.type, BLOCK_BYTES["cpu"])
        size = max(1, block_bytes // (4 * rows * width))  # heads, in float32
        solved += [
            optimum(inputs[:, first : first + size], label.to(inputs.device), penalty)
            for first in range(0, heads, size)
        ]
    weights = rearrange(
        torch.cat(solved).float(), "(layer head) weight -> layer head weight", layer=layers
    )
    return Probes(coefficient=weights[..., :-1].contiguous(), intercept=weights[..., -1])
