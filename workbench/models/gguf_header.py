"""The header of a GGUF file: what it says of its model, and what of it is damaged.

It is read here, so that a file of another kind, a truncated one and an architecture that
transformers does not know are told apart before anything is loaded.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

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
