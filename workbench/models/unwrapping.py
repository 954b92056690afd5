"""Unwrapping: the Hugging Face model as it was before TransformerLens wrapped it, for bulk work.

A bridge replaces the modules of its model by hook points around them, in place, and forces eager
attention; both cost time on every pass. `unwrap` puts the modules together again beside the bridge:
the same weights, buffers and torch hooks, held once, with scaled-dot-product attention. `runner`
says which of the two a pass must go through.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from workbench.errors import WorkbenchError

_OWN = ("transformer_lens.", "transformers.", "workbench.models.positions")
_WIRED = "_workbench_wired"
_UNCOUNTED = "_workbench_uncounted"
_LEFT_OUT = "_workbench_left_out"
_PLACE = "_workbench_unwrapped"  # on the bridge itself, whose modules the pair refers to


@dataclass(frozen=True)
class _Pair:
    """An unwrapped model, and what it was made from.

    Attributes:
        plain: the unwrapped model.
        bridged: modules that only the bridge's passes run through.
        parts: every module that was looked at, and what it consisted of.
    """

    plain: Any
    bridged: tuple[nn.Module, ...]
    parts: tuple[tuple[nn.Module, tuple[int, ...]], ...]


def unwrap(model: Any) -> None:
    """Put the modules of a freshly made bridge together again, for `runner`.

    Only modules that held a wrapped one, or whose `forward` TransformerLens replaced, are copied,
    without their tensors: copies share the originals' parameters, buffers and torch hooks.
    Attention is `sdpa` where the architecture has it, no soft-capping and the same logits, else as
    the bridge set it. Models that patch the `forward` of such a module stay wrapped.
    """
    vars(model)[_WIRED] = frozenset(
        key for module in model.modules() if _is_point(module) for key in _keys(module)
    )
    walk = _Unwrapping()
    plain = walk.of(model.original_model)
    if plain is None:
        return
    _set_fast_attention(plain)
    obeyed = {id(module._forward_pre_hooks) for module in plain.modules()}
    bridged = {id(m): m for root in (model, model.original_model) for m in root.modules()}
    own = tuple(m for m in bridged.values() if id(m._forward_pre_hooks) not in obeyed)
    parts = tuple((module, _consists_of(module)) for module in walk.seen)
    vars(model)[_PLACE] = _Pair(plain, own, parts)


def is_unwrapped(model: Any) -> bool:
    """Whether a bridge was looked at here: `unwrap` knows which hooks it came with."""
    return _WIRED in vars(model)


def forget(model: Any) -> None:
    """Undo `unwrap` of a bridge that turned out to compute something else than it says."""
    for key in (_WIRED, _PLACE, _LEFT_OUT):
        vars(model).pop(key, None)


def foreign_hook(model: Any) -> str | None:
    """The first hook point, or module around one of the model's own, with a user's hook on it.

    TransformerLens' own hooks are permanent; those that its caches add are the user's.
    """
    for name, module in model.named_modules():
        if _is_point(module):
            for handle in (*module.fwd_hooks, *module.bwd_hooks):
                if not (handle.is_permanent and _home(handle.user_hook).startswith(_OWN)):
                    return str(name)
        elif not type(module).__module__.startswith("transformer_lens."):
            continue
        kinds = ("forward", "forward_pre", "backward", "backward_pre")
        added = [hook for kind in kinds for hook in vars(module)[f"_{kind}_hooks"].values()]
        if not all(_home(hook).startswith(_OWN) for hook in added):
            return str(name) or "the bridge itself"
    return None


def runner(model: Any) -> Any:
    """The module that passes go through: the unwrapped model, unless the bridge has hooks to obey.

    Torch hooks on the model's own modules are shared by both, and are obeyed either way. A model
    whose modules were exchanged or patched since runs as it is, through the bridge's.

    Raises:
        WorkbenchError: a bridge that `load_model` was not given.
    """
    if not is_unwrapped(model):
        raise WorkbenchError(
            "a TransformerBridge that was not looked at", "load_model(bridge)",
            "It finds out which modules the bridge's passes leave out, where edits must act too.",
        )  # fmt: skip
    pair: _Pair | None = vars(model).get(_PLACE)
    if pair is None or model.compatibility_mode or _any_hooked(model, pair.bridged):
        return model.original_model
    stale = any(_consists_of(module) != before for module, before in pair.parts)
    return model.original_model if stale else pair.plain


def own_modules(model: Any) -> dict[str, nn.Module]:
    """The modules that passes run through whichever way they go, by their names when loaded."""
    pair: _Pair | None = vars(model).get(_PLACE)
    bridged = {hooks_of(module) for module in model.original_model.modules()}
    plain = model.original_model if pair is None else pair.plain
    return {name: own for name, own in plain.named_modules() if hooks_of(own) in bridged}


def remember_left_out(model: Any, ran: Collection[int]) -> None:
    """Keep which modules a pass of the bridge's own left out.

    Args:
        model: the bridge.
        ran: `hooks_of` the modules that ran.
    """
    modules = model.original_model.modules()
    vars(model)[_LEFT_OUT] = frozenset(own for own in modules if hooks_of(own) not in ran)


def left_out(model: Any) -> frozenset[nn.Module]:
    """Modules that the bridge's own passes do not run, since its wrappers do their work."""
    found: frozenset[nn.Module] = vars(model).get(_LEFT_OUT, frozenset())
    return found


@contextmanager
def uncounted(model: Any, key: int) -> Iterator[None]:
    """A hook on what the bridge alone runs, for the length of a block, that passes need not obey.

    Its twin on the model's own module serves those that run unwrapped.
    """
    keys: set[int] = vars(model).setdefault(_UNCOUNTED, set())
    keys.add(key)
    try:
        yield
    finally:
        keys.discard(key)


