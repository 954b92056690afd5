"""Fitting by gradient: log-probabilities of answers under changes that have parameters.

The model's own weights stay as they are. What is fitted is attached to it for every pass, at the
positions that an edit has when answers are scored: from the last prompt token on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from workbench.data.questions import QuestionSet
from workbench.editing.state_edits import StateEdit
from workbench.methods.base import Method
from workbench.methods.states import answer_pairs
from workbench.models.batched_passes import padded_batches
from workbench.models.identity import Model
from workbench.models.passes import Hook, Place, attached
from workbench.models.prompts import Encoded, encode, prompt_format
from workbench.models.tokens import pad
from workbench.models.unwrapping import runner

MOST_PADDING = 0.15
"""Of the tokens of a pass."""

Changes = Mapping[Place, Callable[[Tensor], Tensor]]
"""By place, what states [batch, position, ...] become, in float32 or better."""
Around = Callable[[Bool[Tensor, "batch position"]], AbstractContextManager[None]]
"""What is done around a pass, whose edited positions it is told; padding is none of them."""


@dataclass(frozen=True)
class Preference:
    """Two answers to a question, of which the first is to be preferred."""

    chosen: Encoded
    rejected: Encoded


def preferences(
    model: Model, train: QuestionSet, method: Method, most: int | None = None
) -> list[Preference]:
    """Pairs of a correct and an incorrect answer.

    Args:
        model: the bridge, whose tokenizer is used.
        train: the questions.
        method: its style, seed and `shuffle_labels` are used; half of the pairs change sides.
        most: pairs of a question; None for all.
    """
    style, taken, found = prompt_format(method.style), Counter[int](), []
    for pair in answer_pairs(train, shuffle_labels=method.shuffle_labels, seed=method.seed):
        taken[pair.number] += 1
        if most is None or taken[pair.number] <= most:
            chosen = encode(model, pair.question, pair.positive, style)
            rejected = encode(model, pair.question, pair.negative, style)
            found.append(Preference(chosen, rejected))
    return found


def unchanged(_: Bool[Tensor, "batch position"]) -> AbstractContextManager[None]:
    """Around passes of the model itself."""
    return nullcontext()


def changed(model: Model, changes: Changes) -> Around:
    """Around passes whose states change at the edited positions.

    Args:
        model: the bridge.
        changes: by place.
    """

    def around(where: Bool[Tensor, "batch position"]) -> AbstractContextManager[None]:
        hooks: dict[Place, Hook] = {
            place: partial(changed_where, change, where) for place, change in changes.items()
        }
        return attached(model, hooks, "module")

    return around


def changes_of(edit: StateEdit) -> Changes:
    """What an edit makes of the states of a batch, at each of its places."""

    def at(number: int, states: Tensor) -> Tensor:
        return edit.change(number, states.flatten(0, 1)).view(states.shape)

    return {place: partial(at, number) for number, place in enumerate(edit.places)}


@dataclass(frozen=True)
class Predictions:
    """What is predicted at answers' tokens, one behind the other.

    Attributes:
        nats: log-probabilities of all tokens.
        said: the answer's own token.
        answer: the number of the answer of each.
        count: of answers.
    """

    nats: Float[Tensor, "predicted vocabulary"]
    said: Int[Tensor, " predicted"]
    answer: Int[Tensor, " predicted"]
    count: int

    @property
    def answers(self) -> Float[Tensor, " answer"]:
        """Log π of every answer."""
        return self.sums(self.nats.gather(1, self.said[:, None])[:, 0])

    def sums(self, values: Float[Tensor, " predicted"]) -> Float[Tensor, " answer"]:
        """Over every answer's tokens."""
        return values.new_zeros(self.count).index_add(0, self.answer, values)

    def means(self, values: Float[Tensor, " predicted"]) -> Float[Tensor, " answer"]:
        """Over every answer's tokens."""
        return self.sums(values) / self.answer.bincount(minlength=self.count)


