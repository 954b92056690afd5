"""Mutual information of all token pairs: one call against the pair-by-pair histogram loop.

The loop is written for this benchmark after the procedure that TAE describes and its code follows:
for every ordered pair of tokens, scale both, bin both, histogram each and both together, and add
up three entropies. Run it with `python -m benchmarks.mutual_information`.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from workbench.mutual_information import mutual_information


def entropy_bits(counts: np.ndarray) -> float:
    """Plug-in entropy of a histogram."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum())


def binned_token(token: np.ndarray, bins: int) -> np.ndarray:
    """Scale a token to [0, 1] and bin it."""
    scaled: np.ndarray = (token - token.min()) / (token.max() - token.min())
    edges = np.linspace(0, 1, bins + 1, dtype=np.float32)
    place: np.ndarray = np.searchsorted(edges, scaled, side="left") - 1
    return place.clip(0, bins - 1)


def pair_information(x: np.ndarray, y: np.ndarray, bins: int) -> float:
    """Mutual information of two binned tokens, from their joint histogram."""
    own = np.arange(bins + 1)
    joint, _, _ = np.histogram2d(x, y, bins=(own, own))
    return (
        entropy_bits(joint.sum(axis=1))
        + entropy_bits(joint.sum(axis=0))
        - entropy_bits(joint.ravel())
    )


def pair_loop(tokens: np.ndarray, bins: int = 100) -> np.ndarray:
    """The procedure as described: every ordered pair of tokens [token, channel] from scratch."""
    return np.array(
        [
            [pair_information(binned_token(x, bins), binned_token(y, bins), bins) for y in tokens]
            for x in tokens
        ]
    )


def thrifty_loop(tokens: np.ndarray, bins: int = 100) -> np.ndarray:
    """The same, with each token binned once and each pair computed once."""
    binned = [binned_token(token, bins) for token in tokens]
    result = np.zeros((len(tokens), len(tokens)))
    for i, x in enumerate(binned):
        for j in range(i, len(binned)):
            result[i, j] = result[j, i] = pair_information(x, binned[j], bins)
    return result


def median_seconds(run: Callable[[], object], repeats: int) -> float:
    """Median wall time."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def main() -> None:
    """Print both times, the ratio, and the largest difference of the results."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(32, 4096, generator=generator)
    numbers = tokens.numpy()
    difference = np.abs(mutual_information(tokens).numpy() - pair_loop(numbers)).max()
    fast = median_seconds(lambda: mutual_information(tokens), 15)
    slow = median_seconds(lambda: pair_loop(numbers), 3)
    thrifty = median_seconds(lambda: thrifty_loop(numbers), 3)
    print("mutual information, 32 tokens x 4,096 channels, 100 bins")
    print(f"  threads                         {torch.get_num_threads()}")
    print(f"  pair-by-pair loop               {1000 * slow:8.1f} ms")
    print(f"  loop that bins and counts once  {1000 * thrifty:8.1f} ms")
    print(f"  workbench                       {1000 * fast:8.1f} ms")
    print(f"  ratio to the pair-by-pair loop  {slow / fast:8.1f}")
    print(f"  ratio to the thrifty loop       {thrifty / fast:8.1f}")
    print(f"  largest difference              {difference:8.1e} bits")
    if difference > 1e-4:
        sys.exit("the results differ")


if __name__ == "__main__":
    main()
