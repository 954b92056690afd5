"""Log-probabilities of a traced sequence, with the edit and without it."""

from __future__ import annotations

from dataclasses import replace

import torch

from workbench.doors import door
from workbench.editing.interventions import Intervention
from workbench.editing.token_scores import score_tokens_under
from workbench.editing.token_trace import TokenTrace
from workbench.errors import WorkbenchError
from workbench.models.identity import Model
from workbench.models.prompts import Encoded


@door
def with_log_probabilities(model: Model, traced: TokenTrace, edit: Intervention) -> TokenTrace:
    r"""Read the log-probabilities of a trace's tokens under the edit and without it.

    The model is held to the traced tokens in two further passes, edited from where the trace's own
    edit began.

    Args:
        model: the bridge.
        traced: of one sequence: `trace[row]`.
        edit: what was traced.

    Returns:
        The trace with `nats` and `nats_without`, in nats. Both are of the token that follows a
        position, whose writing the edit at that position changes.

    Raises:
        WorkbenchError: a trace whose passes did not hold all tokens of the sequence, or no more
            than one edited token.

    Example:
        >>> with wb.edited(model, edit) as trace:
        ...     _ = wb.generate(model, "Q: What is the capital of Australia?\nA:", max_new_tokens=3)
        >>> read = wb.editing.with_log_probabilities(model, trace.only, edit)
        >>> read.following[:2], bool(read.nats[0] > read.nats_without[0])
        ((' Can', 'ber'), True)
    """
    if traced.sequence is None:
        raise WorkbenchError(
            "a trace whose passes did not hold the whole sequence",
            "one whose prompt ran inside `edited`, as tokens",
        )
    first = int(traced.position[0]) if len(traced.position) else 0
    if first + 1 >= len(traced.sequence):
        raise WorkbenchError(
            "a trace without a token behind the first edited one", "longer answers"
        )
    row = Encoded.of_tokens(traced.sequence.tolist(), first + 1)
    without, under = score_tokens_under(
        model, [row], [None, edit], starts=[[first], [traced.start]]
    )
    place = traced.position - first
    known = place < len(under[0])
    missing = torch.full(place.shape, torch.nan, dtype=torch.float32)
    return replace(
        traced,
        nats=missing.masked_scatter(known, under[0][place[known]]),
        nats_without=missing.masked_scatter(known, without[0][place[known]]),
    )
