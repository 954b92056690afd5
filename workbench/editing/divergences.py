"""How far an edit moves the model's distribution: cross-entropy and KL of rows of tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from workbench.editing.attaching import edited
from workbench.editing.interventions import Intervention
from workbench.editing.whole_edits import Foreword
from workbench.models.batched_passes import padded_batches
from workbench.models.identity import Model
from workbench.models.passes import forward
from workbench.models.positions import clock
from workbench.models.prefixes import must_run_apart
from workbench.models.prompts import Encoded
from workbench.models.tokens import pad


@dataclass(frozen=True)
class SideEffects:
    """Per-token means over one row, in nats.

    Attributes:
        cross_entropy: of the edited model.
        kl: Σ p_unedited (log p_unedited − log p_edited), which is 0 without an edit.
    """

    cross_entropy: float
    kl: float


def divergences(
    model: Model,
    rows: Sequence[Encoded],
    edits: Sequence[Intervention | None],
    *,
    batch_size: int = 16,
    progress: bool = False,
) -> list[list[SideEffects]]:
    """Cross-entropy and KL of rows of tokens under each of several edits.

    Args:
        model: the bridge.
        rows: prompts with what follows them, a token at least; that is predicted, and edited from
            the position before it.
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
    together = _most_together(model, rows, edits, batch_size)
    with bar:
        for numbers in padded_batches(model, [row.tokens for row in rows], together):
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
    rows: Sequence[Encoded],
    edit: Intervention | None,
    *,
    batch_size: int = 4,
) -> Iterator[Float[Tensor, "predicted vocabulary"]]:
    """Log-probabilities at every predicted position of rows, one after another, on the CPU.

    Args:
        model: the bridge.
        rows: see `divergences`.
        edit: what to apply; None is the model itself.
        batch_size: rows run together; they hold as many log-probabilities in memory.
    """
    together = _most_together(model, rows, [edit], batch_size)
    for begin in range(0, len(rows), together):
        mine = rows[begin : begin + together]
        batch = _Batch.of(model, mine)
        found = batch.log_probabilities(None) if edit is None else _changed(batch, mine, edit)
        for row, own in zip(mine, found, strict=True):
            yield own[row.start - batch.first :][: len(row.tokens) - row.start].cpu()


def _most_together(
    model: Model,
    rows: Sequence[Encoded],
    edits: Sequence[Intervention | None],
    batch_size: int,
) -> int:
    """How many rows may run together: one where their lengths, or those with a foreword, forbid."""
    read = [rows, *(_read(edit, rows) for edit in edits if isinstance(edit, Foreword))]
    apart = any(must_run_apart(model, [len(row.tokens) for row in own]) for own in read)
    return 1 if apart else batch_size


def _read(edit: Foreword, rows: Sequence[Encoded]) -> list[Encoded]:
    """What the model reads instead of rows; encoded, so that what is too long is refused."""
    return [edit.encoded(Encoded.of_tokens(row.tokens, row.start)) for row in rows]


def _changed(
    batch: _Batch, rows: Sequence[Encoded], edit: Intervention
) -> Float[Tensor, "row predicted vocabulary"]:
    """Log-probabilities under an edit, of the batch's own tokens whatever the model reads."""
    if not isinstance(edit, Foreword):
        return batch.log_probabilities(edit)
    read = _read(edit, rows)
    other = _Batch.of(batch.model, read)
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
    def of(cls, model: Model, rows: Sequence[Encoded]) -> _Batch:
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
