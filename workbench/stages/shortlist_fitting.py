"""Finding shortlists: which words a layer's u is read off, and how many it takes.

The words of a list are those with most entropy, −p log p summed over the positions of answers to
one half of some training questions. How long a list must be is measured on the other half, by
split-conformal prediction (Vovk et al. 2005): each of n questions needs a length, that from which
on the mean error of u over its answers (over 32 positions, drawn where there are more) keeps to a
tolerance; the ⌈(n + 1)·level⌉-th smallest of these is enough for a new question drawn like them
with probability `level` or more, at each layer by itself and on average over such fits. A position
up to which several answers begin alike counts once. Lengths are powers of two up to half of the
vocabulary; where none is enough, all words are read. What it says is of answers without an edit and
of means: an edit of a lower layer moves states away from those that it was measured on, and a
single token can be farther off.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from tqdm.auto import tqdm

from workbench.data.questions import QuestionSet, require_questions
from workbench.doors import door
from workbench.errors import WorkbenchError
from workbench.models.batched_passes import Look, Passage, run_passages
from workbench.models.identity import Model, shape_of
from workbench.models.logit_lens import logit_lens, unembedding
from workbench.models.passes import Place
from workbench.models.prompts import PromptFormat, encode, prompt_format
from workbench.models.tokens import require_batch_size
from workbench.stages.shortlists import Shortlists
from workbench.stages.uncertainty import in_blocks, normalised_entropy

LEAST_WORDS = 256
"""Of a list; fewer save nothing beside the rest of a layer's edit."""
LEVEL = 0.9
"""Share of new questions that a list is enough for: of 24 questions the second most demanding one
decides."""
MOST_QUESTIONS, MOST_POSITIONS = 48, 32
"""How many questions are read at most, and of each how many of its answers' positions, drawn: all
words at every layer are what a fit takes its time for, so that it pays for much use of an edit."""
COPIES = 4
"""Of a block's logits that are held at a time."""


@door
def fit_shortlists(
    model: Model,
    questions: QuestionSet,
    layers: Sequence[int] | None = None,
    tolerance: float = 0.005,
    *,
    level: float = LEVEL,
    most: int = MOST_QUESTIONS,
    style: str | PromptFormat = "bare",
    seed: int = 0,
    batch_size: int = 32,
    progress: bool = False,
) -> Shortlists:
    r"""The shortest lists of words that keep u within a tolerance.

    Args:
        model: the bridge.
        questions: training questions.
        layers: whose u is read; all by default.
        tolerance: how far u may be off on average over a question's answers.
        level: the share of new questions that it keeps to that on.
        most: how many of the questions are read, half of them to choose words, half to measure.
        style: prompt format.
        seed: draws the questions and their halves.
        batch_size: answers run together.
        progress: show a bar, which counts tokens.

    Returns:
        Lists that together hold no more words than the vocabulary: where they would, the longest,
        which save least, give way to all words. So they take no more memory than the unembedding.

    Raises:
        WorkbenchError: layers that the model does not have, numbers out of range, or fewer than
            two questions.

    Example:
        >>> lists = wb.stages.fit_shortlists(model, fold.train, edit.layers, 0.02, level=0.8)
        >>> from dataclasses import replace
        >>> quick = replace(edit, shortlists=lists)
        >>> wb.generate(model, "Q: What is the capital of Australia?\nA:", edit=quick)[0].text
        ' Canberra is the capital of Australia.'
    """
    require_questions(questions)
    require_batch_size(batch_size)
    count = shape_of(model).layers
    chosen = tuple(range(count)) if layers is None else tuple(sorted(set(layers)))
    _require(chosen, count, tolerance, level, min(len(questions), most))
    drawn = np.random.default_rng([seed, 3]).permutation(len(questions)).tolist()[:most]
    half = len(drawn) // 2
    if _rank(len(drawn) - half, level) is None:
        warnings.warn(
            f"{len(drawn) - half} questions to measure shortlists on are too few for level={level}"
            ": u is read off all words. A lower level or more questions make lists.",
            stacklevel=2,
        )
    read, vocabulary = logit_lens(model), len(unembedding(model)[0])
    entropy = torch.zeros(len(chosen), vocabulary, dtype=torch.float32)

    def add(place: int, residual: Tensor) -> Tensor:
        for rows in in_blocks(residual, COPIES * vocabulary):
            entropy[place] += torch.special.entr(read(rows).softmax(dim=-1)).sum(dim=0).cpu()
        return residual[:, 0]  # a value a row, which nobody reads

    form = prompt_format(style)
    looking = _Looking(model, questions, chosen, form, seed, batch_size, progress)
    looking.over(drawn[:half], add, "choose words")
    order = entropy.argsort(dim=1, descending=True, stable=True)
    sizes = _sizes(vocabulary)

    def off(place: int, residual: Tensor) -> Tensor:
        blocks = in_blocks(residual, COPIES * vocabulary)
        parts = [_errors(read(rows)[:, order[place].to(rows.device)], sizes) for rows in blocks]
        return torch.cat(parts).cpu()

    errors = looking.over(drawn[half:], off, "measure them")
    picked = _within(enough(errors, tolerance, level), sizes, vocabulary)
    counts = torch.tensor([*sizes, 0])[picked]
    kept = _ranked(torch.nn.functional.pad(errors, (0, 1)), level)
    return Shortlists(
        layers=torch.tensor(chosen),
        counts=counts,
        words=torch.cat([own[:n] for own, n in zip(order, counts.tolist(), strict=True)]),
        error=kept.gather(1, picked[:, None])[:, 0],
        tolerance=tolerance,
        level=level,
        vocabulary=vocabulary,
    )


