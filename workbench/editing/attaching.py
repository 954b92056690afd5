"""Attaching: an edit acts on every pass of a block, and what it did is recorded.

Edits act at every position from the last prompt token on, unless they say otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from workbench.editing.edited_positions import Start, begins
from workbench.editing.head_edits import HeadEdit
from workbench.editing.interventions import Intervention, no_edit_at_all
from workbench.editing.row_edits import RowEdits
from workbench.editing.trace import LayerChange, Trace
from workbench.editing.whole_edits import Foreword, WholeEdit
from workbench.errors import WorkbenchError
from workbench.models.identity import Model, identify
from workbench.models.passes import Site, attached
from workbench.models.positions import clock


@contextmanager
def edited(
    model: Model,
    edit: Intervention | None,
    *,
    site: Site = "hook_point",
    start: Start = None,
    record: bool = True,
) -> Iterator[Trace]:
    r"""Apply an edit to every forward pass of the block.

    Args:
        model: the bridge.
        edit: what to apply; None applies nothing.
        site: `hook_point` or `module`; both give the same result. Passes of the workbench's own
            `generate` and `score` run unwrapped, and faster, at `module`.
        start: position of the first edited token, one for all rows or one a row, or `last` for
            every row's last token. By default the workbench's own `generate` and `score` set it
            to the last prompt token; elsewhere it is the last token of a pass that begins to
            generate (fills a cache, or asks for the logits of its last position alone), and
            passes that extend its cache, or repeat it with more tokens behind, go on from there.
            Give it for teacher forcing.
        record: keep what the edit did at every position in the trace: p̂, u, strength and change of
            heads, or how far whole states moved.

    Yields:
        The trace, which fills as the model runs.

    Raises:
        WorkbenchError: the edit is of another shape of model, no such site, or a pass of the block
            that begins nothing to generate, without `start`.

    Example:
        >>> with wb.edited(model, edit) as trace:
        ...     answers = wb.generate(model, "Q: What is the capital of Australia?\nA:")
        >>> answers[0].text
        ' Canberra is the capital of Australia.'
        >>> trace[0].strengths.shape  # from the last prompt token on; NaN at heads without an edit
        torch.Size([12, 5, 8])
    """
    if edit is not None and not isinstance(edit, Intervention):
        raise no_edit_at_all(edit)
    if record and isinstance(edit, HeadEdit) and edit.shares_heads:
        raise WorkbenchError(
            "a record of an edit whose goals share heads",
            "edited(..., record=False)",
            "To trace the goals, attach their edits one inside the other: with edited(model, a) as "
            "first, edited(model, b) as second.",
        )
    if isinstance(edit, Foreword) and edit.alpha:
        raise WorkbenchError(
            f"{edit!r} on a model", "an edit of what happens within a pass",
            "It stands before what is read: wb.generate(..., edit=...) and wb.score put it there; "
            "elsewhere put edit.text before prompts yourself.",
        )  # fmt: skip
    if isinstance(start, str) and start != "last":
        raise WorkbenchError(f"start={start!r}", "positions, or 'last'")
    about: dict[str, Any] = {"model": identify(model).label, "edit": repr(edit)}
    if edit is not None:
        about |= {"alpha": float(edit.alpha)}
    trace = Trace.of(model, edit, about)
    timer = clock(model)

    def note(change: LayerChange) -> None:
        if timer.now is not None:
            number = timer.sequences.number
            trace.add(number, begins(timer, start), timer.now, change, mixed=number in timer.mixed)

    if isinstance(edit, WholeEdit):
        with edit.attached(model):
            yield trace
        return
    rows = RowEdits(model, [] if edit is None else [edit])
    hooks = rows.hooks(None, start, note if record else None)
    with timer.listening(), attached(model, hooks, site):
        yield trace
