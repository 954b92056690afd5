"""Applying a layer's misalignment estimators: one product against a call a head and token."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from benchmarks.case import Result, cached_rate, report, require, seconds
from workbench.stages.probes import fit_probes

TOKENS, HEADS, WIDTH = 64, 32, 128


def main() -> None:
    """Time both on the same fitted estimators."""
    draw = torch.Generator().manual_seed(0)
    label = (torch.rand(300, generator=draw) < 0.5).long()
    z = torch.randn(300, 1, HEADS, WIDTH, generator=draw) + label[:, None, None, None] * 0.2
    probes = fit_probes(z, label)
    loop = []
    for head in range(HEADS):
        model = LogisticRegression().fit(z[:, 0, head].numpy(), label.numpy())
        model.coef_ = probes.coefficient[0, head].double().numpy()[None]
        model.intercept_ = probes.intercept[0, head].double().numpy()[None]
        loop.append(model)
    tokens = torch.randn(TOKENS, 1, HEADS, WIDTH, generator=draw)
    numbers = tokens[:, 0].numpy()

    def one_by_one() -> np.ndarray:
        return np.array(
            [
                [loop[head].predict_proba(token[head][None])[0, 1] for head in range(HEADS)]
                for token in numbers
            ]
        )

    found = probes.probability(tokens)[:, 0].numpy()
    difference = float(np.abs(found - one_by_one()).max())
    require(difference < 1e-5, f"by {difference:.1e}")
    fast = seconds(lambda: probes.probability(tokens), 50)
    report(
        Result(
            "estimators of one layer, 32 heads x 64 tokens x 128 channels",
            "scikit-learn's predict_proba for each head and token",
            seconds(one_by_one, 5), fast, f"{tokens.nbytes / 1e6:.1f} MB read",
            tokens.nbytes / cached_rate(4000, WIDTH), f"{difference:.0e} in probability",
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
