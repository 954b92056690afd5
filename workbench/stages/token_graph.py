"""MIG, first half: the graph between an answer's tokens, by mutual information or otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from workbench.checks import is_whole, require_number, require_one_of, require_whole
from workbench.doors import door, door_of_class
from workbench.errors import WorkbenchError, kind_of
from workbench.records import Record
from workbench.registry import Registry
from workbench.stages.mutual_information import Correction, mutual_information

Scope = Literal["layer", "head"]
Weighting = Literal["rows", "centrality"]


@door_of_class
@dataclass(frozen=True)
class GraphSettings:
    """How tokens are joined; the defaults are TAE's.

    Attributes:
        similarity: of `SIMILARITIES`: mutual information in bits, cosine similarity, or the same
            for every pair; or one's own: a function of tokens `[*batch, token, channel]` and these
            settings that gives `[*batch, token, token]`, itself or as `module:name`.
        scope: one graph per layer (all heads' channels together) or one per head.
        bins: number of histogram bins B.
        correction: what is subtracted from the plug-in estimate: nothing, Miller and Madow's
            (cells − 1) / 2N terms, or the estimate after shuffling channels (seeded).
        self_loops: whether a token is its own neighbour; one without any other keeps itself.
        temperature: divides the similarities before the softmax.
        weighting: `rows` propagates with each token's own row; `centrality` gives every token the
            mean row, so that tokens weigh by how much the others point at them.

    Example:
        >>> graph = wb.GraphSettings(similarity="cosine", self_loops=False)
        >>> wb.aggregate(acts, graph=graph).graph.similarity
        'cosine'
        >>> wb.GraphSettings(similarity="cosin")
        Traceback (most recent call last):
            ...
        workbench.errors.WorkbenchError: the similarity 'cosin'. Expected one of mutual_information,
        cosine, uniform. Did you mean cosine?
    """

    similarity: str | Callable[..., Any] = "mutual_information"
    scope: Scope = "layer"
    bins: int = 100
    correction: Correction = "none"
    self_loops: bool = True
    temperature: float = 1.0
    weighting: Weighting = "rows"

    def __post_init__(self) -> None:
        object.__setattr__(self, "similarity", SIMILARITIES.name_of(self.similarity))
        require_one_of("scope", self.scope, Scope)
        require_one_of("correction", self.correction, Correction)
        require_one_of("weighting", self.weighting, Weighting)
        if not is_whole(self.bins) or not 2 <= self.bins <= 1000:
            raise WorkbenchError(f"bins={self.bins}", "2 to 1000 bins")
        require_number("temperature", self.temperature, above=0)


Similarity = Callable[[Tensor, GraphSettings], Tensor]
SIMILARITIES: Registry[Similarity] = Registry("similarity")
"""Measures of how alike tokens are, by name."""


@door_of_class
@dataclass(frozen=True)
class TokenGraph(Record):
    """The graph of one answer at one layer (and head).

    Attributes:
        similarity: mutual information in bits, or the similarity of the settings.
        weights: the rows with which a round of propagation mixes; each sums to 1.
        strings: the tokens.
        settings: how it was made.
        layer, head: where; head is None for the graph of a whole layer.
        depth: how many rounds of propagation went before.

    Example:
        >>> graph = wb.token_graph(acts[0], layer=2)
        >>> graph.strings
        (' Br', 'as', 'il', 'ia', '.')
        >>> graph.weights.sum(dim=-1)
        tensor([1.0000, 1.0000, 1.0000, 1.0000, 1.0000])
    """

    similarity: Float[Tensor, "token token"]
    weights: Float[Tensor, "token token"]
    strings: tuple[str, ...]
    settings: GraphSettings
    layer: int
    head: int | None
    depth: int

    def coordinates(self) -> Mapping[str, tuple[str, Sequence[Any]]]:
        """The tokens' texts, of rows and of columns."""
        return {
            "string": ("token", self.strings),
            "other_string": ("other_token", self.strings),
        }

    def attributes(self) -> Mapping[str, Any]:
        """Where the graph is, and how it was made."""
        where = {"layer": self.layer, "head": -1 if self.head is None else self.head}
        return {**where, "depth": self.depth, "similarity": self.settings.similarity}


@door
def similarities(
    tokens: Float[Tensor, "*batch token channel"], settings: GraphSettings
) -> Float[Tensor, "*batch token token"]:
    """Pairwise similarities by the settings' measure.

    Raises:
        WorkbenchError: a user's measure gives something else than `[*batch, token, token]`, or
            values that are not finite.

    Example:
        >>> tokens = wb.stages.split_scope(acts[0].own, "layer")
        >>> bits = wb.stages.similarities(tokens, wb.GraphSettings())
        >>> bits.shape, bits.equal(bits.mT)
        (torch.Size([5, 5, 5]), True)
    """
    similarity = SIMILARITIES.find(settings.similarity)(tokens, settings)
    *batch, count, _ = tokens.shape
    if not isinstance(similarity, Tensor):
        raise WorkbenchError(
            f"the similarity {settings.similarity!r} gives {similarity!r:.60}",
            f"a tensor of shape {(*batch, count, count)}",
        )
    finite = similarity.isfinite()
    if tuple(similarity.shape) != (*batch, count, count) or not bool(finite.all()):
        raise WorkbenchError(
            f"the similarity {settings.similarity!r} of tokens {tuple(tokens.shape)} gives "
            f"{tuple(similarity.shape)}, {int((~finite).sum())} of them not finite",
            f"finite numbers of shape {(*batch, count, count)}",
        )
    return similarity


@SIMILARITIES.register("mutual_information", about="mutual information in bits")
def _in_bits(
    tokens: Float[Tensor, "*batch token channel"], settings: GraphSettings
) -> Float[Tensor, "*batch token token"]:
    return mutual_information(tokens, settings.bins, settings.correction)


@SIMILARITIES.register("cosine", about="cosine similarity")
def _cosine(
    tokens: Float[Tensor, "*batch token channel"], _: GraphSettings
) -> Float[Tensor, "*batch token token"]:
    unit = torch.nn.functional.normalize(tokens.float(), dim=-1)
    return unit @ unit.mT


@SIMILARITIES.register("uniform", about="the same for every pair")
def _uniform(
    tokens: Float[Tensor, "*batch token channel"], _: GraphSettings
) -> Float[Tensor, "*batch token token"]:
    *batch, count, _channels = tokens.shape
    return tokens.new_zeros(*batch, count, count, dtype=torch.float32)


@door
def weights_of(
    similarity: Float[Tensor, "*batch token token"], settings: GraphSettings
) -> Float[Tensor, "*batch token token"]:
    """Propagation weights: softmax over each row, by the settings' temperature and loops.

    Example:
        >>> graph = wb.token_graph(acts[0], layer=2)
        >>> wb.stages.weights_of(graph.similarity, graph.settings).equal(graph.weights)
        True
        >>> without_loops = wb.GraphSettings(self_loops=False)
        >>> wb.stages.weights_of(graph.similarity, without_loops).diagonal()
        tensor([0., 0., 0., 0., 0.])
    """
    scores = similarity / settings.temperature
    count = scores.shape[-1]
    if not settings.self_loops and count > 1:
        scores = scores.masked_fill(
            torch.eye(count, dtype=torch.bool, device=scores.device), -math.inf
        )
    weights = scores.softmax(dim=-1)
    if settings.weighting == "centrality":
        weights = weights.mean(dim=-2, keepdim=True).expand_as(weights)
    return weights


def propagate(
    tokens: Float[Tensor, "*batch token channel"], settings: GraphSettings
) -> Float[Tensor, "*batch token channel"]:
    """One round of X ← W X (TAE, eq. 4)."""
    return weights_of(similarities(tokens, settings), settings) @ tokens.float()


@door
def split_scope(
    z: Float[Tensor, "token layer head d_head"], scope: Scope
) -> Float[Tensor, "*graph token channel"]:
    """The vectors that a graph joins: [layer, token, channel] or [layer, head, token, channel].

    Example:
        >>> acts[0].own.shape
        torch.Size([5, 5, 8, 20])
        >>> wb.stages.split_scope(acts[0].own, "layer").shape
        torch.Size([5, 5, 160])
        >>> wb.stages.split_scope(acts[0].own, "head").shape
        torch.Size([5, 8, 5, 20])
    """
    if scope == "layer":
        return rearrange(z, "token layer head d -> layer token (head d)")
    return rearrange(z, "token layer head d -> layer head token d")


@door
def token_graph(
    answer: Float[Tensor, "token layer head d_head"] | object,
    layer: int,
    *,
    head: int | None = None,
    settings: GraphSettings | None = None,
    depth: int = 0,
    strings: Sequence[str] | None = None,
) -> TokenGraph:
    """The graph of one answer at one layer.

    Args:
        answer: an item of `TokenActivations`, or z at its tokens.
        layer: which layer.
        head: which head; required by, and only for, `scope="head"`.
        settings: the graph's settings.
        depth: look at the graph after so many rounds of propagation.
        strings: the tokens' texts, where `answer` is a tensor.

    Raises:
        WorkbenchError: no such layer or head, or a head without `scope="head"`.

    Example:
        >>> graph = wb.token_graph(acts[0], layer=2)
        >>> graph.strings, graph.weights.shape
        ((' Br', 'as', 'il', 'ia', '.'), torch.Size([5, 5]))
        >>> wb.token_graph(acts[0], layer=9)
        Traceback (most recent call last):
            ...
        workbench.errors.WorkbenchError: layer 9. Expected 0 to 4.
    """
    settings = settings or GraphSettings()
    require_whole("depth", depth, 0)
    values, names = tokens_at(answer, layer, head, settings, strings)
    for _ in range(depth):
        values = propagate(values, settings)
    similarity = similarities(values, settings)
    return TokenGraph(
        similarity=similarity,
        weights=weights_of(similarity, settings),
        strings=names,
        settings=settings,
        layer=layer,
        head=head,
        depth=depth,
    )


def tokens_at(
    answer: Float[Tensor, "token layer head d_head"] | object,
    layer: int,
    head: int | None,
    settings: GraphSettings,
    strings: Sequence[str] | None = None,
) -> tuple[Float[Tensor, "token channel"], tuple[str, ...]]:
    """The vectors that one graph of an answer joins, and its tokens; see `token_graph`.

    Raises:
        WorkbenchError: no answer, no such layer or head, or a head without `scope="head"`.
    """
    z = answer if isinstance(answer, Tensor) else getattr(answer, "own", None)
    if z is None:
        raise WorkbenchError(f"the graph of {kind_of(answer)}", "one answer, such as acts[0]")
    names = strings if strings is not None else getattr(answer, "strings", None)
    tokens, layers, heads, _ = z.shape
    if not 0 <= layer < layers:
        raise WorkbenchError(f"layer {layer}", f"0 to {layers - 1}")
    if (head is not None) != (settings.scope == "head"):
        raise WorkbenchError(
            f"head={head} with scope={settings.scope!r}", "a head for scope='head' and only there"
        )
    if head is not None and not 0 <= head < heads:
        raise WorkbenchError(f"head {head}", f"0 to {heads - 1}")
    values = split_scope(z, settings.scope)[layer]
    named = tuple(names) if names is not None else tuple(map(str, range(tokens)))
    return values if head is None else values[head], named
