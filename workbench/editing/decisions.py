"""What conditions have decided about the prompts that are on their way through a model."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from workbench.editing.conditions import Condition
from workbench.editing.edited_positions import Start, begins
from workbench.errors import WorkbenchError
from workbench.models.passes import Hook
from workbench.models.positions import PositionClock


class Decisions:
    """Whether rows' prompts meet the conditions of some edits; kept while answers are written.

    Args:
        timer: the model's clock.
        start: of edits, instead of the clock's.
    """

    def __init__(self, timer: PositionClock, start: Start) -> None:
        self.timer, self.start = timer, start
        self._known: dict[int, tuple[int, Tensor, Tensor]] = {}

    def reader(self, number: int, condition: Condition) -> Hook:
        """A hook at a condition's place that reads it off the last prompt tokens in a pass.

        Args:
            number: of the edit that has it.
            condition: what to read.
        """

        def read(state: Tensor) -> None:
            now = self.timer.now
            if now is None:
                return
            begin = begins(self.timer, self.start).to(now.positions.device).reshape(-1, 1)
            at = ((now.positions == begin) & now.real).to(state.device)
            sequences, rows = self.timer.sequences.number, len(at)
            known = self._known.get(number)
            if known is None or known[0] != sequences or len(known[1]) != rows:
                none = torch.zeros(rows, dtype=torch.bool, device=state.device)
                known = sequences, none, none.clone()
            if int(at.sum(dim=1).max()) > 1:
                raise WorkbenchError(
                    "a condition, where answers of a row differ at the token that decides it",
                    "prompts whose last token is no answer's, answer_start='offsets', or "
                    "batch_size=1",
                )
            exact = state[at].to(torch.promote_types(state.dtype, torch.float32))
            row = at.nonzero()[:, 0]
            _, met, decided = known
            met[row], decided[row] = condition.met(exact), True
            self._known[number] = known

        return read

    def of(self, number: int, at: Bool[Tensor, "batch position"]) -> Bool[Tensor, " state"]:
        """Whether the condition of an edit is met, for the rows of some positions.

        Raises:
            WorkbenchError: a row whose last prompt token no pass has held.
        """
        _, met, decided = self._known[number]
        row = at.nonzero()[:, 0].to(met.device)
        if not bool(decided[row].all()):
            raise WorkbenchError(
                "an edit with a condition, in a pass that goes on behind a prompt it did not see",
                "a prompt whose last token runs under the edit",
            )
        return met[row].to(at.device)
