"""Fingerprints of weights: whether two models are the same, whatever they are called."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from workbench.models.identity import Model

WHOLE: Mapping[int, torch.dtype] = {
    1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64,
}  # fmt: skip
PART = 1 << 24
"""Entries summed at a time."""
_KNOWN: WeakKeyDictionary[Model, str] = WeakKeyDictionary()


def fingerprint_of_weights(model: Model) -> str:
    """That of the model behind the bridge, see `fingerprint_of_parameters`."""
    if model in _KNOWN:
        return _KNOWN[model]
    return fingerprint_of_parameters(model.original_model)


def fingerprint_of_parameters(module: nn.Module, *, buffers: bool = False) -> str:
    """A fingerprint of each parameter, by two sums over its bits and sixteen of its values.

    The second sum weighs each entry by its place, so that entries that change places are noticed.
    Sums of whole numbers do not depend on the number of threads. Of tensors that are held elsewhere
    (on the meta device) the shape alone is known.

    Args:
        module: whose they are.
        buffers: of those that are saved with it, too. Not of what a bridge wraps: it adds some.
    """
    digest = hashlib.sha256()
    more = _saved_buffers(module) if buffers else []
    for name, held in (*sorted(module.named_parameters()), *more):
        if held.is_meta:
            digest.update(f"{name}{tuple(held.shape)}".encode())
            continue
        flat = held.detach().reshape(-1)
        some = flat[_spread(len(flat)).to(flat.device)]
        sums = [0, 0]
        whole = flat.view(WHOLE[flat.element_size()])
        for number, part in enumerate(torch.split(whole, PART)):
            sums[0] += int(part.sum(dtype=torch.int64))
            place = torch.arange(len(part), device=part.device) % 8191 + 1
            weighed = (part.long() % 8191) * place
            sums[1] += (number + 1) * int(weighed.sum())
        digest.update(name.encode() + some.double().cpu().numpy().tobytes() + repr(sums).encode())
    return digest.hexdigest()[:16]


def _saved_buffers(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Buffers that are part of the module's state, such as the means of a batch norm."""
    return sorted(
        (f"{place}.{name}", buffer)
        for place, own in module.named_modules()
        for name, buffer in own.named_buffers(recurse=False)
        if name not in own._non_persistent_buffers_set
    )


@contextmanager
def weights_stay(model: Model, fingerprint: str) -> Iterator[None]:
    """A block in which nobody changes the weights, whose fingerprint is known."""
    _KNOWN[model] = fingerprint
    try:
        yield
    finally:
        _KNOWN.pop(model, None)


def _spread(count: int) -> Tensor:
    """Sixteen numbers from the first to the last of so many, or all where there are fewer."""
    most = min(16, count)
    return torch.tensor([k * (count - 1) // max(1, most - 1) for k in range(most)]).long()
