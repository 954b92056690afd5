"""Several edits at once, of which every row of a batch takes one: their hooks, place by place."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.editing.conditions import Conditional
from workbench.editing.decisions import Decisions
from workbench.editing.drawn_strengths import DrawnHeads
from workbench.editing.edited_layers import EditedLayer, Rows
from workbench.editing.edited_positions import EditedPositions, Start
from workbench.editing.head_edits import Edit, HeadEdit, Reading
from workbench.editing.interventions import Intervention, Positions
from workbench.editing.state_edits import StateEdit
from workbench.editing.trace import LayerChange
from workbench.errors import WorkbenchError
from workbench.models.identity import Model, require_same_shape
from workbench.models.logit_lens import unembedding
from workbench.models.passes import Hook, Place, Site, attached
from workbench.models.positions import clock
from workbench.stages.uncertainty import entropy_reader


class RowEdits:
    """Several edits, of which every row of a batch takes one (or none).

    Args:
        model: the bridge.
        edits: what to choose from; None leaves a row alone.

    Raises:
        WorkbenchError: an edit is of another shape of model, reads u off words of another
            vocabulary, or is of a kind that is neither heads' nor states'.
    """

    def __init__(self, model: Model, edits: Sequence[Intervention | None]) -> None:
        self.model = model
        for edit in edits:
            if edit is None:
                continue
            require_same_shape(model, edit.model.shape, "an edit")
            if not isinstance(edit, HeadEdit | StateEdit):
                raise WorkbenchError(
                    f"an edit of the kind {type(edit).__name__}, which no hook knows",
                    "a subclass of HeadEdit or StateEdit",
                )
        self.positions = [None if edit is None else edit.positions for edit in edits]
        self.heads = tuple(edit if isinstance(edit, HeadEdit) else None for edit in edits)
        self.states = {n: edit for n, edit in enumerate(edits) if isinstance(edit, StateEdit)}
        for edit in edits:
            if isinstance(edit, Edit) and edit.shortlists is not None:
                edit.shortlists.require_words(len(unembedding(model)[0]))
        self.layers = sorted({layer for own in self.heads if own for layer in own.layers})
        self._readers: dict[Hashable, Callable[[Tensor], Tensor]] = {}
        self._made: dict[tuple[int, torch.device, torch.dtype], EditedLayer] = {}

    def layer(self, number: int, like: Tensor) -> EditedLayer:
        """A layer of all the edits, on a tensor's device."""
        key = (number, like.device, like.dtype)
        if key not in self._made:
            self._made[key] = EditedLayer.of(self.heads, number, like.device, like.dtype)
        return self._made[key]

    @contextmanager
    def attached(self, rows: Rows | None = None, site: Site = "module") -> Iterator[None]:
        """Apply to every pass of the block.

        Args:
            rows: the number of every row's edit; None where there is one edit, for all rows.
            site: where to edit.
        """
        with clock(self.model).listening(), attached(self.model, self.hooks(rows), site):
            yield

    def hooks(
        self,
        rows: Rows | None,
        start: Start = None,
        seen: Callable[[LayerChange], None] | None = None,
    ) -> dict[Place, Hook]:
        """Hooks by place.

        Args:
            rows: as above.
            start: first edited positions, instead of the clock's.
            seen: is told what was done at every place of every pass.
        """
        timer = clock(self.model)
        where = EditedPositions(timer, start, *self._counted(rows))
        hooks = self._head_hooks(rows, where, seen)
        decided = Decisions(timer, start)
        for number, edit in self.states.items():
            if isinstance(edit, Conditional):
                place = edit.condition.place
                hooks[place] = _both(hooks.get(place), decided.reader(number, edit.condition))
        for place in dict.fromkeys(p for edit in self.states.values() for p in edit.places):
            hooks[place] = _both(
                hooks.get(place), self._state_hook(place, rows, where, decided, seen)
            )
        return hooks

    def _head_hooks(
        self, rows: Rows | None, where: EditedPositions, seen: Callable[[LayerChange], None] | None
    ) -> dict[Place, Hook]:
        uncertain: dict[int, Tensor] = {}
        chosen: dict[int, EditedLayer] = {}
        drawing = any(isinstance(edit, DrawnHeads) for edit in self.heads)

        def own(number: int, like: Tensor) -> EditedLayer:
            if number not in chosen:
                found = self.layer(number, like)
                chosen[number] = found if rows is None else found.for_rows(rows)
            return chosen[number]

        def measure(number: int) -> Hook:
            def look(residual: Tensor) -> None:
                readings = own(number, residual).readings
                uncertain[number] = self._uncertainty(number, readings, where, residual)

            return look

        def change(number: int) -> Hook:
            def replace_z(z: Tensor) -> Tensor:
                doubt = uncertain.get(number)
                doubt = None if doubt is None else doubt.to(z.device)
                tickets = where.tickets().to(z.device) if drawing else None
                here = where.unless_all(z.device)
                if seen is None:
                    return own(number, z).apply(z, here, doubt, tickets)
                made, done = own(number, z).traced(z, here, doubt, tickets)
                seen(done)
                return made

            return replace_z

        reads = {
            number
            for edit in self.heads
            if edit is not None and edit.reads_uncertainty
            for number in edit.layers
        }
        hooks: dict[Place, Hook] = {("z", number): change(number) for number in self.layers}
        return hooks | {("resid_pre", number): measure(number) for number in reads}

    def _state_hook(
        self,
        place: Place,
        rows: Rows | None,
        where: EditedPositions,
        decided: Decisions,
        seen: Callable[[LayerChange], None] | None,
    ) -> Hook:
        owners = [(n, edit) for n, edit in self.states.items() if place in edit.places]

        def change(state: Tensor) -> Tensor:
            everywhere = where.now(state.device)
            made = state
            for number, edit in owners:
                at = everywhere
                if rows is not None:
                    at = at & (rows.to(at.device) == number)[:, None]
                if not bool(at.any()):
                    if seen is not None:  # its sequences are counted all the same
                        seen(LayerChange(place[1], at))
                    continue
                before = state[at]
                exact = before.to(torch.promote_types(before.dtype, torch.float32))
                after = edit.change(edit.places.index(place), exact)
                met = None
                if isinstance(edit, Conditional):
                    met = decided.of(number, at)
                    after = torch.where(_beside(met, after), after, exact)
                made = made.index_put((at,), after.to(state.dtype))
                if seen is not None:
                    seen(_told(edit, place, at, exact, after, met))
            return made

        return change

    def _counted(self, rows: Rows | None) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """First positions left alone, and their interval, for every row; None where all begin."""
        own = self.positions if rows is None else [self.positions[row] for row in rows.tolist()]
        if all(one is None or one == Positions() for one in own):
            return None, None
        known = [one or Positions() for one in own]
        return torch.tensor([p.first for p in known]), torch.tensor([p.every for p in known])

    def _uncertainty(
        self,
        layer: int,
        readings: Sequence[Reading | None],
        where: EditedPositions,
        residual: Float[Tensor, "batch position d_model"],
    ) -> Float[Tensor, "batch position"]:
        """u at the edited positions of rows whose edit reads it, else 0."""
        here = where.unless_all(residual.device)
        if here is None and len(set(readings)) == 1 and readings[0] is not None:
            read = self._reader(readings[0], layer)
            return read(residual.flatten(0, 1)).view(residual.shape[:2])
        here = where.now(residual.device)
        values = torch.zeros(here.shape, device=residual.device, dtype=torch.float32)
        for reading in {reading for reading in readings if reading is not None}:
            own = torch.tensor([reading == other for other in readings], device=here.device)
            at = here & own[:, None]
            values[at] = self._reader(reading, layer)(residual[at]).to(values.device)
        return values

    def _reader(self, reading: Reading, layer: int) -> Callable[[Tensor], Tensor]:
        """How u is read at a layer; with all words alike everywhere."""
        lists = reading.shortlists
        words = None if lists is None else lists.of(layer)
        key = (reading.kind, None, -1) if words is None else (reading.kind, lists, layer)
        if key not in self._readers:
            self._readers[key] = entropy_reader(self.model, reading.kind, words)
        return self._readers[key]


