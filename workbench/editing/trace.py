"""The trace of an edit: p̂, u, strength and change per token, layer and head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.errors import WorkbenchError
from workbench.models.identity import Model, ModelShape, shape_of, tokenizer_of
from workbench.models.positions import Pass
from workbench.models.prompts import token_texts

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True)
class LayerChange:
    """What an edit makes of one layer's z.

    Attributes:
        z: the edited head outputs, in the dtype of the ones given.
        misalignment: p̂ of the edited heads; None where strength is constant.
        strength: s.
        step: α·σ·s where a position is edited, else 0: how far z moved along θ.
    """

    z: Float[Tensor, "batch position head d_head"]
    misalignment: Float[Tensor, "batch position edited"] | None
    strength: Float[Tensor, "batch position edited"]
    step: Float[Tensor, "batch position edited"]


@dataclass(frozen=True)
class Done:
    """What an edit did at one place of one pass.

    Attributes:
        layer: of the place.
        where: the edited positions.
        uncertainty: u, where the strength depends on it.
        heads: the change of heads; None for edits of whole states.
        moved: of those, how far each position's state moved, in its own units.
    """

    layer: int
    where: Bool[Tensor, "batch position"]
    uncertainty: Float[Tensor, "batch position"] | None = None
    heads: LayerChange | None = None
    moved: Float[Tensor, "batch position"] | None = None


@dataclass(frozen=True, repr=False)
class TokenTrace:
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
    """

    position: Int[Tensor, " token"]
    strings: tuple[str, ...]
    following: tuple[str, ...]
    misalignment: Float[Tensor, "token layer head"]
    uncertainty: Float[Tensor, "token layer"]
    strengths: Float[Tensor, "token layer head"]
    change: Float[Tensor, "token layer head"]
    moved: Float[Tensor, "token layer"]

    def __repr__(self) -> str:
        return f"TokenTrace({len(self.strings)} tokens: {''.join(self.strings)!r})"

    def first(self, count: int) -> TokenTrace:
        """The first `count` edited positions, such as `continuation.kept` of a generation."""
        return TokenTrace(
            **{field.name: getattr(self, field.name)[:count] for field in fields(self)}
        )

    def to_xarray(self) -> xarray.Dataset:
        """The trace with named dimensions."""
        import xarray

        dims = ("token", "layer", "head")
        return xarray.Dataset(
            {
                "misalignment": (dims, self.misalignment.numpy()),
                "uncertainty": (dims[:2], self.uncertainty.numpy()),
                "strength": (dims, self.strengths.numpy()),
                "change": (dims, self.change.numpy()),
                "moved": (dims[:2], self.moved.numpy()),
                "string": (dims[:1], list(self.strings)),
                "position": (dims[:1], self.position.numpy()),
            }
        )


@dataclass(frozen=True)
class _Record:
    """One layer of one pass."""

    sequences: int
    layer: int
    heads: list[int]
    where: Tensor
    positions: Tensor
    tokens: Tensor | None
    values: dict[str, Tensor]
    passed: int


