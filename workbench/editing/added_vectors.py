"""The plainest edit of states: the same vector is added at every token, x ← x + α·v."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.doors import door_of_class
from workbench.editing.interventions import Intervention
from workbench.editing.state_edits import StateEdit, States, width_at
from workbench.errors import WorkbenchError


@door_of_class
@dataclass(frozen=True, repr=False, kw_only=True)
class AddedVector(StateEdit, kind="added_vector"):
    """Adds α times a vector to every state.

    Attributes:
        vector: one a place; at z the channels of all heads, one head behind the other.
        places, alpha, answer_start, model, settings, positions: see `StateEdit`.

    Example:
        >>> caa = wb.methods.ContrastiveAddition(layer=2).fit(model, fold.train, progress=False)
        >>> isinstance(caa, wb.editing.AddedVector), caa.vector.shape
        (True, torch.Size([1, 160]))
    """

    vector: Float[Tensor, "place channel"]

    def __post_init__(self) -> None:
        super().__post_init__()
        widths = {width_at(self.model.shape, point) for point, _ in self.places}
        if len(widths) > 1:
            raise WorkbenchError(
                f"vectors at {list(self.places)}, whose states have different sizes",
                "places of one size",
            )
        self.require_finite("vector", (len(self.places), widths.pop()))

    def change(self, number: int, state: States) -> States:
        """The state and α·v."""
        return state + (self.alpha * self.vector[number]).to(state).view(state.shape[1:])

    def constant(self) -> Mapping[Any, Tensor]:
        """α·v; see `Intervention.constant`."""
        heads = self.model.shape.heads
        moved = self.alpha * self.vector.float().cpu()
        return {
            place: own.unflatten(0, (heads, -1)) if place[0] == "z" else own
            for place, own in zip(self.places, moved, strict=True)
        }


def as_vectors(edit: Intervention) -> AddedVector:
    """What an edit adds everywhere, α included, as vectors to be added with α = 1.

    Raises:
        WorkbenchError: an edit that does not add the same everywhere.
    """
    shifts = edit.constant()
    if not shifts:
        raise WorkbenchError(f"{edit!r}, whose change depends on the token", "a constant change")
    return AddedVector(
        places=tuple(shifts),
        vector=torch.stack([own.flatten() for own in shifts.values()]),
        alpha=1.0,
        answer_start=edit.answer_start,
        model=edit.model,
        settings=edit.settings,
        positions=edit.positions,
    )