def _both(first: Hook | None, second: Hook) -> Hook:
    """Two hooks at one place, which change different rows."""
    if first is None:
        return second

    def hook(state: Tensor) -> Tensor | None:
        changed = first(state)
        return second(state if changed is None else changed)

    return hook


def _told(
    edit: StateEdit,
    place: Place,
    at: Bool[Tensor, "batch position"],
    before: Tensor,
    after: Tensor,
    met: Bool[Tensor, " state"] | None,
) -> LayerChange:
    """What an edit did to the states at some positions of a place."""
    moved = torch.zeros(at.shape, dtype=before.dtype, device=at.device)
    moved[at] = (after - before).flatten(start_dim=1).norm(dim=1)
    number = edit.places.index(place)
    gates = edit.gates(number, before)
    if met is not None:
        gates = met[:, None].to(before)
    if gates is None:
        return LayerChange(place[1], at, moved=moved)
    gate = torch.zeros(*at.shape, gates.shape[1], dtype=gates.dtype, device=at.device)
    gate[at] = gates
    return LayerChange(place[1], at, moved=moved, gate=gate, number=number)


def _beside(values: Tensor, states: Tensor) -> Tensor:
    """Values a state, in a shape that goes with the states'."""
    return values.view(len(values), *[1] * (states.ndim - 1))
