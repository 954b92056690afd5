"""The logit lens: the residual stream of any layer, read through the final norm and unembedding.

The norm is read past its hooks: an edit of the final norm's output is of the model's own pass, and
not of what is read off other layers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.models.identity import Model


def unembedding(model: Model) -> tuple[Tensor, Tensor | None]:
    """Weights [vocabulary, d_model] and biases of the unembedding."""
    component = model.unembed.original_component
    return component.weight, getattr(component, "bias", None)


def own_scale(model: Model, logits: Float[Tensor, "*row vocabulary"]) -> Tensor:
    """What the model makes of the unembedding's output: a factor, a soft cap, or nothing."""
    scaled: Tensor = model.adapter.apply_output_logits_transform(logits)
    return scaled


def vocabulary_logits(
    model: Model, residual: Float[Tensor, "*row d_model"], *, normed: bool = True
) -> Float[Tensor, "*row vocabulary"]:
    """Read a residual stream through the unembedding (the logit lens), in float32.

    Args:
        model: the bridge.
        residual: residual stream of any layer.
        normed: apply the final norm first; of the last layer's output this gives the model's own
            logits, their scale and soft cap included.
    """
    return logit_lens(model, normed=normed)(residual)


def logit_lens(
    model: Model, *, normed: bool = True, words: Int[Tensor, " word"] | None = None
) -> Callable[[Tensor], Tensor]:
    """The same as a function of the residual stream alone, for those who call it often.

    Args:
        model: the bridge.
        normed: as above.
        words: token ids whose logits are read, of weights that are copied at once; all by default.
    """
    unembed = model.unembed.original_component
    norm = model.ln_final.original_component if normed and hasattr(model, "ln_final") else None
    weight, bias = unembedding(model)
    apply: Callable[[Tensor], Tensor] = unembed
    if words is not None:
        chosen = words.to(weight.device)
        rows, own = weight.detach()[chosen], None if bias is None else bias.detach()[chosen]

        def apply(hidden: Tensor) -> Tensor:
            return torch.nn.functional.linear(hidden, rows, own)

    def read(residual: Tensor) -> Tensor:
        with torch.no_grad():
            hidden = residual.to(weight.device)
            logits: Tensor = apply(hidden if norm is None else norm.forward(hidden)).float()
            return own_scale(model, logits) if normed else logits

    return read
