"""What a bridge must do before anything is built on it, found by running it once.

TransformerLens rebuilds the attention of many architectures, and is not right for all of them.
A pass over a few tokens tells: the logits are Hugging Face's, z has the heads that the config
promises, and the last layer's residual stream leads to the logits, which the logit lens relies on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.modules.module import register_module_forward_hook

from workbench.errors import WorkbenchError
from workbench.models.logit_lens import vocabulary_logits
from workbench.models.unwrapping import (
    difference,
    hooks_of,
    probe,
    remember_left_out,
    runner,
    tolerance,
)


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
    """Refuse bridges that compute something else than they say; keep which modules they run.

    Args:
        model: the bridge.
        name: what to call the model.
        heads: its number of query heads.
        d_head: their width.

    Raises:
        WorkbenchError: the bridge's pass fails, its logits are not the unwrapped model's, z is not
            [batch, position, head, d_head], or the final norm and unembedding do not give the
            logits.
    """
    real, arguments = probe(model.original_model)
    with torch.no_grad():
        wanted = runner(model)(**arguments).logits
    if not bool(wanted[real].isfinite().all()):
        raise WorkbenchError(
            f"{name}, whose logits are not finite",
            "a model whose weights are finite numbers",
            "They are damaged, or overflow in this dtype.",
        )
    seen = _pass(model, arguments, name, wanted.dtype)
    allowed = tolerance(wanted.dtype)
    apart = difference(seen.logits[real], wanted.cpu()[real])
    if not apart <= allowed:  # NaN is no agreement
        raise WorkbenchError(
            f"{name}, whose logits TransformerLens' bridge changes by {apart:.2g} of their "
            "standard deviation",
            "an architecture that TransformerLens computes as Hugging Face does",
        )
    for layer, z in enumerate(seen.z):
        if z != (*real.shape, heads, d_head):
            raise WorkbenchError(
                f"{name}, whose z in layer {layer} is {list(z) if z else 'never computed'}",
                f"[batch, position, head, d_head] with {heads} heads of {d_head}",
            )
    read = seen.residual
    if read is None or not (
        difference(vocabulary_logits(model, read).cpu()[real], wanted.cpu()[real]) <= allowed
    ):
        raise WorkbenchError(
            f"{name}, whose logits are not the final norm and unembedding of its last layer's "
            "residual stream, so that the logit lens cannot read it",
            "an architecture whose logits are read off the residual stream",
        )


@dataclass(frozen=True)
class _Seen:
    """What a pass of the bridge shows.

    Attributes:
        logits: on the CPU.
        z: its shape in every layer; None where it is not computed.
        residual: what the last layer leaves; None where the bridge does not tell.
    """

    logits: Float[Tensor, "row token vocabulary"]
    z: tuple[tuple[int, ...] | None, ...]
    residual: Float[Tensor, "row token d_model"] | None


def _pass(model: Any, arguments: Mapping[str, Any], name: str, dtype: torch.dtype) -> _Seen:
    layers = range(int(model.cfg.n_layers))
    z = [f"blocks.{layer}.attn.hook_z" for layer in layers]
    last = f"blocks.{layers[-1]}.hook_resid_post"
    kept: dict[str, Tensor] = {}
    hooks = [
        (point, lambda value, point=point, **_: kept.update({point: value.detach()}))
        for point in (*z, last)
        if point in model.hook_dict
    ]
    ran: set[int] = set()
    handle = register_module_forward_hook(lambda module, *_: ran.add(hooks_of(module)))
    try:
        with torch.no_grad(), model.hooks(fwd_hooks=hooks):
            logits = model.original_model(**arguments).logits
    except Exception as error:
        raise WorkbenchError(
            f"{name}, of which TransformerLens' bridge in {dtype} fails ({error})",
            "an architecture and dtype whose passes run",
            "Where 16 bits fail, dtype='float32' may do.",
        ) from None
    finally:
        handle.remove()
    remember_left_out(model, ran)
    shapes = tuple(tuple(kept[point].shape) if point in kept else None for point in z)
    return _Seen(logits.cpu(), shapes, kept.get(last))
