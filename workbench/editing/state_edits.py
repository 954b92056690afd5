"""Edits of whole states: any function of what passes at some points of a model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from workbench.editing.interventions import Intervention, Positions
from workbench.errors import WorkbenchError
from workbench.models.identity import ModelIdentity, ModelShape
from workbench.models.passes import NAMES, Place
from workbench.models.prompts import AnswerStart

States = Float[Tensor, "position *width"]


@dataclass(frozen=True, repr=False, kw_only=True)
class StateEdit(Intervention):
    """A fitted edit that replaces states: a method is a subclass that says by what.

    Attributes:
        places: (point, layer) pairs; a subclass' tensors have a row for each.
        alpha, answer_start, model, settings, positions: see `Intervention`.

    Example:
        >>> caa = wb.methods.ContrastiveAddition(layer=2).fit(model, fold.train, progress=False)
        >>> isinstance(caa, wb.editing.StateEdit), caa.places
        (True, (('resid_post', 2),))
    """

    places: tuple[Place, ...]
    alpha: float
    answer_start: AnswerStart = "offsets"
    model: ModelIdentity
    settings: Mapping[str, Any] = field(default_factory=dict)
    positions: Positions = field(default_factory=Positions)

    def __post_init__(self) -> None:
        self.require_sound()
        layers = self.model.shape.layers
        known = [point in NAMES and 0 <= layer < layers for point, layer in self.places]
        if not self.places or not all(known) or len(set(self.places)) < len(self.places):
            raise WorkbenchError(
                f"an edit at {list(self.places)}",
                f"different places, ({', '.join(NAMES)}) of {layers} layers",
            )

    @abstractmethod
    def change(self, number: int, state: States) -> States:
        """What states become, out of place and each by itself.

        Args:
            number: of the place.
            state: z as [position, head, d_head], other points as [position, d_model]; in float32
                or better.
        """

    def gates(self, number: int, state: States) -> Float[Tensor, "position unit"] | None:  # noqa: ARG002
        """What the change of a state is multiplied with, where that depends on the token; or None.

        Args:
            number: of the place.
            state: as for `change`.
        """
        return None

    def evened(self, means: Float[Tensor, " gate"]) -> StateEdit:
        """The same edit with the same gates at every token.

        Args:
            means: of every place and unit, those of the first place first.

        Raises:
            WorkbenchError: an edit without gates.
        """
        raise WorkbenchError(f"{self!r} with {len(means)} even gates", "an edit that has gates")

    def require_inside(self) -> None:  # most stand anywhere
        """Refuse an edit that does nothing of its own within another one."""

    def __repr__(self) -> str:
        points = ", ".join(dict.fromkeys(point for point, _ in self.places))
        return (
            f"{type(self).__name__}({points} of {self.model.name}, layers {self.layers}, "
            f"alpha={self.alpha:g})"
        )

    @property
    def layers(self) -> tuple[int, ...]:
        """The edited layers, ascending."""
        return tuple(sorted({layer for _, layer in self.places}))

    @property
    def label(self) -> str:
        """Points, layers and strength."""
        points = ", ".join(dict.fromkeys(point for point, _ in self.places))
        layers = ", ".join(map(str, self.layers))
        return f"{points} of layers {layers}, alpha {self.alpha:g}"


def width_at(shape: ModelShape, point: str) -> int:
    """How many channels a state has at a point; at z, those of all heads."""
    return shape.heads * shape.d_head if point == "z" else shape.d_model
