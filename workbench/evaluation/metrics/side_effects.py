"""Side effects of an edit on plain text: cross-entropy, and KL from the unedited model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from workbench.editing.attaching import edited
from workbench.editing.conditions import Conditional
from workbench.editing.interventions import Intervention
from workbench.editing.whole_edits import Foreword
from workbench.errors import WorkbenchError
from workbench.evaluation.metrics.registry import measured
from workbench.models.batched_passes import batched
from workbench.models.identity import Model
from workbench.models.passes import forward
from workbench.models.positions import clock
from workbench.models.prompts import Encoded
from workbench.models.sharing import most_tokens
from workbench.models.tokens import pad, tokenize

PROMPT = 16
"""Tokens of a plain text by which a condition is decided."""


@dataclass(frozen=True)
class SideEffects:
    """Per-token means over one text, in nats.

    Attributes:
        cross_entropy: of the edited model.
        kl: Σ p_unedited (log p_unedited − log p_edited), which is 0 without an edit.
    """

    cross_entropy: float
    kl: float


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
    rows = [Predicted(tokenize(model, text)[0], 1) for text in texts]
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


@dataclass(frozen=True)
class Predicted:
    """Tokens, of which those from `start` on are predicted, and edited from the one before."""

    tokens: Sequence[int]
    start: int


def divergences(
    model: Model,
    rows: Sequence[Predicted],
    edits: Sequence[Intervention | None],
    *,
    batch_size: int = 16,
    progress: bool = False,
) -> list[list[SideEffects]]:
    """Cross-entropy and KL of rows of tokens under each of several edits.

    Args:
        model: the bridge.
        rows: what to run; each predicts at least one token.
        edits: what to apply; None is the model itself.
        batch_size: most rows run together; the result does not depend on it.
        progress: show a bar, which counts tokens.

    Returns:
        For every edit, a value a row.
    """
    found = [[SideEffects(math.nan, math.nan)] * len(rows) for _ in edits]
    total = sum(len(row.tokens) for row in rows) * len(edits)
    bar = tqdm(
        total=total, desc="side effects", unit="token", unit_scale=True, disable=not progress,
        leave=False,
    )  # fmt: skip
    most = most_tokens(model)
    with bar:
        for numbers in batched([row.tokens for row in rows], batch_size, most):
            mine = [rows[number] for number in numbers]
            batch = _Batch.of(model, mine)
            plain = batch.log_probabilities(None)
            for edit, own in zip(edits, found, strict=True):
                changed = plain if edit is None else _changed(batch, mine, edit)
                for number, effects in zip(numbers, batch.compared(plain, changed), strict=True):
                    own[number] = effects
                    bar.update(len(rows[number].tokens))
    return found


def predictions(
    model: Model,
    rows: Sequence[Predicted],
    edit: Intervention | None,
    *,
    batch_size: int = 4,
) -> Iterator[Float[Tensor, "predicted vocabulary"]]:
    """Log-probabilities at every predicted position of rows, one after another, on the CPU.

    Args:
        model: the bridge.
        rows: what to run.
        edit: what to apply; None is the model itself.
        batch_size: rows run together; they hold as many log-probabilities in memory.
    """
    for begin in range(0, len(rows), batch_size):
        mine = rows[begin : begin + batch_size]
        batch = _Batch.of(model, mine)
        found = batch.log_probabilities(None) if edit is None else _changed(batch, mine, edit)
        for row, own in zip(mine, found, strict=True):
            yield own[row.start - batch.first :][: len(row.tokens) - row.start].cpu()


def _changed(
    batch: _Batch, rows: Sequence[Predicted], edit: Intervention
) -> Float[Tensor, "row predicted vocabulary"]:
    """Log-probabilities under an edit, of the batch's own tokens whatever the model reads."""
    if not isinstance(edit, Foreword):
        return batch.log_probabilities(edit)
    # Encoded, so that what is longer than the context is refused.
    read = [edit.encoded(Encoded.of_tokens(row.tokens, row.start)) for row in rows]
    other = _Batch.of(batch.model, [Predicted(one.tokens, one.start) for one in read])
    told = other.log_probabilities(None)
    width = batch.tokens.shape[1] - batch.first
    found = told.new_zeros(len(rows), width, told.shape[2])
    for own, new, row, one in zip(found, told, rows, read, strict=True):
        count = len(row.tokens) - row.start
        own[row.start - batch.first :][:count] = new[one.start - other.first :][:count]
    return found


@dataclass(frozen=True)
class _Batch:
    """Rows that run together; of what they predict, columns from the first start on are kept."""

    model: Model
    tokens: Int[Tensor, "row position"]
    mask: Int[Tensor, "row position"]
    starts: Int[Tensor, " row"]

    @classmethod
    def of(cls, model: Model, rows: Sequence[Predicted]) -> _Batch:
        tokens, mask = pad(model, [row.tokens for row in rows])
        return cls(model, tokens, mask, torch.tensor([row.start for row in rows]))

    @property
    def first(self) -> int:
        """The first position that any row predicts."""
        return int(self.starts.min())

    def log_probabilities(
        self, edit: Intervention | None
    ) -> Float[Tensor, "row predicted vocabulary"]:
        """Of the tokens at `first` and behind."""
        count = self.tokens.shape[1] - self.first + 1
        applied = edited(self.model, edit, site="module", record=False)
        with applied, clock(self.model).starting_at(self.starts - 1):
            logits = forward(self.model, self.tokens, self.mask, keep=count)[0]
        found = logits[:, -count:-1].float()
        for own in found:  # row by row, and in place: the logits of a pass are much memory
            own -= own.logsumexp(dim=-1, keepdim=True)
        return found

    def compared(self, plain: Tensor, changed: Tensor) -> list[SideEffects]:
        """Means over every row's predicted tokens."""
        place = torch.arange(self.first, self.tokens.shape[1], device=self.tokens.device)
        told = place >= self.starts.to(place.device)[:, None]
        real = (self.mask[:, self.first :].bool() & told).float()
        wanted = self.tokens[:, self.first :, None]
        surprise = -changed.gather(2, wanted)[..., 0]
        divergence = torch.zeros_like(surprise)
        if changed is not plain:
            divergence = torch.stack([
                (one.exp() * (one - other)).sum(dim=-1)
                for one, other in zip(plain, changed, strict=True)
            ])  # fmt: skip
        count = real.sum(dim=1)
        means = [((values * real).sum(dim=1) / count).tolist() for values in (surprise, divergence)]
        return [SideEffects(nats, kl) for nats, kl in zip(*means, strict=True)]


measured(
    -1,
    cross_entropy="nats a token on plain texts",
    kl="Kullback-Leibler divergence from the unedited model on plain texts, nats a token",
    **{
        f"{name}_{ending}": f"the same on {what}"
        for ending, what in (
            ("own", "the unedited model's own answers"),
            ("right", "best answers that the unedited model had right"),
            ("unrelated", "the unedited model's answers to unrelated questions"),
            ("long", "the unedited model's own long continuations"),
        )
        for name in ("cross_entropy", "kl")
    },
)
