"""Controls that belong beside every method."""

from __future__ import annotations

from dataclasses import replace

import torch

from workbench.editing import Edit


def random_direction(edit: Edit, seed: int = 0) -> Edit:
    """The same heads, spreads, strengths and α along random directions.

    Args:
        edit: a fitted edit.
        seed: draws a direction a head, uniformly from the sphere.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(edit.direction.shape, generator=generator)
    return replace(
        edit,
        direction=torch.nn.functional.normalize(drawn, dim=-1),
        settings={**edit.settings, "direction": f"random (seed {seed})"},
    )
