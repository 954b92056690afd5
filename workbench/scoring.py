"""Scoring: log-probabilities of answers, under one edit or under many at once.

What comes before the first edited token is run once for all answers that begin with it and for all
edits; answers and edits then fill the rows of a batch, each with an edit of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from workbench.data.questions import Question, QuestionSet
from workbench.editing import RowEdits
from workbench.edits import Edit
from workbench.models import Model
from workbench.positions import clock
from workbench.prefixes import Prefix, can_pad, can_share
from workbench.prompts import (
    AnswerStart,
    Encoded,
    PromptFormat,
    encode,
    pad,
    prompt_format,
    require_batch_size,
)
from workbench.running import Site, forward
from workbench.unwrapping import has_hooks


@dataclass(frozen=True)
class AnswerScore:
    """An answer's log-probabilities in nats.

    Attributes:
        question: number of the question in the set.
        label: 1 for a correct answer, 0 for an incorrect one.
        total: sum over the answer's tokens.
        tokens: one a token.
    """

    question: int
    label: int
    total: float
    tokens: Float[Tensor, " token"]


def score_tokens(
    model: Model,
    encoded: Sequence[Encoded],
    edit: Edit | None = None,
    *,
    starts: Sequence[int] | None = None,
    batch_size: int = 64,
    site: Site = "projection",
    progress: str | None = None,
) -> list[Float[Tensor, " token"]]:
    """Log-probability of every answer token, edited from the last prompt token on.

    Args:
        model: the bridge.
        encoded: prompts with their answers.
        edit: what to apply; None scores the model itself.
        starts: first edited position of every answer, instead of its last prompt token.
        batch_size: rows run together; the result does not depend on it.
        site: where to edit; the passes run unwrapped at `projection`, which is faster.
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
    edits: Sequence[Edit | None],
    *,
    starts: Sequence[Sequence[int]] | None = None,
    batch_size: int = 64,
    site: Site = "projection",
    progress: str | None = None,
) -> list[list[Float[Tensor, " token"]]]:
    """The same under each of several edits, which share the batches and the unedited prefixes.

    An edit that is attached already applies as well. Then nothing is shared, every answer is run
    whole, and that edit's trace numbers the rows in the order in which they are run, long ones
    first.

    Args:
        model: the bridge.
        encoded: prompts with their answers.
        edits: what to apply; None scores the model itself.
        starts: for every edit, the first edited position of every answer.
        batch_size: rows run together; a row is an answer under an edit.
        site: where to edit.
        progress: the label of a bar, or None for none.

    Returns:
        For every edit, nats in float32 on the CPU, a tensor an answer, in the order given.
    """
    require_batch_size(batch_size)
    begins = starts or [[e.start - 1 for e in encoded]] * len(edits)
    rows = [
        _Row(answer, number, begins[number][answer])
        for answer in range(len(encoded))
        for number in range(len(edits))
    ]
    results: list[list[Tensor]] = [[torch.empty(0)] * len(encoded) for _ in edits]
    applied = RowEdits(model, edits)
    shared = not has_hooks(model) and can_share(model)
    with tqdm(total=len(rows), desc=progress, disable=progress is None, leave=False) as bar:
        for block in _blocks(model, encoded, rows, batch_size, shared=shared):
            for row, nats in block.run(model, encoded, applied, site):
                results[row.edit][row.answer] = nats
                bar.update()
    return results


@dataclass(frozen=True)
class _Row:
    """An answer under an edit, and its first edited position."""

    answer: int
    edit: int
    begin: int


