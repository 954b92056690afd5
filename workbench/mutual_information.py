"""Mutual information between tokens, from the joint histograms of their channels.

Scale each token to [0, 1], bin, and take H(i) + H(j) − H(i, j) (TAE, section 3.1). Everything is
counted in integers, for all pairs and all leading dimensions (layers, heads, answers) at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import WorkbenchError

Correction = Literal["none", "miller_madow", "shuffle"]

BLOCK_CELLS: Mapping[str, int] = {"cpu": 1 << 18, "cuda": 1 << 26}
"""Most histogram cells (4 bytes each) at a time: 1 MB stays in cache, 256 MB fills a GPU."""


def bin_tokens(
    tokens: Float[Tensor, "*batch token channel"], bins: int
) -> Int[Tensor, "*batch token channel"]:
    """Bin of every channel after scaling its token to [0, 1] by the token's own extremes.

    An edge belongs to the bin on its left; 0 goes into bin 0. A constant token, which has no
    information, goes into bin 0 whole.

    Raises:
        WorkbenchError: a value is not finite.
    """
    values = tokens.float().contiguous()
    low, high = values.aminmax(dim=-1, keepdim=True)
    if not bool(torch.isfinite(low).all() & torch.isfinite(high).all()):
        raise WorkbenchError("activations with NaN or infinite values", "finite activations")
    scaled = (values - low) / torch.where(high > low, high - low, 1.0)
    edges = torch.linspace(0, 1, bins + 1, device=values.device)
    guess = (scaled * bins).long().clamp_(0, bins - 1)  # off by one at most, next to an edge
    guess -= (scaled <= edges[guess]).long()
    guess.clamp_(min=0)
    guess += (scaled > edges[guess + 1]).long()
    return guess.clamp_(0, bins - 1)


def mutual_information(
    tokens: Float[Tensor, "*batch token channel"],
    bins: int = 100,
    correction: Correction = "none",
    seed: int = 0,
) -> Float[Tensor, "*batch token token"]:
    """Mutual information between all pairs of tokens, in bits (TAE, eq. 3).

    Args:
        tokens: a vector of channels a token; leading dimensions are independent graphs.
        bins: bins of the histogram of each token.
        correction: see `GraphSettings`.
        seed: of the shuffle.

    Returns:
        Symmetric, with the tokens' entropies on the diagonal (without correction). A constant
        token has no information: its row and column are 0.
    """
    binned = bin_tokens(tokens, bins)
    estimate = _plug_in(binned, bins, miller_madow=correction == "miller_madow")
    if correction == "shuffle":
        estimate = estimate - _shuffled_baseline(binned, bins, seed)
    return estimate


def _plug_in(binned: Tensor, bins: int, *, miller_madow: bool) -> Tensor:
    """MI of binned tokens [..., token, channel] from integer joint histograms.

    With c channels, H = log2 c − (1/c) Σ_channels log2 n(cell of the channel): the sum over
    occupied cells of n log2 n, taken channel by channel, so only cells that are hit are read.
    Each token meets the tokens behind it, graph by graph, in blocks that fit the cache.
    """
    *batch, tokens, channels = binned.shape
    graphs = binned.reshape(-1, tokens, channels)
    size = max(1, min(len(graphs) * tokens, BLOCK_CELLS[graphs.device.type] // bins**2))
    space = _Workspace.of(size, channels, bins, graphs.device)
    joint = torch.empty(len(graphs), tokens, tokens, device=graphs.device)
    for first in range(tokens):
        width = min(tokens - first, size)
        for low in range(0, len(graphs), size // width):
            part = graphs[low : low + size // width]
            for second in range(first, tokens, width):
                others = part[:, second : second + width]
                entropy = space.entropies(part[:, first : first + 1], others)
                if miller_madow:
                    entropy = entropy + space.miller_madow(others)
                place = slice(low, low + len(part)), slice(second, second + width)
                joint[place[0], first, place[1]] = entropy
                joint[place[0], place[1], first] = entropy
    own = joint.diagonal(dim1=1, dim2=2)
    information = own[:, :, None] + own[:, None, :] - joint
    constant = (graphs == graphs[..., :1]).all(dim=-1)
    information.masked_fill_(constant[:, :, None] | constant[:, None, :], 0.0)
    return information.reshape(*batch, tokens, tokens)


@dataclass(frozen=True)
class _Workspace:
    """Buffers for a block of pairs, made once: fresh ones would cost more than the counting."""

    bins: int
    table: Tensor
    shift: Tensor
    counts: Tensor
    codes: Tensor
    hits: Tensor
    logs: Tensor

    @classmethod
    def of(cls, pairs: int, channels: int, bins: int, device: torch.device) -> _Workspace:
        numbers = torch.arange(channels + 1, device=device).clamp(min=1)
        return cls(
            bins=bins,
            table=numbers.double().log2().float(),
            shift=torch.arange(pairs, device=device)[:, None] * bins**2,
            counts=torch.zeros(pairs * bins**2, dtype=torch.int32, device=device),
            codes=torch.empty(pairs, channels, dtype=torch.long, device=device),
            hits=torch.empty(pairs * channels, dtype=torch.int32, device=device),
            logs=torch.empty(pairs * channels, device=device),
        )

    def entropies(self, one: Tensor, others: Tensor) -> Tensor:
        """Joint entropies in bits [graph, token] of one token's bins and the others'."""
        graphs, tokens, channels = others.shape
        codes = self.codes[: graphs * tokens]
        torch.add(others, one, alpha=self.bins, out=codes.view(others.shape))
        codes += self.shift[: graphs * tokens]
        places = codes.view(-1)
        hits, logs = self.hits[: len(places)], self.logs[: len(places)]
        self.counts.scatter_add_(0, places, self.counts.new_ones(1).expand(len(places)))
        torch.gather(self.counts, 0, places, out=hits)
        if channels * 16 < self.bins**2:
            self.counts.scatter_(0, places, 0)
        else:
            self.counts.zero_()
        torch.index_select(self.table, 0, hits, out=logs)
        return self.table[channels] - logs.view(others.shape).sum(dim=-1) / channels

    def miller_madow(self, others: Tensor) -> Tensor:
        """The correction (cells − 1) / 2N in bits of the pairs that `entropies` counted last."""
        channels = others.shape[-1]
        hits = self.hits[: others.numel()].view(others.shape)
        return ((1.0 / hits).sum(dim=-1) - 1) / (2 * channels * math.log(2))


def _shuffled_baseline(binned: Tensor, bins: int, seed: int) -> Tensor:
    """MI between each token and the others after permuting channels: the estimate's own bias.

    Token i keeps its channels, token j has them permuted by one fixed, seeded permutation; the
    mean of both orders is symmetric. The diagonal's baseline is that of a token and its own
    permuted copy.
    """
    tokens, channels = binned.shape[-2:]
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(channels, generator=generator).to(binned.device)
    both = torch.cat([binned, binned[..., order]], dim=-2)
    estimate = _plug_in(both, bins, miller_madow=False)
    across = estimate[..., :tokens, tokens:]
    return (across + across.transpose(-1, -2)) / 2
