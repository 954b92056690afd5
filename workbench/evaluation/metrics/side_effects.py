"""Side effects of an edit on plain text: cross-entropy, and KL from the unedited model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from workbench.editing.conditions import Conditional
from workbench.editing.divergences import SideEffects, divergences
from workbench.editing.interventions import Intervention
from workbench.errors import WorkbenchError
from workbench.evaluation.metrics.registry import measured
from workbench.models.identity import Model
from workbench.models.prompts import Encoded
from workbench.models.tokens import tokenize

PROMPT = 16
"""Tokens of a plain text by which a condition is decided."""


def side_effects_under(
    model: Model,
    texts: Sequence[str],
    edits: Sequence[Intervention | None],
    *,
    batch_size: int = 16,
    progress: bool = False,
) -> list[list[SideEffects]]:
    """Cross-entropy and KL(unedited ‖ edited) of texts, edited from the first position on.

    An edit with a condition is decided by a text's beginning, its first `PROMPT` tokens or half of
    it, as by a prompt, and measured behind that: at the first token is nothing to decide by.

    The direction of the divergence is the one that ITI reports (Li et al. 2023, appendix A).

    Args:
        model: the bridge.
        texts: plain texts.
        edits: what to apply; they share the unedited passes.
        batch_size: most texts run together.
        progress: show a bar.

    Returns:
        For every edit, a value a text.

    Raises:
        WorkbenchError: a text of a single token, which predicts nothing.
    """
    rows = [Encoded.of_tokens(tokenize(model, text)[0], 1) for text in texts]
    begun = [replace(row, start=max(1, min(PROMPT, len(row.tokens) // 2))) for row in rows]
    short = [text for text, row in zip(texts, rows, strict=True) if len(row.tokens) < 2]
    if short:
        raise WorkbenchError(f"the text {short[0]!r} has one token", "texts of two tokens or more")
    found: list[list[SideEffects]] = [[] for _ in edits]
    for decided, own in ((False, rows), (True, begun)):
        numbers = [n for n, one in enumerate(edits) if isinstance(one, Conditional) == decided]
        chosen = [edits[n] for n in numbers]
        measured_on = divergences(model, own, chosen, batch_size=batch_size, progress=progress)
        for number, effects in zip(numbers, measured_on if chosen else [], strict=True):
            found[number] = effects
    return found


measured(
    -1,
    cross_entropy="nats a token on plain texts",
    kl="Kullback-Leibler divergence from the unedited model on plain texts, nats a token",
    **{
        f"{name}_{ending}": f"{told} {what}"
        for ending, what in (
            ("own", "the unedited model's own answers"),
            ("right", "best answers that the unedited model had right"),
            ("unrelated", "the unedited model's answers to unrelated questions"),
            ("long", "the unedited model's own long continuations"),
        )
        for name, told in (
            ("cross_entropy", "nats a token on"),
            ("kl", "Kullback-Leibler divergence from the unedited model, nats a token, on"),
        )
    },
)
