"""What passes show of an answer: graphs, p̂, u, gates, log-probabilities, attention patterns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from workbench.editing.attaching import edited
from workbench.editing.head_edits import Edit
from workbench.editing.interventions import Intervention
from workbench.editing.state_edits import StateEdit
from workbench.editing.token_scores import score_tokens
from workbench.editing.token_trace import TokenTrace
from workbench.editing.trace import Trace
from workbench.models.batched_passes import Passage
from workbench.models.identity import Model
from workbench.pages.explorer.answers import Told
from workbench.stages.filling import fill
from workbench.stages.token_graph import GraphSettings, similarities, split_scope, weights_of


@dataclass(frozen=True)
class Seen:
    """What a pass under one α showed before each token of an answer, and the token's nats.

    As in `ExploredAnswer`; `moved` and `gate` are None of edits that are not of states.
    """

    misalignment: Float[Tensor, "token edited"]
    uncertainty: Float[Tensor, "token layer"]
    reached: Bool[Tensor, " token"]
    nats: Float[Tensor, " token"]
    moved: Float[Tensor, "token edited_layer"] | None = None
    gate: Float[Tensor, "token edited_layer"] | None = None


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


def seen_under(
    model: Model, told: Sequence[Told], edit: Intervention, batch_size: int
) -> list[Seen]:
    """What an edit did at every answer's tokens, and their log-probabilities, of the same passes.

    U is the trace's own; of an edit of heads that needs none it is read at the edited layers in
    further passes. Nothing is read at other layers: each costs an unembedding of every position.
    An edit of the whole model leaves no trace.
    """
    order = sorted(range(len(told)), key=lambda number: -len(told[number].encoded.tokens))
    ordered = [told[number] for number in order]  # as rows are run, which the trace numbers
    passages = [one.encoded for one in ordered]
    begins = [one.begin for one in ordered]
    if isinstance(edit, Edit | StateEdit):
        with edited(model, edit) as trace:
            nats = score_tokens(model, passages, starts=begins, batch_size=batch_size)
        rows = _followed(model, ordered, edit, trace, nats, batch_size)
    else:
        nats = score_tokens(model, passages, edit, batch_size=batch_size)
        shape = edit.model.shape
        rows = [_untraced(len(own), shape.layers, own) for own in nats]
    found = dict(zip(order, rows, strict=True))
    return [found[number] for number in range(len(told))]


def _followed(
    model: Model, told: Sequence[Told], edit: Edit | StateEdit, trace: Trace,
    nats: Sequence[Tensor], batch_size: int,
) -> list[Seen]:  # fmt: skip
    """What a trace holds of every answer, its sequences in their order."""
    if isinstance(edit, StateEdit):
        return [_of_states(trace[row], one, edit, nats[row]) for row, one in enumerate(told)]
    found = [_of_heads(trace[row], one, edit, nats[row]) for row, one in enumerate(told)]
    if not edit.reads_uncertainty:
        for seen, own in zip(found, _doubts(model, told, edit, batch_size), strict=True):
            seen.uncertainty[:, edit.layers] = own
    return found


def _of_heads(own: TokenTrace, one: Told, edit: Edit, nats: Float[Tensor, " token"]) -> Seen:
    """P̂ and u before every token of an answer."""
    layer, head = torch.tensor(edit.heads).unbind(dim=1)
    risk, reached = _before_tokens(own, one, own.misalignment[:, layer, head])
    doubt, _ = _before_tokens(own, one, own.uncertainty)
    return Seen(risk, doubt, reached, nats)


def _of_states(own: TokenTrace, one: Told, edit: StateEdit, nats: Float[Tensor, " token"]) -> Seen:
    """How far states moved before every token of an answer, and by which gates."""
    moved, reached = _before_tokens(own, one, own.moved[:, edit.layers])
    gate, _ = _before_tokens(own, one, own.gate[:, edit.layers])
    plain = _untraced(len(moved), edit.model.shape.layers, nats)
    return replace(plain, reached=reached, moved=moved, gate=gate)


def _untraced(count: int, layers: int, nats: Float[Tensor, " token"]) -> Seen:
    """So many tokens of which the log-probabilities are known alone."""
    doubt = torch.full((count, layers), torch.nan, dtype=torch.float32)
    risk = torch.empty(count, 0, dtype=torch.float32)
    return Seen(risk, doubt, torch.ones(count, dtype=torch.bool), nats)


def _before_tokens(
    own: TokenTrace, one: Told, values: Float[Tensor, "edited_token column"]
) -> tuple[Float[Tensor, "token column"], Bool[Tensor, " token"]]:
    """A trace's values at the position before every token of an answer, and where there are any."""
    span = _span(one)
    place = {position: index for index, position in enumerate(own.position.tolist())}
    found = torch.full((len(span), values.shape[1]), torch.nan, dtype=torch.float32)
    reached = torch.tensor([position in place for position in span])
    found[reached] = values[[place[position] for position in span if position in place]]
    return found, reached


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
    model: Model, told: Sequence[Told], edit: Intervention
) -> list[Float[Tensor, "pass edited token source"] | None]:
    """How edited heads weigh the tokens so far, without the edit and under it.

    Each answer is run by itself and with the model's own eager attention, twice.

    Returns:
        For every answer the pattern at the position before each of its tokens; None where the
        model shows no pattern of a weight for every pair of tokens, or the edit is not of heads.
    """
    if not isinstance(edit, Edit):
        return [None] * len(told)
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
