"""The linear modules of a model's blocks, by their names, and low-rank changes on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from workbench.errors import WorkbenchError
from workbench.models.identity import Model
from workbench.models.ownership import ownership
from workbench.models.unwrapping import own_modules

Low = tuple[Tensor, Tensor]
"""A [rank, input] and B [output, rank] of a change B·A of a weight."""


def linear_modules(model: Model) -> dict[str, nn.Module]:
    """Linear modules within the model's blocks, by their names in the model as it was loaded.

    Those that turn states into logits, or tokens into states, are not within blocks; and where a
    bridge reads queries, keys and values off one module by modules of its own (GPT-2), that one is
    left out.
    """
    inside = {id(module) for block in model.blocks for module in block.original_component.modules()}
    return {
        name: module
        for name, module in own_modules(model).items()
        if id(module) in inside and sizes_of(module) is not None
    }


def sizes_of(module: Any) -> tuple[int, int] | None:
    """How many inputs and outputs a linear module has; None of other modules."""
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, Conv1D):  # GPT-2's, whose weight is [input, output]
        return module.weight.shape[0], module.weight.shape[1]
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    return None


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
    with ExitStack() as stack:
        stack.enter_context(ownership(model).block())
        for name, (down, up) in changes.items():
            handle = known[name].register_forward_hook(_adding(down, up))
            stack.callback(handle.remove)
        yield


def _adding(down: Tensor, up: Tensor) -> Any:
    def hook(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        given = args[0]
        exact = given.to(torch.promote_types(given.dtype, torch.float32))
        change = exact @ down.to(exact).T @ up.to(exact).T
        return output.add(change.to(output.dtype))

    return hook
