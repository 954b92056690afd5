"""Side effects of an edit on plain text: cross-entropy, and KL from the unedited model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from workbench.editing import edited
from workbench.errors import WorkbenchError
from workbench.interventions import Intervention
from workbench.models import Model
from workbench.positions import clock
from workbench.prompts import pad, tokenize
from workbench.running import forward


@dataclass(frozen=True)
class SideEffects:
    """Per-token means over one text, in nats.

    Attributes:
        cross_entropy: of the edited model.
        kl: Σ p_unedited (log p_unedited − log p_edited), which is 0 without an edit.
    """

    cross_entropy: float
    kl: float


def side_effects(
    model: Model, texts: Sequence[str], edit: Intervention | None = None, *, batch_size: int = 16
) -> list[SideEffects]:
    """Cross-entropy and KL(unedited ‖ edited) of each text, edited from the first position on.

    The direction of the divergence is the one that ITI reports (Li et al. 2023, appendix A).

    Raises:
        WorkbenchError: a text of a single token, which predicts nothing.
    """
    rows = [tokenize(model, text)[0] for text in texts]
    short = [text for text, row in zip(texts, rows, strict=True) if len(row) < 2]
    if short:
        raise WorkbenchError(f"the text {short[0]!r} has one token", "texts of two tokens or more")
    found: list[SideEffects] = []
    for begin in range(0, len(rows), batch_size):
        part = rows[begin : begin + batch_size]
        tokens, mask = pad(model, part)
        plain = forward(model, tokens, mask)[0][:, :-1].float().log_softmax(dim=-1)
        starts = torch.zeros(len(part), dtype=torch.long)
        with edited(model, edit, record=False), clock(model).starting_at(starts):
            changed = forward(model, tokens, mask)[0][:, :-1].float().log_softmax(dim=-1)
        real = mask[:, 1:].float()
        surprise = -changed.gather(2, tokens[:, 1:, None])[..., 0] * real
        divergence = (plain.exp() * (plain - changed)).sum(dim=-1) * real
        count = real.sum(dim=1)
        for nats, kl in zip(
            (surprise.sum(1) / count).tolist(), (divergence.sum(1) / count).tolist(), strict=True
        ):
            found.append(SideEffects(nats, kl))
    return found