def _require(
    layers: tuple[int, ...], count: int, tolerance: float, level: float, questions: int
) -> None:
    if not layers or not all(isinstance(n, int) and 0 <= n < count for n in layers):
        raise WorkbenchError(f"layers={list(layers)}", f"numbers from 0 to {count - 1}")
    if not 0 < tolerance < 1 or not 0 < level < 1 or questions < 2:
        raise WorkbenchError(
            f"tolerance={tolerance}, level={level} and {questions} questions",
            "numbers between 0 and 1, and two questions or more",
        )


def _sizes(vocabulary: int) -> list[int]:
    """Lengths of lists to choose from, powers of two up to half of the vocabulary."""
    sizes, size = [], LEAST_WORDS
    while size <= vocabulary // 2:
        sizes.append(size)
        size *= 2
    return sizes


def _errors(
    logits: Float[Tensor, "row vocabulary"], sizes: Sequence[int]
) -> Float[Tensor, "row size"]:
    """How far u of the first words alone is from that of all."""
    words = logits.shape[1]
    parts = [normalised_entropy(logits[:, :size], words) for size in sizes]
    parts.append(normalised_entropy(logits))
    u = torch.stack(parts, dim=1)
    return (u[:, :-1] - u[:, -1:]).abs()


def _within(
    picked: Int[Tensor, " layer"], sizes: Sequence[int], most: int
) -> Int[Tensor, " layer"]:
    """The same with the longest lists given up until no more than so many words are left."""
    counts = torch.tensor([*sizes, 0])[picked]
    longest_last = counts.sort(stable=True)
    given_up = longest_last.indices[longest_last.values.cumsum(dim=0) > most]
    return picked.index_fill(0, given_up, len(sizes))


@dataclass(frozen=True)
class _Looking:
    """Passes over answers to questions, and what is made of some layers' states there."""

    model: Model
    questions: QuestionSet
    layers: Sequence[int]
    style: PromptFormat
    seed: int
    batch_size: int
    progress: bool

    def over(
        self, numbers: Sequence[int], look: Callable[[int, Tensor], Tensor], what: str
    ) -> Float[Tensor, "layer question *width"]:
        """Means of what is made of a layer's states over positions of a question's answers.

        Args:
            numbers: of the questions.
            look: makes something of a layer, by its place, and rows of states.
            what: is done, for the bar.
        """
        passages, question = [], []
        for place, number in enumerate(numbers):
            own = self._passages(number)
            passages += own
            question += [place] * sum(len(passage.span) for passage in own)
        of = torch.tensor(question)
        looks: dict[Place, Look] = {
            ("resid_pre", layer): partial(look, place) for place, layer in enumerate(self.layers)
        }
        total: dict[int, Tensor] = {}
        tokens = sum(len(passage.tokens) for passage in passages)
        with tqdm(
            total=tokens, desc=what, unit="token", unit_scale=True, disable=not self.progress,
            leave=False,
        ) as bar:  # fmt: skip
            for batch in run_passages(self.model, passages, self.batch_size, looks):
                for (_, layer), values in batch.seen.items():
                    found = total.setdefault(
                        layer, torch.zeros(len(numbers), *values.shape[1:], dtype=torch.float32)
                    )
                    found.index_add_(0, of[batch.place], values.float().cpu())
                bar.update(batch.tokens)
        means = torch.stack([total[layer] for layer in self.layers])
        count = torch.bincount(of, minlength=len(numbers))
        return means / count.reshape(-1, *[1] * (means.dim() - 2))

    def _passages(self, number: int) -> list[Passage]:
        """A question's answers, each with those of its positions that are drawn."""
        asked = self.questions[number]
        texts = [encode(self.model, asked.question, a, self.style) for a in asked.answers]
        places = [
            (text, position)
            for text, encoded in enumerate(texts)
            for position in range(encoded.start - 1, len(encoded.tokens))
        ]
        beginnings = [tuple(texts[text].tokens[: position + 1]) for text, position in places]
        places = list(dict(zip(beginnings, places, strict=True)).values())  # each of them once
        draw = np.random.default_rng([self.seed, 4, number])
        if len(places) > MOST_POSITIONS:
            kept = sorted(draw.choice(len(places), MOST_POSITIONS, replace=False).tolist())
            places = [places[place] for place in kept]
        spans: dict[int, list[int]] = {}
        for text, position in places:
            spans.setdefault(text, []).append(position)
        return [Passage(texts[text].tokens, span) for text, span in spans.items()]


def enough(
    errors: Float[Tensor, "layer question size"], tolerance: float, level: float
) -> Int[Tensor, " layer"]:
    """Which size a share `level` of new questions keep to the tolerance at; one more for none.

    A question needs the size after the last whose error is not within the tolerance: so nothing is
    assumed of how errors fall with sizes, and a question's need is one number, of which the
    conformal quantile holds whatever size it picks.
    """
    place = torch.arange(1, errors.shape[2] + 1, device=errors.device)
    above = torch.nn.functional.pad(~(errors <= tolerance) * place, (1, 0))
    return _ranked(above.amax(dim=2, keepdim=True), level, errors.shape[2])[:, 0]


def _ranked(
    values: Shaped[Tensor, "layer question setting"], level: float, beyond: int = 0
) -> Shaped[Tensor, "layer setting"]:
    """The ⌈(n + 1)·level⌉-th smallest of n questions' values; `beyond` if there is none."""
    rank = _rank(values.shape[1], level)
    if rank is None:
        return torch.full_like(values[:, 0], beyond)
    return values.sort(dim=1).values[:, rank - 1]


def _rank(count: int, level: float) -> int | None:
    """⌈(n + 1)·level⌉; None if it is more than n."""
    rank = math.ceil((count + 1) * level)
    return None if rank > count else rank
