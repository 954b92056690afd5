"""One layer of an edit as a pure function of z, of positions and of uncertainty.

z ← z + α·σ·s·θ with s = 1 + β·p̂ + (1 − β)·u (TAE, eqs. 8 and 9). `attaching` puts it into a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.editing.drawn_strengths import DrawnHeads
from workbench.editing.head_edits import HeadEdit, Reading
from workbench.editing.single_edits import SingleEdit, over_all_heads
from workbench.editing.trace import LayerChange
from workbench.stages.misalignment import strengths

Rows = Int[Tensor, " batch"]
PER_EDIT = ("step", "direction", "coefficient", "intercept", "factors")
NEVER_BELOW = -1.0
"""A threshold that any p̂ reaches."""


@dataclass(frozen=True)
class EditedLayer:
    """One layer of one or several edits, ready to apply: heads that any of them edits.

    Attributes:
        number: of the layer.
        heads: the heads' numbers; one stands twice where several goals of an edit share it.
        distinct: whether none does.
        step: α·σ; 0 where an edit leaves the head alone.
        direction: θ.
        coefficient, intercept: the misalignment estimators.
        factors: what p̂ and u count in the strength, β and 1 − β; 0 where it is constant.
        readings: how each edit reads u off the residual stream; None where it needs none.
        adaptive: whether the step of any depends on p̂ or u.
        threshold: least p̂ of positions that are edited; None where no edit has any.
        drawn: for every edit the strengths [sample, head] that are drawn by ticket, or None.
        single: the short way, where there is one edit without threshold or drawn strengths.
    """

    number: int
    heads: Int[Tensor, " head"]
    distinct: bool
    step: Float[Tensor, "edit head"]
    direction: Float[Tensor, "edit head d_head"]
    coefficient: Float[Tensor, "edit head d_head"]
    intercept: Float[Tensor, "edit head"]
    factors: Float[Tensor, "edit 2"]
    readings: tuple[Reading | None, ...]
    adaptive: bool
    threshold: Float[Tensor, "edit head"] | None
    drawn: tuple[Float[Tensor, "_ head"] | None, ...]
    single: SingleEdit | None = None

    @classmethod
    def of(
        cls, edits: Sequence[HeadEdit | None], layer: int, device: torch.device, dtype: torch.dtype
    ) -> EditedLayer:
        """Gather a layer of some edits, in float32 or better whatever z's dtype."""
        seats = _Seats(edits, layer, torch.promote_types(dtype, torch.float32), device)
        given = [edit for edit in edits if edit is not None]
        width = given[0].direction.shape[1]
        choosy = any(edit.threshold is not None for edit in given)
        least = seats.filled(lambda edit: edit.threshold, empty=NEVER_BELOW) if choosy else None
        factors = [edit.factors if edit else (0.0, 0.0) for edit in edits]
        made = cls(
            number=layer,
            heads=torch.tensor(seats.heads, device=device),
            distinct=len(set(seats.heads)) == len(seats.heads),
            step=seats.filled(lambda edit: edit.alpha * edit.spread.to(seats.dtype)),
            direction=seats.filled(lambda edit: edit.direction, width),
            coefficient=seats.filled(lambda e: getattr(e.estimators, "coefficient", None), width),
            intercept=seats.filled(lambda e: getattr(e.estimators, "intercept", None)),
            factors=torch.tensor(factors, dtype=seats.dtype, device=device),
            readings=tuple(
                edit.reads_uncertainty if edit and layer in edit.layers else None for edit in edits
            ),
            adaptive=any(map(any, factors)) or choosy,
            threshold=least,
            drawn=seats.tables(),
        )
        if len(edits) > 1 or choosy or made.drawn[0] is not None:
            return made
        return replace(made, single=made._single(given[0].model.shape.heads))

    def _single(self, heads: int) -> SingleEdit:
        """The short way through the only edit, of a model with so many heads a layer."""
        edited = self.heads.tolist()
        directions = over_all_heads(self.direction[0], edited, heads)
        return SingleEdit(
            step=self.step,
            of_risk=self.step * self.factors[0, 0],
            of_doubt=self.step * self.factors[0, 1],
            estimators=over_all_heads(self.coefficient[0], edited, heads),
            intercept=self.intercept[0],
            directions=directions,
            shift=None if self.adaptive else self.step @ directions,
        )

    def for_rows(self, rows: Rows) -> EditedLayer:
        """The same with an edit for every row of a batch."""
        here = rows.to(self.heads.device)
        return replace(
            self,
            readings=tuple(self.readings[row] for row in rows.tolist()),
            drawn=tuple(self.drawn[row] for row in rows.tolist()),
            threshold=None if self.threshold is None else self.threshold[here],
            single=None,
            **{name: getattr(self, name)[here] for name in PER_EDIT},
        )

    def apply(
        self,
        z: Float[Tensor, "batch position head d_head"],
        where: Bool[Tensor, "batch position"] | None,
        uncertainty: Float[Tensor, "batch position"] | None,
        tickets: Int[Tensor, "batch position"] | None = None,
    ) -> Float[Tensor, "batch position head d_head"]:
        """Z with α·σ·s·θ added at the edited heads (TAE, eq. 8), out of place.

        Args:
            z: head outputs of all heads.
            where: the positions to edit; None for all.
            uncertainty: u; 0 where it is left out.
            tickets: numbers that choose among strengths that are drawn; see `tickets_of`.
        """
        if self.single is not None:
            return self.single.apply(z, where, uncertainty)
        chosen = self._chosen(z)
        *_, step = self._steps(chosen, where, uncertainty, tickets)
        return self._moved(z, chosen, step)

    def traced(
        self,
        z: Float[Tensor, "batch position head d_head"],
        where: Bool[Tensor, "batch position"] | None,
        uncertainty: Float[Tensor, "batch position"] | None,
        tickets: Int[Tensor, "batch position"] | None = None,
    ) -> tuple[Float[Tensor, "batch position head d_head"], LayerChange]:
        """The same, head by head, with what was done."""
        chosen = self._chosen(z)
        misalignment, strength, step = self._steps(chosen, where, uncertainty, tickets)
        change = LayerChange(
            layer=self.number,
            where=z.new_ones(z.shape[:2], dtype=torch.bool) if where is None else where,
            misalignment=misalignment,
            uncertainty=uncertainty,
            strengths=strength,
            change=step,
            moved=step.float().norm(dim=-1),
        )
        return self._moved(z, chosen, step), change

    def _chosen(
        self, z: Float[Tensor, "batch position head d_head"]
    ) -> Float[Tensor, "batch position edited d_head"]:
        return z.index_select(2, self.heads).to(self.step.dtype)

    def _steps(
        self,
        chosen: Float[Tensor, "batch position edited d_head"],
        where: Bool[Tensor, "batch position"] | None,
        uncertainty: Float[Tensor, "batch position"] | None,
        tickets: Int[Tensor, "batch position"] | None,
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """P̂ (None where it plays no part), s and α·σ·s, 0 where nothing is edited."""
        misalignment = None
        if self.adaptive:
            logit = torch.linalg.vecdot(chosen, self.coefficient[:, None])
            misalignment = logit.add_(self.intercept[:, None]).sigmoid_()
            doubt = None if uncertainty is None else uncertainty[..., None]
            of_risk, of_doubt = self.factors[:, :, None, None].unbind(dim=1)
            strength = strengths(misalignment, doubt, of_risk, of_doubt)
        else:
            strength = torch.ones_like(chosen[..., 0])
        if tickets is not None:
            strength = self._with_drawn(strength, tickets)
        step = self.step[:, None] * strength
        if self.threshold is not None and misalignment is not None:
            step = step * (misalignment >= self.threshold[:, None])
        if where is not None:
            step = step * where[..., None]
        return misalignment, strength, step

    def _moved(
        self,
        z: Float[Tensor, "batch position head d_head"],
        chosen: Float[Tensor, "batch position edited d_head"],
        step: Float[Tensor, "batch position edited"],
    ) -> Float[Tensor, "batch position head d_head"]:
        """Z with its chosen heads moved along θ."""
        if not self.distinct:
            change = step[..., None] * self.direction[:, None]
            return z.to(step.dtype).index_add(2, self.heads, change).to(z.dtype)
        moved = torch.addcmul(chosen, step[..., None], self.direction[:, None]).to(z.dtype)
        return z.index_copy(2, self.heads, moved)

    def _with_drawn(
        self,
        strength: Float[Tensor, "batch position head"],
        tickets: Int[Tensor, "batch position"],
    ) -> Float[Tensor, "batch position head"]:
        """Strengths of the rows whose edit draws them, and the others as they are."""
        found = strength.clone()
        if len(self.drawn) == 1:
            table = self.drawn[0]
            return found if table is None else table[tickets % len(table)]
        for row, table in enumerate(self.drawn):
            if table is not None:
                found[row] = table[tickets[row] % len(table)]
        return found


class _Seats:
    """Which column of a layer's tensors each row of each edit takes: one a head, or a goal of it.

    Args:
        edits: None takes none.
        layer: their rows in it are seated.
        dtype: of the tensors.
        device: theirs.
    """

    def __init__(
        self, edits: Sequence[HeadEdit | None], layer: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.edits, self.dtype, self.device = edits, dtype, device
        slots = [_slots(edit, layer) if edit else {} for edit in edits]
        order = list(dict.fromkeys(slot for own in slots for slot in own.values()))
        self.heads = [head for head, _ in order]
        self.rows = [list(own) for own in slots]
        self.columns = [[order.index(slot) for slot in own.values()] for own in slots]

    def filled(
        self, values_of: Callable[[HeadEdit], Tensor | None], *width: int, empty: float = 0.0
    ) -> Float[Tensor, "edit head *width"]:
        """The edits' values in their columns, `empty` elsewhere."""
        made = torch.full((len(self.edits), len(self.heads), *width), empty, dtype=self.dtype)
        for own, edit, rows, columns in zip(made, self.edits, self.rows, self.columns, strict=True):
            values = None if edit is None else values_of(edit)
            if values is not None:
                own[columns] = values[rows].to(self.dtype).cpu()
        return made.to(self.device)

    def tables(self) -> tuple[Float[Tensor, "_ head"] | None, ...]:
        """The strengths that each edit draws from; None where it draws none."""
        found: list[Tensor | None] = []
        for edit, rows, columns in zip(self.edits, self.rows, self.columns, strict=True):
            if not isinstance(edit, DrawnHeads):
                found.append(None)
                continue
            made = torch.zeros(len(edit.strengths), len(self.heads), dtype=self.dtype)
            made[:, columns] = edit.strengths[:, rows].to(self.dtype).cpu()
            found.append(made.to(self.device))
        return tuple(found)


def _slots(edit: HeadEdit, layer: int) -> dict[int, tuple[int, int]]:
    """By row of an edit in a layer its head, and how many rows had the head before."""
    found: dict[int, tuple[int, int]] = {}
    for row, (at, head) in enumerate(edit.heads):
        if at == layer:
            found[row] = head, sum(head == other for other, _ in found.values())
    return found
