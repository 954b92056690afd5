"""Logistic regressions of all heads: solved together against scikit-learn's loop over heads.

The data are made like heads' outputs: correlated channels whose variances fall off as a power law,
means away from zero, labels that a head tells in seven of ten cases. Published code fits
`LogisticRegression(max_iter=1000)` on float32; its probabilities are then off by a hundredth, so
the loop is also timed at the loosest tolerance in float64 at which all of its heads are within 1e-4
of the optimum, which is what the workbench is held to.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from benchmarks.case import Result, cached_rate, gemm_rate, once, report, require
from workbench.stages.probes import Probes, fit_probes

ROWS, HEADS, WIDTH = 4000, 1024, 128
SAMPLE, FREE = 48, 8


def heads_like_a_model_s() -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs [row, 1, head, channel] and labels."""
    draw = torch.Generator().manual_seed(0)
    label = (torch.rand(ROWS, generator=draw) < 0.5).long()
    scale = torch.arange(1, WIDTH + 1).float() ** -0.5
    z = torch.randn(ROWS, 1, HEADS, WIDTH, generator=draw)
    for head in range(HEADS):
        turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=draw))[0]
        signal = torch.randn(WIDTH, generator=draw) * scale * 0.05
        own = z[:, 0, head] * scale + (2 * label[:, None] - 1) * signal
        z[:, 0, head] = own @ turn + 0.5 * torch.randn(WIDTH, generator=draw)
    return z, label


def fitted(x: np.ndarray, label: np.ndarray, tolerance: float) -> LogisticRegression:
    """One of the loop's fits."""
    return LogisticRegression(max_iter=1000, tol=tolerance).fit(x, label)


def off(model: LogisticRegression, x: np.ndarray, exact: np.ndarray) -> float:
    """Largest difference in probability."""
    return float(np.abs(model.predict_proba(x)[:, 1] - exact).max())


def _fit_all(
    into: list[LogisticRegression], heads: list[np.ndarray], label: np.ndarray, tolerance: float
) -> None:
    into.extend(fitted(x, label, tolerance) for x in heads)


def main() -> None:
    """Time both, and each at the precision that it reaches."""
    z, label = heads_like_a_model_s()
    numbers = label.numpy()
    probes = fit_probes(z[:, :, :8], label)
    fast = min(once(lambda: fit_probes(z, label)) for _ in range(3))
    probes = fit_probes(z, label)

    heads = [z[:, 0, head].numpy() for head in range(SAMPLE)]
    double = [x.astype(np.float64) for x in heads]
    with threadpool_limits(1):  # on all cores its threads fight, and it takes many times as long
        exact = [fitted(x, numbers, 1e-9).predict_proba(x)[:, 1] for x in double]
        tolerance, equal, reached = 1e-3, 0.0, 1.0
        while reached > 1e-4:
            tolerance /= 10
            loop: list[LogisticRegression] = []
            equal = once(partial(_fit_all, loop, double, numbers, tolerance))
            reached = max(map(off, loop, double, exact))
        loop = []
        published = once(partial(_fit_all, loop, heads, numbers, 1e-4))
        loose = max(map(off, loop, heads, exact))
    few = Probes(probes.coefficient[:, :SAMPLE], probes.intercept[:, :SAMPLE])
    found = few.probability(z[:, :, :SAMPLE])[:, 0].T.numpy()
    mine = float(np.abs(found - np.array(exact)).max())
    require(mine < 1e-4, f"by {mine:.1e} in probability")
    free = once(lambda: [fitted(x, numbers, 1e-4) for x in heads[:FREE]]) / FREE

    gram = 2 * 16 * WIDTH * WIDTH**2 * HEADS
    passes = 16 * ROWS * HEADS * WIDTH * 4
    limit = gram / gemm_rate() + passes / cached_rate(ROWS, WIDTH)
    work = (
        f"{gram / 1e9:.0f} GFLOP for preconditioners, about {passes / 1e9:.0f} GB through the cache"
    )
    reports = {
        f"scikit-learn loop as published, on all threads ({FREE} heads, scaled)": (
            free * HEADS, loose, 30.0,
        ),
        f"the same on one thread, which is faster ({SAMPLE} heads, scaled)": (
            published * HEADS / SAMPLE, loose, None,
        ),
        f"the same within 1e-4: float64, tol {tolerance:.0e} ({SAMPLE} heads, scaled)": (
            equal * HEADS / SAMPLE, reached, 30.0,
        ),
    }  # fmt: skip
    report(
        *(
            Result(
                "1,024 logistic regressions, 128 channels x 4,000 rows", baseline, before, fast,
                work, limit,
                f"workbench within {mine:.0e} of the optimum, the loop within {theirs:.0e}",
                target,
            )
            for baseline, (before, theirs, target) in reports.items()
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
