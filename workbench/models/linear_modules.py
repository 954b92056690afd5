"""The linear modules of a model's blocks, by their names, and low-rank changes on them.

TransformerLens reads queries, keys and values off a module that holds all three by modules of its
own, each with some of its rows. Passes of the unwrapped model run the one, the bridge's own passes
the others: a change is attached to both.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.errors import WorkbenchError
from workbench.models.identity import Model
from workbench.models.ownership import ownership
from workbench.models.unwrapping import hooks_of, own_modules

Low = tuple[Tensor, Tensor]
"""A [rank, input] and B [output, rank] of a change B·A of a weight."""
_SPLIT = "_workbench_split"  # on the bridge itself, whose modules the parts are


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
    inside = {key for block in model.blocks for key in _linear(block)}
    return {
        name: module for name, module in own_modules(model).items() if hooks_of(module) in inside
    }


def _linear(block: Any) -> dict[int, nn.Module]:
    """The linear modules of a block of the bridge, those that it made among them."""
    modules = block.original_component.modules()
    return {hooks_of(own): own for own in modules if sizes_of(own) and _gives_a_tensor(own)}


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
    plain = not isinstance(module, nn.Linear) or type(module).forward is nn.Linear.forward
    if plain or not module.weight.is_floating_point():
        return True
    with torch.no_grad():
        return isinstance(module.forward(module.weight.new_zeros(1, module.in_features)), Tensor)


def split_parts(model: Model) -> dict[str, list[Part]]:
    """What the bridge runs in the place of linear modules that it splits, by their names.

    Raises:
        WorkbenchError: a part whose rows are not those of a module of its block.
    """
    if _SPLIT not in vars(model):
        vars(model)[_SPLIT] = _split_parts(model)
    found: dict[str, list[Part]] = vars(model)[_SPLIT]
    return found


def _split_parts(model: Model) -> dict[str, list[Part]]:
    known = {hooks_of(module): name for name, module in linear_modules(model).items()}
    found: dict[str, list[Part]] = defaultdict(list)
    for block in model.blocks:
        linear = _linear(block)
        whole = {known[key]: own for key, own in linear.items() if key in known}
        for part in (own for key, own in linear.items() if key not in known):
            rows = {name: rows_among(_rows(part), _rows(own)) for name, own in whole.items()}
            name, own = next(((n, r) for n, r in rows.items() if r is not None), (None, None))
            if name is None or own is None:
                raise WorkbenchError(
                    f"a module of {len(_rows(part))} rows that TransformerLens made",
                    f"rows of one of {', '.join(whole)}",
                    "A low-rank change cannot follow a model whose weights were changed.",
                )
            found[name].append(Part(part, own))
    return dict(found)


def _rows(module: Any) -> Float[Tensor, "output input"]:
    """The weight of a linear module, a row an output."""
    weight: Tensor = module.weight.detach()
    return weight if isinstance(module, nn.Linear) else weight.T


def rows_among(
    part: Float[Tensor, "some width"], whole: Float[Tensor, "output input"]
) -> Int[Tensor, " some"] | None:
    """Which rows of a weight another one has; of equal ones the first behind the one before.

    None where some row is none of them.
    """
    if part.shape[1] != whole.shape[1] or len(part) > len(whole):
        return None
    places: dict[bytes, list[int]] = defaultdict(list)
    for number, row in enumerate(_as_bytes(whole)):
        places[row].append(number)
    found: list[int] = []
    for row in _as_bytes(part):
        own = places.get(row)
        if own is None:
            return None
        after = bisect_right(own, found[-1] if found else -1)
        found.append(own[min(after, len(own) - 1)])
    return torch.tensor(found)


def _as_bytes(weight: Tensor) -> Iterator[bytes]:
    for row in weight.cpu().contiguous().view(torch.uint8).numpy():
        yield row.tobytes()


@contextmanager
def low_rank(model: Model, changes: Mapping[str, Low]) -> Iterator[None]:
    """Add low-rank changes to the outputs of linear modules for the length of a block.

    Args:
        model: the bridge.
        changes: by the modules' names.

    Raises:
        WorkbenchError: the model has no such module, or another thread has hooks on it.
    """
    known = linear_modules(model)
    missing = [name for name in changes if name not in known]
    if missing:
        raise WorkbenchError(
            f"a change of {missing[0]}",
            f"a linear module of the model, such as {next(iter(known), '')}",
        )
    parts = split_parts(model)
    with ExitStack() as stack:
        stack.enter_context(ownership(model).block())
        for name, (down, up) in changes.items():
            handles = [known[name].register_forward_hook(_adding(down, up))]
            for part in parts.get(name, ()):
                rows = up[part.rows.to(up.device)]
                handles.append(part.module.register_forward_hook(_adding(down, rows)))
            for handle in handles:
                stack.callback(handle.remove)
        yield


def _adding(down: Tensor, up: Tensor) -> Any:
    def hook(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        given = args[0]
        exact = given.to(torch.promote_types(given.dtype, torch.float32))
        change = exact @ down.to(exact).T @ up.to(exact).T
        return output.add(change.to(output.dtype))

    return hook
