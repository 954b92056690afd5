"""One layer of an edit as a pure function of z, of positions and of uncertainty.

z ← z + α·σ·s·θ with s = 1 + β·p̂ + (1 − β)·u (TAE, eqs. 7 and 8). `editing` attaches it to a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.editing.head_edits import Edit
from workbench.editing.trace import LayerChange
from workbench.stages.misalignment import strengths
from workbench.stages.uncertainty import UncertaintyKind

Rows = Int[Tensor, " batch"]


@dataclass(frozen=True)
class EditedLayer:
    """One layer of one or several edits, ready to apply: heads that any of them edits.

    Attributes:
        heads: the heads' numbers; one stands twice where several goals of an edit share it.
        distinct: whether none does.
        step: α·σ; 0 where an edit leaves the head alone.
        direction: θ.
        coefficient, intercept: the misalignment estimators.
        misaligned, uncertain: factors of p̂ and of u in the strength, β and 1 − β; 0 where the
            strength is constant.
        kinds: how each edit reads u off the residual stream; None where it needs none.
        adaptive: whether the step of any depends on p̂ or u.
        threshold: least p̂ of positions that are edited; None where no edit has any.
        drawn: for every edit the strengths [sample, head] that are drawn by ticket, or None.
        factors, matrices, shift: of a single edit, the step times β and times 1 − β, estimators
            and directions as matrices [head, channel of all heads], and what it adds where s = 1.
    """

    heads: Int[Tensor, " head"]
    step: Float[Tensor, "edit head"]
    direction: Float[Tensor, "edit head d_head"]
    coefficient: Float[Tensor, "edit head d_head"]
    intercept: Float[Tensor, "edit head"]
    misaligned: Float[Tensor, " edit"]
    uncertain: Float[Tensor, " edit"]
    kinds: tuple[UncertaintyKind | None, ...]
    adaptive: bool
    distinct: bool
    threshold: Float[Tensor, "edit head"] | None = None
    drawn: tuple[Float[Tensor, "_ head"] | None, ...] = ()
    factors: tuple[Tensor, Tensor] | None = None
    matrices: tuple[Tensor, Tensor] | None = None
    shift: Float[Tensor, "1 channel"] | None = None

    @classmethod
    def of(
        cls, edits: Sequence[Edit | None], layer: int, device: torch.device, dtype: torch.dtype
    ) -> EditedLayer:
        """Gather a layer of some edits, in float32 or better whatever z's dtype."""
        exact = torch.promote_types(dtype, torch.float32)
        given = [edit for edit in edits if edit is not None]
        slots = list(dict.fromkeys(slot for edit in given for slot in _slots(edit, layer)))
        place = {slot: number for number, slot in enumerate(slots)}
        heads = [head for head, _ in slots]
        count, width = len(heads), given[0].direction.shape[1]
        made = {
            "step": torch.zeros(len(edits), count, dtype=exact),
            "direction": torch.zeros(len(edits), count, width, dtype=exact),
            "coefficient": torch.zeros(len(edits), count, width, dtype=exact),
            "intercept": torch.zeros(len(edits), count, dtype=exact),
        }
        least = torch.full((len(edits), count), -1.0, dtype=exact)
        drawn: list[Tensor | None] = [None] * len(edits)
        kinds: list[UncertaintyKind | None] = []
        for number, edit in enumerate(edits):
            if edit is None:
                kinds.append(None)
                continue
            rows = [row for row, pair in enumerate(edit.heads) if pair[0] == layer]
            at = [place[slot] for slot in _slots(edit, layer)]
            made["step"][number, at] = edit.alpha * edit.spread[rows].to(exact).cpu()
            for name in ("direction", "coefficient", "intercept"):
                made[name][number, at] = getattr(edit, name)[rows].to(exact).cpu()
            if edit.threshold is not None:
                least[number, at] = edit.threshold[rows].to(exact).cpu()
            if edit.strengths is not None:
                table = torch.zeros(len(edit.strengths), count, dtype=exact)
                table[:, at] = edit.strengths[:, rows].to(exact).cpu()
                drawn[number] = table
            kinds.append(edit.reads_uncertainty if rows else None)
        choosy = any(edit.threshold is not None for edit in given)
        shares = [edit.factors if edit else (0.0, 0.0) for edit in edits]
        tensors = {
            **made,
            "misaligned": torch.tensor([share for share, _ in shares], dtype=exact),
            "uncertain": torch.tensor([share for _, share in shares], dtype=exact),
            "heads": torch.tensor(heads),
        }
        factors = matrices = shift = None
        if len(edits) == 1:
            count = given[0].model.shape.heads
            matrices = (
                _over_all_heads(made["coefficient"][0], heads, count).to(device),
                _over_all_heads(made["direction"][0], heads, count).to(device),
            )
            shift = made["step"].to(device) @ matrices[1]
            beta, rest = shares[0]
            factors = (made["step"] * beta).to(device), (made["step"] * rest).to(device)
        return cls(
            kinds=tuple(kinds),
            adaptive=any(map(any, shares)) or choosy,
            distinct=len(set(heads)) == len(heads),
            threshold=least.to(device) if choosy else None,
            drawn=tuple(None if one is None else one.to(device) for one in drawn),
            factors=factors,
            matrices=matrices,
            shift=shift,
            **{name: value.to(device) for name, value in tensors.items()},
        )

    def for_rows(self, rows: Rows) -> EditedLayer:
        """The same with an edit for every row of a batch."""
        device = self.heads.device
        return EditedLayer(
            heads=self.heads,
            adaptive=self.adaptive,
            distinct=self.distinct,
            kinds=tuple(self.kinds[row] for row in rows.tolist()),
            drawn=tuple(self.drawn[row] for row in rows.tolist()),
            threshold=None if self.threshold is None else self.threshold[rows.to(device)],
            **{
                name: getattr(self, name)[rows.to(device)]
                for name in (
                    "step", "direction", "coefficient", "intercept", "misaligned", "uncertain",
                )
            },
        )  # fmt: skip

    def apply(
        self,
        z: Float[Tensor, "batch position head d_head"],
        where: Bool[Tensor, "batch position"] | None,
        uncertainty: Float[Tensor, "batch position"] | None,
        tickets: Int[Tensor, "batch position"] | None = None,
    ) -> LayerChange:
        """Add α·σ·s·θ at the edited heads (TAE, eq. 8), out of place.

        Args:
            z: head outputs of all heads.
            where: the positions to edit; None for all.
            uncertainty: u; 0 where it is left out.
            tickets: numbers that choose among strengths that are drawn; see `tickets_of`.
        """
        chosen = z.index_select(2, self.heads).to(self.step.dtype)
        misalignment, step = None, self.step[:, None]
        if self.adaptive:
            logit = torch.linalg.vecdot(chosen, self.coefficient[:, None])
            misalignment = logit.add_(self.intercept[:, None]).sigmoid_()
            strength = strengths(
                misalignment,
                None if uncertainty is None else uncertainty[..., None],
                self.misaligned[:, None, None],
                self.uncertain[:, None, None],
            )
        else:
            strength = torch.ones_like(chosen[..., 0])
        if tickets is not None:
            strength = self._with_drawn(strength, tickets)
        step = step * strength
        if self.threshold is not None and misalignment is not None:
            step = step * (misalignment >= self.threshold[:, None])
        if where is not None:
            step = step * where[..., None]
        if not self.distinct:
            change = step[..., None] * self.direction[:, None]
            edited = z.to(self.step.dtype).index_add(2, self.heads, change).to(z.dtype)
            return LayerChange(edited, misalignment, strength, step)
        moved = torch.addcmul(chosen, step[..., None], self.direction[:, None]).to(z.dtype)
        return LayerChange(z.index_copy(2, self.heads, moved), misalignment, strength, step)

    def moved(
        self,
        z: Float[Tensor, "batch position head d_head"],
        where: Bool[Tensor, "batch position"] | None,
        uncertainty: Float[Tensor, "batch position"] | None,
        tickets: Int[Tensor, "batch position"] | None = None,
    ) -> Float[Tensor, "batch position head d_head"]:
        """The edited z alone, in fewer operations where there is one edit for all rows.

        Estimators and directions become matrices over all heads' channels: z + (α·σ·s) Θ.
        """
        if (
            self.matrices is None
            or self.factors is None
            or self.threshold is not None
            or tickets is not None
        ):
            return self.apply(z, where, uncertainty, tickets).z
        estimator, directions = self.matrices
        flat = z.reshape(-1, estimator.shape[1]).to(self.step.dtype)
        step = self.step
        if self.adaptive:
            likely = torch.nn.functional.linear(flat, estimator, self.intercept[0]).sigmoid_()
            if uncertainty is not None:
                step = torch.addcmul(step, self.factors[1], uncertainty.reshape(-1, 1))
            step = torch.addcmul(step, self.factors[0], likely)
        if where is not None:
            step = step * where.reshape(-1, 1)
        elif not self.adaptive and self.shift is not None:
            return (flat + self.shift).to(z.dtype).view(z.shape)
        return torch.addmm(flat, step.expand(len(flat), -1), directions).to(z.dtype).view(z.shape)

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


