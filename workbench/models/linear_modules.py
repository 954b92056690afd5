"""The linear modules of a model's blocks, by their names, and low-rank changes on them.

TransformerLens reads queries, keys and values off a module that holds all three by modules of its
own, each with some of its rows. Passes of the unwrapped model run the one, the bridge's own passes
the others: a change is attached to both.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.errors import WorkbenchError
from workbench.models.identity import Model
from workbench.models.ownership import ownership
from workbench.models.unwrapping import hooks_of, own_modules, uncounted

Low = tuple[Tensor, Tensor]
"""A [rank, input] and B [output, rank] of a change B·A of a weight."""
_SPLIT = "_workbench_split"  # on the bridge itself, whose modules the parts are
_FORKS = ("use_split_qkv_input", "use_attn_in")
"""Flags with which a bridge reads queries, keys and values off weights, and runs no module."""
_TENSOR: dict[type, bool] = {}
"""Whether modules of a type give a tensor, of those that were asked."""


@dataclass(frozen=True)
class Part:
    """A module that the bridge runs in the place of a larger one, and which of its rows it has."""

    module: nn.Module
    rows: Int[Tensor, " output"]


def linear_modules(model: Model) -> dict[str, nn.Module]:
    """Linear modules within the model's blocks, by their names in the model as it was loaded.

    Those that turn states into logits, or tokens into states, are not within blocks; experts that
    are held as one tensor are no modules. Routers that give more than one tensor are left out.
    """
    inside = {key for block in model.blocks for own in _side_by_side(block) for key in own}
    return {
        name: module for name, module in own_modules(model).items() if hooks_of(module) in inside
    }


def sizes_of(module: Any) -> tuple[int, int] | None:
    """How many inputs and outputs a linear module has; None of other modules."""
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, Conv1D):  # GPT-2's, whose weight is [input, output]
        return module.weight.shape[0], module.weight.shape[1]
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    return None


def _gives_a_tensor(module: Any) -> bool:
    """Whether what a linear module gives is what it says, which it is not of Llama 4's routers."""
    kind = type(module)
    if not isinstance(module, nn.Linear) or kind.forward is nn.Linear.forward:
        return True
    if kind not in _TENSOR:
        try:
            with torch.no_grad():
                given = module.forward(module.weight.new_zeros(1, module.in_features))
        except Exception:  # of weights in a form of their own; its passes will tell
            given = module.weight
        _TENSOR[kind] = isinstance(given, Tensor)
    return _TENSOR[kind]


def split_parts(model: Model, names: Collection[str]) -> dict[str, list[Part]]:
    """What the bridge runs in the place of linear modules that it splits, by their names.

    Args:
        model: the bridge.
        names: of linear modules, of which the parts are asked.

    Raises:
        WorkbenchError: a part whose rows cannot be told, or a bridge that runs none of its parts.
    """
    known = {hooks_of(module): name for name, module in linear_modules(model).items()}
    kept: dict[Any, dict[str, list[Part]]] = vars(model).setdefault(_SPLIT, {})
    found: dict[str, list[Part]] = {}
    for linear in (own for block in model.blocks for own in _side_by_side(block)):
        whole = {known[key]: own for key, own in linear.items() if key in known}
        parts = [own for key, own in linear.items() if key not in known and _may_be(own, whole)]
        if not parts or whole.keys().isdisjoint(names):
            continue
        if any(getattr(model.cfg, flag, False) for flag in _FORKS):
            raise WorkbenchError(
                f"a low-rank change beside {next(iter(whole))} while {' or '.join(_FORKS)} is on",
                "both off: the bridge then reads queries, keys and values off their weights",
            )
        weights = [own.weight for own in (*whole.values(), *parts)]
        state = tuple((id(own), own.data_ptr(), own._version) for own in weights)
        if state not in kept:
            kept[state] = _matched(whole, parts)
        found |= kept[state]
    return found


def _side_by_side(block: Any) -> list[dict[int, Any]]:
    """The linear modules of a block's attention, and of what else it consists of."""
    found: dict[str, dict[int, Any]] = defaultdict(dict)
    for path, own in block.original_component.named_modules():
        if sizes_of(own) is not None and _gives_a_tensor(own):
            found[path.partition(".")[0]][hooks_of(own)] = own
    return list(found.values())


