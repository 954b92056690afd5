"""Replacing z at single heads: log-probabilities of answers, a head and an answer a row of a batch.

What comes before the last prompt token is run once for all heads and answers; see `sharing`. A
replacement knows the answer and the position that it is for, which a `StateEdit` is not told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.head_effects import Head
from workbench.models.batched_passes import Passage, states_at
from workbench.models.beginnings import to_score
from workbench.models.identity import Model
from workbench.models.passes import Hook, Place, attached, forward
from workbench.models.positions import clock
from workbench.models.prompts import Encoded
from workbench.models.sharing import Batch, Layout, batches

ByLayer = Mapping[int, Float[Tensor, "_sample head d_head"]]


@dataclass(frozen=True)
class Replacement:
    """What z becomes.

    Attributes:
        values: samples of z, by layer.
        samples: for every answer, the number of the sample at each of its positions: from the last
            prompt token on, without the answer's last token, which predicts nothing.
    """

    values: ByLayer
    samples: Sequence[Sequence[int]]


class _Cell(NamedTuple):
    """A token that is predicted: under which edit, of which answer, where, and z's sample there."""

    edit: int
    answer: int
    row: int
    column: int
    token: int
    sample: int


def states(
    model: Model, encoded: Sequence[Encoded], layers: Sequence[int], batch_size: int
) -> tuple[dict[int, Float[Tensor, "_sample head d_head"]], list[range]]:
    """z at the positions of answers that `Replacement` tells, by layer; every answer's samples."""
    passages = [
        Passage(answer.tokens[:-1], range(answer.start - 1, len(answer.tokens) - 1))
        for answer in encoded
    ]
    seen = states_at(model, passages, [("z", layer) for layer in layers], batch_size)
    ends = accumulate((len(passage.span) for passage in passages), initial=0)
    return {layer: seen["z", layer] for layer in layers}, [range(*rows) for rows in pairwise(ends)]


def replaced_totals(
    model: Model,
    encoded: Sequence[Encoded],
    heads: Sequence[Head | None],
    replacement: Replacement,
    batch_size: int,
    bar: Any = None,
) -> Float[Tensor, "edit answer"]:
    """Log-probabilities of answers, z of one head replaced.

    Args:
        model: the bridge.
        encoded: prompts with their answers. Those whose tokens begin alike share a sample there,
            the last answer's.
        heads: one an edit; None replaces nothing.
        replacement: what z becomes.
        batch_size: answers run together, counted once a head; the result does not depend on it.
        bar: is told how many answers' tokens are done, counted once a head.

    Returns:
        Nats in float64 on the CPU, sums over the answers' tokens.
    """
    begins = [[one.start - 1 for one in encoded]] * len(heads)
    totals = torch.zeros(len(heads), len(encoded), dtype=torch.float64)
    readings = to_score(encoded)
    for batch in batches(model, readings, begins, batch_size):
        layout = batch.layout(model, readings)
        cells = [
            _Cell(row.edit, answer, number, column, token, sample)
            for number, (row, paths) in enumerate(zip(batch.rows, layout.paths, strict=True))
            for answer, path in zip(row.answers, paths, strict=True)
            for column, token, sample in zip(
                path, encoded[answer].answer_tokens, replacement.samples[answer], strict=True
            )
        ]
        nats = _run(model, batch, layout, _hooks(cells, heads, replacement.values))
        edit, answer, row, column, token, _ = torch.tensor(cells).unbind(dim=1)
        of_cells = nats[row, column - layout.first, token].double().cpu()
        totals.index_put_((edit, answer), of_cells, accumulate=True)
        if bar is not None:
            bar.update(len(cells))
    return totals


def _run(
    model: Model, batch: Batch, layout: Layout, hooks: Mapping[Place, Hook]
) -> Float[Tensor, "row column vocabulary"]:
    """Log-probabilities of what follows, from the layout's first column on."""
    timer, held = clock(model), layout.positions
    begins = torch.tensor([row.begin for row in batch.rows])
    count = layout.tokens.shape[1] - layout.first
    with attached(model, hooks, "module"), timer.starting_at(begins):
        if held is not None:
            timer.announce(held)
        logits, _ = forward(
            model, layout.tokens, layout.mask, layout.cache,
            positions=None if held is None else held.positions, keep=count,
        )  # fmt: skip
    exact = torch.promote_types(logits.dtype, torch.float32)
    return logits[:, logits.shape[1] - count :].to(exact).log_softmax(dim=-1)


def _hooks(
    cells: Sequence[_Cell], heads: Sequence[Head | None], values: ByLayer
) -> dict[Place, Hook]:
    """Hooks that replace z, by place."""
    where: dict[int, dict[tuple[int, int], tuple[int, int]]] = {}
    for cell in cells:
        place = heads[cell.edit]
        if place is not None:
            layer, head = place
            where.setdefault(layer, {})[cell.row, cell.column] = head, cell.sample
    return {("z", layer): _replacing(at, values[layer]) for layer, at in where.items()}


def _replacing(
    at: Mapping[tuple[int, int], tuple[int, int]], values: Float[Tensor, "sample head d_head"]
) -> Hook:
    """A hook that puts a head's sample at each row and column."""
    row, column = torch.tensor(list(at)).unbind(dim=1)
    head, sample = torch.tensor(list(at.values())).unbind(dim=1)
    new = values[sample, head]

    def hook(z: Tensor) -> Tensor:
        index = row.to(z.device), column.to(z.device), head.to(z.device)
        return z.index_put(index, new.to(z))

    return hook