def tickets_of(
    tokens: Int[Tensor, "batch position"], positions: Int[Tensor, "batch position"]
) -> Int[Tensor, "batch position"]:
    """Numbers that look random and depend on a token and its position alone, not on the batch."""
    mixed = (tokens * 0x9E3779B1 + positions * 0x85EBCA77) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 15)) * 0x2C1B3C6D) & 0xFFFFFFFF
    return mixed ^ (mixed >> 13)


def edit_layer(
    edit: Edit,
    layer: int,
    z: Float[Tensor, "batch position head d_head"],
    where: Bool[Tensor, "batch position"],
    uncertainty: Float[Tensor, "batch position"] | None = None,
) -> LayerChange:
    """Add α·σ·s·θ at the edited heads of a layer (TAE, eq. 8): pure, in float32 or better.

    Args:
        edit: the edit.
        layer: one of its layers.
        z: head outputs of all heads.
        where: the positions to edit.
        uncertainty: u; 0 where it is left out.
    """
    return EditedLayer.of([edit], layer, z.device, z.dtype).apply(z, where, uncertainty)


def _slots(edit: Edit, layer: int) -> list[tuple[int, int]]:
    """For every row of an edit in a layer its head, and how many rows had the head before."""
    found: list[tuple[int, int]] = []
    for at, head in edit.heads:
        if at == layer:
            found.append((head, sum(head == other for other, _ in found)))
    return found


def _over_all_heads(
    rows: Float[Tensor, "edited d_head"], heads: Sequence[int], count: int
) -> Float[Tensor, "edited channel"]:
    """Rows in the places of their heads among all heads' channels."""
    whole = rows.new_zeros(len(rows), count, rows.shape[1])
    whole[range(len(rows)), heads] = rows
    return whole.flatten(start_dim=1)
