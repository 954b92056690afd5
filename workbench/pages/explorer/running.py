"""Running a model to explore an edit: every answer without it, and under every α."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from workbench.checks import require_one_of, require_whole
from workbench.data.questions import Question, QuestionSet
from workbench.doors import door
from workbench.editing.attaching import edited
from workbench.editing.generation import Continuation, generate
from workbench.editing.head_edits import Edit
from workbench.editing.scoring import score_tokens
from workbench.errors import WorkbenchError
from workbench.models.batched_passes import Passage
from workbench.models.identity import Model, require_same_shape
from workbench.models.prompts import Encoded, PromptFormat, prompt_format
from workbench.models.tokens import require_batch_size
from workbench.pages.explorer.answers import Answers, Asked, Told, asked_of, told_of
from workbench.pages.explorer.record import Exploration, ExploredAnswer, grid, require_explorable
from workbench.stages.filling import fill
from workbench.stages.token_graph import GraphSettings, similarities, split_scope, weights_of


@dataclass(frozen=True)
class _Seen:
    """What a pass under one α showed before each token of an answer, and the token's nats."""

    misalignment: Float[Tensor, "token edited"]
    uncertainty: Float[Tensor, "token layer"]
    reached: Bool[Tensor, " token"]
    nats: Float[Tensor, " token"]


@door
def explore(
    model: Model,
    edit: Edit,
    questions: QuestionSet | Sequence[Question] | Sequence[str],
    *,
    answers: Answers = "own",
    alphas: Sequence[float] = (0.0, 0.5, 1.0, 2.0, 3.0),
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
        edit: what to explore; its α and β are the ones to begin with.
        questions: questions with answers, or texts to go on from.
        answers: the data's `own`, the edited model's `greedy` ones at the edit's own α, or `both`.
            Texts have greedy answers alone.
        alphas: the values of α to run; the edit's own is added.
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
    require_explorable(edit)
    require_same_shape(model, edit.model.shape, "an edit")
    require_batch_size(batch_size)
    chosen = settings or GraphSettings()
    _require(answers, depth, each, limit, chosen)
    run_at = grid(alphas, edit.alpha)
    given = list(questions)
    if given and all(isinstance(text, str) for text in given):
        answers = "greedy"
    asked = list(asked_of(model, given[:limit], prompt_format(style), each))
    if not asked:
        raise WorkbenchError("no questions to explore", "at least one")
    with tqdm(total=2 * len(run_at) + 1, desc="explore", disable=not progress) as bar:
        written = _written(model, edit, run_at, asked, max_new_tokens, batch_size, bar)
        said = written[run_at.index(edit.alpha)]
        told = list(told_of(model, asked, said, answers, edit, prompt_format(style)))[:limit]
        if not told:
            raise WorkbenchError("greedy answers that are all empty", "an answer with a token")
        graphs = _graphs(model, told, chosen, depth, batch_size)
        bar.update()
        seen = _seen_under(model, edit, run_at, told, batch_size, bar)
    found = tuple(
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
        )
        for number, one in enumerate(told)
    )
    return Exploration(found, run_at, edit, chosen)


def _written(
    model: Model, edit: Edit, alphas: Sequence[float], asked: Sequence[Asked], most: int,
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


def _seen_under(
    model: Model, edit: Edit, alphas: Sequence[float], told: Sequence[Told], batch_size: int,
    bar: Any,
) -> list[list[_Seen]]:  # fmt: skip
    """What passes under every α show."""
    found = []
    for alpha in alphas:
        found.append(_seen(model, told, edit.scaled(alpha), batch_size))
        bar.update()
    return found


def rerun(
    model: Model,
    edit: Edit,
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
    (seen,) = _seen(model, told, edit, 1)
    (said,) = generate(model, [prompt], edit=edit, max_new_tokens=max_new_tokens)
    found = replace(
        answer,
        misalignment=seen.misalignment[None],
        uncertainty=seen.uncertainty[None],
        reached=seen.reached,
        nats=seen.nats[None],
        written=(said.text,),
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


def _graphs(
    model: Model, told: Sequence[Told], settings: GraphSettings, depth: int, batch_size: int
) -> list[Float[Tensor, "depth layer token token"]]:
    """Graphs of every answer without the edit, after 0, 1, ... rounds of propagation."""
    passages = [Passage(one.encoded.tokens, range(one.encoded.start, len(one.encoded.tokens)))
            for one in told]  # fmt: skip
    found = []
    for begin in range(0, len(passages), batch_size):
        batch = passages[begin : begin + batch_size]
        with tqdm(disable=True) as bar:
            z, _ = fill(model, batch, None, torch.float32, batch_size, bar)
        for own in torch.split(z, [len(passage.span) for passage in batch]):
            values = split_scope(own, "layer")
            rows = []
            for number in range(depth + 1):
                rows.append(similarities(values, settings))
                if number < depth:
                    values = weights_of(rows[-1], settings) @ values
            found.append(torch.stack(rows))
    return found


def _seen(model: Model, told: Sequence[Told], edit: Edit, batch_size: int) -> list[_Seen]:
    """P̂, u and log-probabilities of every answer under an edit, from the same passes.

    U is the trace's own; of an edit that needs none it is read at the edited layers in further
    passes. Nothing is read at other layers: each costs an unembedding of every position.
    """
    order = sorted(range(len(told)), key=lambda number: -len(told[number].encoded.tokens))
    ordered = [told[number] for number in order]  # as rows are run, which the trace numbers
    with edited(model, edit) as trace:
        nats = score_tokens(
            model, [one.encoded for one in ordered], starts=[one.begin for one in ordered],
            batch_size=batch_size,
        )  # fmt: skip
    doubts = None if edit.reads_uncertainty else _doubts(model, ordered, edit, batch_size)
    layer, head = torch.tensor(edit.heads).unbind(dim=1)
    found: dict[int, _Seen] = {}
    for row, (number, one) in enumerate(zip(order, ordered, strict=True)):
        own, span = trace[row], _span(one)
        place = {position: index for index, position in enumerate(own.position.tolist())}
        risk = torch.full((len(span), len(edit.heads)), torch.nan)
        doubt = torch.full((len(span), edit.model.shape.layers), torch.nan)
        reached = torch.tensor([position in place for position in span])
        rows = [place[position] for position in span if position in place]
        if rows:
            risk[reached] = own.misalignment[rows][:, layer, head]
            doubt[reached] = own.uncertainty[rows]
        if doubts is not None:
            doubt[:, edit.layers] = doubts[row]
        found[number] = _Seen(risk, doubt, reached, nats[row])
    return [found[number] for number in range(len(told))]


def _span(one: Told) -> range:
    """The positions before an answer's tokens."""
    return range(one.encoded.start - 1, len(one.encoded.tokens) - 1)


def _doubts(
    model: Model, told: Sequence[Told], edit: Edit, batch_size: int
) -> list[Float[Tensor, "token edited_layer"]]:
    """u of every answer at the edited layers, under the edit; long answers come first."""
    found: list[Tensor] = []
    for first in range(0, len(told), batch_size):
        batch = told[first : first + batch_size]
        passages = [Passage(one.encoded.tokens, _span(one)) for one in batch]
        begins = torch.tensor([one.begin for one in batch])
        with tqdm(disable=True) as bar, edited(model, edit, start=begins, record=False):
            _, entropy = fill(
                model,
                passages,
                edit.strength.uncertainty,
                torch.float32,
                batch_size,
                bar,
                edit.layers,
            )
        found += torch.split(entropy, [len(passage.span) for passage in passages])
    return found
