"""What an edit did along one sequence, token by token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from workbench.records import Named, Record

PER_HEAD = ("misalignment", "strengths", "change")
PER_LAYER = ("uncertainty", "moved", "gate")


@dataclass(frozen=True, repr=False)
class TokenTrace(Record):
    """What an edit did along one sequence; heads that are not edited hold NaN.

    Attributes:
        position: positions of the edited tokens, ascending.
        strings: the tokens' texts (the first is the last prompt token).
        following: texts of the tokens after them, whose writing the edit changes; "" where the
            model never saw it.
        misalignment: p̂ of the token that follows each position; NaN where strength is constant.
        uncertainty: u per layer; NaN where it plays no part.
        strengths: s.
        change: the signed length α·σ·s that z moved along θ, in the units of z.
        moved: how far a layer's states moved, in their own units: the root of the sum of squares
            over its heads, or over its edited places; NaN in layers that are not edited.
        gate: of an edit with gates, how much of its change each token gets, a mean over a layer's
            heads and places; NaN elsewhere.
        ids: the tokens' numbers; −1 where the model was given none.
        nats, nats_without: log-probability of the following token under the edit and without it;
            None until `with_log_probabilities` has read them, NaN where no token follows.
        sequence: all of the sequence's tokens that the model saw; None where the passes did not
            hold them all, as behind a cache begun before, or where beams exchanged rows.
        start: from which position the edit applied.
        about: the model, the edit and its α.
        edit, model: the edit itself, and a weak reference to the model.
    """

    position: Int[Tensor, " token"]
    strings: tuple[str, ...]
    following: tuple[str, ...]
    misalignment: Float[Tensor, "token layer head"]
    uncertainty: Float[Tensor, "token layer"]
    strengths: Float[Tensor, "token layer head"]
    change: Float[Tensor, "token layer head"]
    moved: Float[Tensor, "token layer"]
    gate: Float[Tensor, "token layer"]
    ids: Int[Tensor, " token"] | None = None
    nats: Float[Tensor, " token"] | None = None
    nats_without: Float[Tensor, " token"] | None = None
    sequence: Int[Tensor, " position"] | None = None
    start: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)
    edit: Any = None
    model: Any = None

    def __repr__(self) -> str:
        return f"TokenTrace({len(self.strings)} tokens: {''.join(self.strings)!r})"

    def first(self, count: int) -> TokenTrace:
        """The first `count` edited positions, such as `continuation.kept` of a generation."""
        cut = {own.name: getattr(self, own.name) for own in fields(self)}
        for name, value in cut.items():
            if isinstance(value, Tensor | tuple) and name != "sequence":
                cut[name] = value[:count]
        return TokenTrace(**cut)

    def coordinates(self) -> Mapping[str, tuple[str, Sequence[Any]]]:
        """Texts, numbers and positions of the tokens."""
        known = {"string": list(self.strings), "following": list(self.following)}
        known["position"] = self.position.tolist()
        if self.ids is not None:
            known["id"] = self.ids.tolist()
        return {name: ("token", own) for name, own in known.items()}

    def arrays(self) -> dict[str, Named]:
        """p̂, u, s, the change along θ, moved, gates, and log-probabilities where read."""
        found = super().arrays()
        names = (*PER_HEAD, *PER_LAYER, "nats", "nats_without")
        return {name: found[name] for name in names if name in found}

    def attributes(self) -> Mapping[str, Any]:
        """The model, the edit and its α."""
        return self.about