def _may_be(part: Any, whole: Mapping[str, Any]) -> bool:
    """Whether a module may be a part of one of others: it has fewer rows, as long."""
    inputs, outputs = sizes_of(part) or (0, 0)
    sizes = [sizes_of(own) or (0, 0) for own in whole.values()]
    return any(width == inputs and rows > outputs for width, rows in sizes)


def _matched(whole: Mapping[str, Any], parts: Sequence[Any]) -> dict[str, list[Part]]:
    """The parts of each module, all of whose rows it has."""
    if any(own.weight.is_meta for own in (*whole.values(), *parts)):
        raise WorkbenchError(
            f"a low-rank change beside {next(iter(whole))}, whose weights are elsewhere",
            "weights on a device, by which it can be told which parts they are split into",
        )
    larger = {n: own for n, own in whole.items() if any(_may_be(part, {n: own}) for part in parts)}
    rows = {name: _as_bytes(_rows(own)) for name, own in larger.items()}
    found: dict[str, list[Part]] = defaultdict(list)
    for part in parts:
        mine = _as_bytes(_rows(part))
        at = ((name, rows_among(mine, own)) for name, own in rows.items())
        name, own = next(((name, own) for name, own in at if own is not None), ("", None))
        if own is None:
            raise WorkbenchError(
                f"one of {', '.join(rows)}, which TransformerLens splits: its parts have other "
                "rows, or rows that are equal",
                "rows of which it can be told which part they are in",
                "modules=... leaves it as it is.",
            )
        found[name].append(Part(part, own))
    return dict(found)


def _rows(module: Any) -> Float[Tensor, "output input"]:
    """The weight of a linear module, a row an output."""
    weight: Tensor = module.weight.detach()
    return weight if isinstance(module, nn.Linear) else weight.T


def rows_among(part: list[bytes], whole: list[bytes]) -> Int[Tensor, " some"] | None:
    """Which rows of a weight another one has, in their order.

    None where some row is none of them, or one of several of which the part has not all.
    """
    places, count = defaultdict[bytes, list[int]](list), Counter(part)
    for number, row in enumerate(whole):
        places[row].append(number)
    if any(len(places[row]) != times for row, times in count.items()):
        return None
    taken = {row: iter(places[row]) for row in count}
    return torch.tensor([next(taken[row]) for row in part])


def _as_bytes(weight: Tensor) -> list[bytes]:
    return [row.tobytes() for row in weight.cpu().contiguous().view(torch.uint8).numpy()]


@contextmanager
def low_rank(model: Model, changes: Mapping[str, Low]) -> Iterator[None]:
    """Add low-rank changes to the outputs of linear modules for the length of a block.

    Args:
        model: the bridge.
        changes: by the modules' names.

    Raises:
        WorkbenchError: the model has no such module, or one of other sizes; its weights are folded;
            what it is split into cannot be told; or another thread has hooks on the model.
    """
    known = linear_modules(model)
    missing = [name for name in changes if name not in known]
    if missing:
        raise WorkbenchError(
            f"a change of {missing[0]}",
            f"a linear module of the model, such as {next(iter(known), '')}",
        )
    for name, (down, up) in changes.items():
        if (down.shape[1], len(up)) != sizes_of(known[name]):
            raise WorkbenchError(
                f"a change of {name} from {down.shape[1]} to {len(up)} channels",
                "from {} to {}, as the module has".format(*(sizes_of(known[name]) or ())),
            )
    if getattr(model, "_weights_processed", False):
        raise WorkbenchError(
            "a low-rank change of a model whose weights TransformerLens has folded",
            "the weights that it was fitted to",
            "enable_compatibility_mode(no_processing=True) leaves them.",
        )
    parts = split_parts(model, changes)
    with ExitStack() as stack:
        stack.enter_context(ownership(model).block())
        for name, (down, up) in changes.items():
            stack.callback(known[name].register_forward_hook(_adding(down, up)).remove)
            for part in parts.get(name, ()):
                hook = _adding(down, up, part.rows)
                handle = part.module.register_forward_hook(hook)
                stack.callback(handle.remove)
                stack.enter_context(uncounted(model, handle.id))
        yield


def _adding(down: Tensor, up: Tensor, rows: Tensor | None = None) -> Any:
    def hook(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        given = args[0]
        exact = given.to(torch.promote_types(given.dtype, torch.float32))
        own = up if rows is None else up[rows.to(up.device)]
        change = exact @ down.to(exact).T @ own.to(exact).T
        return output.add(change.to(output.dtype))

    return hook
