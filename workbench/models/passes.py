"""Running a model with hooks: one forward pass with explicit positions, and where hooks attach.

A place is a point of a layer. Hooks at a place see and change the same tensor whether they are
TransformerLens' or sit on the module beneath.
"""

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
from workbench.models.identity import Model, shape_of
from workbench.models.ownership import ownership
from workbench.models.unwrapping import left_out, runner, uncounted

Site = Literal["hook_point", "module"]
Point = Literal["z", "attn_out", "mlp_out", "resid_pre", "resid_post", "final_norm"]
Place = tuple[Point, int]
"""A point of a layer; the final norm belongs to the last layer."""
Hook = Callable[[Float[Tensor, "batch position *width"]], Tensor | None]
CACHES = ("cache", "past_key_values")
"""What transformers calls the cache of a pass: the first since 5.24."""
NAMES: Mapping[str, str] = {
    "z": "blocks.{}.attn.hook_z",
    "attn_out": "blocks.{}.hook_attn_out",
    "mlp_out": "blocks.{}.hook_mlp_out",
    "resid_pre": "blocks.{}.hook_resid_pre",
    "resid_post": "blocks.{}.hook_resid_post",
    "final_norm": "ln_final.hook_out",
}


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
    inner = runner(model) if inner is None else inner
    kind: Any = type(inner)
    known = argument_names(kind)
    if cache is not None:
        arguments[next((name for name in CACHES if name in known), CACHES[-1])] = cache
    if keep is not None and "logits_to_keep" in known:
        arguments["logits_to_keep"] = keep
    if "position_ids" in known:
        if positions is None:
            positions = (mask.long().cumsum(dim=1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        arguments["position_ids"] = positions
    with torch.no_grad():
        output = inner(input_ids=tokens, **arguments)
    return output.logits, cache_in(output) if cache is not None else None


def cache_of(arguments: Mapping[str, Any]) -> Any:
    """The cache that a pass is given among its arguments by name, or None."""
    given = (arguments.get(name) for name in CACHES)
    return next((cache for cache in given if cache is not None), None)


def cache_in(output: Any) -> Any:
    """The cache that a pass hands back, or None."""
    given = (getattr(output, name, None) for name in CACHES)
    return next((cache for cache in given if cache is not None), None)


def takes_positions(model: Model) -> bool:
    """Whether the model can be told the positions of its tokens."""
    kind: Any = type(model.original_model)
    return "position_ids" in argument_names(kind)


@cached
def argument_names(kind: Any) -> tuple[str, ...]:
    """The arguments that a model's forward takes, in their order."""
    return tuple(inspect.signature(kind.forward).parameters)[1:]


def new_cache(model: Model) -> Any:
    """An empty key-value cache."""
    from transformers import DynamicCache

    return DynamicCache(config=model.original_model.config)


@contextmanager
def attached(
    model: Model, hooks: Mapping[Place, Hook], site: Site = "hook_point"
) -> Iterator[None]:
    """Hooks for the length of a block; removed after exceptions too.

    Args:
        model: the bridge.
        hooks: by point and layer, functions of what passes there: z [batch, position, head,
            d_head], other points [batch, position, d_model]. What one returns takes its place.
        site: `"hook_point"`, TransformerLens' own, or `"module"`, plain torch hooks on the modules
            beneath, which see and change the same tensors and let passes run unwrapped. Points
            that are no module's input or output are hook points at both. Where the bridge's own
            passes leave a module out, its hook is on the hook point, too, for these.

    Raises:
        WorkbenchError: no such site, point or layer, or another thread has hooks on the model.
    """
    if site not in get_args(Site):
        raise WorkbenchError(f"the site {site!r}", f"one of {', '.join(get_args(Site))}")
    for point, layer in hooks:
        require_place(model, point, layer)
    with ExitStack() as stack:
        stack.enter_context(ownership(model).block())
        # In that mode all passes are the bridge's own, and leave out others than those known.
        unwrapped = site == "module" and not model.compatibility_mode
        for place, hook in hooks.items():
            module = _module_at(model, place) if unwrapped else None
            if module is not None:
                stack.callback(_on_module(model, module, place[0], hook).remove)
                if module not in left_out(model):
                    continue
            point = model.hook_dict[NAMES[place[0]].format(place[1])]
            # As a permanent one, which `reset_hooks` within the block does not take away.
            handle = point.add_hook(_without_point(hook), is_permanent=True)
            stack.callback(_taken_off, point, handle)
            if module is not None:
                stack.enter_context(uncounted(model, handle.hook.id))
        yield


def _taken_off(point: Any, handle: Any) -> None:
    """Take a hook off a hook point, whose list TransformerLens keeps beside torch's."""
    handle.hook.remove()
    point.fwd_hooks = [other for other in point.fwd_hooks if other is not handle]


def require_place(model: Model, point: str, layer: int) -> None:
    """Refuse points and layers that a model does not have."""
    layers = shape_of(model).layers
    if point not in NAMES or not 0 <= layer < layers:
        raise WorkbenchError(
            f"the place {point!r} of layer {layer}", f"{', '.join(NAMES)} of 0 to {layers - 1}"
        )
    if NAMES[point].format(layer) not in model.hook_dict:
        raise WorkbenchError(
            f"the place {point!r}, which {type(model.original_model).__name__} does not have",
            "a place that the model has",
        )


def _module_at(model: Model, place: Place) -> Any:
    """The module whose input or output passes at a place; None where there is none."""
    point, layer = place
    block = model.blocks[layer]
    if point == "z":
        return block.attn.o.original_component
    if point == "resid_pre":
        return block.original_component
    parts = {"attn_out": "attn", "mlp_out": "mlp"}
    owner = model.ln_final if point == "final_norm" else block
    owner = getattr(block, parts[point], None) if point in parts else owner
    passes_there = getattr(owner, "hook_out", None) is model.hook_dict[NAMES[point].format(layer)]
    if owner is None or not passes_there:
        return None
    module = owner.original_component
    whole = point in parts and type(module) is type(block.original_component)
    return None if whole else module


def _on_module(model: Model, module: Any, point: Point, hook: Hook) -> Any:
    """The handle of a hook on the module of a place."""
    if point == "z":
        return _pre_hook(module, _projection_input(hook, shape_of(model).heads))
    if point == "resid_pre":
        return _pre_hook(module, _block_input(hook))
    return module.register_forward_hook(_module_output(hook))


def _without_point(hook: Callable[[Tensor], Tensor | None]) -> Callable[..., Tensor | None]:
    """The hook as TransformerLens calls it, which names the hook point too."""
    return lambda value, **_: hook(value)


def _pre_hook(module: Any, hook: Callable[..., Any]) -> Any:
    return module.register_forward_pre_hook(hook, with_kwargs=True)


def _block_input(hook: Hook) -> Callable[..., Any]:
    def pre_hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        changed = hook(args[0] if args else kwargs["hidden_states"])
        if changed is None:
            return None
        return (
            ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": changed})
        )

    return pre_hook


def _module_output(hook: Hook) -> Callable[..., Any]:
    def forward_hook(_module: Any, args: tuple[Any, ...], output: Any) -> Any:
        several = isinstance(output, tuple)
        own = output[0] if several else output
        # Llama 4's experts give the tokens of all rows one behind the other.
        flat = own.dim() == 2 and len(args) > 0 and args[0].dim() == 3
        changed = hook(own.reshape(*args[0].shape[:2], -1) if flat else own)
        if changed is None:
            return None
        changed = changed.reshape(own.shape) if flat else changed
        return (changed, *output[1:]) if several else changed

    return forward_hook


def _projection_input(hook: Hook, heads: int) -> Callable[..., Any]:
    def pre_hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        flat = args[0]
        z = hook(flat.unflatten(-1, (heads, -1)))
        if z is None:
            return None
        return (z.reshape(flat.shape), *args[1:]), kwargs

    return pre_hook
