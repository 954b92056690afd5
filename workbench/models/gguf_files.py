"""GGUF: language models in one file, often quantised, as transformers reads them.

Weights are dequantised: the model computes in the dtype that is asked for, with the numbers that
quantisation has left. What transformers would leave out in silence is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from workbench import storage
from workbench.errors import WorkbenchError
from workbench.models.gguf_header import Header, read_header


def load_gguf(
    path: storage.PathLike,
    dtype: torch.dtype,
    device: str | torch.device | None = None,
    device_map: Any = None,
) -> tuple[Any, Any, Header]:
    """A model of a GGUF file as a Hugging Face model, its tokenizer, and the file's header.

    Args:
        path: the file.
        dtype: of the dequantised weights.
        device: where to put the model; the default is a GPU if there is one.
        device_map: Hugging Face's placement over several devices, instead of `device`.

    Raises:
        WorkbenchError: see `read_header`; or transformers cannot read the architecture or how its
            positions are scaled, weights are missing, or the device is.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    place = Path(storage.expanded(path)).absolute()
    header = read_header(place)
    # By its whole path: one of this name in the working folder would be taken instead.
    file = {"gguf_file": str(place), "local_files_only": True, "trust_remote_code": False}
    folder = str(place.parent)
    try:
        with _gently():
            tokenizer = AutoTokenizer.from_pretrained(folder, **file)
            found: Any = AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, device_map=device_map, output_loading_info=True,
                quantization_config=GgufConfig(dequantize=True), **file,
            )  # fmt: skip
        model, told = found
        if device_map is None:
            model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WorkbenchError(
            f"{place} of the architecture {header.architecture!r} could not be loaded on device "
            f"{device or 'by default'} ({reason})",
            f"a GGUF file of an architecture that transformers reads: {', '.join(_readable())}",
            "Convert it to Hugging Face format, or name the original model.",
        ) from None
    missing = sorted(told["missing_keys"])
    if missing:
        raise WorkbenchError(
            f"{place} without the weights {missing[0]!r} ({len(missing)} are missing)",
            "a GGUF file with all weights of its architecture",
            "It is damaged, or holds a part of a model.",
        )
    unread = header.entries - _entries(model)
    if unread > 0:
        raise WorkbenchError(
            f"{place} with {header.entries:,} weights, of which transformers reads {unread:,} less",
            "a GGUF file all of whose weights belong to its architecture as transformers has it",
            "Without them (often biases, or layers) another model would be computed. Load the "
            "original in Hugging Face format.",
        )
    if header.scales_positions and not _scaled_positions(model.config):
        raise WorkbenchError(
            f"{place}, which scales rotary positions, and transformers does not read how",
            "a GGUF file whose positions transformers reads whole",
            "Load the original in Hugging Face format: this one would be computed wrongly.",
        )
    for owner, own in ((model.config, "quantization_config"), (model, "hf_quantizer")):
        vars(owner).pop(own, None)  # they forbid to save the model
    model.config._name_or_path = str(path)
    return model, tokenizer, header


def _entries(model: Any) -> int:
    """How many numbers a model's state holds, those of tied weights once."""
    state = model.state_dict()  # what is offloaded has no place in memory
    own = {value.data_ptr() or name: value.numel() for name, value in state.items()}
    return sum(own.values())


def _scaled_positions(config: Any) -> bool:
    """Whether a config scales rotary positions, in layers of any kind."""
    found = getattr(config.get_text_config(), "rope_parameters", None) or {}
    kinds = [found, *(own for own in found.values() if isinstance(own, Mapping))]
    return any(own.get("rope_type", "default") != "default" for own in kinds)


def _readable() -> list[str]:
    from transformers import modeling_gguf_pytorch_utils as reading

    return sorted({*reading.GGUF_SUPPORTED_ARCHITECTURES} - {"general", "tokenizer"})


@contextmanager
def _gently() -> Iterator[None]:
    """Without a bar, and with the file and the names of its tensors read once.

    Nothing else turns transformers' bar off. To parse the file's vocabulary takes seconds, which it
    spends for the tokenizer, the config and the weights each; to list the names that tensors may
    have takes a fraction of one, which it spends for each of the model's modules.
    """
    import gguf
    from transformers import modeling_gguf_pytorch_utils as untyped

    reading: Any = untyped
    bar, reader, names = reading.tqdm, gguf.GGUFReader, gguf.get_tensor_name_map
    reading.tqdm = partial(bar, disable=True)
    gguf.GGUFReader, gguf.get_tensor_name_map = cache(reader), cache(names)
    try:
        yield
    finally:
        reading.tqdm, gguf.GGUFReader, gguf.get_tensor_name_map = bar, reader, names
