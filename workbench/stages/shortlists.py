"""Shortlists: at a given layer the logit lens spreads over few words, and u needs no others.

Exactly, u costs 2·V·d operations and V·d weights for every token and edited layer: at SmolLM2's
49,152 words x 576 a fifth of the model's own pass, at the 262,144 words of others several passes.
But what a layer's lens says of *any* text is nearly always among the same few words: at SmolLM2's
middle layers all but a thousandth of the probability lies on 1,024 words. So u is read
off a list of words of each layer, as if there were no others.

The words of a list are those with most entropy, −p log p summed over the answers of one half of
some training questions. How long a list must be is measured on the other half, by split-conformal
prediction (Vovk et al. 2005): each of n questions needs a length, that from which on the mean error
of u over its answers keeps to a tolerance; the ⌈(n + 1)·level⌉-th smallest of these is enough for a
new question drawn like them with probability `level` or more, at each layer by itself. Lengths are
doubled up to half of the vocabulary; where that is not enough, all words are read. An edit of a
lower layer moves states away from those that this was measured on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from workbench.data.questions import QuestionSet, require_questions
from workbench.errors import WorkbenchError
from workbench.models.batched_passes import Look, Passage, run_passages
from workbench.models.identity import Model, shape_of
from workbench.models.logit_lens import logit_lens
from workbench.models.passes import Place
from workbench.models.prompts import PromptFormat, encode, prompt_format
from workbench.models.tokens import require_batch_size
from workbench.stages.uncertainty import in_blocks

LEAST_WORDS = 256
"""Of a list; fewer save nothing beside the rest of a layer's edit."""
LEVEL = 0.9
"""Share of new questions that a list is enough for: of 24 questions the second most demanding one
decides."""
MOST_QUESTIONS = 48
"""How many are read at most, with all words: some 4,000 positions of TruthfulQA."""


