"""The parts of a demo: answers to show, and the figures of a fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from workbench import plots
from workbench.data.ground_truth import ground_truth_of
from workbench.data.questions import QuestionSet
from workbench.editing.attaching import edited
from workbench.editing.generation import generate
from workbench.editing.head_edits import Edit
from workbench.editing.token_trace import TokenTrace
from workbench.evaluation.metrics.ground_truth import verdict_of
from workbench.methods.stages import Stages
from workbench.methods.token_aware import TokenAware
from workbench.models.identity import Model
from workbench.models.prompts import encode, prompt_format
from workbench.stages.token_graph import token_graph

if TYPE_CHECKING:
    import plotly.graph_objects as go


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
    model: Model, test: QuestionSet, method: TokenAware, edit: Edit, *, count: int, drawn: int,
    max_new_tokens: int = 32,
) -> list[Example]:  # fmt: skip
    """Some questions, answered without and with the edit.

    Of those that the seed draws, all but the last are the first whose answer the edit changes, and
    the last is the first whose answer it leaves; drawn ones fill up where there are too few.

    Args:
        model: the bridge.
        test: the questions.
        method: its style and seed are used.
        edit: the edit.
        count: examples wanted.
        drawn: questions drawn, from which they are taken.
        max_new_tokens: length of the answers.
    """
    generator = torch.Generator().manual_seed(method.seed)
    numbers = torch.randperm(len(test), generator=generator)[:drawn]
    asked = [test[int(number)] for number in numbers]
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


def fold_figures(stages: Stages, edit: Edit) -> dict[str, go.Figure]:
    """Where truth can be read, and the token graph of an answer, by the figure's name."""
    activations, first = stages.activations(), stages.train[0]
    answer = max(activations, key=lambda a: (a.question == first.question, len(a.tokens)))
    return {
        "head_accuracy": plots.head_accuracy(stages.directions(), edit.heads),
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
