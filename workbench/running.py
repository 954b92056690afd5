"""Running a model with hooks: one forward pass with explicit positions, and where hooks attach."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache as cached
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import WorkbenchError
from workbench.models import Model, shape_of
from workbench.unwrapping import runner

Site = Literal["hook_z", "projection"]
ZHook = Callable[[Float[Tensor, "batch position head d_head"]], Tensor | None]
ResidualHook = Callable[[Float[Tensor, "batch position d_model"]], None]


def forward(
    model: Model,
    tokens: Int[Tensor, "batch position"],
    mask: Int[Tensor, "batch all_position"] | Float[Tensor, "batch 1 position all_position"],
    cache: Any = None,
    *,
    positions: Int[Tensor, "batch position"] | None = None,
    keep: int | None = None,
    inner: Any = None,
) -> tuple[Float[Tensor, "batch kept_position vocabulary"], Any]:
    """One pass with explicit positions, right for left- and right-padded batches.

    Args:
        model: the bridge.
        tokens: token ids of the new positions.
        mask: 1 for real tokens, 0 for padding, over cached and new positions; or what is added to
            the attention of each new position to each of all, for a model that takes positions.
        cache: a Hugging Face cache to read and extend, or None for a pass without cache.
        positions: of the new tokens; read off the mask by default.
        keep: compute logits at so many of the last positions alone, where the model can.
        inner: what `runner` chose, by those who run many passes; it is chosen here otherwise.

    Returns:
        Logits in the model's dtype, and the cache.
    """
    arguments: dict[str, Any] = {"attention_mask": mask, "use_cache": cache is not None}
    if cache is not None:
        arguments["past_key_values"] = cache
    inner = runner(model) if inner is None else inner
    kind: Any = type(inner)
    known = _parameters(kind)
    if keep is not None and "logits_to_keep" in known:
        arguments["logits_to_keep"] = keep
    if "position_ids" in known:
        if positions is None:
            positions = (mask.long().cumsum(dim=1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        arguments["position_ids"] = positions
    with torch.no_grad():
        output = inner(input_ids=tokens, **arguments)
    return output.logits, output.past_key_values if cache is not None else None


def takes_positions(model: Model) -> bool:
    """Whether the model can be told the positions of its tokens."""
    kind: Any = type(model.original_model)
    return "position_ids" in _parameters(kind)


@cached
def _parameters(kind: Any) -> frozenset[str]:
    """The arguments that a model's forward takes."""
    return frozenset(inspect.signature(kind.forward).parameters)


def new_cache(model: Model) -> Any:
    """An empty key-value cache."""
    from transformers import DynamicCache

    return DynamicCache(config=model.original_model.config)


@contextmanager
def attached(
    model: Model,
    z_hooks: Mapping[int, ZHook],
    residual_hooks: Mapping[int, ResidualHook] | None = None,
    site: Site = "hook_z",
) -> Iterator[None]:
    """Hooks by layer for the length of a block; removed after exceptions too.

    Args:
        model: the bridge.
        z_hooks: functions of z [batch, position, head, d_head]; what one returns replaces z.
        residual_hooks: functions of the residual stream before the layer, which only look.
        site: `"hook_z"`, TransformerLens' hook point, or `"projection"`, a plain torch hook at the
            input of the attention's output projection. Both edit the same tensor.

    Raises:
        WorkbenchError: no such site.
    """
    if site not in get_args(Site):
        raise WorkbenchError(f"the site {site!r}", f"one of {', '.join(get_args(Site))}")
    residual_hooks = residual_hooks or {}
    with ExitStack() as stack:
        if site == "hook_z":
            named: list[tuple[str, Callable[..., Any]]] = [
                (f"blocks.{layer}.hook_resid_pre", _without_point(hook))
                for layer, hook in residual_hooks.items()
            ]
            named += [
                (f"blocks.{layer}.attn.hook_z", _without_point(hook))
                for layer, hook in z_hooks.items()
            ]
            stack.enter_context(model.hooks(fwd_hooks=named))
        else:
            for layer, hook in residual_hooks.items():
                block = model.blocks[layer].original_component
                stack.callback(_pre_hook(block, _block_input(hook)).remove)
            for layer, edit in z_hooks.items():
                projection = model.blocks[layer].attn.o.original_component
                heads = shape_of(model).heads
                stack.callback(_pre_hook(projection, _projection_input(edit, heads)).remove)
        yield


def _without_point(hook: Callable[[Tensor], Tensor | None]) -> Callable[..., Tensor | None]:
    """The hook as TransformerLens calls it, which names the hook point too."""
    return lambda value, **_: hook(value)


def _pre_hook(module: Any, hook: Callable[..., Any]) -> Any:
    return module.register_forward_pre_hook(hook, with_kwargs=True)


def _block_input(look: ResidualHook) -> Callable[..., None]:
    def pre_hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        look(args[0] if args else kwargs["hidden_states"])

    return pre_hook


def _projection_input(edit: ZHook, heads: int) -> Callable[..., Any]:
    def pre_hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        flat = args[0]
        z = edit(flat.unflatten(-1, (heads, -1)))
        if z is None:
            return None
        return (z.reshape(flat.shape), *args[1:]), kwargs

    return pre_hook