@dataclass(frozen=True)
class _Block:
    """Rows that run together, each behind one of some prefixes that were run before, or none."""

    rows: list[_Row]
    prefix: Prefix | None
    which: list[int | None]

    def run(
        self, model: Model, encoded: Sequence[Encoded], applied: RowEdits, site: Site
    ) -> list[tuple[_Row, Float[Tensor, " token"]]]:
        """Log-probabilities of every row's answer.

        A row's last token predicts nothing that is asked for, so it is left out.
        """
        whole = [encoded[row.answer] for row in self.rows]
        cache, mask, lengths = None, None, [0] * len(whole)
        if self.prefix is not None:
            which = torch.tensor(self.which)
            cache = self.prefix.rows(which)
            mask = self.prefix.mask[which.to(self.prefix.mask.device)]
            lengths = mask.sum(dim=1).tolist()
        own = [e.tokens[length:-1] for e, length in zip(whole, lengths, strict=True)]
        tokens, real = pad(model, own)
        mask = real if mask is None else torch.cat([mask, real], dim=1)
        counts = [len(e.answer_tokens) for e in whole]
        first = [len(line) - count for line, count in zip(own, counts, strict=True)]
        begins = torch.tensor([row.begin for row in self.rows])
        edits = torch.tensor([row.edit for row in self.rows])
        with applied.attached(edits, site), clock(model).starting_at(begins):
            logits, _ = forward(model, tokens, mask, cache, keep=tokens.shape[1] - min(first))
        left_out = tokens.shape[1] - logits.shape[1]
        batch = torch.tensor([row for row, count in enumerate(counts) for _ in range(count)])
        place = torch.tensor(
            [p - left_out for line, n in zip(own, first, strict=True) for p in range(n, len(line))]
        )
        wanted = torch.tensor([token for e in whole for token in e.answer_tokens])
        predicted = logits[batch, place].float().log_softmax(dim=-1)
        nats = predicted.gather(1, wanted.to(predicted.device)[:, None])[:, 0].cpu()
        return list(zip(self.rows, torch.split(nats, counts), strict=True))


def _blocks(
    model: Model, encoded: Sequence[Encoded], rows: list[_Row], batch_size: int, *, shared: bool
) -> Iterator[_Block]:
    """Rows in blocks, behind as much of their unedited beginnings as is worth sharing."""
    plan = _Plan.of(encoded, rows)
    if not shared or () in plan.groups:
        yield from _cut(encoded, rows, [None] * len(rows), None, batch_size)
        return
    root = Prefix.of(model, [next(iter(plan.groups))[: plan.primer]]) if plan.primer else None
    if not plan.groups_pay:
        which = [None if root is None else 0] * len(rows)
        yield from _cut(encoded, rows, which, root, batch_size)
        return
    most = batch_size if can_pad(model) else 0
    for keys in plan.packed(most):
        own = [key[plan.primer :] for key in keys]
        prefix = Prefix.of(model, own) if root is None else root.extended(model, own)
        members = [(row, number) for number, key in enumerate(keys) for row in plan.groups[key]]
        yield from _cut(
            encoded, [row for row, _ in members], [number for _, number in members], prefix,
            batch_size,
        )  # fmt: skip


WORTHWHILE = 8
"""Tokens saved a group from which running its beginning apart is worth a pass of its own."""


@dataclass(frozen=True)
class _Plan:
    """Which rows begin alike.

    Attributes:
        groups: rows by their unedited beginnings, the longest beginnings first.
        primer: how many tokens all beginnings share; 0 where it is not worth a pass.
    """

    groups: dict[tuple[int, ...], list[_Row]]
    primer: int

    @classmethod
    def of(cls, encoded: Sequence[Encoded], rows: Sequence[_Row]) -> _Plan:
        free: dict[int, int] = {}
        for row in rows:
            least = max(0, min(row.begin, encoded[row.answer].start - 1))
            free[row.answer] = min(free.get(row.answer, least), least)
        groups: dict[tuple[int, ...], list[_Row]] = {}
        for row in rows:
            groups.setdefault(encoded[row.answer].tokens[: free[row.answer]], []).append(row)
        ordered = dict(sorted(groups.items(), key=lambda pair: -len(pair[0])))
        alike = 0
        for column in zip(*ordered, strict=False):
            if len(set(column)) > 1:
                break
            alike += 1
        primer = min(alike, min(map(len, ordered), default=0) - 1)
        return cls(ordered, primer if primer >= WORTHWHILE and len(rows) > 1 else 0)

    @property
    def groups_pay(self) -> bool:
        """Whether running the beginnings apart saves tokens enough."""
        saved = sum((len(key) - self.primer) * (len(rows) - 1) for key, rows in self.groups.items())
        return saved >= WORTHWHILE * len(self.groups)

    def packed(self, most: int) -> Iterator[list[tuple[int, ...]]]:
        """Beginnings together with others of about their length, up to so many rows."""
        part: list[tuple[int, ...]] = []
        room = most
        for key, rows in self.groups.items():
            if part and len(rows) > room:
                yield part
                part, room = [], most
            part.append(key)
            room -= len(rows)
        if part:
            yield part