def hooks_of(module: nn.Module) -> int:
    """What a module and its unwrapped copy have in common: the torch hooks that both obey."""
    return id(module._forward_hooks)


def has_hooks(model: Any) -> bool:
    """Whether anything is attached to the model, by `edited` or by hooks of one's own."""
    roots = (model, model.original_model)
    inside = {id(module): module for root in roots for module in root.modules()}
    return _any_hooked(model, inside.values())


def _consists_of(module: nn.Module) -> tuple[int, ...]:
    return (*map(id, module._modules.values()), id(vars(module).get("forward")))


def _any_hooked(model: Any, modules: Iterable[nn.Module]) -> bool:
    """Whether any module has a torch hook that is not one of the libraries' own, nor uncounted.

    TransformerLens wires some between its hook points when it makes a bridge, and some on the
    modules around them at some passes; transformers does so to collect outputs; and the clock of
    positions listens to the whole model.
    """
    wired: frozenset[int] = vars(model).get(_WIRED, frozenset())
    twins: set[int] = vars(model).get(_UNCOUNTED, set())
    return any(
        key not in wired if _is_point(module) else not _home(hook).startswith(_OWN)
        for module in modules
        for key, hook in (*module._forward_hooks.items(), *module._forward_pre_hooks.items())
        if key not in twins
    )


def _is_point(module: nn.Module) -> bool:
    return type(module).__name__ == "HookPoint"


def _keys(module: nn.Module) -> tuple[int, ...]:
    return (*module._forward_hooks, *module._forward_pre_hooks)


def _home(hook: Any) -> str:
    return str(getattr(hook, "__module__", None) or type(hook).__module__)


class _Unwrapping:
    """One walk over a wrapped model."""

    def __init__(self) -> None:
        self.modules: dict[int, nn.Module | None] = {}
        self.configs: dict[int, Any] = {}
        self.seen: list[nn.Module] = []

    def of(self, module: nn.Module) -> Any:
        """The module's own self and children, unwrapped; None where it cannot be."""
        own: Any = module
        while getattr(own, "original_component", None) is not None:
            self.seen.append(own)
            own = own.original_component
        if id(own) not in self.modules:
            self.modules[id(own)] = self._copy(own)
        return self.modules[id(own)]

    def _copy(self, own: nn.Module) -> nn.Module | None:
        self.seen.append(own)
        children = {
            name: None if child is None else self.of(child) for name, child in own._modules.items()
        }
        present = {name for name, child in own._modules.items() if child is not None}
        if any(children[name] is None for name in present):
            return None
        patch = vars(own).get("forward")
        replaced = patch is not None and _home(patch).startswith("transformer_lens.")
        if not replaced and all(children[name] is own._modules[name] for name in present):
            return own
        if patch is not None and not replaced:
            return None
        made = copy.copy(own)
        made.__dict__["_modules"] = children
        made.__dict__.pop("forward", None)
        config = vars(own).get("config")
        if config is not None:
            self.configs.setdefault(id(config), (config, copy.deepcopy(config)))
            made.__dict__["config"] = self.configs[id(config)][1]
        return made


def _set_fast_attention(plain: Any) -> None:
    """Set the model's attention to `sdpa` if that computes the same."""
    if not getattr(plain, "_supports_sdpa", False):
        return
    if getattr(plain.config, "attn_logit_softcapping", None):
        return
    before = plain.config._attn_implementation
    wanted = _logits(plain)
    plain.set_attn_implementation("sdpa")
    found = _logits(plain)
    if not _agree(found, wanted):
        plain.set_attn_implementation(before)


def _agree(found: Tensor | None, wanted: Tensor | None) -> bool:
    """Whether two passes gave the same logits; none at all and NaN are no agreement."""
    if found is None or wanted is None:
        return False
    return difference(found, wanted) <= tolerance(found.dtype)


def _logits(plain: Any) -> Tensor | None:
    """Logits of the probe's real tokens; None where there is no such pass."""
    real, arguments = probe(plain)
    try:
        with torch.no_grad():
            logits: Tensor = plain(**arguments).logits
    except Exception:  # whatever it is, the bridge's own pass will tell
        return None
    return logits[real.to(logits.device)]


def probe(model: Any) -> tuple[Bool[Tensor, "row token"], dict[str, Any]]:
    """Which tokens of two short rows are real, and the arguments of a pass over them.

    The second row is padded on the left, except in float64: attention of padding, masked by the
    least number, is NaN there, in Hugging Face's fast attention and in the bridge's.
    """
    weight = model.get_input_embeddings().weight
    tokens = torch.linspace(0, len(weight) - 1, 16, dtype=torch.float32).long().view(8, 2).T
    mask = torch.ones_like(tokens)
    if weight.dtype != torch.float64:
        mask[1, :3] = 0
    given = {"input_ids": tokens.to(weight.device), "attention_mask": mask.to(weight.device)}
    return mask.bool(), {**given, "use_cache": False}


def difference(found: Float[Tensor, "*row"], wanted: Float[Tensor, "*row"]) -> float:
    """Root mean square of what two tensors differ in, in standard deviations of the second."""
    exact = wanted.float()
    return float((found.float() - exact).square().mean().sqrt() / exact.std())


def tolerance(dtype: torch.dtype) -> float:
    """Rounding of a whole model, in the units of `difference`; other mathematics differ by more."""
    return 1e-3 if dtype in (torch.float32, torch.float64) else 0.1
