"""Gates: how much of an edit's change a token gets, read off the state that is about to be changed.

x ← x + α·g(x)·(T(x) − x), where T is an edit of states and g a number a token, or one a head. DSAS
(Ferrando et al. 2025) has a sigmoid around any edit, CLAS (Hsu et al. 2026) a linear function of
the state around a vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.checks import require_one_of
from workbench.doors import door_of_class
from workbench.editing.interventions import Intervention
from workbench.editing.state_edits import StateEdit, States, width_at
from workbench.errors import WorkbenchError

GateKind = Literal["sigmoid", "linear", "relu"]


@door_of_class
@dataclass(frozen=True, repr=False)
class Gate:
    """g(x) = f(w·x + b), a row a place.

    Attributes:
        weight: w; a unit reads its own share of the state's channels: one unit all of them, as many
            units as z has heads one head each.
        bias: b.
        kind: f: `sigmoid`, `linear` (f(a) = a) or `relu`.

    Example:
        >>> import torch
        >>> half = wb.editing.Gate(torch.zeros(1, 1, 160), torch.zeros(1, 1))
        >>> half.factor(0, torch.ones(3, 160)).tolist()
        [[0.5], [0.5], [0.5]]
    """

    weight: Float[Tensor, "place unit channel"]
    bias: Float[Tensor, "place unit"]
    kind: GateKind = "sigmoid"

    def __post_init__(self) -> None:
        require_one_of("gate", self.kind, GateKind)
        if self.weight.ndim != 3 or self.bias.shape != self.weight.shape[:2]:
            raise WorkbenchError(
                f"a gate of {tuple(self.weight.shape)} and {tuple(self.bias.shape)}",
                "weights [place, unit, channel] and biases [place, unit]",
            )

    def __repr__(self) -> str:
        places, units, _ = self.weight.shape
        return f"Gate({self.kind}, {places} places, {units} units)"

    def factor(self, number: int, state: States) -> Float[Tensor, "position unit"]:
        """g of states.

        Args:
            number: of the place.
            state: z as [position, head, d_head], other points as [position, d_model].
        """
        weight, bias = self.weight[number].to(state), self.bias[number].to(state)
        inner = (state.reshape(len(state), *weight.shape) * weight).sum(dim=-1) + bias
        if self.kind == "linear":
            return inner
        return inner.sigmoid() if self.kind == "sigmoid" else inner.relu()


@door_of_class
@dataclass(frozen=True, repr=False, kw_only=True)
class Gated(StateEdit, kind="gated"):
    """An edit of states, of whose change each token gets as much as a gate says.

    Attributes:
        inner: the edit, with an α of its own.
        gate: g, a row for each of the inner edit's places.
        places: the inner edit's.
        alpha: what the gated change is multiplied with.
        answer_start, model, settings, positions: see `StateEdit`; those of `inner` do not count.

    Example:
        >>> import torch
        >>> caa = wb.methods.ContrastiveAddition(layer=2).fit(model, fold.train, progress=False)
        >>> half = wb.editing.Gate(torch.zeros(1, 1, 160), torch.zeros(1, 1))
        >>> wb.editing.Gated.around(caa, half)
        Gated(resid_post of hearsay, layers (2,), alpha=1, sigmoid gate)
    """

    parts: ClassVar[Mapping[str, type]] = {
        **Intervention.parts, "inner": StateEdit, "gate": Gate,
    }  # fmt: skip

    inner: StateEdit
    gate: Gate

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.inner, StateEdit) or self.inner.places != self.places:
            raise WorkbenchError(f"a gate around {self.inner!r}", "an edit of the same places")
        self.inner.require_inside()
        widths = {width_at(self.model.shape, point) for point, _ in self.places}
        units = self.gate.weight.shape[1]
        if len(widths) > 1 or min(widths) % max(units, 1):
            raise WorkbenchError(
                f"a gate of {units} units for states of {', '.join(map(str, widths))} channels",
                "places of one size, whose channels can be shared out among the units",
            )
        self.require_finite("gate.weight", (len(self.places), units, widths.pop() // units))
        self.require_finite("gate.bias", (len(self.places), units))

    @classmethod
    def around(cls, inner: StateEdit, gate: Gate, **more: object) -> Gated:
        """An edit behind a gate.

        Args:
            inner: what is gated; its α stays its own.
            gate: a row for each of its places.
            more: fields of the new edit, such as `alpha` and `settings`.
        """
        own: dict[str, object] = {
            "alpha": 1.0, "answer_start": inner.answer_start, "model": inner.model,
            "settings": inner.settings, "positions": inner.positions,
        }  # fmt: skip
        return cls(places=inner.places, inner=inner, gate=gate, **(own | more))  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, {self.gate.kind} gate)"

    def change(self, number: int, state: States) -> States:
        """The state, moved by α·g of what the inner edit moves it."""
        factor = self.alpha * self.gate.factor(number, state)
        units = factor.shape[1]
        moved = (self.inner.change(number, state) - state).reshape(len(state), units, -1)
        return state + (factor[..., None] * moved).view(state.shape)

    def gates(self, number: int, state: States) -> Float[Tensor, "position unit"]:
        """g; see `StateEdit.gates`."""
        return self.gate.factor(number, state)

    def evened(self, means: Float[Tensor, " gate"]) -> Gated:
        """The same with a constant gate; see `StateEdit.evened`."""
        bias = means.to(self.gate.bias).view(self.gate.bias.shape)
        even = Gate(torch.zeros_like(self.gate.weight), bias, "linear")
        return replace(self, gate=even)
