"""Log-probabilities of tokens, under one edit or under many at once.

What comes before the first edited token is run once for all answers that begin with it and for all
edits; answers and edits then fill the rows of a batch, each with an edit of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from workbench.editing.interventions import Intervention
from workbench.editing.row_edits import RowEdits
from workbench.editing.whole_edits import WholeEdit
from workbench.models.beginnings import Reading, to_score
from workbench.models.identity import Model
from workbench.models.passes import Site, forward
from workbench.models.positions import clock
from workbench.models.prompts import Encoded
from workbench.models.sharing import Batch, batches
from workbench.models.tokens import require_batch_size


def score_tokens(
    model: Model,
    encoded: Sequence[Encoded],
    edit: Intervention | None = None,
    *,
    starts: Sequence[int] | None = None,
    batch_size: int = 64,
    site: Site = "module",
    progress: str | None = None,
) -> list[Float[Tensor, " token"]]:
    """Log-probability of every answer token, edited from the last prompt token on.

    Args:
        model: the bridge.
        encoded: prompts with their answers.
        edit: what to apply; None scores the model itself.
        starts: first edited position of every answer, instead of its last prompt token.
        batch_size: rows run together; the result does not depend on it.
        site: where to edit; the passes run unwrapped at `module`, which is faster.
        progress: the label of a bar, or None for none.

    Returns:
        Nats in float32 on the CPU, a tensor an answer, in the order given.
    """
    return score_tokens_under(
        model, encoded, [edit], starts=None if starts is None else [starts],
        batch_size=batch_size, site=site, progress=progress,
    )[0]  # fmt: skip


def score_tokens_under(
    model: Model,
    encoded: Sequence[Encoded],
    edits: Sequence[Intervention | None],
    *,
    starts: Sequence[Sequence[int]] | None = None,
    batch_size: int = 64,
    site: Site = "module",
    progress: str | None = None,
) -> list[list[Float[Tensor, " token"]]]:
    """The same under each of several edits; see `scored_tokens`."""
    found = scored_tokens(
        model, encoded, edits, starts=starts, batch_size=batch_size, site=site, progress=progress
    )
    return [[one.nats for one in own] for own in found]


class ScoredTokens(NamedTuple):
    """What a model gives an answer's tokens.

    Attributes:
        nats: log-probabilities, in float32 on the CPU.
        greedy: whether each is the likeliest token; None where nobody asked.
    """

    nats: Float[Tensor, " token"]
    greedy: Bool[Tensor, " token"] | None


def scored_tokens(
    model: Model,
    encoded: Sequence[Encoded],
    edits: Sequence[Intervention | None],
    *,
    starts: Sequence[Sequence[int]] | None = None,
    greedy: bool = False,
    batch_size: int = 64,
    site: Site = "module",
    progress: str | None = None,
) -> list[list[ScoredTokens]]:
    """Answers' tokens under each of several edits, which share batches and unedited prefixes.

    An edit that is attached already applies as well. Then nothing is shared, every answer is run
    whole, and that edit's trace numbers the rows in the order in which they are run, long ones
    first.

    Args:
        model: the bridge.
        encoded: prompts with their answers.
        edits: what to apply; None scores the model itself.
        starts: for every edit, the first edited position of every answer.
        greedy: also tell which tokens are the likeliest.
        batch_size: most rows run together; a row is an answer under an edit.
        site: where to edit.
        progress: the label of a bar, or None for none.

    Returns:
        For every edit an entry an answer, in the order given.
    """
    require_batch_size(batch_size)
    if any(isinstance(edit, WholeEdit) for edit in edits):
        return _one_after_another(
            model, encoded, edits, starts, greedy=greedy, batch_size=batch_size, site=site,
            progress=progress,
        )  # fmt: skip
    begins = starts or [[e.start - 1 for e in encoded]] * len(edits)
    results = [
        [ScoredTokens(torch.empty(0, dtype=torch.float32), None)] * len(encoded) for _ in edits
    ]
    applied = RowEdits(model, edits)
    total = sum(len(one.answer_tokens) for one in encoded) * len(edits)
    with tqdm(
        total=total, desc=progress, unit="token", unit_scale=True, disable=progress is None,
        leave=False,
    ) as bar:  # fmt: skip
        readings = to_score(encoded)
        for batch in batches(model, readings, begins, batch_size):
            for edit, answer, scored in _run(
                model, encoded, readings, batch, applied, site, greedy=greedy
            ):
                results[edit][answer] = scored
                bar.update(len(scored.nats))
    return results


def _one_after_another(
    model: Model,
    encoded: Sequence[Encoded],
    edits: Sequence[Intervention | None],
    starts: Sequence[Sequence[int]] | None,
    **how: Any,
) -> list[list[ScoredTokens]]:
    """Edits of the whole model each by itself, and the others together."""
    found: list[list[ScoredTokens]] = [[] for _ in edits]
    others = [n for n, edit in enumerate(edits) if not isinstance(edit, WholeEdit)]
    if others:
        own = scored_tokens(
            model, encoded, [edits[n] for n in others],
            starts=None if starts is None else [starts[n] for n in others], **how,
        )  # fmt: skip
        for number, scored in zip(others, own, strict=True):
            found[number] = scored
    for number, edit in enumerate(edits):
        if isinstance(edit, WholeEdit):
            read = [edit.encoded(one) for one in encoded]
            with edit.attached(model):
                found[number] = scored_tokens(model, read, [None], **how)[0]
    return found


def _run(
    model: Model, encoded: Sequence[Encoded], readings: Sequence[Reading], batch: Batch,
    applied: RowEdits, site: Site, *, greedy: bool,
) -> Iterator[tuple[int, int, ScoredTokens]]:  # fmt: skip
    """One pass: edit, answer and scores of everything in a batch."""
    layout = batch.layout(model, readings)
    edits = torch.tensor([row.edit for row in batch.rows])
    begins = torch.tensor([row.begin for row in batch.rows])
    timer = clock(model)
    with applied.attached(edits, site), timer.starting_at(begins):
        if layout.positions is not None:
            timer.announce(layout.positions)
        logits, _ = forward(
            model, layout.tokens, layout.mask, layout.cache,
            positions=None if layout.positions is None else layout.positions.positions,
            keep=layout.tokens.shape[1] - layout.first,
        )  # fmt: skip
    left_out = layout.tokens.shape[1] - logits.shape[1]
    looked_at = logits[:, layout.first - left_out :]
    # Row by row: all at once would hold the exponentials of all logits beside them.
    total = torch.stack([own.float().logsumexp(dim=-1) for own in looked_at]).cpu()
    place = torch.tensor([
        (row, node, token)
        for row, paths in enumerate(layout.paths)
        for answer, path in zip(batch.rows[row].answers, paths, strict=True)
        for node, token in zip(path, encoded[answer].answer_tokens, strict=True)
    ])  # fmt: skip
    row, node, token = place.unbind(dim=1)
    at = logits[row, node - left_out, token].float().cpu()
    nats = at - total[row, node - layout.first]
    lengths = [len(path) for paths in layout.paths for path in paths]
    names = [(row.edit, answer) for row in batch.rows for answer in row.answers]
    best: Sequence[Tensor | None] = [None] * len(names)
    if greedy:
        likeliest = torch.stack([own.argmax(dim=-1) for own in looked_at]).cpu()
        best = torch.split(likeliest[row, node - layout.first] == token, lengths)
    parts = torch.split(nats, lengths)
    for (edit, answer), own, likely in zip(names, parts, best, strict=True):
        yield edit, answer, ScoredTokens(own, likely)
