"""GGUF: language models in one file, often quantised, as transformers reads them.

The header is read here, so that a file of another kind, a truncated one and an architecture that
transformers does not know are told apart before anything is loaded. Weights are dequantised: the
model computes in the dtype that is asked for, with the numbers that quantisation has left.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from math import prod
from pathlib import Path
from typing import Any

import torch

from workbench import storage
from workbench.errors import WorkbenchError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SCALARS: Mapping[int, str] = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
"""Formats of values by the format's own type numbers."""
TEXT, ARRAY = 8, 9
DEEPEST = 4
"""Arrays within arrays; no writer makes more."""
SHORTEST = 24
"""Bytes before the first key: the magic ones, the version and two counts."""
MOST_SIZES = 8
"""Sizes of a tensor; the format knows four."""
ALIGNMENT = "general.alignment"
KEPT = ("general.architecture", "general.file_type", "general.license", ALIGNMENT)
"""What is kept of the header: its vocabulary may be large, a damaged one larger."""
SCALING = (".rope.scaling.type", ".rope.scaling.factor")
"""Ends of keys, behind the architecture, that tell how rotary positions are scaled."""
SCALES = frozenset(
    f"rope_{name}.weight" for name in ("freqs", "factors_long", "factors_short")
)  # fmt: skip
"""Tensors that scale them, as Llama 3.1's and Phi 3's do."""
COMPUTED = "rot_embd.weight"
"""End of the names of tensors that old files hold and every reader computes."""


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of its model.

    Attributes:
        architecture: such as `llama`.
        quantisation: such as `Q4_1`; `F32`, `F16` or `BF16` where nothing was quantised.
        licence: as written there, "" where it is not.
        scales_positions: rotary positions are scaled, for contexts beyond those of pretraining.
        entries: numbers in all tensors that are weights.
    """

    architecture: str
    quantisation: str
    licence: str
    scales_positions: bool
    entries: int


def read_header(path: storage.PathLike) -> Header:
    """The header of a GGUF file.

    Raises:
        WorkbenchError: no such file, a file of another kind or version, a truncated or damaged one,
            or one without an architecture.
    """
    place = storage.existing(path, "model file")
    with storage.mapped(place) as content:
        begin = bytes(content[: len(MAGIC)])
        if begin != MAGIC and MAGIC.startswith(begin):
            raise _truncated(place, len(begin), SHORTEST)
        if begin != MAGIC:
            raise WorkbenchError(
                f"{place}, which begins with {begin!r}",
                "a GGUF file, which begins with b'GGUF'",
            )
        reader = _Reader(content, place)
        version = reader.scalar(4)
        if version not in VERSIONS:
            raise WorkbenchError(
                f"{place} of GGUF version {version}", f"version {' or '.join(map(str, VERSIONS))}"
            )
        tensors, pairs = reader.scalar(10), reader.scalar(10)
        values = reader.pairs(pairs)
        needed, scaled, entries = reader.tensors(tensors, values.get(ALIGNMENT, 32))
        if needed > len(content):
            raise _truncated(place, len(content), needed)
    architecture = values.get("general.architecture")
    if not isinstance(architecture, str):
        raise WorkbenchError(f"{place} without general.architecture", "a GGUF file of a model")
    licence = values.get("general.license")
    return Header(
        architecture,
        _quantisation(values.get("general.file_type")),
        licence if isinstance(licence, str) else "",
        scaled or _scales(values, architecture),
        entries,
    )


def _scales(values: Mapping[str, Any], architecture: str) -> bool:
    """Whether a header's values tell of scaled rotary positions."""
    kind, factor = (values.get(f"{architecture}{end}") for end in SCALING)
    return kind not in (None, "", "none") and factor != 1


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
    file = {"gguf_file": str(place), "local_files_only": True}
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


class _Reader:
    """Reads values one after another, none beyond the end of the file."""

    def __init__(self, content: memoryview, place: Path) -> None:
        self.content, self.place, self.at = content, place, len(MAGIC)

    def take(self, count: int) -> memoryview:
        """The next bytes."""
        end = self.at + count
        if end > len(self.content):
            raise _truncated(self.place, len(self.content), end)
        found = self.content[self.at : end]
        self.at = end
        return found

    def scalar(self, kind: int) -> Any:
        """A number or a truth value of a type."""
        form = SCALARS.get(kind)
        if form is None:
            raise self.damaged(f"the type {kind}")
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self) -> str:
        """A text, its length before it."""
        return bytes(self.take(self.scalar(10))).decode("utf-8", "replace")

    def value(self, kind: int, depth: int = 0) -> Any:
        """A value of any type; arrays are passed over."""
        if kind == TEXT:
            return self.text()
        if kind != ARRAY:
            return self.scalar(kind)
        inside, count = self.scalar(4), self.scalar(10)
        if inside in SCALARS:
            self.take(count * struct.calcsize(SCALARS[inside]))
            return None
        if depth == DEEPEST:
            raise self.damaged("arrays within arrays")
        for _ in range(count):
            if inside == TEXT:
                self.take(self.scalar(10))
            else:
                self.value(inside, depth + 1)
        return None

    def pairs(self, count: int) -> dict[str, Any]:
        """Those of the key-value pairs that are kept."""
        kept = {}
        for _ in range(count):
            key, value = self.text(), self.value(self.scalar(4))
            if key in KEPT or key.endswith(SCALING):
                kept[key] = value
        return kept

    def tensors(self, count: int, alignment: Any) -> tuple[int, bool, int]:
        """What tensors tell.

        Returns:
            How long the file must be for them, whether any scales rotary positions, and how many
            numbers are in those that are weights.
        """
        from gguf.constants import GGML_QUANT_SIZES

        sizes: Mapping[int, tuple[int, int]] = GGML_QUANT_SIZES
        if not isinstance(alignment, int) or alignment < 1:
            raise self.damaged(f"the alignment {alignment!r:.60}")
        longest, scaled, weights = 0, False, 0
        for _ in range(count):
            name, dimensions = self.text(), self.scalar(4)
            scaled |= name in SCALES
            if dimensions > MOST_SIZES:
                raise self.damaged(f"the tensor {name!r:.60} of {dimensions} sizes")
            entries = prod(self.scalar(10) for _ in range(dimensions))
            weights += 0 if name in SCALES or name.endswith(COMPUTED) else entries
            kind, offset = self.scalar(4), self.scalar(10)
            if kind not in sizes:
                raise self.damaged(f"the tensor {name!r:.60} of type {kind}")
            block, size = sizes[kind]
            longest = max(longest, offset + entries // block * size)
        end = -(-self.at // alignment) * alignment + longest if longest else self.at
        return end, scaled, weights

    def damaged(self, what: str) -> WorkbenchError:
        """The error of a header that says what none can say."""
        return WorkbenchError(
            f"{self.place} with {what} at byte {self.at}", "a GGUF file that is not damaged"
        )


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


def _truncated(place: Path, size: int, needed: int) -> WorkbenchError:
    return WorkbenchError(
        f"{place} of {size:,} bytes, which has to have {needed:,} or more",
        "a whole GGUF file",
        "It is truncated: download or copy it again.",
    )


def _quantisation(kind: Any) -> str:
    """The name of a file type, such as `Q4_1`."""
    from gguf.constants import LlamaFileType

    names = {one.value: one.name for one in LlamaFileType}
    known = str(names.get(kind, "of unknown quantisation"))
    return known.removeprefix("MOSTLY_").removeprefix("ALL_")


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