def _cut(
    encoded: Sequence[Encoded],
    rows: Sequence[_Row],
    which: Sequence[int | None],
    prefix: Prefix | None,
    batch_size: int,
) -> Iterator[_Block]:
    """Blocks of rows behind a prefix, those of similar length together, long ones first."""
    order = sorted(range(len(rows)), key=lambda n: -len(encoded[rows[n].answer].tokens))
    for begin in range(0, len(order), batch_size):
        part = order[begin : begin + batch_size]
        yield _Block([rows[n] for n in part], prefix, [which[n] for n in part])


def score(
    model: Model,
    questions: QuestionSet | Sequence[Question],
    edit: Edit | None = None,
    *,
    style: str | PromptFormat = "bare",
    answer_start: AnswerStart = "offsets",
    batch_size: int = 64,
    progress: bool = False,
) -> list[AnswerScore]:
    """Score every answer of every question.

    Args:
        model: the bridge.
        questions: what to ask.
        edit: what to apply; None scores the model itself.
        style: prompt format.
        answer_start: how the first scored token is found, whatever is edited: only scores of the
            same tokens can be compared. The published evaluation is `plus_three` for all rows.
            Where the edit begins is the edit's own `answer_start`.
        batch_size: answers run together.
        progress: show a bar.
    """
    return score_under(
        model, questions, [edit], style=style, answer_start=answer_start, batch_size=batch_size,
        progress=progress,
    )[0]  # fmt: skip


def score_under(
    model: Model,
    questions: QuestionSet | Sequence[Question],
    edits: Sequence[Edit | None],
    *,
    style: str | PromptFormat = "bare",
    answer_start: AnswerStart = "offsets",
    batch_size: int = 256,
    progress: bool = False,
) -> list[list[AnswerScore]]:
    """Score every answer of every question under each of several edits; see `score`.

    Returns:
        For every edit, what `score` returns for it, in a fraction of the time: prompts are run
        once for all of them.
    """
    chosen = prompt_format(style)
    rows = [
        (number, label, question.question, answer)
        for number, question in enumerate(questions)
        for answer, label in zip(question.answers, question.labels, strict=True)
    ]
    encoded = [encode(model, q, a, chosen, answer_start) for *_, q, a in rows]
    starts: dict[AnswerStart, list[int]] = {"offsets": [e.start - 1 for e in encoded]}
    if answer_start == "plus_three":
        starts["offsets"] = [encode(model, q, a, chosen).start - 1 for *_, q, a in rows]
    if any(edit is not None and edit.answer_start == "plus_three" for edit in edits):
        starts["plus_three"] = [
            encode(model, q, a, chosen, "plus_three").start for *_, q, a in rows
        ]
    found = score_tokens_under(
        model, encoded, edits,
        starts=[starts["offsets" if edit is None else edit.answer_start] for edit in edits],
        batch_size=batch_size, progress="score" if progress else None,
    )  # fmt: skip
    return [
        [
            AnswerScore(number, label, float(tokens.sum()), tokens)
            for (number, label, *_), tokens in zip(rows, scored, strict=True)
        ]
        for scored in found
    ]
