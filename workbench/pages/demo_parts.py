"""The steps of a demo: how strong to edit, which answers to show, and the figures of a fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

import torch

from workbench import plots
from workbench.data.ground_truth import ground_truth_of
from workbench.data.questions import Fold, QuestionSet
from workbench.editing.attaching import edited
from workbench.editing.generation import generate
from workbench.editing.head_edits import Edit
from workbench.editing.interventions import require_one_of
from workbench.editing.scoring import AnswerScore, score_under
from workbench.editing.trace import TokenTrace
from workbench.evaluation.metrics.ground_truth import verdict_of
from workbench.evaluation.metrics.truth import multiple_choice
from workbench.methods.token_aware import TokenAware
from workbench.models.identity import Model
from workbench.models.prompts import encode, prompt_format
from workbench.stages.activations import TokenActivations
from workbench.stages.aggregation import aggregate
from workbench.stages.directions import fit_directions
from workbench.stages.token_graph import token_graph

if TYPE_CHECKING:
    import plotly.graph_objects as go

Criterion = Literal["says_truth", "mc2"]


@dataclass(frozen=True)
class Example:
    """A question answered before and after the edit.

    Attributes:
        question: the question.
        before, after: the greedy answers.
        verdicts: what each states; "" where nobody can tell.
        trace: what the edit did while the second was written.
    """

    question: str
    before: str
    after: str
    verdicts: tuple[str, str]
    trace: TokenTrace


def choose_alpha(
    model: Model,
    method: TokenAware,
    activations: TokenActivations,
    alphas: Sequence[float],
    criterion: Criterion = "says_truth",
    *,
    max_new_tokens: int = 32,
) -> float:
    """The α that serves held-back training questions best.

    The method is fitted on the other training questions; the smallest of equally good ones wins.

    Args:
        model: the bridge.
        method: whose α is chosen.
        activations: of the training questions.
        alphas: to choose from; a single one is taken as it is.
        criterion: how often greedy answers state the truth, for hearsay's questions, or MC2.
        max_new_tokens: length of greedy answers.
    """
    require_one_of("criterion", criterion, Criterion)
    if len(alphas) == 1:
        return alphas[0]
    train = activations.questions
    held = train.validation_mask(method.validation_share, method.seed)
    rest = activations.choose([number for number, out in enumerate(held) if not out])
    asked = train.choose([number for number, out in enumerate(held) if out])
    edit = method.fit(model, rest.questions, activations=rest, progress=False)
    ordered = sorted(alphas)
    edits = [edit.scaled(alpha) for alpha in ordered]
    if criterion == "mc2":
        scores = score_under(model, asked, edits, style=method.style)
        reached = [mean_mc2(asked, own) for own in scores]
    else:
        prompts = prompts_of(model, asked, method)
        reached = []
        for one in edits:
            said = generate(model, prompts, edit=one, max_new_tokens=max_new_tokens)
            verdicts = [verdict(q.question, s.text) for q, s in zip(asked, said, strict=True)]
            reached.append(verdicts.count("truth"))
    return ordered[reached.index(max(reached))]


def mean_mc2(questions: QuestionSet, scores: Sequence[AnswerScore]) -> float:
    """MC2 of scored answers, the mean over the questions."""
    own: list[list[AnswerScore]] = [[] for _ in questions]
    for score in scores:
        own[score.question].append(score)
    return fmean(
        multiple_choice([s.total for s in mine if s.label], [s.total for s in mine if not s.label],
                        0).mc2
        for mine in own
    )  # fmt: skip


def prompts_of(
    model: Model, questions: Sequence[Any] | QuestionSet, method: TokenAware
) -> list[Any]:
    """The prompts of some questions in a method's style."""
    style = prompt_format(method.style)
    return [encode(model, one.question, style=style) for one in questions]


def verdict(question: str, answer: str) -> str:
    """What an answer states; "" where no ground truth knows the question."""
    truth = ground_truth_of([question])
    return verdict_of(question, answer, truth).stated if truth else ""


def worked_examples(
    model: Model, fold: Fold, method: TokenAware, edit: Edit, *, count: int, drawn: int,
    max_new_tokens: int = 32,
) -> list[Example]:  # fmt: skip
    """Test questions, answered without and with the edit.

    Of those that the seed draws, all but the last are the first whose answer the edit changes, and
    the last is the first whose answer it leaves; drawn ones fill up where there are too few.

    Args:
        model: the bridge.
        fold: whose test questions are asked.
        method: its style and seed are used.
        edit: the edit.
        count: examples wanted.
        drawn: questions drawn, from which they are taken.
        max_new_tokens: length of the answers.
    """
    generator = torch.Generator().manual_seed(method.seed)
    numbers = torch.randperm(len(fold.test), generator=generator)[:drawn]
    asked = [fold.test[int(number)] for number in numbers]
    prompts = prompts_of(model, asked, method)
    before = generate(model, prompts, max_new_tokens=max_new_tokens)
    with edited(model, edit) as trace:
        after = generate(model, prompts, max_new_tokens=max_new_tokens)
    examples = [
        Example(
            question=one.question,
            before=b.text,
            after=a.text,
            verdicts=(verdict(one.question, b.text), verdict(one.question, a.text)),
            trace=replace(trace[row].first(a.kept), following=a.strings[: a.kept]),
        )
        for row, (one, b, a) in enumerate(zip(asked, before, after, strict=True))
        if a.kept
    ]
    changed = [one for one in examples if one.before != one.after]
    left = [one for one in examples if one.before == one.after]
    return [*changed[: count - 1], *left, *changed[count - 1 :]][:count]


def fold_figures(
    fold: Fold, method: TokenAware, activations: TokenActivations, edit: Edit
) -> dict[str, go.Figure]:
    """Where truth can be read, and the token graph of an answer, by the figure's name."""
    directions = fit_directions(aggregate(activations, method.depth), fold.train, seed=method.seed)
    answer = max(activations, key=lambda a: (a.question == fold.train[0].question, len(a.tokens)))
    return {
        "head_accuracy": plots.head_accuracy(directions, edit.heads),
        "token_graph": plots.token_graph(token_graph(answer, layer=edit.heads[0][0])),
    }


def example_figures(examples: Sequence[Example], edit: Edit) -> dict[str, go.Figure]:
    """The strength at every token and layer of every example, on one colour scale.

    Of the longest answer the strength is drawn a second time, with its parts.
    """
    if not examples:
        return {}
    means = torch.cat([one.trace.strengths.nanmean(dim=2).flatten() for one in examples])
    known = means[~means.isnan()]
    titles = [f"Strength of TAE: {one.question} → {one.after.strip()}" for one in examples]
    figures = {
        f"strength_{number}": plots.token_risk(
            one.trace, limits=(float(known.min()), float(known.max())), title=title
        )
        for number, (one, title) in enumerate(zip(examples, titles, strict=True), start=1)
    }
    place = max(range(len(examples)), key=lambda n: len(examples[n].trace.strings))
    figures["strength_parts"] = plots.strength_over_generation(
        examples[place].trace, beta=edit, title=titles[place]
    )
    return figures
