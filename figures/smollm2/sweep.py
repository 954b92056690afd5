"""What methods gain at equal KL: the tables and figures of `truthfulness_sweep/`.

python -m figures.smollm2.sweep
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from workbench import plots, storage
from workbench.evaluation.fronts import (
    area,
    compare_at_side_effects,
    curve,
)
from workbench.evaluation.sweeps import sweep_of

FOLDER = Path(__file__).parent / "truthfulness_sweep"
KL = (0.5, 0.6, 0.8, 1.0)
"""Nats a token on WikiText that every method was measured around in both folds."""


def main() -> None:
    """Print them and draw the figures."""
    table = storage.read_table(FOLDER / "sweep.parquet")
    with storage.drawing() as image:
        for metric in ("mc1", "mc2"):
            sweep = sweep_of(table, metric, "kl")
            curves = pd.concat([curve(sweep, method) for method in sweep.gain], ignore_index=True)
            matched = compare_at_side_effects(sweep, "TAE", KL)
            whole = area(sweep, "TAE", np.geomspace(0.1, KL[-1], 40).tolist())
            for shown in (curves, matched, whole):
                sys.stdout.write(f"{metric}\n{shown.round(3).to_string(index=False)}\n\n")
            if image:
                figure = plots.front(
                    curves, gain=metric.upper(), side_effect="KL on WikiText (nats a token)",
                    title=f"TruthfulQA's {metric.upper()} on SmolLM2-135M-Instruct",
                )  # fmt: skip
                storage.write_bytes(FOLDER / f"{metric}.png", storage.picture(figure, scale=1.5))


if __name__ == "__main__":
    main()
