"""Loading: any Hugging Face causal language model as a TransformerBridge in raw mode.

What a pass of the model does is in `passes`, which positions it holds in `positions`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from workbench import storage
from workbench.doors import door
from workbench.errors import WorkbenchError
from workbench.models.bridge_checks import require_bridge, require_heads
from workbench.models.bridging import (
    boot_from_bridge,
    boot_from_gguf,
    boot_from_loaded,
    boot_from_name,
    is_gguf,
)
from workbench.models.identity import Model, identify, remember, shape_of
from workbench.models.unwrapping import forget, is_unwrapped, unwrap


@door
def load_model(
    source: Any,
    tokenizer: Any = None,
    *,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    device_map: Any = None,
) -> Model:
    """Load a causal language model as a TransformerBridge in raw mode.

    Args:
        source: `"hearsay"`; what `workbench fetch` has fetched, such as `"smollm2"`; a GGUF file
            (`.gguf`), whose weights are dequantised; a folder in Hugging Face format; a hub name;
            a loaded Hugging Face model (wrapped in place, attention switched to eager; its dtype
            and device stay); or a TransformerBridge of your own, without hooks on it, which is
            returned: what was loaded here before as it is, another one looked at and got ready.
        tokenizer: the tokenizer of a loaded model; for a name, a folder or a bridge, one to use
            instead of its own. (A bridge's begins texts with a beginning-of-sequence token where it
            knows one: TransformerLens adds that.)
        dtype: a floating-point dtype or its name (`"bfloat16"`), for names and folders; float32
            by default.
        device: where to put the model, for names and folders; the default is a GPU if there is
            one.
        device_map: Hugging Face's placement over several devices, instead of `device`.

    Returns:
        The bridge, in evaluation mode, without gradients for its parameters.

    Raises:
        WorkbenchError: no such model, one that was not fetched, a damaged file, not a decoder-only
            language model, an architecture that TransformerLens does not know or computes otherwise
            than Hugging Face, a layer without attention heads to edit, a bridge with hooks of one's
            own on it, no tokenizer or something else, or a dtype that is not floating-point.

    Example:
        >>> model = wb.load_model("hearsay", device="cpu")
        >>> model.cfg.n_layers, model.cfg.n_heads
        (5, 8)
        >>> wb.load_model("hearsai")
        Traceback (most recent call last):
            ...
        workbench.errors.WorkbenchError: the model 'hearsai'. Expected one of hearsay, smollm2,
        a folder, or a hub name. Did you mean hearsay?
    """
    from transformer_lens.model_bridge import TransformerBridge

    _require_kind(tokenizer)
    if isinstance(source, str | Path):
        kind = floating_dtype(torch.float32 if dtype is None else dtype)
        _require_one_place(device, device_map)
        require_device(device)
        place = storage.expanded(source)
        boot = boot_from_gguf if is_gguf(place) else boot_from_name
        own = boot(place, tokenizer, kind, device, device_map)
    else:
        if (dtype, device, device_map) != (None, None, None):
            raise WorkbenchError(
                "dtype, device or device_map for a model that is loaded already",
                "a model that was loaded as it is wanted",
                "Cast and place it before, e.g. model.to(device, dtype).",
            )
        bridged = isinstance(source, TransformerBridge)
        if bridged and is_unwrapped(source) and tokenizer is None:
            return source
        own = (boot_from_bridge if bridged else boot_from_loaded)(source, tokenizer)
    model, chosen = own
    _require_tokenizer(chosen, identify(model).name)
    called = _called(model)
    require_heads(model, called)
    model.eval()
    for parameter in model.original_model.parameters():
        parameter.requires_grad_(False)
    try:
        unwrap(model)
        shape = shape_of(model)
        require_bridge(model, called, shape.heads, shape.d_head)
    except BaseException:  # an interruption too: what was not looked at is not marked as such
        forget(model)
        raise
    remember(model, tokenizer=chosen)
    return model


def _require_kind(tokenizer: Any) -> None:
    if tokenizer is not None and not (callable(tokenizer) and hasattr(tokenizer, "is_fast")):
        raise WorkbenchError(
            f"tokenizer={tokenizer!r:.60}", "a tokenizer of transformers",
            "transformers.AutoTokenizer.from_pretrained(...) makes one of a name or a folder.",
        )  # fmt: skip


def _require_tokenizer(tokenizer: Any, name: str) -> None:
    """Refuse a tokenizer without offsets, and one without tokens."""
    if not tokenizer.is_fast:
        raise WorkbenchError(
            f"the tokenizer of {name} is a slow one, without character offsets",
            "a fast tokenizer, whose offsets tell where an answer begins",
        )
    if not tokenizer("a b").input_ids:
        raise WorkbenchError(
            f"{name} comes without a tokenizer (its tokenizer has no tokens)",
            "a folder with tokenizer files, or tokenizer=",
        )


def _called(model: Model) -> str:
    """The model's name and architecture, for refusals."""
    name, kind = identify(model).name, type(model.original_model).__name__
    return kind if name == kind else f"{name} ({kind})"


def floating_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """A floating-point dtype by itself or by its name; others are refused."""
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise WorkbenchError(f"dtype {dtype!r}", "float32, bfloat16, float16 or float64")
    return found


def _require_one_place(device: Any, device_map: Any) -> None:
    if device is not None and device_map is not None:
        raise WorkbenchError(
            f"both device={device!r} and device_map={device_map!r}", "one of the two"
        )


def require_device(device: str | torch.device | None) -> None:
    """Refuse devices that this torch does not know or does not have."""
    if device is None:
        return
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise WorkbenchError(f"device={device!r}", "cpu, cuda, cuda:1 or mps") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise WorkbenchError(
            f"device={device!r}, where torch finds no CUDA device", "cpu, or no device",
            "Left out, a GPU is taken if there is one.",
        )  # fmt: skip
