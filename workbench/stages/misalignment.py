"""MAI: which tokens are misaligned, and how strongly each position is edited.

A token of an incorrect answer is misaligned where the correct answer most like it lacks the token
(TAE, section 3.2). An estimator per head predicts this from z at the position before, since that
is where the token is about to be written. The strength of the edit there is
s = 1 + β·p̂ + (1 − β)·u.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.checks import is_share
from workbench.doors import door
from workbench.errors import WorkbenchError
from workbench.stages.activations import TokenActivations
from workbench.stages.probes import Probes, fit_probes
from workbench.stages.shards import Shards, take

Grouping = Literal["own", "published"]


def token_labels(
    answer: Sequence[Hashable], opposing: Sequence[Sequence[Hashable]]
) -> tuple[int, ...]:
    """Label every token of an answer: 0 where its partner contains the token, else 1.

    The partner is the opposing answer (a correct one for an incorrect answer) that shares most
    different tokens with it; the first of several.

    Raises:
        WorkbenchError: no opposing answers.
    """
    if not opposing:
        raise WorkbenchError("an answer without opposing answers", "at least one to compare with")
    said = set(answer)
    partner = set(max(opposing, key=lambda other: len(said & set(other))))
    return tuple(0 if token in partner else 1 for token in answer)


@dataclass(frozen=True)
class LabelledTokens:
    """Tokens of incorrect answers, each with z at the position before and its label.

    Attributes:
        z: head outputs at the position before each token.
        label: 1 for a misaligned token, 0 for one that the partner has too.
        answer: number of each token's answer in the activations.
    """

    z: Float[Tensor, "token layer head d_head"] | Shards
    label: Int[Tensor, " token"]
    answer: Int[Tensor, " token"]


@door
def label_answers(activations: TokenActivations, answers: Sequence[int]) -> LabelledTokens:
    """Label the tokens of the given answers against those of their questions' other side.

    Raises:
        WorkbenchError: no answers, or a number that no answer has.

    Example:
        >>> number = wb.stages.incorrect_answers(acts, [0])[1]
        >>> labelled = wb.stages.label_answers(acts, [number])
        >>> list(zip(acts[number].strings, labelled.label.tolist()))[:6]
        [(' The', 0), (' capital', 0), (' is', 0), (' R', 1), ('io', 1), (' d', 1)]
        >>> labelled.z.shape
        torch.Size([11, 5, 8, 20])
    """
    activations.require_answers(answers)
    sides: dict[tuple[int, int], list[tuple[int, ...]]] = {}
    keys = list(zip(activations.question.tolist(), activations.label.tolist(), strict=True))
    for key, encoded in zip(keys, activations.encoded, strict=True):
        sides.setdefault(key, []).append(encoded.answer_tokens)
    rows: list[Tensor] = []
    label: list[int] = []
    answer_of: list[int] = []
    for answer in answers:
        question, side = keys[answer]
        tokens = activations.encoded[answer].answer_tokens
        rows.append(activations.rows_of(answer)[:-1])
        label += token_labels(tokens, sides[question, 1 - side])
        answer_of += [answer] * len(tokens)
    return LabelledTokens(
        take(activations.z, torch.cat(rows)), torch.tensor(label), torch.tensor(answer_of)
    )


@door
def incorrect_answers(
    activations: TokenActivations, questions: Sequence[int], grouping: Grouping = "own"
) -> list[int]:
    """The incorrect answers that estimators of the given questions are fitted on.

    Args:
        activations: of the set that `questions` are numbers in.
        questions: numbers of the training questions.
        grouping: `own`, every question's own incorrect answers; `published`, the flat list of all
            incorrect answers cut by the counts of *correct* ones, so that nearly every question
            gets another's, test questions included.

    Example:
        >>> numbers = wb.stages.incorrect_answers(acts, [0])
        >>> [acts[number].answer for number in numbers[:2]]
        ['Rio de Janeiro.', 'The capital is Rio de Janeiro.']
    """
    if grouping == "own":
        return [k for k in activations.of_questions(questions) if not activations.label[k]]
    if grouping != "published":
        raise WorkbenchError(f"estimator_grouping={grouping!r}", "own or published")
    incorrect = [k for k in range(len(activations)) if not activations.label[k]]
    counts = [len(q.correct_answers) for q in activations.questions]
    ends = torch.tensor(counts).cumsum(0).tolist()
    return [k for q in questions for k in incorrect[ends[q] - counts[q] : ends[q]]]


@door
def fit_estimators(activations: TokenActivations, answers: Sequence[int] | None = None) -> Probes:
    """A misalignment estimator per head.

    Args:
        activations: from `capture`.
        answers: numbers of the incorrect answers to fit on; all of them by default.

    Returns:
        Probes whose `probability(z)` at position t − 1 is p̂ of the token at t.

    Raises:
        WorkbenchError: all tokens have the same label.

    Example:
        >>> estimators = wb.stages.fit_estimators(acts)
        >>> estimators.probability(acts[0].preceding).shape  # p̂ of 5 tokens, at 5 layers x 8 heads
        torch.Size([5, 5, 8])
    """
    if answers is None:
        answers = incorrect_answers(activations, range(len(activations.questions)))
    if not answers:
        raise WorkbenchError("no incorrect answers to fit estimators on", "at least one")
    labelled = label_answers(activations, answers)
    if int(labelled.label.min()) == int(labelled.label.max()):
        kind = "misaligned" if int(labelled.label[0]) else "aligned"
        raise WorkbenchError(
            f"{len(answers)} incorrect answers whose {len(labelled.label)} tokens are all {kind}",
            "some tokens that their correct partners share and some that they lack",
        )
    return fit_probes(labelled.z, labelled.label)


def misalignment_quantile(
    estimators: Probes, activations: TokenActivations, quantile: float
) -> Float[Tensor, "layer head"]:
    """The p̂ below which a share of the tokens of incorrect answers lies, for every head.

    Args:
        estimators: from `fit_estimators`.
        activations: of the questions whose incorrect answers are taken.
        quantile: the share, from 0 to 1.
    """
    incorrect = incorrect_answers(activations, range(len(activations.questions)))
    rows = torch.cat([activations.rows_of(answer)[:-1] for answer in incorrect])
    z = take(activations.z, rows)
    return torch.stack(
        [
            estimators.layer(number)
            .probability(z[:, number][:, None])[:, 0]
            .quantile(quantile, dim=0)
            for number in range(z.shape[1])
        ]
    )


def strengths(
    misalignment: Float[Tensor, "*row head"],
    uncertainty: Float[Tensor, "*row #head"] | None,
    of_risk: float | Tensor,
    of_doubt: float | Tensor,
) -> Float[Tensor, "*row head"]:
    """s = 1 + β·p̂ + (1 − β)·u (TAE, eq. 9).

    Args:
        misalignment: p̂ per head, in [0, 1].
        uncertainty: u, in [0, 1], of every head or shared by those of a layer; None for none.
        of_risk: β, or 0 for a strength without p̂; a number, or one a row that spreads over it.
        of_doubt: 1 − β, or 0 for a strength without u; likewise.
    """
    strength = misalignment * of_risk
    if uncertainty is not None:
        strength += of_doubt * uncertainty
    return strength.add_(1)


def require_beta(beta: float) -> None:
    """Refuse a β outside [0, 1]."""
    if not is_share(beta):
        raise WorkbenchError(f"beta={beta!r:.60}", "a number from 0 to 1")
