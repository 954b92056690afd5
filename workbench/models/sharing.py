"""What passes can share: prompts that begin alike, answers that begin alike, one pass.

What comes before the first edited position is run once (a primer for all questions, a question for
all of its answers and edits, as `beginnings` plans it); behind it, the answers of a question under
one edit are one row, a tree of tokens in which common beginnings are run once too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.models.attention_trials import added_to_attention
from workbench.models.beginnings import Plan, Reading, Row
from workbench.models.identity import Model, device_of, shape_of
from workbench.models.positions import Pass
from workbench.models.prefixes import Prefix, can_branch, can_pad, can_share, must_run_apart
from workbench.models.token_trees import TokenTree
from workbench.models.tokens import pad
from workbench.models.unwrapping import has_hooks

MOST_TOKENS: Mapping[str, int] = {"cpu": 1 << 12, "cuda": 1 << 16}
"""Most tokens of a pass, padding included."""
MOST_LOGITS: Mapping[str, int] = {"cpu": 1 << 26, "cuda": 1 << 30}
"""Most logits of a pass (4 bytes each): 256 MB, and 4 GB on a GPU."""


@dataclass(frozen=True)
class Layout:
    """The arguments of a pass, and where its answers are.

    Attributes:
        tokens: the rows' own tokens, padded on the right.
        mask: of cached and own tokens, or what is added to attention where rows are trees.
        positions: of trees, whose masks do not tell them.
        cache: keys and values of what comes before; None where nothing does.
        first: the first column that is looked at.
        paths: for every row and answer, the columns of its positions from the first that is looked
            at on; in scoring, those that predict the answer's tokens.
    """

    tokens: Int[Tensor, "batch position"]
    mask: Int[Tensor, "batch all_position"] | Float[Tensor, "batch 1 position all_position"]
    positions: Pass | None
    cache: Any
    first: int
    paths: list[list[tuple[int, ...]]]


@dataclass(frozen=True)
class Batch:
    """Rows that run together, each behind one of some prefixes that were run before, or none."""

    rows: list[Row]
    prefix: Prefix | None
    which: list[int]

    def layout(self, model: Model, readings: Sequence[Reading]) -> Layout:
        """What a pass over the batch needs."""
        cache, before, lengths = None, None, [0] * len(self.rows)
        if self.prefix is not None:
            which = torch.tensor(self.which)
            cache = self.prefix.rows(which)
            before = self.prefix.mask[which.to(self.prefix.mask.device)]
            lengths = before.sum(dim=1).tolist()
        trees: dict[tuple[tuple[int, ...], int], TokenTree] = {}
        for row, length in zip(self.rows, lengths, strict=True):
            if (row.answers, length) not in trees:
                own = [readings[answer].tokens[length:] for answer in row.answers]
                trees[row.answers, length] = TokenTree.of(own)
        mine = [trees[row.answers, length] for row, length in zip(self.rows, lengths, strict=True)]
        tokens, real = pad(model, [tree.tokens for tree in mine])
        paths = [
            [
                path[readings[answer].first - length :]
                for answer, path in zip(row.answers, tree.paths, strict=True)
            ]
            for row, tree, length in zip(self.rows, mine, lengths, strict=True)
        ]
        first = min(path[0] for own in paths for path in own)
        if all(tree.is_chain for tree in trees.values()):
            mask = real if before is None else torch.cat([before, real], dim=1)
            return Layout(tokens, mask, None, cache, first, paths)
        positions = torch.zeros_like(tokens)
        for number, (tree, length) in enumerate(zip(mine, lengths, strict=True)):
            positions[number, : len(tree)] = length + torch.tensor(tree.depth)
        held = Pass(positions, real.bool(), tokens)
        return Layout(tokens, _attention(model, before, mine), held, cache, first, paths)


def _attention(
    model: Model, before: Tensor | None, trees: Sequence[TokenTree]
) -> Float[Tensor, "batch 1 position all_position"]:
    """What is added to attention, of trees behind what comes before."""
    longest = max(map(len, trees))
    known: dict[int, Tensor] = {}
    for tree in trees:
        if id(tree) not in known:
            known[id(tree)] = torch.eye(longest, dtype=torch.bool)
            known[id(tree)][: len(tree), : len(tree)] = tree.seen()
    seen = torch.stack([known[id(tree)] for tree in trees])
    if before is not None:
        seen = torch.cat([before.bool().cpu()[:, None].expand(-1, longest, -1), seen], dim=2)
    return added_to_attention(model, seen)


def batches(
    model: Model,
    readings: Sequence[Reading],
    begins: Sequence[Sequence[int]],
    batch_size: int,
    *,
    most: int | None = None,
    only_together: bool = False,
) -> Iterator[Batch]:
    """Everything that is to be run, behind as much of its beginnings as is worth sharing.

    Args:
        model: the bridge. Where anything is attached to it, nothing is shared.
        readings: prompts with their answers.
        begins: for every edit, the first edited position of every answer.
        batch_size: most answers in a batch, counted once for every edit.
        most: tokens of a pass; by default as many as logits of all of them allow.
        only_together: share where several beginnings can run together alone, since otherwise
            every one of them is two passes.
    """
    most = most_tokens(model) if most is None else most
    batch_size = 1 if must_run_apart(model, (len(one.tokens) for one in readings)) else batch_size
    plan = Plan.of(readings, begins)
    single = [
        Row((answer,), edit, begin)
        for edit, own in enumerate(begins)
        for answer, begin in enumerate(own)
    ]
    nothing = [0] * len(single)
    if has_hooks(model) or not can_share(model) or () in plan.groups:
        yield from _cut(readings, single, None, nothing, batch_size, most, nothing)
        return
    root = Prefix.of(model, [next(iter(plan.groups))[: plan.primer]]) if plan.primer else None
    padded = can_pad(model)
    if not plan.groups_pay or (only_together and not padded):
        before = [plan.primer] * len(single)
        yield from _cut(readings, single, root, [0] * len(single), batch_size, most, before)
        return
    branched = can_branch(model)
    for keys in plan.packed(batch_size if padded else 0, most):
        own = [key[plan.primer :] for key in keys]
        prefix = Prefix.of(model, own) if root is None else root.extended(model, own)
        rows, which = [], []
        for number, key in enumerate(keys):
            found = plan.rows(key, batch_size if branched else 1, most)
            rows += found
            which += [number] * len(found)
        before = [len(keys[number]) for number in which]
        yield from _cut(readings, rows, prefix, which, batch_size, most, before)


def _cut(
    readings: Sequence[Reading],
    rows: Sequence[Row],
    prefix: Prefix | None,
    which: Sequence[int],
    batch_size: int,
    most: int,
    before: Sequence[int],
) -> Iterator[Batch]:
    """Batches of rows, those of similar length together, long ones first.

    A batch has at most so many answers and tokens, but always a row. Of each row is known how many
    tokens the prefix has run before it.
    """
    lengths = {row.answers: sum(len(readings[a].tokens) for a in row.answers) for row in rows}
    order = sorted(range(len(rows)), key=lambda n: (-lengths[rows[n].answers], rows[n].answers))
    part: list[int] = []
    room, longest = batch_size, 0
    for number in order:
        row = rows[number]
        own = sum(len(readings[answer].tokens) - before[number] for answer in row.answers)
        longest = max(longest, own)
        if part and (len(row.answers) > room or longest * (len(part) + 1) > most):
            yield Batch([rows[n] for n in part], prefix, [which[n] for n in part])
            part, room, longest = [], batch_size, own
        part.append(number)
        room -= len(row.answers)
    if part:
        yield Batch([rows[n] for n in part], prefix, [which[n] for n in part])


def most_tokens(model: Model) -> int:
    """Most tokens of a pass whose logits are all asked for."""
    kind = device_of(model).type
    tokens, logits = (own.get(kind, own["cpu"]) for own in (MOST_TOKENS, MOST_LOGITS))
    return max(1, min(tokens, logits // shape_of(model).vocabulary))
