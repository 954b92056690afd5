"""Unwrapping: the Hugging Face model as it was before TransformerLens wrapped it, for bulk work.

A bridge replaces the modules of its model by hook points around them, in place, and forces eager
attention; both cost time on every pass. `unwrap` puts the modules together again beside the bridge:
the same weights, buffers and torch hooks, held once, with scaled-dot-product attention. `runner`
says which of the two a pass must go through.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

_PLACE = "_workbench_unwrapped"  # on the bridge itself, whose modules the pair refers to


@dataclass(frozen=True)
class _Pair:
    """An unwrapped model, and the torch hooks that were there at first.

    Attributes:
        plain: the unwrapped model.
        bridged: modules that only the bridge's passes run through, with their hooks.
        inner: modules inside the unwrapped model, with theirs.
    """

    plain: Any
    bridged: tuple[tuple[nn.Module, frozenset[int]], ...]
    inner: tuple[tuple[nn.Module, frozenset[int]], ...]


def unwrap(model: Any) -> None:
    """Put the modules of a freshly made bridge together again, for `runner`.

    Only modules that held a wrapped one are copied, without their tensors: copies share the
    originals' parameters, buffers and torch hooks. Attention is `sdpa` where the architecture has
    it and no soft-capping, else as the bridge set it. Models that patch the `forward` of such a
    module, and those whose logits then differ from the bridge's, stay wrapped.
    """
    plain = _Unwrapping().of(model.original_model)
    if plain is None or not _alike(model.original_model, _with_fast_attention(plain)):
        return
    obeyed = {id(module._forward_pre_hooks) for module in plain.modules()}
    bridged = {id(m): m for root in (model, model.original_model) for m in root.modules()}
    own = [m for m in bridged.values() if id(m._forward_pre_hooks) not in obeyed]
    inner = [module for module in plain.modules() if module is not plain]
    vars(model)[_PLACE] = _Pair(plain, _with_hooks(own), _with_hooks(inner))


def runner(model: Any) -> Any:
    """The module that passes go through: the unwrapped model, unless the bridge has hooks to obey.

    Torch hooks on the model's own modules are shared by both, and are obeyed either way.
    """
    pair: _Pair | None = vars(model).get(_PLACE)
    if pair is None or model.compatibility_mode:
        return model.original_model
    return model.original_model if _changed(pair.bridged) else pair.plain


def has_hooks(model: Any) -> bool:
    """Whether anything is attached inside the model, by `edited` or by hooks of one's own."""
    pair: _Pair | None = vars(model).get(_PLACE)
    if pair is not None:
        return _changed(pair.bridged) or _changed(pair.inner)
    inside = {id(m): m for root in (model, model.original_model) for m in root.modules()}
    inside.pop(id(model.original_model))
    return any(map(_hooks, inside.values()))


def _with_hooks(modules: Iterable[nn.Module]) -> tuple[tuple[nn.Module, frozenset[int]], ...]:
    return tuple((module, _hooks(module)) for module in modules)


def _changed(modules: Iterable[tuple[nn.Module, frozenset[int]]]) -> bool:
    return any(_hooks(module) != before for module, before in modules)


def _hooks(module: nn.Module) -> frozenset[int]:
    """The torch hooks on a module, without those that the libraries wire for themselves.

    TransformerLens does so on modules around its hook points, transformers to collect outputs,
    both at some passes only; hooks on the hook points themselves are what a user attached.
    """
    hooks = {**module._forward_hooks, **module._forward_pre_hooks}
    if type(module).__name__ == "HookPoint":
        return frozenset(hooks)
    own = ("transformer_lens.", "transformers.")
    return frozenset(key for key, hook in hooks.items() if not _home(hook).startswith(own))


def _home(hook: Any) -> str:
    return str(getattr(hook, "__module__", None) or type(hook).__module__)


class _Unwrapping:
    """One walk over a wrapped model."""

    def __init__(self) -> None:
        self.modules: dict[int, nn.Module | None] = {}
        self.configs: dict[int, Any] = {}

    def of(self, module: nn.Module) -> Any:
        """The module's own self and children, unwrapped; None where it cannot be."""
        own: Any = module
        while getattr(own, "original_component", None) is not None:
            own = own.original_component
        if id(own) not in self.modules:
            self.modules[id(own)] = self._copy(own)
        return self.modules[id(own)]

    def _copy(self, own: nn.Module) -> nn.Module | None:
        children = {
            name: None if child is None else self.of(child) for name, child in own._modules.items()
        }
        present = {name for name, child in own._modules.items() if child is not None}
        if any(children[name] is None for name in present):
            return None
        if all(children[name] is own._modules[name] for name in present):
            return own
        if "forward" in vars(own):
            return None
        made = copy.copy(own)
        made.__dict__["_modules"] = children
        config = vars(own).get("config")
        if config is not None:
            self.configs.setdefault(id(config), (config, copy.deepcopy(config)))
            made.__dict__["config"] = self.configs[id(config)][1]
        return made


def _with_fast_attention(plain: Any) -> Any:
    """The model, its attention set to `sdpa` if that computes the same."""
    capped = getattr(plain.config, "attn_logit_softcapping", None)
    if getattr(plain, "_supports_sdpa", False) and not capped:
        plain.set_attn_implementation("sdpa")
    return plain


def _alike(wrapped: Any, plain: Any) -> bool:
    """Whether both give the same logits for eight tokens."""
    weight = plain.get_input_embeddings().weight
    some = torch.linspace(0, len(weight) - 1, 8).long()[None].to(weight.device)
    with torch.no_grad():
        wanted = wrapped(some, use_cache=False).logits.float()
        found = plain(some, use_cache=False).logits.float()
    allowed = 1e-3 if weight.dtype in (torch.float32, torch.float64) else 0.1
    return bool(((found - wanted).abs() <= allowed * wanted.std()).all())
