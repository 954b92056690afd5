"""What passes show of an answer: graphs, p̂, u, log-probabilities and attention patterns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from workbench.editing.attaching import edited
from workbench.editing.head_edits import Edit
from workbench.editing.token_scores import score_tokens
from workbench.models.batched_passes import Passage
from workbench.models.identity import Model
from workbench.pages.explorer.answers import Told
from workbench.stages.filling import fill
from workbench.stages.token_graph import GraphSettings, similarities, split_scope, weights_of


@dataclass(frozen=True)
class Seen:
    """What a pass under one α showed before each token of an answer, and the token's nats."""

    misalignment: Float[Tensor, "token edited"]
    uncertainty: Float[Tensor, "token layer"]
    reached: Bool[Tensor, " token"]
    nats: Float[Tensor, " token"]


def graphs_of(
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


def seen_under(model: Model, told: Sequence[Told], edit: Edit, batch_size: int) -> list[Seen]:
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
    found: dict[int, Seen] = {}
    for row, (number, one) in enumerate(zip(order, ordered, strict=True)):
        own, span = trace[row], _span(one)
        place = {position: index for index, position in enumerate(own.position.tolist())}
        risk = torch.full((len(span), len(edit.heads)), torch.nan, dtype=torch.float32)
        doubt = torch.full((len(span), edit.model.shape.layers), torch.nan, dtype=torch.float32)
        reached = torch.tensor([position in place for position in span])
        rows = [place[position] for position in span if position in place]
        if rows:
            risk[reached] = own.misalignment[rows][:, layer, head]
            doubt[reached] = own.uncertainty[rows]
        if doubts is not None:
            doubt[:, edit.layers] = doubts[row]
        found[number] = Seen(risk, doubt, reached, nats[row])
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


def attention_of(
    model: Model, told: Sequence[Told], edit: Edit
) -> list[Float[Tensor, "pass edited token source"] | None]:
    """How edited heads weigh the tokens so far, without the edit and under it.

    Each answer is run by itself and with the model's own eager attention, twice.

    Returns:
        For every answer the pattern at the position before each of its tokens; None where the
        model shows no pattern of a weight for every pair of tokens.
    """
    return [_patterns(model, one, edit) for one in told]


def _patterns(model: Model, one: Told, edit: Edit) -> Tensor | None:
    names = {layer: f"blocks.{layer}.attn.hook_pattern" for layer in edit.layers}
    if not set(names.values()) <= set(model.hook_dict):
        return None
    row = one.encoded.tokens[:-1]  # nothing is before the token behind the last
    tokens = torch.tensor([row], device=next(model.original_model.parameters()).device)
    wanted = (1, edit.model.shape.heads, len(row), len(row))
    passes = []
    for used in (None, edit):
        with edited(model, used, start=one.begin, record=False):
            _, cache = model.run_with_cache(tokens, names_filter=list(names.values()))
        found = {layer: cache[name] for layer, name in names.items() if name in cache}
        if any(layer not in found or found[layer].shape != wanted for layer in names):
            return None
        passes.append(torch.stack([found[layer][0, head] for layer, head in edit.heads]))
    return torch.stack(passes)[:, :, one.encoded.start - 1 :].detach().float().cpu()
