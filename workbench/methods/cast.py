"""CAST: another method's edit acts on the answers to those prompts that meet a condition.

The condition compares the state h at the last prompt token of one layer with its projection on a
vector c: cos(h, tanh(c (c·h) / (c·c))) above, or not above, a threshold. c is the first principal
component of the states of two kinds of prompts, each pair of which is centred; layer, threshold and
side are those that tell the kinds apart best by F1. Lee et al. 2025, "Programming Refusal with
Conditional Activation Steering" (ICLR 2025, arXiv 2409.05907), section 3. There the kinds are
harmful and harmless prompts, and h is a mean over the prompt's tokens; here they are training
questions to which the unedited model finds an incorrect answer likelier than all correct ones, and
the others, and h is at the last token, as the authors' code allows too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.data.questions import QuestionSet, require_questions
from workbench.doors import door_of_class
from workbench.editing.conditions import Condition, Conditional, similarity
from workbench.editing.scoring import score
from workbench.errors import WorkbenchError
from workbench.methods.around import AroundMethod
from workbench.methods.memo import Memo
from workbench.methods.registry import METHODS
from workbench.models.batched_passes import Passage, states_at
from workbench.models.identity import Model
from workbench.models.passes import Place
from workbench.models.prompts import encode, prompt_format


@METHODS.register("cast", about="CAST: another method's edit, on prompts that meet a condition")
@door_of_class
@dataclass(frozen=True, kw_only=True)
class ConditionalSteering(AroundMethod):
    """Settings of a fit.

    Attributes:
        alpha: factor of the other method's change; its own α stays as it is.
        of: the method whose edit is used; see `AroundMethod`.
        style, shuffle_labels, seed, batch_size: see `Method`; with shuffled labels, which questions
            the model gets wrong is permuted too.

    Example:
        >>> caa = wb.methods.ContrastiveAddition(layer=2)
        >>> cast = wb.methods.ConditionalSteering(of=caa).fit(model, fold.train, progress=False)
        >>> cast.inner
        AddedVector(resid_post of hearsay, layers (2,), alpha=1)
    """

    def fit(
        self,
        model: Model,
        train: QuestionSet,
        *,
        everything: QuestionSet | None = None,
        memo: Memo | None = None,
        progress: bool = True,
    ) -> Conditional:
        """Fit the other method, then the condition; see `Method.fit`.

        Raises:
            WorkbenchError: the model gets all training questions wrong, or none; or the other
                method edits before the first block has run.
        """
        require_questions(train)
        inner = self.fit_inner(model, train, everything, memo, progress=progress)
        points = {point for point, layer in inner.places if layer == min(inner.layers)}
        last = min(inner.layers) - (not points <= {"resid_post", "final_norm"})
        if last < 0:
            raise WorkbenchError(
                f"a condition of {inner!r}", "an edit that leaves the first layer alone",
                "The condition is read off a layer that has run before.",
            )  # fmt: skip
        memo = memo or Memo()
        key = (train, self.style)
        wrong = memo.get("wrong answers", key, lambda: self._wrong(model, train))
        if self.shuffle_labels:
            order = np.random.default_rng([self.seed, 9]).permutation(len(wrong))
            wrong = wrong[torch.from_numpy(order)]
        if bool(wrong.all()) or not bool(wrong.any()):
            raise WorkbenchError(
                f"{int(wrong.sum())} of {len(wrong)} training questions that the model gets wrong",
                "some, and not all: the condition tells them from the others",
            )
        states = memo.get("prompt states", key, lambda: self._states(model, train))
        condition = best_condition(states[: last + 1], wrong)
        return Conditional(
            places=inner.places, inner=inner, condition=condition, alpha=self.alpha,
            answer_start=inner.answer_start, model=inner.model,
            settings={**asdict(self), **self.told(inner), "method": "cast"},
        )  # fmt: skip

    def _wrong(self, model: Model, train: QuestionSet) -> Bool[Tensor, " question"]:
        """Whether the unedited model finds an incorrect answer the likeliest."""
        best = torch.full((len(train), 2), -torch.inf, dtype=torch.float64)
        for one in score(model, train, style=self.style, batch_size=self.batch_size):
            best[one.question, one.label] = max(float(best[one.question, one.label]), one.total)
        return best[:, 0] > best[:, 1]

    def _states(self, model: Model, train: QuestionSet) -> Float[Tensor, "layer question d_model"]:
        """At the last token of every question's prompt."""
        style = prompt_format(self.style)
        passages = []
        for question in train:
            tokens = encode(model, question.question, None, style).tokens
            passages.append(Passage(tokens, range(len(tokens) - 1, len(tokens))))
        layers = len(model.blocks)
        places: list[Place] = [("resid_post", layer) for layer in range(layers)]
        found = states_at(model, passages, places, self.batch_size)
        return torch.stack([found[place] for place in places])


def best_condition(
    states: Float[Tensor, "layer prompt d_model"], wanted: Bool[Tensor, " prompt"]
) -> Condition:
    """The condition of the highest F1, the first of equals.

    Args:
        states: of prompts, at every layer that comes into question.
        wanted: prompts that are to meet it.
    """
    found, highest = None, -1.0
    for layer, own in enumerate(states):
        vector = contrast(own[wanted], own[~wanted])
        similar = similarity(own, vector)
        order = torch.tensor(sorted(set(similar.tolist())), dtype=similar.dtype)
        cuts = torch.cat([order[:1] - 1, (order[1:] + order[:-1]) / 2, order[-1:] + 1])
        over = similar[None] > cuts[:, None]
        for above in (True, False):
            f1 = f_one(over if above else ~over, wanted)
            best = int(f1.argmax())
            if float(f1[best]) > highest:
                highest = float(f1[best])
                found = Condition(layer, vector, float(cuts[best]), above)
    if found is None:
        raise WorkbenchError("no layers", "states of at least one")
    return found


def contrast(
    wanted: Float[Tensor, "one d_model"], others: Float[Tensor, "other d_model"]
) -> Float[Tensor, " d_model"]:
    """The first principal component of pairs of states, each pair centred by itself.

    The shorter side is repeated in turn.
    """
    count = max(len(wanted), len(others))
    number = torch.arange(count)
    apart = (wanted[number % len(wanted)] - others[number % len(others)]).double() / 2
    # A pair's two centred states are ± half its difference: their scatter is that of `apart`.
    axes: Tensor = torch.linalg.eigh(apart.T @ apart).eigenvectors
    return axes[:, -1].float()


def f_one(
    met: Bool[Tensor, "threshold prompt"], wanted: Bool[Tensor, " prompt"]
) -> Float[Tensor, " threshold"]:
    """2·hits / (met + wanted), 0 where nothing is met."""
    hits = (met & wanted).sum(dim=1)
    either = met.sum(dim=1) + wanted.sum()
    return hits.mul(2).div(either)