@dataclass(frozen=True, eq=False, repr=False)
class Shortlists:
    """The words that u is read off, layer by layer.

    Attributes:
        layers: that have been looked at, ascending.
        counts: how many words each has; 0 where all are read.
        words: token ids, layer after layer, those with most entropy first.
        error: for each layer, the mean error of u over a question's answers that a share `level` of
            the held-back questions keeps to; 0 where all words are read.
        tolerance: what a new question's error keeps to with probability `level` or more.
        level: that probability.
        vocabulary: how many words there are.

    Example:
        >>> lists = wb.stages.fit_shortlists(model, fold.train, [1, 2], tolerance=0.01)
        >>> lists.layers.tolist(), bool((lists.error <= 0.01).all())
        ([1, 2], True)
    """

    layers: Int[Tensor, " layer"]
    counts: Int[Tensor, " layer"]
    words: Int[Tensor, " word"]
    error: Float[Tensor, " layer"]
    tolerance: float
    level: float
    vocabulary: int

    def __repr__(self) -> str:
        read = torch.where(self.counts == 0, self.vocabulary, self.counts)
        return (
            f"Shortlists({len(self.layers)} layers, {int(read.min()):,} to {int(read.max()):,} of "
            f"{self.vocabulary:,} words, u within {self.tolerance:g} on average with probability "
            f"{self.level:g})"
        )

    def of(self, layer: int) -> Int[Tensor, " word"] | None:
        """The words of a layer; None for all."""
        place = self.layers.tolist().index(layer)
        own = torch.split(self.words, self.counts.tolist())[place]
        return own if len(own) else None

    def require_for(self, layers: Sequence[int], vocabulary: int) -> None:
        """Refuse lists that lack one of some layers, or are of another vocabulary."""
        missing = set(layers) - set(self.layers.tolist())
        known = bool(((self.words >= 0) & (self.words < vocabulary)).all())
        whole = len(self.counts) == len(self.layers) and int(self.counts.sum()) == len(self.words)
        if missing or not known or not whole or self.vocabulary != vocabulary:
            raise WorkbenchError(
                f"shortlists of the layers {self.layers.tolist()} and {self.vocabulary} words",
                f"those of the edited layers {tuple(layers)}, of {vocabulary} words",
                "fit_shortlists(model, questions, edit.layers) makes them.",
            )


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

    Raises:
        WorkbenchError: layers that the model does not have, numbers out of range, or fewer than
            two questions.

    Example:
        >>> lists = wb.stages.fit_shortlists(model, fold.train, edit.layers, tolerance=0.01)
        >>> from dataclasses import replace
        >>> quick = replace(edit, shortlists=lists)
        >>> wb.generate(model, "Q: What is the capital of Australia?\nA:", edit=quick)[0].text
        ' Canberra is the capital of Australia.'
    """
    require_questions(questions)
    require_batch_size(batch_size)
    shape = shape_of(model)
    chosen = tuple(range(shape.layers)) if layers is None else tuple(sorted(set(layers)))
    _require(chosen, shape.layers, tolerance, level, min(len(questions), most))
    drawn = np.random.default_rng([seed, 3]).permutation(len(questions)).tolist()[:most]
    half = len(drawn) // 2
    read = logit_lens(model)
    entropy = torch.zeros(len(chosen), shape.vocabulary)

    def add(place: int, residual: Tensor) -> Tensor:
        for rows in in_blocks(residual, shape.vocabulary):
            entropy[place] += torch.special.entr(read(rows).softmax(dim=-1)).sum(dim=0).cpu()
        return residual[:, 0]  # a value a row, which nobody reads

    _look(model, questions, drawn[:half], chosen, style, batch_size, add)
    order = entropy.argsort(dim=1, descending=True, stable=True)
    sizes = _sizes(shape.vocabulary)

    def off(place: int, residual: Tensor) -> Tensor:
        blocks = in_blocks(residual, shape.vocabulary)
        parts = [_errors(read(rows)[:, order[place].to(rows.device)], sizes) for rows in blocks]
        return torch.cat(parts).cpu()

    errors = _look(model, questions, drawn[half:], chosen, style, batch_size, off)
    picked = enough(errors, tolerance, level)
    counts = torch.tensor([*sizes, 0])[picked]
    kept = _ranked(torch.nn.functional.pad(errors, (0, 1)), level)
    return Shortlists(
        layers=torch.tensor(chosen),
        counts=counts,
        words=torch.cat([own[:n] for own, n in zip(order, counts.tolist(), strict=True)]),
        error=kept.gather(1, picked[:, None])[:, 0],
        tolerance=tolerance,
        level=level,
        vocabulary=shape.vocabulary,
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
    """Lengths of lists to choose from: doubled up to half of the vocabulary."""
    doublings = int(math.log2(max(1.0, vocabulary / (2 * LEAST_WORDS))))
    return [LEAST_WORDS << n for n in range(doublings + 1) if LEAST_WORDS << n <= vocabulary // 2]


def _errors(
    logits: Float[Tensor, "row vocabulary"], sizes: Sequence[int]
) -> Float[Tensor, "row size"]:
    """How far u of the first words alone, renormalised, is from that of all.

    With P the first words' share of the probability and E the sum of their −p log p, the entropy
    of p/P is E/P + log P.
    """
    edges = [0, *sizes, logits.shape[1]]
    probability = logits.softmax(dim=-1)
    widths = [after - before for before, after in pairwise(edges)]

    def up_to(values: Tensor) -> Tensor:
        parts = torch.split(values, widths, dim=1)
        return torch.stack([part.sum(dim=1) for part in parts], dim=1).cumsum(dim=1)

    share = up_to(probability).clamp_(min=torch.finfo(torch.float32).tiny)
    entropy = up_to(torch.special.entr(probability)) / share + share.log()
    u = (entropy / math.log(logits.shape[1])).clamp_(0, 1)
    return (u[:, :-1] - u[:, -1:]).abs()


def _look(
    model: Model,
    questions: QuestionSet,
    numbers: Sequence[int],
    layers: Sequence[int],
    style: str | PromptFormat,
    batch_size: int,
    look: Callable[[int, Tensor], Tensor],
) -> Float[Tensor, "layer question *width"]:
    """Means over the positions of each question's answers of what is made of a layer's states."""
    chosen = prompt_format(style)
    passages, question = [], []
    for place, number in enumerate(numbers):
        for answer in questions[number].answers:
            encoded = encode(model, questions[number].question, answer, chosen)
            passages.append(Passage(encoded.tokens, range(encoded.start - 1, len(encoded.tokens))))
            question += [place] * len(passages[-1].span)
    asked = torch.tensor(question)
    looks: dict[Place, Look] = {
        ("resid_pre", layer): partial(look, place) for place, layer in enumerate(layers)
    }
    total: dict[int, Tensor] = {}
    for batch in run_passages(model, passages, batch_size, looks):
        for (_, layer), values in batch.seen.items():
            found = total.setdefault(layer, torch.zeros(len(numbers), *values.shape[1:]))
            found.index_add_(0, asked[batch.place], values.float().cpu())
    means = torch.stack([total[layer] for layer in layers])
    count = torch.bincount(asked, minlength=len(numbers))
    return means / count.reshape(-1, *[1] * (means.dim() - 2))


def enough(
    errors: Float[Tensor, "layer question size"], tolerance: float, level: float
) -> Int[Tensor, " layer"]:
    """Which size a share `level` of new questions keep to the tolerance at; one more for none.

    A question needs the size after the last whose error is above the tolerance: so nothing is
    assumed of how errors fall with sizes, and a question's need is one number, of which the
    conformal quantile holds whatever size it picks.
    """
    place = torch.arange(1, errors.shape[2] + 1, device=errors.device)
    above = torch.nn.functional.pad((errors > tolerance) * place, (1, 0))
    return _ranked(above.amax(dim=2, keepdim=True), level, errors.shape[2])[:, 0]


def _ranked(
    values: Shaped[Tensor, "layer question setting"], level: float, beyond: int = 0
) -> Shaped[Tensor, "layer setting"]:
    """The ⌈(n + 1)·level⌉-th smallest of n questions' values; `beyond` if there is none."""
    rank = math.ceil((values.shape[1] + 1) * level)
    if rank > values.shape[1]:
        return torch.full_like(values[:, 0], beyond)
    return values.sort(dim=1).values[:, rank - 1]
