"""Loading: any Hugging Face causal language model as a TransformerBridge in raw mode.

What a pass of the model does is in `passes`, which positions it holds in `positions`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from workbench import storage
from workbench.doors import door
from workbench.errors import WorkbenchError, kind_of
from workbench.hub import asking_the_hub
from workbench.models.architectures import require_adapter, require_decoder
from workbench.models.bridge_checks import require_bridge, require_heads
from workbench.models.fetching import FETCHABLE, fetched
from workbench.models.gguf_files import load_gguf
from workbench.models.identity import Model, Origin, identify, remember, shape_of
from workbench.models.shipped import SHIPPED
from workbench.models.unwrapping import is_unwrapped, unwrap


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
            than Hugging Face, a layer without attention heads to edit, a bridge with hooks on it,
            no tokenizer, or a dtype that is not floating-point.

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

    if isinstance(source, str | Path):
        kind = floating_dtype(torch.float32 if dtype is None else dtype)
        _require_one_place(device, device_map)
        require_device(device)
        place = storage.expanded(source)
        boot = _boot_from_gguf if _is_gguf(place) else _boot_from_name
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
        own = (_boot_from_bridge if bridged else _boot_from_loaded)(source, tokenizer)
    model, chosen = own
    remember(model, tokenizer=chosen)
    if not chosen.is_fast:
        raise WorkbenchError(
            f"the tokenizer of {identify(model).name} is a slow one, without character offsets",
            "a fast tokenizer, whose offsets tell where an answer begins",
        )
    if not chosen("a b").input_ids:
        raise WorkbenchError(
            f"{identify(model).name} comes without a tokenizer (its tokenizer has no tokens)",
            "a folder with tokenizer files, or tokenizer=",
        )
    called = _called(model)
    require_heads(model, called)
    model.eval()
    for parameter in model.original_model.parameters():
        parameter.requires_grad_(False)
    unwrap(model)
    shape = shape_of(model)
    require_bridge(model, called, shape.heads, shape.d_head)
    return model


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


def _boot_from_name(
    name: str, tokenizer: Any, dtype: torch.dtype, device: Any, device_map: Any
) -> tuple[Model, Any]:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoConfig, AutoTokenizer

    place = SHIPPED.get(name, name)
    _require_spelling(place)
    if looks_like_folder(place):
        storage.existing(place, "model folder")
        storage.existing(Path(place) / "config.json", "model config")
    asking = nullcontext() if looks_like_folder(place) else asking_the_hub()
    try:
        with asking, quiet():
            config = AutoConfig.from_pretrained(place, trust_remote_code=False)
            require_decoder(config, name)
            require_adapter(config, name)
            own = tokenizer or AutoTokenizer.from_pretrained(place, trust_remote_code=False)
            model = TransformerBridge.boot_transformers(
                place, dtype=dtype, device=device, device_map=device_map,
                tokenizer=_unaltered(own, place), trust_remote_code=False,
            )  # fmt: skip
    except WorkbenchError:
        raise
    except Exception as error:
        raise WorkbenchError(
            f"the model {name!r} could not be loaded on device {device or 'by default'} "
            f"({_reason(error)})",
            f"{', '.join(map(repr, _named()))}, a .gguf file, a folder in Hugging Face format "
            "or a hub name",
            "Check the spelling, the network, your access to the model and the device.",
        ) from None
    return model, own


def _named() -> list[str]:
    """The models that have a name of their own here."""
    return [*SHIPPED, *(name for name, weights in FETCHABLE.items() if weights.model)]


def _require_spelling(name: str) -> None:
    """Refuse, before the hub is asked, no name and one that is nearly a name of the workbench's."""
    if not name.strip():
        raise WorkbenchError("a model without a name", f"{', '.join(_named())}, or another model")
    if "/" in name or looks_like_folder(name) or not get_close_matches(name, _named(), 1, 0.8):
        return
    raise WorkbenchError.unknown(
        f"the model {name!r}", name, [*_named(), "a folder, or a hub name"]
    )


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


def _is_gguf(name: str) -> bool:
    return name in FETCHABLE or (name.lower().endswith(".gguf") and not Path(name).is_dir())


def _boot_from_gguf(
    name: str, tokenizer: Any, dtype: torch.dtype, device: Any, device_map: Any
) -> tuple[Model, Any]:
    """A model of a GGUF file, or of one that was fetched by its name."""
    weights = FETCHABLE.get(name)
    if weights is not None and not weights.model:
        raise WorkbenchError(f"the weights {name!r} ({weights.about})", "a language model")
    place = name if weights is None else fetched(name)
    with quiet():
        plain, own, header = load_gguf(place, dtype, device, device_map)
    model, chosen = _boot_from_loaded(plain, tokenizer or own)
    licence = header.licence if weights is None else weights.licence
    remember(model, origin=Origin(name, header.quantisation, licence))
    return model, chosen


def _unaltered(tokenizer: Any, name: str) -> Any:
    """A copy that TransformerLens keeps as it is.

    It would otherwise load the tokenizer again by its name, with a beginning-of-sequence token
    forced on; models that were trained without one must not see it.
    """
    kept = copy.deepcopy(tokenizer)
    kept.init_kwargs = {"name_or_path": name, **kept.init_kwargs, "add_bos_token": True}
    return kept


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bar that transformers shows while it loads weights."""
    from transformers.utils import logging as untyped

    logging: Any = untyped
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def looks_like_folder(place: str) -> bool:
    """Whether a model's or data set's name is meant as a path on this machine."""
    return place.startswith(("/", "./", "../", "~")) or Path(place).exists()


def _boot_from_loaded(model: Any, tokenizer: Any) -> tuple[Model, Any]:
    from transformer_lens.model_bridge import TransformerBridge

    if not hasattr(model, "config"):
        raise WorkbenchError(f"{kind_of(model)}", "a name, a folder or a loaded Hugging Face model")
    require_decoder(model.config, type(model).__name__, [type(model).__name__])
    if tokenizer is None:
        raise WorkbenchError(
            "a loaded model without its tokenizer",
            "load_model(model, tokenizer)",
        )
    kind = type(model).__name__
    name = getattr(model.config, "_name_or_path", "") or kind
    if not model.config.architectures:  # as saving the model would set it
        model.config.architectures = [kind]
    require_adapter(model.config, name)
    try:
        bridge = TransformerBridge.boot_transformers(
            name,
            hf_model=model,
            tokenizer=_unaltered(tokenizer, name),
            dtype=model.dtype,
            device=None if hasattr(model, "hf_device_map") else model.device,
        )
    except Exception as error:
        raise WorkbenchError(
            f"TransformerLens cannot wrap this {kind} ({_reason(error)})",
            "an architecture and config that its adapters were written for",
        ) from None
    return bridge, tokenizer


def _boot_from_bridge(model: Model, tokenizer: Any) -> tuple[Model, Any]:
    """A bridge that somebody else has made, and its tokenizer."""
    hooked = [name for name, point in model.hook_dict.items() if point.fwd_hooks or point.bwd_hooks]
    if hooked:
        raise WorkbenchError(
            f"a TransformerBridge with hooks on it ({hooked[0]})",
            "one without, as TransformerLens makes it",
            "bridge.reset_hooks(including_permanent=True) takes them off; hooks that are added "
            "afterwards act as ever.",
        )
    require_adapter(model.original_model.config, str(model.cfg.model_name))
    chosen = tokenizer or model.tokenizer
    if chosen is None:
        raise WorkbenchError(
            "a TransformerBridge without a tokenizer", "load_model(model, tokenizer)"
        )
    return model, chosen


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
