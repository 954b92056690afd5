"""Scoring: log-probabilities of answers, under one edit or under many at once.

What comes before the first edited token is run once for all answers that begin with it and for all
edits; answers and edits then fill the rows of a batch, each with an edit of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from workbench.data.questions import Question, QuestionSet, require_questions
from workbench.doors import door
from workbench.editing.interventions import Intervention
from workbench.editing.row_edits import RowEdits
from workbench.errors import WorkbenchError
from workbench.models.beginnings import Reading, to_score
from workbench.models.identity import Model
from workbench.models.passes import Site, forward
from workbench.models.positions import clock
from workbench.models.prompts import AnswerStart, Encoded, PromptFormat, encode, prompt_format
from workbench.models.sharing import Batch, batches
from workbench.models.tokens import require_batch_size


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

    def __repr__(self) -> str:
        kind = "correct" if self.label else "incorrect"
        return (
            f"AnswerScore(question {self.question}, {kind}, {self.total:.3f} nats, "
            f"{len(self.tokens)} tokens)"
        )


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
    begins = starts or [[e.start - 1 for e in encoded]] * len(edits)
    results = [[ScoredTokens(torch.empty(0), None)] * len(encoded) for _ in edits]
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


@door
def score(
    model: Model,
    questions: QuestionSet | Sequence[Question],
    edit: Intervention | None = None,
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

    Example:
        >>> scores = wb.score(model, fold.test.choose([0]), edit)
        >>> [answer.label for answer in scores]
        [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
        >>> max(scores, key=lambda answer: answer.total).label  # what MC1 asks
        1
    """
    return score_under(
        model, questions, [edit], style=style, answer_start=answer_start, batch_size=batch_size,
        progress=progress,
    )[0]  # fmt: skip


@door
def score_under(
    model: Model,
    questions: QuestionSet | Sequence[Question],
    edits: Sequence[Intervention | None],
    *,
    style: str | PromptFormat = "bare",
    answer_start: AnswerStart = "offsets",
    batch_size: int = 256,
    progress: bool = False,
) -> list[list[AnswerScore]]:
    """Score every answer of every question under each of several edits.

    Args:
        model: the bridge.
        questions: what to ask.
        edits: what to apply, one after another; None scores the model itself.
        style: prompt format.
        answer_start: see `score`.
        batch_size: rows run together; a row is an answer under an edit.
        progress: show a bar.

    Returns:
        For every edit, what `score` returns for it. Prompts are run once for all of them, which
        saves most where prompts are long and answers begin alike, and little where they are short.

    Example:
        >>> plain, under = wb.editing.score_under(model, fold.test.choose([0]), [None, edit])
        >>> len(plain), under[0].total > plain[0].total  # the first answer is correct
        (10, True)
    """
    chosen = prompt_format(style)
    if not isinstance(questions, Sequence):
        require_questions(questions)
    listed = edits if isinstance(edits, list | tuple) else [edits]
    wrong = [one for one in listed if one is not None and not isinstance(one, Intervention)]
    if wrong or listed is not edits:
        raise WorkbenchError(
            f"{(wrong or [edits])[0]!r:.60} as an edit or edits",
            "a list of fitted edits, of which some may be None",
        )
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
