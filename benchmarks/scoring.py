"""A multiple-choice study: 36 settings of an edit, a few-shot primer, every answer scored.

The published procedure runs the whole prompt, primer and question included, once for each answer
and setting. Here it is given the same unwrapped model, the same attention and the same edits, so
that only what is shared differs. The second study has answers without common beginnings.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.case import Result, gemm_rate, once, report, require
from workbench.data.questions import Question, QuestionSet
from workbench.data.sources import load_questions
from workbench.editing import token_scores
from workbench.editing.attaching import edited
from workbench.editing.head_edits import Edit
from workbench.editing.scoring import AnswerScore, score_under
from workbench.editing.strengths import Estimators
from workbench.hearsay.corpus import plain_documents
from workbench.methods.token_aware import TokenAware
from workbench.models import prefixes
from workbench.models.identity import Model
from workbench.models.loading import load_model
from workbench.models.passes import forward
from workbench.models.prompts import PromptFormat, encode, prompt_format
from workbench.models.tokens import tokenize

PRIMER = 250


def settings(model: Model, train: QuestionSet) -> list[Edit]:
    """Six numbers of heads by six strengths, from one fit."""
    whole = TokenAware(heads=32).fit(model, train, progress=False)
    estimators: Any = whole.estimators
    return [
        replace(
            whole, heads=whole.heads[:heads], alpha=alpha,
            direction=whole.direction[:heads], spread=whole.spread[:heads],
            estimators=Estimators(estimators.coefficient[:heads], estimators.intercept[:heads]),
        )
        for heads in (4, 8, 12, 16, 24, 32)
        for alpha in (0.25, 0.5, 1.0, 1.5, 2.0, 2.5)
    ]  # fmt: skip


def with_primer(model: Model) -> PromptFormat:
    """The bare format behind a primer of 250 tokens."""
    text = ""
    for document in plain_documents(60, seed=1):
        ids, offsets = tokenize(model, text + document + "\n")
        text += document + "\n"
        if len(ids) >= PRIMER:
            return replace(prompt_format("bare"), name="primed", primer=text[: offsets[PRIMER][0]])
    raise SystemExit("too few documents for a primer")


def without_common_beginnings(questions: QuestionSet) -> QuestionSet:
    """The same questions with six answers each that begin differently."""
    number = count()

    def line() -> str:
        words = plain_documents(1, seed=1000 + next(number))[0].split()[-8:]
        return f"{next(number)} " + " ".join(words)

    return QuestionSet(
        tuple(
            Question(q.question, answers[0], answers[:3], answers[3:])
            for q in questions
            for answers in [tuple(line() for _ in range(6))]
        )
    )


def one_by_one(
    model: Model, questions: QuestionSet, edits: list[Edit], style: PromptFormat
) -> Iterator[list[torch.Tensor]]:
    """Every answer of every question under every edit, each in a pass of its own."""
    encoded = [encode(model, q.question, a, style) for q in questions for a in q.answers]
    for edit in edits:
        found = []
        for one in encoded:
            tokens = torch.tensor([one.tokens])
            begin = one.start - 1
            with edited(model, edit, start=begin, site="module", record=False):
                logits, _ = forward(model, tokens, torch.ones_like(tokens))
            nats = logits[0, begin:-1].float().log_softmax(dim=-1)
            found.append(nats.gather(1, tokens[0, one.start :, None])[:, 0])
        yield found


def difference(shared: list[list[AnswerScore]], apart: list[list[torch.Tensor]]) -> float:
    """Largest absolute difference of a token's log-probability."""
    return max(
        float((score.tokens - nats).abs().max())
        for mine, own in zip(shared, apart, strict=True)
        for score, nats in zip(mine, own, strict=True)
    )


@contextmanager
def tokens_run() -> Iterator[list[int]]:
    """The numbers of tokens in the passes of a block; a hook on the model would stop sharing."""
    found: list[int] = []

    def noting(own: Model, tokens: torch.Tensor, *args: Any, **settings: Any) -> Any:
        found.append(tokens.numel())
        return forward(own, tokens, *args, **settings)

    with patch.object(token_scores, "forward", noting), patch.object(prefixes, "forward", noting):
        yield found


def study(
    model: Model, precise: Model, questions: QuestionSet, edits: list[Edit], style: PromptFormat,
    what: str, target: float | None,
) -> Result:  # fmt: skip
    """Time both ways and compare every log-probability."""
    score_under(model, questions.choose([0]), edits, style=style)
    shared = []
    with tokens_run() as run:
        fast = once(lambda: shared.extend(score_under(model, questions, edits, style=style)))
    apart: list[list[torch.Tensor]] = []
    slow = once(lambda: apart.extend(one_by_one(model, questions, edits, style)))
    single = difference(shared, apart)
    few, some = questions.choose([0]), edits[::7]
    alone, exact = (list(one_by_one(m, few, some, style)) for m in (model, precise))
    double = difference(score_under(precise, few, some, style=style), exact)
    noise = max(
        float((a - b).abs().max())
        for one, other in zip(alone, exact, strict=True)
        for a, b in zip(one, other, strict=True)
    )
    require(double < 1e-5, f"by {double:.1e} of a nat in double precision")
    require(single < 5e-4, f"by {single:.1e} of a nat in single precision")
    parameters = sum(p.numel() for p in model.original_model.parameters())
    lens = 2 * int(model.cfg.d_vocab) * int(model.cfg.d_model)
    work = sum(run) * (2 * parameters + int(model.cfg.n_layers) * lens)
    whole = sum(map(len, _whole(model, questions, style))) * len(edits)
    return Result(
        what, "every answer and setting in a pass of its own", slow, fast,
        f"{sum(run):,} tokens run instead of {whole:,}; "
        f"{work / 1e9:.0f} GFLOP with the logit lens",
        work / gemm_rate(),
        f"a token's log-probability: within {double:.0e} nat in float64; {single:.0e} in float32, "
        f"where single runs are {noise:.0e} off themselves", target=target,
    )  # fmt: skip


def _whole(model: Model, questions: QuestionSet, style: PromptFormat) -> list[tuple[int, ...]]:
    return [encode(model, q.question, a, style).tokens for q in questions for a in q.answers]


def main() -> None:
    """Both studies on held-out hearsay questions."""
    model = load_model("hearsay", device="cpu")
    precise = load_model("hearsay", dtype="float64", device="cpu")
    fold = load_questions("hearsay").folds(2)[0]
    edits = settings(model, fold.train.choose(range(40)))
    style = with_primer(model)
    report(
        study(
            model, precise, fold.test.choose(range(4)), edits, style,
            "36-setting multiple choice, 250-token primer, 6 questions x 10 answers (hearsay)", 25,
        ),
        study(
            model, precise, without_common_beginnings(fold.test.choose(range(4))), edits, style,
            "the same with 6 answers a question that have no common beginnings", None,
        ),
    )  # fmt: skip


if __name__ == "__main__":
    main()