@dataclass(repr=False)
class Trace(Sequence[TokenTrace]):
    """Filled while a model runs; `trace[row]` is what happened along one sequence.

    Sequences are numbered in the order in which they were begun: the rows of the first batch, then
    those of the next. A position that was passed twice (generation without cache) keeps the last.
    """

    shape: ModelShape
    heads: tuple[tuple[int, int], ...]
    tokenizer: Any
    records: list[_Record] = field(default_factory=list)
    _now: Pass | None = None
    _count: int = 0

    @classmethod
    def of(cls, model: Model, heads: tuple[tuple[int, int], ...]) -> Trace:
        """An empty trace for a model."""
        return cls(shape_of(model), heads, tokenizer_of(model))

    def add(
        self,
        sequences: int,
        now: Pass,
        done: Done,
    ) -> None:
        """Keep what was done at one place of one pass, on the CPU."""
        values: dict[str, Tensor] = {}
        if done.moved is not None:
            values["moved"] = done.moved
        if done.heads is not None:
            values |= {"strengths": done.heads.strength, "change": done.heads.step}
            values["moved"] = done.heads.step.float().norm(dim=-1)
            if done.heads.misalignment is not None:
                values["misalignment"] = done.heads.misalignment
        if done.uncertainty is not None:
            values["uncertainty"] = done.uncertainty
        heads = [head for at, head in self.heads if at == done.layer]
        self.records.append(
            _Record(
                sequences, done.layer, heads, done.where.cpu(), now.positions.cpu(),
                None if now.tokens is None else now.tokens.cpu(),
                {name: value.detach().float().cpu() for name, value in values.items()},
                self._passes(now),
            )
        )  # fmt: skip

    def _passes(self, now: Pass) -> int:
        """How many passes were seen, this one included."""
        if now is not self._now:
            self._now, self._count = now, self._count + 1
        return self._count

    def __repr__(self) -> str:
        return f"Trace({len(self)} sequences, {len(self.heads)} edited heads)"

    def __len__(self) -> int:
        return sum(rows for _, rows in self._batches())

    def _batches(self) -> list[tuple[int, int]]:
        sizes = {record.sequences: len(record.where) for record in self.records}
        return sorted(sizes.items())

    def __getitem__(self, key):  # type: ignore[no-untyped-def]
        """The trace of one sequence, by its number."""
        if not isinstance(key, int):
            raise WorkbenchError(f"the index {key!r}", "a sequence's number")
        row = range(len(self))[key]
        for sequences, rows in self._batches():
            if row < rows:
                return self._assemble(sequences, row)
            row -= rows
        raise IndexError(key)

    @property
    def only(self) -> TokenTrace:
        """The trace of the only sequence.

        Raises:
            WorkbenchError: none, or several were run.
        """
        if len(self) != 1:
            raise WorkbenchError(
                f"a trace of {len(self)} sequences", "one sequence", "Take trace[row] of one."
            )
        found: TokenTrace = self[0]
        return found

    @property
    def strengths(self) -> Float[Tensor, "token layer head"]:
        """S of the only sequence."""
        return self.only.strengths

    @property
    def misalignment(self) -> Float[Tensor, "token layer head"]:
        """p̂ of the only sequence."""
        return self.only.misalignment

    @property
    def uncertainty(self) -> Float[Tensor, "token layer"]:
        """U of the only sequence."""
        return self.only.uncertainty

    @property
    def change(self) -> Float[Tensor, "token layer head"]:
        """The change along θ of the only sequence."""
        return self.only.change

    @property
    def moved(self) -> Float[Tensor, "token layer"]:
        """How far the layers' states of the only sequence moved."""
        return self.only.moved

    @property
    def strings(self) -> tuple[str, ...]:
        """The tokens of the only sequence."""
        return self.only.strings

    def _assemble(self, sequences: int, row: int) -> TokenTrace:
        mine = [record for record in self.records if record.sequences == sequences]
        places = sorted(
            {int(p) for r in mine for p, w in zip(r.positions[row], r.where[row], strict=True) if w}
        )
        index = {position: place for place, position in enumerate(places)}
        count = len(places)
        per_head = (count, self.shape.layers, self.shape.heads)
        values = {
            name: torch.full(per_head, torch.nan)
            for name in ("misalignment", "strengths", "change")
        }
        values |= {name: torch.full(per_head[:2], torch.nan) for name in ("uncertainty", "moved")}
        passed = torch.zeros(per_head[:2], dtype=torch.long)
        ids: list[int | None] = [None] * count
        for record in mine:
            hits = record.where[row].nonzero().flatten().tolist()
            if not hits:
                continue
            at = [index[int(record.positions[row, hit])] for hit in hits]
            for name, recorded in record.values.items():
                if name == "uncertainty":
                    values[name][at, record.layer] = recorded[row, hits]
                elif name == "moved":
                    again = passed[at, record.layer] == record.passed
                    before = values[name][at, record.layer].where(again, torch.tensor(0.0))
                    values[name][at, record.layer] = recorded[row, hits].hypot(before)
                    passed[at, record.layer] = record.passed
                else:
                    token = torch.tensor(at)[:, None]
                    head = torch.tensor(record.heads)[None]
                    values[name][token, record.layer, head] = recorded[row, hits]
            if record.tokens is not None:
                for place, hit in zip(at, hits, strict=True):
                    ids[place] = int(record.tokens[row, hit])
        known = [number for number in ids if number is not None]
        names = token_texts(self.tokenizer, known) if len(known) == count else ("",) * count
        following = (*names[1:], "")[:count]
        return TokenTrace(torch.tensor(places), names, following, **values)
