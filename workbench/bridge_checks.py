"""What a bridge must do before anything is built on it, found by running it once.

TransformerLens rebuilds the attention of many architectures, and is not right for all of them.
A pass over a few tokens tells: the logits are Hugging Face's, z has the heads that the config
promises, and the last layer's residual stream leads to the logits, which the logit lens relies on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from workbench.errors import WorkbenchError
from workbench.logit_lens import vocabulary_logits
from workbench.unwrapping import difference, probe, runner, tolerance


def require_heads(model: Any, name: str) -> None:
    """Refuse models of which a layer has no attention heads to edit."""
    layers = range(int(model.cfg.n_layers))
    without = [layer for layer in layers if f"blocks.{layer}.attn.hook_z" not in model.hook_dict]
    if without:
        raise WorkbenchError(
            f"{name} has no attention heads at hook_z in {len(without)} of its {len(layers)} "
            f"layers (the first is {without[0]})",
            "a transformer whose layers all have attention heads",
        )


def require_bridge(model: Any, name: str, heads: int, d_head: int) -> None:
    """Refuse bridges that compute something else than they say.

    Args:
        model: the bridge.
        name: what to call the model.
        heads: its number of query heads.
        d_head: their width.

    Raises:
        WorkbenchError: the bridge's pass fails, its logits are not the unwrapped model's, z is not [batch,
            position, head, d_head], or the final norm and unembedding do not give the logits.
    """
    real, arguments = probe(model.original_model)
    shapes: dict[int, tuple[int, ...]] = {}
    kept: dict[str, Tensor] = {}
    layers = int(model.cfg.n_layers)
    last = f"blocks.{layers - 1}.hook_resid_post"
    hooks: list[tuple[str, Callable[..., None]]] = [
        (f"blocks.{layer}.attn.hook_z", _shape_into(shapes, layer)) for layer in range(layers)
    ]
    if last in model.hook_dict:
        hooks.append((last, lambda value, **_: kept.update(residual=value.detach())))
    with torch.no_grad():
        wanted = runner(model)(**arguments).logits
        try:
            with model.hooks(fwd_hooks=hooks):
                logits = model.original_model(**arguments).logits
        except Exception as error:
            raise WorkbenchError(
                f"{name}, of which TransformerLens' bridge in {wanted.dtype} fails ({error})",
                "an architecture and dtype whose passes run",
                "Where 16 bits fail, dtype='float32' may do.",
            ) from None
    real = real.to(logits.device)
    wanted, logits = wanted[real], logits[real]
    allowed = tolerance(logits.dtype)
    if difference(logits, wanted) > allowed:
        raise WorkbenchError(
            f"{name}, whose logits TransformerLens' bridge changes by "
            f"{difference(logits, wanted):.2g} of their standard deviation",
            "an architecture that TransformerLens computes as Hugging Face does",
        )
    wrong = {layer: shapes.get(layer) for layer in range(layers)}
    wrong = {layer: own for layer, own in wrong.items() if own != (*real.shape, heads, d_head)}
    if wrong:
        layer, own = next(iter(wrong.items()))
        raise WorkbenchError(
            f"{name}, whose z in layer {layer} is {own or 'never computed'}",
            f"[batch, position, head, d_head] with {heads} heads of {d_head}",
        )
    if "residual" not in kept or difference(
        vocabulary_logits(model, kept["residual"][real]), logits
    ) > allowed:  # fmt: skip
        raise WorkbenchError(
            f"{name}, whose logits are not the final norm and unembedding of its last layer's "
            "residual stream, so that the logit lens cannot read it",
            "an architecture whose logits are read off the residual stream",
        )


def _shape_into(shapes: dict[int, tuple[int, ...]], layer: int) -> Callable[..., None]:
    def note(value: Tensor, **_: Any) -> None:
        shapes[layer] = tuple(value.shape)

    return note
