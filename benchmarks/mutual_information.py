"""Mutual information of all token pairs: one call against the pair-by-pair histogram loop.

The loop is written for this benchmark after the procedure that TAE describes and its code follows:
for every ordered pair of tokens, scale both, bin both, histogram each and both together, and add
up three entropies.
"""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.case import Result, once, report, require, seconds
from workbench.stages.mutual_information import BLOCK_CELLS, bin_tokens, mutual_information

BINS = 100


def entropy_bits(counts: np.ndarray) -> float:
    """Plug-in entropy of a histogram."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum())


def binned_token(token: np.ndarray) -> np.ndarray:
    """Scale a token to [0, 1] and bin it."""
    scaled: np.ndarray = (token - token.min()) / (token.max() - token.min())
    edges = torch.linspace(0, 1, BINS + 1).numpy()
    place: np.ndarray = np.searchsorted(edges, scaled, side="left") - 1
    return place.clip(0, BINS - 1)


def pair_information(x: np.ndarray, y: np.ndarray) -> float:
    """Mutual information of two binned tokens, from their joint histogram."""
    own = np.arange(BINS + 1)
    joint, _, _ = np.histogram2d(x, y, bins=(own, own))
    return (
        entropy_bits(joint.sum(axis=1))
        + entropy_bits(joint.sum(axis=0))
        - entropy_bits(joint.ravel())
    )


def pair_loop(tokens: np.ndarray) -> np.ndarray:
    """The procedure as described: every ordered pair of tokens [token, channel] from scratch."""
    return np.array(
        [[pair_information(binned_token(x), binned_token(y)) for y in tokens] for x in tokens]
    )


def thrifty_loop(tokens: np.ndarray) -> np.ndarray:
    """The same, with each token binned once and each pair computed once."""
    binned = [binned_token(token) for token in tokens]
    result = np.zeros((len(tokens), len(tokens)))
    for i, x in enumerate(binned):
        for j in range(i, len(binned)):
            result[i, j] = result[j, i] = pair_information(x, binned[j])
    return result


def counting_alone(tokens: torch.Tensor) -> float:
    """Seconds that only the histogram updates of all pairs take, on the same block of cells."""
    codes = bin_tokens(tokens, BINS)
    codes = codes + BINS * codes.roll(1, dims=0)
    rows = BLOCK_CELLS["cpu"] // BINS**2
    block = codes.repeat(rows // len(codes) + 1, 1)[:rows].contiguous()
    counts = torch.zeros(rows, BINS**2, dtype=torch.int32)
    ones = torch.ones(1, 1, dtype=torch.int32).expand(block.shape)
    pairs = len(tokens) * (len(tokens) + 1) // 2
    return seconds(lambda: counts.scatter_add_(1, block, ones), 20) * pairs / rows


def main() -> None:
    """One layer, all layers of Llama-3-8B at once, and the growth with tokens and channels."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(32, 4096, generator=generator)
    numbers = tokens.numpy()
    difference = np.abs(mutual_information(tokens).numpy() - pair_loop(numbers)).max()
    require(difference < 1e-4, f"by {difference:.1e} bits")
    fast = seconds(lambda: mutual_information(tokens), 25)
    slow = seconds(lambda: pair_loop(numbers), 5)
    thrifty = seconds(lambda: thrifty_loop(numbers), 3)
    updates = "528 pairs x 4,096 channels: 2.2 million histogram updates"
    one = Result(
        "mutual information, 32 tokens x 4,096 channels, one layer",
        "pair-by-pair histogram loop (the published procedure)",
        slow, fast, updates, counting_alone(tokens), f"{difference:.0e} bits", target=80,
    )  # fmt: skip
    spared = Result(
        "mutual information, 32 tokens x 4,096 channels, one layer",
        "the same loop, binning each token and counting each pair once",
        thrifty, fast, updates, float("nan"), f"{difference:.0e} bits",
    )  # fmt: skip
    layers = torch.randn(32, 32, 4096, generator=generator)
    together = seconds(lambda: mutual_information(layers), 3)
    apart = once(lambda: [pair_loop(layer.numpy()) for layer in layers])
    every = Result(
        "mutual information, all 32 layers of Llama-3-8B in one call",
        "pair-by-pair histogram loop, layer by layer",
        apart, together, "32 x 2.2 million histogram updates", 32 * counting_alone(tokens),
        "as above",
    )  # fmt: skip
    wide = torch.randn(64, 4096, generator=generator)
    longer = seconds(lambda: mutual_information(wide), 9)
    narrow = seconds(lambda: mutual_information(wide[:32, :1024]), 25)
    print(f"growth: twice the tokens take {longer / fast:.1f} times as long (tokens²: 4.0),")
    print(f"        four times the channels {fast / narrow:.1f} times (channels: 4.0)")
    report(one, spared, every)


if __name__ == "__main__":
    main()
