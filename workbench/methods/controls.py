"""Controls that belong beside every method."""

from __future__ import annotations

from dataclasses import replace

import torch

from workbench.edits import Edit
from workbench.errors import WorkbenchError


def random_directions(edit: Edit, draws: int, seed: int = 0) -> list[Edit]:
    """Several draws of `random_direction`, every second one the opposite of the one before.

    A random direction is as likely as its opposite. Taking both (antithetic draws) cancels what
    moves answers one way or the other by chance, and leaves what a direction does as such.

    Args:
        edit: a fitted edit.
        draws: how many; an even number.
        seed: draws the directions.

    Raises:
        WorkbenchError: an odd number of draws, or none.
    """
    if draws < 2 or draws % 2:
        raise WorkbenchError(f"{draws} random directions", "an even number from 2 on")
    found = []
    for pair in range(draws // 2):
        one = random_direction(edit, seed * 1_000_003 + pair)
        found += [one, replace(one, direction=-one.direction)]
    return found


def random_direction(edit: Edit, seed: int = 0) -> Edit:
    """The same heads, spreads, strengths and α along random directions.

    A random direction is not orthogonal to θ: their cosine is about 1/√d_head, 0.22 on hearsay
    and 0.09 at d_head 128. Judge by many draws.

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
