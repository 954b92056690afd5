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

from workbench.token_graphs import mutual_information


def entropy_bits(counts: np.ndarray) -> float:
    """Plug-in entropy of a histogram."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum())


def pair_loop(tokens: np.ndarray, bins: int = 100, *, once: bool = False) -> np.ndarray:
    """The procedure pair by pair.

    Args:
        tokens: [token, channel].
        bins: bins.
        once: use the symmetry, i.e. half of the pairs, which the published code does not.
    """
    count = len(tokens)
    result = np.zeros((count, count))
    edges = np.linspace(0, 1, bins + 1, dtype=np.float32)
    scaled = [(t - t.min()) / (t.max() - t.min()) for t in tokens]
    binned = [np.clip(np.searchsorted(edges, t, side="left") - 1, 0, bins - 1) for t in scaled]
    own = np.arange(bins + 1)
    for i in range(count):
        for j in range(i if once else 0, count):
            joint, _, _ = np.histogram2d(binned[i], binned[j], bins=(own, own))
            information = (
                entropy_bits(joint.sum(axis=1))
                + entropy_bits(joint.sum(axis=0))
                - entropy_bits(joint.ravel())
            )
            result[i, j] = information
            if once:
                result[j, i] = information
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
    half = median_seconds(lambda: pair_loop(numbers, once=True), 3)
    print("mutual information, 32 tokens x 4,096 channels, 100 bins")
    print(f"  threads                         {torch.get_num_threads()}")
    print(f"  loop over ordered pairs         {1000 * slow:8.1f} ms")
    print(f"  loop over unordered pairs       {1000 * half:8.1f} ms")
    print(f"  workbench                       {1000 * fast:8.1f} ms")
    print(f"  ratio to the loop as published  {slow / fast:8.1f}")
    print(f"  ratio to the halved loop        {half / fast:8.1f}")
    print(f"  largest difference              {difference:8.1e} bits")
    if difference > 1e-4:
        sys.exit("the results differ")


if __name__ == "__main__":
    main()
