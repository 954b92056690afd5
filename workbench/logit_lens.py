"""The logit lens: the residual stream of any layer, read through the final norm and unembedding.

The norm is read past its hooks: an edit of the final norm's output is of the model's own pass, and
not of what is read off other layers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.models import Model


def final_norm(model: Model, residual: Float[Tensor, "*row d_model"]) -> Tensor:
    """The final norm of a residual stream, where the model has one."""
    with torch.no_grad():
        if not hasattr(model, "ln_final"):
            return residual
        normed: Tensor = model.ln_final.original_component.forward(residual)
    return normed


def unembedding(model: Model) -> tuple[Tensor, Tensor | None, float | None]:
    """Weights [vocabulary, d_model] and biases of the unembedding, and the logits' soft cap."""
    component = model.unembed.original_component
    cap = getattr(model.original_model.config, "final_logit_softcapping", None)
    return component.weight, getattr(component, "bias", None), cap


def vocabulary_logits(
    model: Model, residual: Float[Tensor, "*row d_model"], *, normed: bool = True
) -> Float[Tensor, "*row vocabulary"]:
    """Read a residual stream through the unembedding (the logit lens), in float32.

    Args:
        model: the bridge.
        residual: residual stream of any layer.
        normed: apply the final norm first; of the last layer's output this gives the model's own
            logits, soft-capping included.
    """
    return logit_lens(model, normed=normed)(residual)


def logit_lens(model: Model, *, normed: bool = True) -> Callable[[Tensor], Tensor]:
    """The same as a function of the residual stream alone, for those who call it often."""
    weight, _, cap = unembedding(model)
    unembed = model.unembed.original_component
    norm = model.ln_final.original_component if normed and hasattr(model, "ln_final") else None
    cap = cap if normed else None

    def read(residual: Tensor) -> Tensor:
        with torch.no_grad():
            hidden = residual.to(weight.device)
            logits: Tensor = unembed(hidden if norm is None else norm.forward(hidden)).float()
        return logits if cap is None else cap * torch.tanh(logits / cap)

    return read