def predictions(
    model: Model, encoded: Sequence[Encoded], around: Around = unchanged
) -> Predictions:
    """Log-probabilities at answers' tokens, with gradients for what is done around passes.

    Args:
        model: the bridge.
        encoded: prompts with their answers, run together as far as their lengths are alike.
        around: attaches the changes.
    """
    parts = list(_passes(model, encoded, around))
    nats, said, answer = (torch.cat(own) for own in zip(*parts, strict=True))
    order = answer.argsort(stable=True)
    return Predictions(nats[order], said[order], answer[order], len(encoded))


def _passes(
    model: Model, encoded: Sequence[Encoded], around: Around
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """What `_predicted_together` gives, pass by pass."""
    texts = [one.tokens for one in encoded]
    for numbers in padded_batches(model, texts, len(texts), MOST_PADDING):
        yield _predicted_together(model, encoded, numbers, around)


def _predicted_together(
    model: Model, encoded: Sequence[Encoded], numbers: Sequence[int], around: Around
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities, the answers' own tokens and the answers' numbers, of one pass."""
    tokens, mask = pad(model, [encoded[number].tokens for number in numbers])
    start = torch.tensor([encoded[number].start for number in numbers], device=tokens.device)
    position = torch.arange(tokens.shape[1], device=tokens.device)
    real = mask.bool()
    with around((position >= start[:, None] - 1) & real):
        logits = runner(model)(input_ids=tokens, attention_mask=mask, use_cache=False).logits
    row, at = (real & (position >= start[:, None])).nonzero(as_tuple=True)
    nats = logits[row, at - 1].float().log_softmax(dim=-1)
    return nats, tokens[row, at], torch.tensor(numbers, device=row.device)[row]


def log_probabilities(
    model: Model, encoded: Sequence[Encoded], around: Around = unchanged
) -> Float[Tensor, " answer"]:
    """Log π(answer | prompt) in nats; see `predictions`."""
    told = [
        (nats.gather(1, said[:, None])[:, 0], answer)
        for nats, said, answer in _passes(model, encoded, around)
    ]
    nats, answer = (torch.cat(own) for own in zip(*told, strict=True))
    total: Tensor = nats.new_zeros(len(encoded)).index_add(0, answer, nats)
    return total


def margins(
    model: Model, preferred: Sequence[Preference], around: Around = unchanged
) -> Float[Tensor, " pair"]:
    """Log π(chosen) − log π(rejected), in nats; see `log_probabilities`."""
    both = [p.chosen for p in preferred] + [p.rejected for p in preferred]
    total = log_probabilities(model, both, around)
    return total[: len(preferred)] - total[len(preferred) :]


def reference_margins(
    model: Model, preferred: Sequence[Preference], batch_size: int
) -> Float[Tensor, " pair"]:
    """Those of the model itself, without gradients."""
    parts = [preferred[k : k + batch_size] for k in range(0, len(preferred), batch_size)]
    with torch.no_grad():
        return torch.cat([margins(model, part) for part in parts])


def steps(
    count: int, epochs: int, step: int, draw: torch.Generator, bar: str | None
) -> Iterator[tuple[float, list[int]]]:
    """The rows of every step of an optimiser, drawn anew in every epoch.

    Args:
        count: of rows.
        epochs: how often all are gone through.
        step: rows in a step.
        draw: draws their order.
        bar: the label of a bar, or None for none.

    Yields:
        The share of all steps that are done, and the step's rows.
    """
    planned = [
        rows.tolist()
        for _ in range(epochs)
        for rows in torch.split(torch.randperm(count, generator=draw), step)
    ]
    for number, rows in enumerate(tqdm(planned, desc=bar, disable=bar is None, leave=False)):
        yield number / len(planned), rows


def changed_where(
    change: Callable[[Tensor], Tensor], where: Bool[Tensor, "batch position"], state: Tensor
) -> Tensor:
    """States with a change at some positions, which is worked out in float32 or better."""
    made = change(state.to(torch.promote_types(state.dtype, torch.float32))).to(state.dtype)
    return torch.where(where.view(*where.shape, *[1] * (state.ndim - 2)), made, state)
