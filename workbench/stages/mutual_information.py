"""Mutual information between tokens, from the joint histograms of their channels.

Scale each token to [0, 1], bin, and take H(i) + H(j) − H(i, j) (TAE, section 3.1). Everything is
counted in integers, for all pairs and all leading dimensions (layers, heads, answers) at once.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import WorkbenchError

Correction = Literal["none", "miller_madow", "shuffle"]

BLOCK_CELLS: Mapping[str, int] = {"cpu": 1 << 19, "cuda": 1 << 26}
"""Most histogram cells (4 bytes each) at a time: 2 MB stays in cache, 256 MB fills a GPU."""

_KEPT = threading.local()


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
    edges = torch.linspace(0, 1, bins + 1, device=values.device, dtype=torch.float32)
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
        bins: bins of the histogram of each token; 100 are TAE's.
        correction: see `GraphSettings`.
        seed: of the shuffle.

    Returns:
        Symmetric, with the tokens' entropies on the diagonal (without correction). A constant
        token has no information: its row and column are 0. Besides it and the input's bins no
        more than `BLOCK_CELLS` histogram cells, and 16 bytes a channel of their pairs, are held.
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
    """
    *batch, tokens, channels = binned.shape
    graphs = binned.reshape(-1, tokens, channels)
    pairs = len(graphs) * tokens * (tokens + 1) // 2
    most = max(1, min(pairs, BLOCK_CELLS.get(graphs.device.type, BLOCK_CELLS["cpu"]) // bins**2))
    space = _workspace(most, channels, bins, graphs.device)
    joint = torch.zeros(len(graphs), tokens, tokens, device=graphs.device, dtype=torch.float32)
    for block in _blocks(len(graphs), tokens, most):
        entropies = space.entropies(graphs, block, miller_madow=miller_madow)
        for part, entropy in zip(block, entropies, strict=True):
            joint[part.graphs, part.first, part.others] = entropy
    joint = joint.triu() + joint.triu(diagonal=1).mT
    of_token = joint.diagonal(dim1=1, dim2=2)
    information = of_token[:, :, None] + of_token[:, None, :] - joint
    constant = (graphs == graphs[..., :1]).all(dim=-1)
    information.masked_fill_(constant[:, :, None] | constant[:, None, :], 0.0)
    return information.reshape(*batch, tokens, tokens)


class _Pairs(NamedTuple):
    """In each of some graphs, one token paired with a range of the tokens from it on."""

    graphs: slice
    first: int
    others: slice

    @property
    def shape(self) -> tuple[int, int]:
        return self.graphs.stop - self.graphs.start, self.others.stop - self.others.start


def _blocks(graphs: int, tokens: int, most: int) -> Iterator[list[_Pairs]]:
    """All pairs, in blocks of at most so many."""
    block: list[_Pairs] = []
    room = most
    for first in range(tokens):
        width = min(tokens - first, most)
        step = most // width
        for low in range(0, graphs, step):
            for second in range(first, tokens, width):
                part = _Pairs(
                    slice(low, min(low + step, graphs)),
                    first,
                    slice(second, min(second + width, tokens)),
                )
                if math.prod(part.shape) > room:
                    yield block
                    block, room = [], most
                block.append(part)
                room -= math.prod(part.shape)
    if block:
        yield block


@dataclass(frozen=True)
class _Workspace:
    """Buffers for a block of pairs; a pair has a row of its own in each.

    Rows are what torch shares out to all cores.
    """

    bins: int
    counts: Int[Tensor, "pair cell"]
    codes: Int[Tensor, "pair channel"]
    hits: Int[Tensor, "pair channel"]
    logs: Float[Tensor, "pair channel"]

    @classmethod
    def of(cls, pairs: int, channels: int, bins: int, device: torch.device) -> _Workspace:
        return cls(
            bins=bins,
            counts=torch.zeros(pairs, bins**2, dtype=torch.int32, device=device),
            codes=torch.empty(pairs, channels, dtype=torch.long, device=device),
            hits=torch.empty(pairs, channels, dtype=torch.int32, device=device),
            logs=torch.empty(pairs, channels, device=device, dtype=torch.float32),
        )

    def entropies(
        self, graphs: Tensor, block: Sequence[_Pairs], *, miller_madow: bool
    ) -> list[Tensor]:
        """Joint entropies in bits [graph, token] of every part of a block.

        The Miller-Madow correction is (cells − 1) / 2N nats; a cell is counted once as the sum of
        1 / n over the channels that hit it.
        """
        sizes = [math.prod(part.shape) for part in block]
        rows, channels = sum(sizes), graphs.shape[-1]
        codes, hits, logs = self.codes[:rows], self.hits[:rows], self.logs[:rows]
        counts = self.counts[:rows]
        for part, place in zip(block, torch.split(codes, sizes), strict=True):
            first = graphs[part.graphs, part.first, None]
            others = graphs[part.graphs, part.others]
            torch.add(others, first, alpha=self.bins, out=place.view(others.shape))
        counts.scatter_add_(1, codes, counts.new_ones(1, 1).expand(codes.shape))
        torch.gather(counts, 1, codes, out=hits)
        if channels * 16 < self.bins**2:  # few cells were hit: clear those alone
            counts.scatter_(1, codes, 0)
        else:
            counts.zero_()
        logs.copy_(hits).log2_()
        entropy = math.log2(channels) - logs.sum(dim=-1) / channels
        if miller_madow:
            cells = (1.0 / hits).sum(dim=-1)
            entropy = entropy + (cells - 1) / (2 * channels * math.log(2))
        return [
            values.view(part.shape)
            for values, part in zip(torch.split(entropy, sizes), block, strict=True)
        ]


def _workspace(pairs: int, channels: int, bins: int, device: torch.device) -> _Workspace:
    """The thread's last workspace if it fits, since fresh memory costs as much as the counting."""
    sizes = (pairs, channels, bins, device)
    if device.type != "cpu":
        return _Workspace.of(*sizes)
    key = (*sizes, torch.is_inference_mode_enabled())  # whose tensors are of no use outside
    if getattr(_KEPT, "key", None) != key:
        _KEPT.key, _KEPT.space = key, _Workspace.of(*sizes)
    space: _Workspace = _KEPT.space
    space.counts.zero_()
    return space


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
    return (across + across.mT) / 2
