"""The trace of an edit: p̂, u, strength and change per token, layer and head."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import ref

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.editing.head_edits import HeadEdit
from workbench.editing.token_trace import PER_HEAD, PER_LAYER, TokenTrace
from workbench.errors import WorkbenchError
from workbench.models.identity import Model, ModelShape, shape_of, tokenizer_of
from workbench.models.positions import Pass
from workbench.models.tokens import token_texts


@dataclass(frozen=True)
class LayerChange:
    """What an edit did at one place of one pass; None is what plays no part there.

    Attributes:
        layer: of the place.
        where: the edited positions.
        misalignment: p̂ of the edited heads.
        uncertainty: u.
        strengths: s of the edited heads.
        change: α·σ·s where a position is edited, else 0: how far z moved along θ.
        moved: how far each position's state moved, in its own units.
        gate: what the change of each position was multiplied with, a unit (a head, or the state).
        number: of the place among those of its edit, where there is a gate.
    """

    layer: int
    where: Bool[Tensor, "batch position"]
    misalignment: Float[Tensor, "batch position edited"] | None = None
    uncertainty: Float[Tensor, "batch position"] | None = None
    strengths: Float[Tensor, "batch position edited"] | None = None
    change: Float[Tensor, "batch position edited"] | None = None
    moved: Float[Tensor, "batch position"] | None = None
    gate: Float[Tensor, "batch position unit"] | None = None
    number: int = 0

    def kept(self) -> LayerChange:
        """The same on the CPU, numbers in float32."""
        values = {name: getattr(self, name) for name in (*PER_HEAD, *PER_LAYER)}
        known = {name: value for name, value in values.items() if value is not None}
        return LayerChange(
            self.layer,
            self.where.cpu(),
            number=self.number,
            **{name: value.detach().float().cpu() for name, value in known.items()},
        )


@dataclass(frozen=True)
class _Passed:
    """One pass: of which sequences and edited from where, what it held, what was done in it."""

    sequences: int
    starts: Int[Tensor, " batch"]
    positions: Int[Tensor, "batch position"]
    real: Bool[Tensor, "batch position"]
    tokens: Int[Tensor, "batch position"] | None
    changes: list[LayerChange]


@dataclass(repr=False)
class Trace(Sequence[TokenTrace]):
    """Filled while a model runs; `trace[row]` is what happened along one sequence.

    Sequences are numbered in the order in which they were begun: the rows of the first batch, then
    those of the next. A position that was passed twice (generation without cache) keeps the last.
    """

    shape: ModelShape
    heads: tuple[tuple[int, int], ...]
    tokenizer: Any
    about: Mapping[str, Any] = field(default_factory=dict)
    edit: Any = None
    model: Any = None
    passes: list[_Passed] = field(default_factory=list)
    mixed: set[int] = field(default_factory=set)
    _now: Pass | None = None

    @classmethod
    def of(cls, model: Model, edit: Any, about: Mapping[str, Any]) -> Trace:
        """An empty trace of an edit, or of none."""
        heads = edit.heads if isinstance(edit, HeadEdit) else ()
        return cls(shape_of(model), heads, tokenizer_of(model), about, edit, ref(model))

    def add(
        self,
        sequences: int,
        starts: Int[Tensor, " row"],
        now: Pass,
        change: LayerChange,
        *,
        mixed: bool,
    ) -> None:
        """Keep what was done at one place of one pass, on the CPU.

        Args:
            sequences: the number of the rows' set.
            starts: the first edited position, one for all rows or one a row.
            now: the pass.
            change: what was done.
            mixed: rows are no longer the rows of passes before, as under beams.
        """
        if mixed:
            self.mixed.add(sequences)
        if now is not self._now:
            self._now = now
            tokens = None if now.tokens is None else now.tokens.cpu()
            each = starts.cpu().expand(len(now.positions))
            held = (each, now.positions.cpu(), now.real.cpu(), tokens)
            self.passes.append(_Passed(sequences, *held, []))
        self.passes[-1].changes.append(change.kept())

    def __repr__(self) -> str:
        return f"Trace({len(self)} sequences, {len(self.heads)} edited heads)"

    def __len__(self) -> int:
        return sum(rows for _, rows in self._batches())

    def _batches(self) -> list[tuple[int, int]]:
        sizes = {passed.sequences: len(passed.positions) for passed in self.passes}
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
        if not len(self):
            raise WorkbenchError(
                "an empty trace", "a model that ran inside `edited`",
                "Generate inside the block: with edited(model, edit) as trace: generate(...).",
            )  # fmt: skip
        if len(self) != 1:
            raise WorkbenchError(
                f"a trace of {len(self)} sequences", "one sequence", "Take trace[row] of one."
            )
        found: TokenTrace = self[0]
        return found

    @property
    def strengths(self) -> Float[Tensor, "token layer head"]:
        """s of the only sequence."""
        return self.only.strengths

    @property
    def misalignment(self) -> Float[Tensor, "token layer head"]:
        """p̂ of the only sequence."""
        return self.only.misalignment

    @property
    def uncertainty(self) -> Float[Tensor, "token layer"]:
        """u of the only sequence."""
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
    def gate(self) -> Float[Tensor, "token layer"]:
        """The gates of the only sequence."""
        return self.only.gate

    @property
    def strings(self) -> tuple[str, ...]:
        """The tokens of the only sequence."""
        return self.only.strings

    def gates(self) -> Float[Tensor, "token gate"]:
        """Gates of all edited positions of all sequences, those of the edit's first place first."""
        found: dict[int, list[Tensor]] = {}
        for passed in self.passes:
            for change in passed.changes:
                if change.gate is not None:
                    found.setdefault(change.number, []).append(change.gate[change.where])
        return torch.cat([torch.cat(found[number]) for number in sorted(found)], dim=1)

    def _assemble(self, sequences: int, row: int) -> TokenTrace:
        mine = [passed for passed in self.passes if passed.sequences == sequences]
        places = sorted({p for passed in mine for p in _edited(passed, row)})
        index = {position: place for place, position in enumerate(places)}
        count = len(places)
        layers, heads = self.shape.layers, self.shape.heads
        values = {
            name: torch.full((count, layers, heads), torch.nan, dtype=torch.float32)
            for name in PER_HEAD
        }
        values |= {
            name: torch.full((count, layers), torch.nan, dtype=torch.float32) for name in PER_LAYER
        }
        ids: dict[int, int] = {}
        whole: dict[int, int] = {}
        for passed in mine:
            if passed.tokens is not None:
                real = passed.real[row]
                held = (passed.positions[row][real].tolist(), passed.tokens[row][real].tolist())
                whole |= zip(*held, strict=True)
            told: Counter[tuple[str, int]] = Counter()
            for change in passed.changes:
                hits = change.where[row].nonzero().flatten()
                at = torch.tensor([index[int(p)] for p in passed.positions[row, hits]]).long()
                self._fill(values, change, row, hits, at, told)
                if passed.tokens is not None:
                    ids |= zip(at.tolist(), passed.tokens[row, hits].tolist(), strict=True)
        known = [ids[place] for place in sorted(ids)]
        names = token_texts(self.tokenizer, known) if len(known) == count else ("",) * count
        behind = [whole.get(place + 1, -1) for place in places]
        texts = token_texts(self.tokenizer, [max(token, 0) for token in behind])
        following = tuple("" if n < 0 else text for n, text in zip(behind, texts, strict=True))
        numbers = torch.tensor([ids.get(place, -1) for place in range(count)], dtype=torch.long)
        seen = [whole.get(position, -1) for position in range(max(whole, default=-1) + 1)]
        return TokenTrace(
            torch.tensor(places).long(), names, following, **values, ids=numbers,
            sequence=None if -1 in seen or sequences in self.mixed else torch.tensor(seen).long(),
            start=int(mine[0].starts[row]), about=self.about, edit=self.edit, model=self.model,
        )  # fmt: skip

    def _fill(
        self,
        values: dict[str, Tensor],
        change: LayerChange,
        row: int,
        hits: Int[Tensor, " token"],
        at: Int[Tensor, " token"],
        told: Counter[tuple[str, int]],
    ) -> None:
        """Write what was done along a sequence at a place, and count what its layer was told."""
        heads = torch.tensor([head for layer, head in self.heads if layer == change.layer]).long()
        for name in PER_HEAD:
            recorded = getattr(change, name)
            if recorded is not None:
                values[name][at[:, None], change.layer, heads] = recorded[row, hits]
        for name in PER_LAYER:
            recorded = getattr(change, name)
            if recorded is None:
                continue
            new = recorded[row, hits]
            if name == "gate":
                new = new.mean(dim=-1)
            known, before = values[name][at, change.layer], told[name, change.layer]
            if name == "gate" and before:
                new = known.lerp(new, 1 / (before + 1))  # the mean over places so far
            if name == "moved" and before:
                new = new.hypot(known)
            values[name][at, change.layer] = new
            told[name, change.layer] += 1


def _edited(passed: _Passed, row: int) -> set[int]:
    """The positions of a row that were edited in a pass."""
    where = [change.where[row] for change in passed.changes]
    return set(passed.positions[row][torch.stack(where).any(dim=0)].tolist())
