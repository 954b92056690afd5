"""Running a model to explore an edit: every answer without it, and under every α."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from workbench.checks import require_one_of, require_whole
from workbench.data.questions import Question, QuestionSet
from workbench.doors import door
from workbench.editing.generation import generate
from workbench.editing.interventions import Intervention, warn_of_another_style
from workbench.editing.writing import Continuation
from workbench.errors import WorkbenchError
from workbench.models.identity import Model, require_same_shape
from workbench.models.prompts import Encoded, PromptFormat, prompt_format
from workbench.models.tokens import require_batch_size
from workbench.pages.explorer.answers import Answers, Asked, Told, asked_of, told_of
from workbench.pages.explorer.kinds import grid, require_explorable
from workbench.pages.explorer.reading import Seen, attention_of, graphs_of, seen_under
from workbench.pages.explorer.record import Exploration, ExploredAnswer
from workbench.stages.token_graph import GraphSettings


@door
def explore(
    model: Model,
    edit: Intervention | Mapping[str, Intervention],
    questions: QuestionSet | Sequence[Question] | Sequence[str],
    *,
    answers: Answers = "own",
    alphas: Sequence[float] | None = None,
    depth: int = 1,
    each: int | None = 1,
    limit: int = 50,
    style: str | PromptFormat = "bare",
    settings: GraphSettings | None = None,
    max_new_tokens: int = 32,
    batch_size: int = 32,
    progress: bool = True,
) -> Exploration:
    """Read answers token by token, without an edit and under it at several α.

    Args:
        model: the bridge.
        edit: what to explore, of any method; its α (and β) are the ones to begin with. Of heads p̂,
            u and strengths are shown, of states gates and how far they moved, of the whole model
            (LoRA, prompting) log-probabilities and answers alone. Several, by the names that they
            are shown under, are laid side by side on the same answers.
        questions: questions with answers, or texts to go on from.
        answers: the data's `own`, the (first) edited model's `greedy` ones at the edit's own α, or
            `both`. Texts have greedy answers alone.
        alphas: the values of α to run; the edit's own is added. By default from none to twice it,
            and without and with a foreword.
        depth: most rounds of propagation before a graph.
        each: so many correct and so many incorrect answers of a question; None for all.
        limit: most answers.
        style: prompt format of questions.
        settings: of the graphs, one a layer; TAE's by default.
        max_new_tokens: most tokens of a greedy answer.
        batch_size: answers run together.
        progress: show a bar.

    Raises:
        WorkbenchError: an edit or settings that cannot be explored, or no answers.

    Example:
        >>> wb.explore(model, edit, fold.test.choose([0]), alphas=[0, 5], progress=False)
        Exploration(2 answers, Edit(4 heads of hearsay, layers (1, 2), alpha=5, adaptive strength),
        alphas (0.0, 5.0))
    """
    way = prompt_format(style)
    named = _named(model, edit, way)
    require_batch_size(batch_size)
    chosen = settings or GraphSettings()
    _require(answers, depth, each, limit, chosen)
    grids = [grid(alphas, one) for one in named.values()]
    given = list(questions)
    if given and all(isinstance(text, str) for text in given):
        answers = "greedy"
    asked = list(asked_of(model, given[:limit], way, each))
    if not asked:
        raise WorkbenchError("no questions to explore", "at least one")
    steps = 1 + sum(2 * len(run_at) + 1 for run_at in grids)
    found: list[Exploration] = []
    said: list[Continuation] = []
    graphs: list[Tensor] = []
    with tqdm(total=steps, desc="explore", disable=not progress) as bar:
        for (name, one), run_at in zip(named.items(), grids, strict=True):
            written = _written(model, one, run_at, asked, max_new_tokens, batch_size, bar)
            said = said or written[run_at.index(one.alpha)]
            told = list(told_of(model, asked, said, answers, one, way))[:limit]
            if not told:
                raise WorkbenchError("greedy answers that are all empty", "an answer with a token")
            if not graphs:
                graphs = graphs_of(model, told, chosen, depth, batch_size)
                bar.update()
            seen = []
            for alpha in run_at:
                seen.append(seen_under(model, told, one.scaled(alpha), batch_size))
                bar.update()
            looks = attention_of(model, told, one)
            bar.update()
            known = _explored(asked, told, graphs, seen, written, looks)
            found.append(Exploration(known, run_at, one, chosen, name))
    return replace(found[0], beside=tuple(found[1:]))


def _named(
    model: Model, edit: Intervention | Mapping[str, Intervention], style: PromptFormat
) -> dict[str, Intervention]:  # fmt: skip
    """Edits by name, each checked."""
    named = dict(edit) if isinstance(edit, Mapping) else {"edit": edit}
    if not named:
        raise WorkbenchError("no edit to explore", "at least one")
    for name, one in named.items():
        if not isinstance(name, str) or not name:
            raise WorkbenchError(f"{name!r} as the name of an edit", "a text")
        require_explorable(one)
        require_same_shape(model, one.model.shape, "an edit")
        warn_of_another_style(one, style)
    return named


def _explored(
    asked: Sequence[Asked],
    told: Sequence[Told],
    graphs: Sequence[Tensor],
    seen: Sequence[Sequence[Seen]],
    written: Sequence[Sequence[Continuation]],
    looks: Sequence[Tensor | None],
) -> tuple[ExploredAnswer, ...]:
    """The answers with all that was found of them; `seen` and `written` are lists an α."""
    return tuple(
        ExploredAnswer(
            question=asked[one.asked].text,
            answer=one.answer,
            kind=one.kind,
            prompt=one.encoded.strings[: one.encoded.start],
            strings=one.encoded.strings[one.encoded.start :],
            tokens=one.encoded.tokens,
            begin=one.begin,
            graphs=graphs[number],
            misalignment=torch.stack([own[number].misalignment for own in seen]),
            uncertainty=torch.stack([own[number].uncertainty for own in seen]),
            reached=seen[0][number].reached,
            nats=torch.stack([own[number].nats for own in seen]),
            written=tuple(own[one.asked].text for own in written),
            attention=looks[number],
            moved=_stacked([own[number].moved for own in seen]),
            gate=_stacked([own[number].gate for own in seen]),
        )
        for number, one in enumerate(told)
    )


def _stacked(rows: Sequence[Tensor | None]) -> Tensor | None:
    """What passes showed under every α, a row an α; None where they do not show it."""
    known = [row for row in rows if row is not None]
    return torch.stack(known) if known else None


def _written(
    model: Model, edit: Intervention, alphas: Sequence[float], asked: Sequence[Asked], most: int,
    batch_size: int, bar: Any,
) -> list[list[Continuation]]:  # fmt: skip
    """Greedy answers to every prompt, a list an α."""
    prompts = [one.prompt for one in asked]
    found = []
    for alpha in alphas:
        used = edit.scaled(alpha)
        found.append(
            generate(model, prompts, edit=used, max_new_tokens=most, batch_size=batch_size)
        )
        bar.update()
    return found


def rerun(
    model: Model,
    edit: Intervention,
    answer: ExploredAnswer,
    settings: GraphSettings | None = None,
    *,
    max_new_tokens: int = 32,
) -> Exploration:
    """One answer again, under an edit with any α and β; its graphs are kept.

    Args:
        model: the bridge.
        edit: the edit, at the α and β to run.
        answer: from an exploration of this model.
        settings: how the answer's graphs were made.
        max_new_tokens: most tokens of the greedy answer.
    """
    require_explorable(edit)
    require_same_shape(model, edit.model.shape, "an edit")
    start = len(answer.prompt)
    prompt = Encoded(
        answer.tokens[:start], answer.prompt, ((0, 0),) * start, start, answer.question, 0
    )
    strings = answer.prompt + answer.strings
    whole = Encoded(answer.tokens, strings, ((0, 0),) * len(strings), start, answer.answer, 0)
    told = [Told(0, whole, answer.answer, answer.kind, answer.begin)]
    (seen,) = seen_under(model, told, edit, 1)
    (said,) = generate(model, [prompt], edit=edit, max_new_tokens=max_new_tokens)
    (attention,) = attention_of(model, told, edit)
    found = replace(
        answer,
        misalignment=seen.misalignment[None],
        uncertainty=seen.uncertainty[None],
        reached=seen.reached,
        nats=seen.nats[None],
        written=(said.text,),
        attention=attention,
        moved=_stacked([seen.moved]),
        gate=_stacked([seen.gate]),
    )
    return Exploration((found,), (float(edit.alpha),), edit, settings or GraphSettings())


def _require(
    answers: str, depth: int, each: int | None, limit: int, settings: GraphSettings
) -> None:
    require_one_of("answers", answers, Answers)
    for name, value, least in (("depth", depth, 0), ("each", each, 1), ("limit", limit, 1)):
        if value is not None:
            require_whole(name, value, least)
    if settings.scope != "layer":
        raise WorkbenchError(f"graphs with scope={settings.scope!r}", "one graph a layer")
