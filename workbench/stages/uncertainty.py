"""Uncertainty: how spread the vocabulary distribution is that a layer's residual stream implies.

`logit_lens` is TAE as described: final norm, unembedding, entropy over log V. `amplified`
reproduces the published code: no final norm, centred logits, all multiplied by a constant that
was meant to depend on the layer, entropy with 1e-9 inside the logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import WorkbenchError
from workbench.models.identity import Model
from workbench.models.logit_lens import logit_lens, unembedding

UncertaintyKind = Literal["logit_lens", "amplified"]
PUBLISHED_LAYER = 6
"""The number that the published code puts into its formula for every layer."""
LEAST = -1e4
"""A log-probability whose p log p is 0 in float32."""
INSIDE_LOG = 1e-9
"""What the published code adds to probabilities before it takes logarithms."""
CHUNK: Mapping[str, int] = {"cpu": 1 << 20, "cuda": 1 << 28}
"""Most logits (4 bytes each) at a time: 4 MB stay in cache, 1 GB fills a GPU."""
LEAST_ROWS = 85
"""Rows at a time all the same: fewer read the whole unembedding for too little arithmetic (21 rows
of SmolLM2's, which fill 4 MB, took 1.8 times as long)."""


def normalised_entropy(
    logits: Float[Tensor, "*row word"], vocabulary: int | None = None
) -> Float[Tensor, "*row"]:
    """Shannon entropy of softmax(logits) over log(vocabulary), in [0, 1].

    Args:
        logits: of all words, or of some as if there were no others.
        vocabulary: how many words there are, where the logits are of some.
    """
    log_probability = logits.float().log_softmax(dim=-1)
    probability = log_probability.exp()
    entropy = probability.mul_(log_probability.clamp_(min=LEAST)).sum(dim=-1)
    share: Tensor = entropy.mul_(-1 / math.log(vocabulary or logits.shape[-1]))
    return share.clamp_(0.0, 1.0)


def published_amplification(layer: int = PUBLISHED_LAYER) -> float:
    """max(0.01, 275.33 / (layer − 0.48) − 11.56): 38.3 for the published code's layer 6."""
    return max(0.01, 275.33 / (layer - 0.48) - 11.56)


def amplified_entropy(
    logits: Float[Tensor, "*row vocabulary"], layer: int = PUBLISHED_LAYER
) -> Float[Tensor, "*row"]:
    """The published code's normalised entropy of centred, amplified logits."""
    values = logits.float()
    centred = (values - values.mean(dim=-1, keepdim=True)) * published_amplification(layer)
    probability = centred.softmax(dim=-1)
    entropy = -(probability * (probability + INSIDE_LOG).log()).sum(dim=-1)
    return entropy / math.log(logits.shape[-1])


def require_kind(kind: str) -> None:
    """Refuse unknown kinds of uncertainty."""
    if kind not in get_args(UncertaintyKind):
        raise WorkbenchError(
            f"uncertainty={kind!r}", f"one of {', '.join(get_args(UncertaintyKind))}"
        )


def in_blocks(residual: Float[Tensor, "row d_model"], words: int) -> Sequence[Tensor]:
    """Rows in blocks whose logits of so many words keep to `CHUNK`."""
    rows = max(LEAST_ROWS, CHUNK.get(residual.device.type, CHUNK["cpu"]) // words)
    return torch.split(residual, rows) if len(residual) > rows else [residual]


def entropy_reader(
    model: Model, kind: UncertaintyKind, words: Int[Tensor, " word"] | None = None
) -> Callable[[Tensor], Tensor]:
    """Uncertainty as a function of residual-stream rows [row, d_model], some rows at a time.

    Args:
        model: the bridge, for its final norm and unembedding.
        kind: `logit_lens` or `amplified`.
        words: read off these alone, as if there were no others (`logit_lens`); see `shortlists`.
    """
    require_kind(kind)
    lens = logit_lens(model, normed=kind == "logit_lens", words=words)
    vocabulary = len(unembedding(model)[0])
    count = vocabulary if words is None else len(words)

    def entropy(logits: Tensor) -> Tensor:
        if kind == "amplified":
            return amplified_entropy(logits)
        return normalised_entropy(logits, vocabulary)

    def read(residual: Tensor) -> Tensor:
        parts = [entropy(lens(rows)) for rows in in_blocks(residual, count)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    return read
