"""Log-probabilities of a traced sequence, with the edit and without it."""

from __future__ import annotations

from dataclasses import replace

import torch

from workbench.doors import door
from workbench.editing.attaching import edited
from workbench.editing.token_scores import score_tokens
from workbench.editing.token_trace import PER_HEAD, PER_LAYER, TokenTrace
from workbench.errors import WorkbenchError
from workbench.models.identity import Model
from workbench.models.ownership import ownership
from workbench.models.prompts import Encoded


@door
def with_log_probabilities(model: Model, traced: TokenTrace) -> TokenTrace:
    r"""Read the log-probabilities of a trace's tokens under its edit and without it.

    The model is held to the traced tokens in two further passes, edited from where the trace's own
    edit began. What the edit does there must be what was traced.

    Args:
        model: the bridge that was traced.
        traced: of one sequence: `trace[row]`.

    Returns:
        The trace with `nats` and `nats_without`, in nats. Both are of the token that follows a
        position, whose writing the edit at that position changes.

    Raises:
        WorkbenchError: another model; a model that is edited now; a trace whose passes did not hold
            the tokens of one sequence, behind an old cache or under beams, or that other edits had
            a part in; or one without a token behind the first edited one.

    Example:
        >>> with wb.edited(model, edit) as trace:
        ...     _ = wb.generate(model, "Q: What is the capital of Australia?\nA:", max_new_tokens=3)
        >>> read = wb.editing.with_log_probabilities(model, trace.only)
        >>> read.following[:2], bool(read.nats[0] > read.nats_without[0])
        ((' Can', 'ber'), True)
    """
    if traced.model is None or traced.model() is not model:
        raise WorkbenchError("a trace of another model", "the model that was traced")
    if ownership(model).taken:
        raise WorkbenchError(
            "log-probabilities of a model that is edited now", "a model without an edit on it",
            "Read them behind the block of `edited`.",
        )  # fmt: skip
    if traced.sequence is None:
        raise WorkbenchError(
            "a trace whose passes did not hold all tokens of one sequence",
            "one whose prompt ran inside `edited`, as tokens, and whose rows no beams exchanged",
        )
    first = int(traced.position[0]) if len(traced.position) else 0
    if first + 1 >= len(traced.sequence):
        raise WorkbenchError(
            "a trace without a token behind the first edited one", "a sequence that goes on there"
        )
    row = Encoded.of_tokens(traced.sequence.tolist(), first + 1)
    with edited(model, traced.edit) as again:
        (under,) = score_tokens(model, [row], starts=[traced.start])
    _require_same(traced, again.only, next(model.original_model.parameters()).dtype)
    (without,) = score_tokens(model, [row])
    place = traced.position - first
    known = place < len(under)
    missing = torch.full(place.shape, torch.nan, dtype=torch.float32)
    return replace(
        traced,
        nats=missing.masked_scatter(known, under[place[known]]),
        nats_without=missing.masked_scatter(known, without[place[known]]),
    )


def _require_same(traced: TokenTrace, again: TokenTrace, dtype: torch.dtype) -> None:
    """Refuse a trace of what the edit alone does not do to these tokens."""
    both = min(len(traced.position), len(again.position))
    same = torch.equal(traced.position[:both], again.position[:both])
    near = 0.01 if dtype == torch.float32 else 0.1
    for name in (*PER_HEAD, *PER_LAYER) if same else ():
        one, other = getattr(traced, name)[:both], getattr(again, name)[:both]
        scale = one.nan_to_num().abs().max() if one.numel() else 0.0
        same &= torch.allclose(one, other, rtol=near, atol=near * float(scale), equal_nan=True)
    if not same:
        raise WorkbenchError(
            "a trace that its edit alone does not leave along these tokens",
            "one of a model under that edit and no other",
        )
