"""Applying edits: layers of them attached to a model, and traced.

z ← z + α·σ·s·θ at every position from the last prompt token on. `edited` attaches one edit for the
length of a block and records what it did; `edited_rows` attaches several, one for every row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.edited_layers import EditedLayer, Rows
from workbench.edits import Edit
from workbench.errors import WorkbenchError
from workbench.models import Model, require_same_shape
from workbench.positions import PositionClock, clock
from workbench.running import Site, attached
from workbench.trace import LayerChange, Trace
from workbench.uncertainty import UncertaintyKind, entropy_reader
from workbench.vocabulary_screen import VocabularyScreen


class RowEdits:
    """Several edits, of which every row of a batch takes one (or none).

    Args:
        model: the bridge.
        edits: what to choose from; None leaves a row alone.
        screen: read u off fewer logits; see `fit_vocabulary_screen`.

    Raises:
        WorkbenchError: an edit is of another shape of model, or reads u in a way that has no
            screen.
    """

    def __init__(
        self, model: Model, edits: Sequence[Edit | None], screen: VocabularyScreen | None = None
    ) -> None:
        self.model, self.edits, self.screen = model, tuple(edits), screen
        for edit in edits:
            if edit is not None:
                require_same_shape(model, edit.model.shape, "an edit")
            if screen is not None and edit and edit.reads_uncertainty == "amplified":
                raise WorkbenchError(
                    f"a screen for an edit with uncertainty={edit.uncertainty!r}", "logit_lens"
                )
        self.layers = sorted({layer for edit in edits if edit for layer in edit.layers})
        self._read: dict[UncertaintyKind, Callable[[Tensor], Tensor]] = {}
        self._made: dict[tuple[int, torch.device, torch.dtype], EditedLayer] = {}

    def layer(self, number: int, like: Tensor) -> EditedLayer:
        """A layer of all the edits, on a tensor's device."""
        key = (number, like.device, like.dtype)
        if key not in self._made:
            self._made[key] = EditedLayer.of(self.edits, number, like.device, like.dtype)
        return self._made[key]

    @contextmanager
    def attached(self, rows: Rows | None = None, site: Site = "projection") -> Iterator[None]:
        """Apply to every pass of the block.

        Args:
            rows: the number of every row's edit; None where there is one edit, for all rows.
            site: where to edit.
        """
        with attached(self.model, *self.hooks(rows), site=site):
            yield

    def hooks(
        self,
        rows: Rows | None,
        start: int | Int[Tensor, " batch"] | None = None,
        seen: Callable[[int, Tensor, Tensor | None, LayerChange], None] | None = None,
    ) -> tuple[dict[int, Any], dict[int, Any]]:
        """Hooks of z and of the residual stream, by layer.

        Args:
            rows: as above.
            start: first edited positions, instead of the clock's.
            seen: is told the layer, the edited positions, u and the change.
        """
        where = _Where(clock(self.model), start)
        uncertain: dict[int, Tensor] = {}
        chosen: dict[int, EditedLayer] = {}

        def own(number: int, like: Tensor) -> EditedLayer:
            if number not in chosen:
                found = self.layer(number, like)
                chosen[number] = found if rows is None else found.for_rows(rows)
            return chosen[number]

        def measure(number: int) -> Any:
            def look(residual: Tensor) -> None:
                uncertain[number] = self._uncertainty(own(number, residual).kinds, where, residual)

            return look

        def change(number: int) -> Any:
            def replace_z(z: Tensor) -> Tensor:
                doubt = uncertain.get(number)
                doubt = None if doubt is None else doubt.to(z.device)
                if seen is None:
                    return own(number, z).moved(z, where.unless_all(z.device), doubt)
                made = own(number, z).apply(z, where.unless_all(z.device), doubt)
                seen(number, where.now(z.device), doubt, made)
                return made.z

            return replace_z

        reads = [
            number
            for number in self.layers
            for edit in self.edits
            if edit and number in edit.layers and edit.reads_uncertainty
        ]
        z_hooks = {number: change(number) for number in self.layers}
        return z_hooks, {number: measure(number) for number in reads}

    def _uncertainty(
        self,
        kinds: Sequence[UncertaintyKind | None],
        where: _Where,
        residual: Float[Tensor, "batch position d_model"],
    ) -> Float[Tensor, "batch position"]:
        """U at the edited positions of rows whose edit reads it, else 0."""
        here = where.unless_all(residual.device)
        if here is None and len(set(kinds)) == 1 and kinds[0] is not None:
            return self._entropy(residual.flatten(0, 1), kinds[0]).view(residual.shape[:2])
        here = where.now(residual.device)
        values = torch.zeros(here.shape, device=residual.device)
        for kind in {kind for kind in kinds if kind is not None}:
            own = torch.tensor([kind == other for other in kinds], device=here.device)[:, None]
            values[here & own] = self._entropy(residual[here & own], kind).to(values.device)
        return values

    def _entropy(
        self, residual: Float[Tensor, "row d_model"], kind: UncertaintyKind
    ) -> Float[Tensor, " row"]:
        if self.screen is not None:
            return self.screen.uncertainty(self.model, residual)
        if kind not in self._read:
            self._read[kind] = entropy_reader(self.model, kind)
        return self._read[kind](residual)


