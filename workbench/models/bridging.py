"""Bridging: each kind of source as a TransformerBridge in raw mode, and the tokenizer it came with.

Nothing is checked here that needs the bridge to run: `loading` does that.
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
from workbench.errors import WorkbenchError, kind_of
from workbench.hub import asking_the_hub
from workbench.models.architectures import require_adapter, require_decoder
from workbench.models.fetching import FETCHABLE, fetched
from workbench.models.gguf_files import load_gguf
from workbench.models.identity import Model, Origin, remember
from workbench.models.shipped import SHIPPED
from workbench.models.unwrapping import foreign_hook


def boot_from_name(
    name: str, tokenizer: Any, dtype: torch.dtype, device: Any, device_map: Any
) -> tuple[Model, Any]:
    """A model of a folder or the hub, or one that ships in the package."""
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


def is_gguf(name: str) -> bool:
    """Whether a model's name is that of a GGUF file, or of one that was fetched."""
    return name in FETCHABLE or (name.lower().endswith(".gguf") and not Path(name).is_dir())


def boot_from_gguf(
    name: str, tokenizer: Any, dtype: torch.dtype, device: Any, device_map: Any
) -> tuple[Model, Any]:
    """A model of a GGUF file, or of one that was fetched by its name."""
    weights = FETCHABLE.get(name)
    if weights is not None and not weights.model:
        raise WorkbenchError(f"the weights {name!r} ({weights.about})", "a language model")
    place = name if weights is None else fetched(name)
    with quiet():
        plain, own, header = load_gguf(place, dtype, device, device_map)
    model, chosen = boot_from_loaded(plain, tokenizer or own)
    licence = header.licence if weights is None else weights.licence
    remember(model, origin=Origin(name, header.quantisation, licence))
    return model, chosen


def boot_from_loaded(model: Any, tokenizer: Any) -> tuple[Model, Any]:
    """A bridge around a model of transformers, in place."""
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


def boot_from_bridge(model: Model, tokenizer: Any) -> tuple[Model, Any]:
    """A bridge that somebody else has made, and its tokenizer."""
    hooked = foreign_hook(model)
    if hooked is not None:
        raise WorkbenchError(
            f"a TransformerBridge with a hook of yours on it ({hooked})",
            "one without, as TransformerLens makes it",
            "bridge.reset_hooks() takes off those of its hook points that are not permanent; hooks "
            "that are added afterwards act as ever.",
        )
    inside = model.original_model
    require_decoder(inside.config, str(model.cfg.model_name), [type(inside).__name__])
    require_adapter(inside.config, str(model.cfg.model_name))
    chosen = tokenizer or model.tokenizer
    if chosen is None:
        raise WorkbenchError(
            "a TransformerBridge without a tokenizer", "load_model(model, tokenizer)"
        )
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


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
