"""Keeping: what a capture shows, in memory or in the shards of a folder.

An unlabelled prompt begins with an answer's own tokens, so one pass shows both. In a folder, shards
are filled one after another, so that no more than one is ever in memory, and a capture that was
interrupted goes on at the first missing one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from workbench import storage
from workbench.data.questions import QuestionSet
from workbench.errors import WorkbenchError
from workbench.models.batched_passes import Passage
from workbench.models.fingerprints import fingerprint_of_weights
from workbench.models.identity import Model, identify, shape_of
from workbench.stages.filling import fill
from workbench.stages.shards import Shards
from workbench.stages.uncertainty import UncertaintyKind

FORMAT = 2  # 1 kept the unlabelled prompts in shards of their own


@dataclass(frozen=True)
class Kept:
    """What a capture keeps."""

    z: Tensor | Shards
    unlabelled: Tensor | Shards
    entropies: Tensor | None


@dataclass(frozen=True)
class ToCapture:
    """What to run and what to keep of it, for any range of the answers."""

    model: Model
    answers: Sequence[Passage]
    unlabelled: Sequence[Passage] | None
    uncertainty: UncertaintyKind | None
    layers: tuple[int, ...] | None
    batch_size: int

    def rows(self, part: range) -> int:
        """How many positions of answers are kept of a part."""
        return sum(len(self.answers[number].span) for number in part)

    def joined(self, part: range) -> list[Passage]:
        """What to run of a part: an unlabelled prompt shows its answer's positions too.

        Answers' positions are kept in order, behind them those of the unlabelled prompts.
        """
        answers = [self.answers[number] for number in part]
        begins = list(accumulate((len(answer.span) for answer in answers), initial=0))
        passages: list[Passage] = []
        for number, (answer, begin) in enumerate(zip(answers, begins, strict=False)):
            rows = range(begin, begin + len(answer.span))
            if self.unlabelled is None:
                passages.append(Passage(answer.tokens, answer.span, rows))
                continue
            other, behind = self.unlabelled[part[number]], begins[-1] + number
            if tuple(other.tokens[: len(answer.tokens)]) == tuple(answer.tokens):
                passages.append(Passage(other.tokens, (*answer.span, *other.span), (*rows, behind)))
            else:
                passages.append(Passage(answer.tokens, answer.span, rows))
                passages.append(Passage(other.tokens, other.span, (behind,)))
        return passages

    def fill(
        self, part: range, dtype: torch.dtype, bar: Any
    ) -> tuple[
        Float[Tensor, "position layer head d_head"], Float[Tensor, "answer_position kept_layer"]
    ]:
        """z of a part, the unlabelled prompts' behind the answers', and u of the answers."""
        z, entropies = fill(
            self.model, self.joined(part), self.uncertainty, dtype, self.batch_size, bar,
            self.layers,
        )  # fmt: skip
        return z, entropies[: self.rows(part)]

    def bar(self, parts: Sequence[range], *, progress: bool) -> tqdm[Any]:
        """A bar that counts the tokens of some parts."""
        count = sum(len(passage.tokens) for part in parts for passage in self.joined(part))
        return tqdm(
            total=count, desc="capture", unit="token", unit_scale=True, disable=not progress,
            leave=False,
        )  # fmt: skip

    def parts(self, memory: int) -> Iterator[range]:
        """Answers, in order, whose activations fit into so many bytes together."""
        if not isinstance(memory, int):
            raise WorkbenchError(f"memory={memory!r}", "a whole number of bytes")
        shape = shape_of(self.model)
        size = next(self.model.original_model.parameters()).element_size()
        kept_layers = len(self.layers or range(shape.layers)) if self.uncertainty else 0
        row = shape.layers * shape.heads * shape.d_head * size + 4 * kept_layers  # u is float32
        begin, held = 0, 0
        for number, passage in enumerate(self.answers):
            needed = (len(passage.span) + (self.unlabelled is not None)) * row
            if needed > memory:
                raise WorkbenchError(
                    f"memory={memory} bytes for an answer of {len(passage.span)} positions",
                    f"at least its activations, {needed} bytes",
                )
            if held + needed > memory:
                yield range(begin, number)
                begin, held = number, 0
            held += needed
        yield range(begin, len(self.answers))


def in_memory(todo: ToCapture, *, progress: bool) -> Kept:
    """All of it at once, in float32."""
    everything = range(len(todo.answers))
    with todo.bar([everything], progress=progress) as bar:
        z, entropies = todo.fill(everything, torch.float32, bar)
    rows = todo.rows(everything)
    return Kept(z[:rows], z[rows:], entropies if todo.uncertainty else None)


def to_disk(todo: ToCapture, parts: Sequence[range], folder: Path, *, progress: bool) -> Kept:
    """The same in shards of a folder; those that are there are kept."""
    dtype = next(todo.model.original_model.parameters()).dtype
    files = [folder / f"z-{number:05d}.safetensors" for number in range(len(parts))]
    missing = []
    for file, part in zip(files, parts, strict=True):
        if file.exists():
            _require_rows(file, todo.rows(part), part)
        else:
            missing.append((file, part))
    with todo.bar([part for _, part in missing], progress=progress) as bar:
        for file, part in missing:
            z, entropies = todo.fill(part, dtype, bar)
            rows = todo.rows(part)
            storage.write_tensors(file, {
                "z": z[:rows], "unlabelled": z[rows:], "uncertainty": entropies,
                "answers": torch.tensor([part.start, part.stop]),
            })  # fmt: skip
            del z, entropies
    held = None
    if todo.uncertainty:
        held = torch.cat([storage.map_tensor(file, "uncertainty") for file in files])
    return Kept(Shards(files, "z"), Shards(files, "unlabelled"), held)


def _require_rows(file: Path, rows: int, part: range) -> None:
    """Refuse a shard that holds other answers than its place says."""
    numbers = storage.map_tensor(file, "answers").tolist()
    held = len(storage.map_tensor(file, "z"))
    if numbers != [part.start, part.stop] or held != rows:
        raise WorkbenchError(
            f"{file} holds {held} rows of the answers {numbers[0]} to {numbers[1] - 1}",
            f"{rows} rows of the answers {part.start} to {part.stop - 1}",
            "It was exchanged or renamed: delete it, and it is captured again.",
        )


def manifest_of(
    model: Model, questions: QuestionSet, made: Mapping[str, Any], answers: Sequence[Passage],
    memory: int, unlabelled: bool,
) -> dict[str, Any]:  # fmt: skip
    """What two captures must have in common to share a folder."""
    texts = hashlib.sha256(repr([asdict(question) for question in questions]).encode())
    tokens = hashlib.sha256(repr([list(passage.tokens) for passage in answers]).encode())
    return {
        "format": FORMAT,
        "model": asdict(identify(model)),
        "weights": fingerprint_of_weights(model),
        "dtype": str(next(model.original_model.parameters()).dtype),
        "questions": texts.hexdigest(),
        "tokens": tokens.hexdigest(),
        "memory": memory,
        "unlabelled": unlabelled,
        **{name: value for name, value in made.items() if name != "style"},
        "uncertainty_layers": list(made["uncertainty_layers"] or []),
        "style": asdict(made["style"]),
    }


def _difference(key: str, held: Any, asked: Any) -> str:
    """How two manifests differ in a key, without their hashes."""
    if isinstance(held, Mapping) and isinstance(asked, Mapping):
        inner = [name for name in asked if held.get(name) != asked[name]]
        return "; ".join(
            _difference(f"{key}.{name}", held.get(name), asked[name]) for name in inner
        )
    if key in ("weights", "questions", "tokens") or key.endswith(".fingerprint"):
        return f"other {key}"
    return f"{key} {held!r}, not {asked!r}"


def require_same_capture(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the folder's manifest, or refuse a folder with another one."""
    file = folder / "capture.json"
    if not file.exists():
        strays = sorted(path.name for path in folder.glob("*.safetensors"))
        if strays:
            raise WorkbenchError(
                f"{folder} holds {strays[0]} and no capture.json", "an empty folder, or a capture's"
            )
        storage.write_json(file, manifest)
        return
    before = storage.read_json(file)
    if not isinstance(before, dict):
        raise WorkbenchError(f"{file} describes no capture", "what a capture wrote there")
    differing = [key for key in manifest if before.get(key) != manifest[key]]
    if differing:
        said = "; ".join(_difference(key, before.get(key), manifest[key]) for key in differing)
        raise WorkbenchError(
            f"{folder} holds another capture ({said})",
            "the folder of the same capture, or an empty one",
        )
