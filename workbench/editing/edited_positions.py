"""Which positions of a pass are edited: real ones from a start on, or some of them."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from workbench.editing.drawn_strengths import tickets_of
from workbench.errors import WorkbenchError
from workbench.models.positions import Pass, PositionClock

Start = int | Int[Tensor, " batch"] | Literal["last"] | None
"""Position of the first edited token, one for all rows or one a row; `last` for every row's last
token; None for where the clock knows prompts to end."""


class EditedPositions:
    """Which positions of the running pass are edited: real ones from the start on; read once."""

    def __init__(
        self,
        timer: PositionClock,
        start: Start,
        first: Int[Tensor, " row"] | None = None,
        every: Int[Tensor, " row"] | None = None,
    ) -> None:
        self.timer, self.start, self.first, self.every = timer, start, first, every
        self._of: Pass | None = None
        self._where: Tensor
        self._all = False

    def _read(self) -> None:
        now = self.timer.now
        if now is None or now is not self._of:
            self._where = edited_positions(self.timer, self.start, self.first, self.every)
            self._of, self._all = now, bool(self._where.all())

    def now(self, device: torch.device) -> Bool[Tensor, "batch position"]:
        """The edited positions."""
        self._read()
        return self._where.to(device)

    def tickets(self) -> Int[Tensor, "batch position"]:
        """Numbers to draw strengths by.

        Raises:
            WorkbenchError: a pass that was given no token ids.
        """
        now = self.timer.now
        if now is None or now.tokens is None:
            raise WorkbenchError("drawn strengths in a pass without token ids", "input_ids")
        return tickets_of(now.tokens, now.positions)

    def unless_all(self, device: torch.device) -> Bool[Tensor, "batch position"] | None:
        """The same, but None where every position is edited, as in cached generation."""
        self._read()
        return None if self._all else self._where.to(device)


def edited_positions(
    timer: PositionClock,
    start: Start,
    first: Int[Tensor, " row"] | None = None,
    every: Int[Tensor, " row"] | None = None,
) -> Bool[Tensor, "batch position"]:
    """Which positions of the running pass are edited: real ones from the start on.

    Args:
        timer: the model's clock.
        start: instead of the clock's.
        first: how many are left alone from there on; none by default.
        every: only every n-th from there.

    Raises:
        WorkbenchError: no pass is running, nobody knows where its prompts end, or a start that is
            negative or not one a row.
    """
    now, begin = timer.now, begins(timer, start)
    if now is None or begin.numel() not in (1, len(now.positions)) or int(begin.min()) < 0:
        told = begin.tolist() if begin.numel() > 1 else begin.item()
        raise WorkbenchError(
            f"start={told} for a batch of {0 if now is None else len(now.positions)}",
            "positions from 0 on, one for all rows or one a row",
        )
    behind = now.positions - begin.to(now.positions.device).reshape(-1, 1)
    if first is None or every is None:
        return now.real & (behind >= 0)
    behind = behind - first.to(behind.device).reshape(-1, 1)
    return now.real & (behind >= 0) & (behind % every.to(behind.device).reshape(-1, 1) == 0)


def begins(timer: PositionClock, start: Start) -> Int[Tensor, " batch"]:
    """The first edited position of the running pass' rows, one for all or one a row.

    Raises:
        WorkbenchError: nobody knows where the prompts of the pass end.
    """
    if start is None and not timer.sequences.known:
        raise WorkbenchError(
            "a pass under an edit that does not say where its prompts end (it fills no cache and "
            "asks for the logits of all positions)",
            "start= of `edited`: the position of the first edited token, one for all rows or one a "
            "row, or 'last' for every row's last token",
            "To score answers use wb.score, for lm-evaluation-harness wb.evaluation.lm_eval.",
        )
    now = timer.now
    if isinstance(start, str) and now is not None:
        goes_on = now.positions.shape[1] == 1  # a step of generation
        return timer.sequences.starts if goes_on else now.last_real()
    return timer.sequences.starts if start is None else torch.as_tensor(start).reshape(-1)