class _Where:
    """Which positions of the running pass are edited: real ones from the start on; read once."""

    def __init__(self, timer: PositionClock, start: int | Int[Tensor, " batch"] | None) -> None:
        self.timer, self.start = timer, start
        self._of: Any = None
        self._where: Tensor
        self._all = False

    def _read(self) -> None:
        now = self.timer.now
        if now is None or now is not self._of:
            self._where = edited_positions(self.timer, self.start)
            self._of, self._all = now, bool(self._where.all())

    def now(self, device: torch.device) -> Bool[Tensor, "batch position"]:
        """The edited positions."""
        self._read()
        return self._where.to(device)

    def unless_all(self, device: torch.device) -> Bool[Tensor, "batch position"] | None:
        """The same, but None where every position is edited, as in cached generation."""
        self._read()
        return None if self._all else self._where.to(device)


def edited_positions(
    timer: PositionClock, start: int | Int[Tensor, " batch"] | None
) -> Bool[Tensor, "batch position"]:
    """Which positions of the running pass are edited: real ones from the start on.

    Raises:
        WorkbenchError: no pass is running, or a start that is negative or not one a row.
    """
    first = timer.sequences.starts if start is None else torch.as_tensor(start)
    now = timer.now
    if now is None or first.numel() not in (1, len(now.positions)) or int(first.min()) < 0:
        raise WorkbenchError(
            f"start={first.tolist()} for a batch of {0 if now is None else len(now.positions)}",
            "positions from 0 on, one for all rows or one a row",
        )
    return now.real & (now.positions >= first.to(now.positions.device).reshape(-1, 1))


@contextmanager
def edited(
    model: Model,
    edit: Edit | None,
    *,
    site: Site = "hook_z",
    start: int | Int[Tensor, " batch"] | None = None,
    screen: VocabularyScreen | None = None,
    record: bool = True,
) -> Iterator[Trace]:
    """Apply an edit to every forward pass of the block.

    Args:
        model: the bridge.
        edit: what to apply; None applies nothing.
        site: `hook_z` or `projection`; both give the same result. Passes of the workbench's own
            `generate` and `score` run unwrapped, and faster, at `projection`.
        start: position of the first edited token, one for all rows or one a row. By default the
            workbench's own `generate` and `score` set it to the last prompt token; elsewhere it
            is the last token of the pass that begins a sequence, and passes that extend its
            cache, or repeat it with more tokens behind, go on from there. Give it for teacher
            forcing.
        screen: read u off fewer logits, for large vocabularies; see `fit_vocabulary_screen`.
        record: keep p̂, u, strength and change of every position in the trace.

    Yields:
        The trace, which fills as the model runs.

    Raises:
        WorkbenchError: the edit is of another shape of model, or no such site.
    """
    if record and edit is not None and edit.shares_heads:
        raise WorkbenchError(
            "a record of an edit whose goals share heads",
            "edited(..., record=False)",
            "To trace the goals, attach their edits one inside the other: with edited(model, a) as "
            "first, edited(model, b) as second.",
        )
    trace = Trace.of(model, () if edit is None else edit.heads)
    timer = clock(model)

    def note(layer: int, where: Tensor, doubt: Tensor | None, made: LayerChange) -> None:
        if timer.now is not None:
            trace.add(timer.sequences.number, layer, timer.now, where, doubt, made)

    rows = RowEdits(model, [] if edit is None else [edit], screen)
    hooks = rows.hooks(None, start, note if record else None)
    with attached(model, *hooks, site=site):
        yield trace
