"""Trajectories: what each layer thinks of the truth's and the myth's token, under several edits.

The logit lens reads the residual stream behind every layer as if it were the last (nostalgebraist
2020); the last layer's row is the model's own output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.data.questions import Question
from workbench.doors import door
from workbench.editing.attaching import edited
from workbench.editing.interventions import Intervention
from workbench.errors import WorkbenchError
from workbench.models.identity import Model, shape_of
from workbench.models.logit_lens import logit_lens
from workbench.models.passes import Hook, Place, attached, forward
from workbench.models.prompts import Encoded, PromptFormat, encode, prompt_format
from workbench.models.tokens import pad

COLUMNS = ("question", "edit", "answer", "place", "token", "layer", "nats", "rank", "edited")


@dataclass(frozen=True)
class _Asked:
    """Tokens to look for.

    Attributes:
        tokens: of the pass.
        first: the position whose output is read first; one a wanted token from there on.
        place: number of the first wanted token in its answer.
        wanted: for every answer, its wanted tokens.
        texts: theirs.
    """

    tokens: tuple[int, ...]
    first: int
    place: int
    wanted: Mapping[str, tuple[int, ...]]
    texts: Mapping[str, tuple[str, ...]]


@door
def trajectory(
    model: Model,
    question: Question | str,
    edits: Mapping[str, Intervention | None],
    *,
    truth: str,
    myth: str,
    style: str | PromptFormat = "bare",
    every: bool = False,
) -> pd.DataFrame:
    """Log-probability of the truth's and the myth's token, layer by layer.

    Args:
        model: the bridge.
        question: the question, or its text.
        edits: a name for each; None is the model itself.
        truth: a correct answer.
        myth: an incorrect one.
        style: prompt format.
        every: each answer's own tokens, every one behind those before it; otherwise the first
            token at which the answers differ, behind what they have in common.

    Returns:
        A row an edit, answer (`truth` or `myth`), token and layer: columns `question`, `edit`,
        `answer`, `place` (the token's number in the answer, from 0), `token` (its text), `layer`,
        `nats`, `rank` (1 for the most probable token) and `edited` (whether the edit acts in this
        layer).

    Raises:
        WorkbenchError: no edits, or two answers of which one begins with all of the other.

    Example:
        >>> followed = wb.analysis.trajectory(
        ...     model, "What is the capital of Australia?", {"no edit": None, "TAE": edit},
        ...     truth="Canberra.", myth="Sydney.",
        ... )
        >>> at_last = followed[(followed["layer"] == 4) & (followed["answer"] == "truth")]
        >>> at_last[["edit", "token", "rank"]].to_numpy().tolist()
        [['no edit', ' Can', 2], ['TAE', ' Can', 1]]
    """
    if not isinstance(edits, Mapping) or not edits:
        raise WorkbenchError("no edits to follow", "a mapping such as {'no edit': None}")
    text = question if isinstance(question, str) else question.question
    chosen = prompt_format(style)
    encoded = {
        name: encode(model, text, answer, chosen)
        for name, answer in (("truth", truth), ("myth", myth))
    }
    asked = _answers(encoded) if every else [_parting(encoded)]
    rows = []
    for name, edit in edits.items():
        begin = _begin(model, text, truth, chosen, edit, encoded["truth"].start)
        acts = () if edit is None else edit.layers
        for tokens in asked:
            for answer, place, token, layer, nats, rank in _followed(model, tokens, edit, begin):
                rows.append((text, name, answer, place, token, layer, nats, rank, layer in acts))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _parting(encoded: Mapping[str, Encoded]) -> _Asked:
    """The first token at which two answers differ, behind what they have in common."""
    truth, myth = encoded["truth"], encoded["myth"]
    pairs = list(zip(truth.tokens, myth.tokens, strict=False))
    alike = next((n for n, (a, b) in enumerate(pairs) if a != b), len(pairs))
    if alike == len(pairs) or alike < truth.start:
        raise WorkbenchError(
            f"the answers {truth.text[truth.answer_char :]!r} and "
            f"{myth.text[myth.answer_char :]!r}",
            "two answers that differ in a token of their own, behind the same prompt",
        )
    return _Asked(
        truth.tokens[:alike], alike - 1, alike - truth.start,
        {name: (answer.tokens[alike],) for name, answer in encoded.items()},
        {name: (answer.strings[alike],) for name, answer in encoded.items()},
    )  # fmt: skip


def _answers(encoded: Mapping[str, Encoded]) -> list[_Asked]:
    """All tokens of each answer, behind its own."""
    return [
        _Asked(
            answer.tokens[:-1],
            answer.start - 1,
            0,
            {name: answer.answer_tokens},
            {name: answer.strings[answer.start :]},
        )
        for name, answer in encoded.items()
    ]


def _begin(
    model: Model, question: str, answer: str, style: PromptFormat, edit: Intervention | None,
    start: int,
) -> int:  # fmt: skip
    """The first position that an edit may change."""
    if edit is None or edit.answer_start == "offsets":
        return start - 1
    return encode(model, question, answer, style, edit.answer_start).start


def _followed(
    model: Model, asked: _Asked, edit: Intervention | None, begin: int
) -> list[tuple[str, int, str, int, float, int]]:
    """Answer, place, text, layer, nats and rank of every wanted token."""
    found = []
    for layer, logits in enumerate(_layers(model, asked, edit, begin)):
        for answer, tokens in asked.wanted.items():
            ids = torch.tensor(tokens, device=logits.device)[:, None]
            at = logits.gather(1, ids)
            nats = (at - logits.logsumexp(dim=-1, keepdim=True))[:, 0].tolist()
            ranks = (1 + (logits > at).sum(dim=-1)).tolist()
            for number, text in enumerate(asked.texts[answer]):
                place = asked.place + number
                found.append((answer, place, text, layer, nats[number], ranks[number]))
    return found


def _layers(
    model: Model, asked: _Asked, edit: Intervention | None, begin: int
) -> list[Float[Tensor, "position vocabulary"]]:
    """Logits behind every layer, from the first position that is asked for on."""
    seen: dict[int, Tensor] = {}
    count = len(asked.tokens) - asked.first

    def keep(layer: int) -> Hook:
        def look(state: Tensor) -> None:
            seen[layer] = state[0, asked.first :]

        return look

    last = shape_of(model).layers - 1
    hooks: dict[Place, Hook] = {("resid_post", layer): keep(layer) for layer in range(last)}
    tokens, mask = pad(model, [asked.tokens])
    with (
        edited(model, edit, site="module", start=begin, record=False),
        attached(model, hooks, "module"),
    ):
        logits, _ = forward(model, tokens, mask, keep=count)
    read = logit_lens(model)
    return [*(read(seen[layer]) for layer in range(last)), logits[0, -count:].float()]
