"""Draw the gallery, or the figures that are named: `python -m figures token_risk trajectory`."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from tqdm import tqdm

from workbench import storage

GALLERY = (
    "token_risk", "token_graph", "propagation", "head_accuracy", "projection", "agreement",
    "trajectory", "strength_over_generation", "ablation_depth", "ablation_map", "methods_front",
    "deviations_forest", "hearsay_training",
)  # fmt: skip


def main(names: list[str]) -> int:
    """Draw figures as PNG into `figures/out/`; returns the exit status."""
    unknown = [name for name in names if name not in GALLERY]
    if unknown:
        sys.stderr.write(f"no figure {unknown[0]!r}: one of {', '.join(GALLERY)}\n")
        return 2
    out = Path(__file__).parent / "out"
    with storage.drawing() as image:
        if not image:
            sys.stderr.write("No Chrome or Chromium found: nothing can be drawn.\n")
            return 1
        for name in tqdm(names or GALLERY, desc="figures"):
            figure = import_module(f"figures.{name}").figure()
            storage.write_bytes(out / f"{name}.png", storage.picture(figure, scale=1.5))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
