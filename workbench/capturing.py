"""Capture: run every answer once, unedited, and keep its heads' outputs, in memory or on disk.

Answers go through the model in batches, those of similar length together; what hooks see at the
answers' positions is gathered on the model's device and copied out while the next batch runs.
Captured to a folder, answers are filled into shards one after another, so that no more than one
shard is ever in memory, and a capture that was interrupted goes on at the first missing shard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from workbench import storage
from workbench.activations import TokenActivations
from workbench.data.questions import QuestionSet, require_questions
from workbench.errors import WorkbenchError
from workbench.models import Model, fingerprint_of_weights, identify, shape_of
from workbench.prompts import (
    AnswerStart,
    PromptFormat,
    encode,
    pad,
    prompt_format,
    require_batch_size,
)
from workbench.running import attached, forward
from workbench.shards import Shards
from workbench.uncertainty import UncertaintyKind, entropy_of_layer
from workbench.unwrapping import has_hooks

FORMAT = 1
LABEL = {"z": "capture", "unlabelled": "unlabelled"}


def capture(
    model: Model,
    questions: QuestionSet,
    *,
    style: str | PromptFormat = "bare",
    answer_start: AnswerStart = "offsets",
    uncertainty: UncertaintyKind = "logit_lens",
    batch_size: int = 64,
    seed: int = 0,
    unlabelled: bool = True,
    folder: storage.PathLike | None = None,
    memory: int = 1 << 29,
    progress: bool = True,
) -> TokenActivations:
    """Run every answer of every question once and keep its heads' outputs.

    Args:
        model: the bridge.
        questions: what to ask.
        style: prompt format of the answers.
        answer_start: how the answer's first token is found.
        uncertainty: kind of uncertainty to record beside z.
        batch_size: answers run together; longest together with longest.
        seed: draws the other question of every unlabelled prompt.
        unlabelled: also run the unlabelled prompts, which fits need for the spread.
        folder: where to keep z, as safetensors shards in the model's dtype; in memory, in float32,
            if it is left out. A folder that holds part of the same capture is completed, and one
            that holds all of it is read without running the model.
        memory: with a folder, most bytes of activations to hold at a time, and of a shard.
        progress: show a bar.

    Returns:
        Activations on the CPU. In memory no more than one batch is held besides them; with a
        folder no more than one batch and one shard, whatever the number of answers.

    Raises:
        WorkbenchError: an answer without tokens, a prompt longer than the context; with a folder
            also one of another capture, memory for less than one answer, or anything attached to
            the model.
    """
    require_questions(questions)
    require_batch_size(batch_size)
    chosen = prompt_format(style)
    answers = [
        (number, question.question, answer, label)
        for number, question in enumerate(questions)
        for answer, label in zip(question.answers, question.labels, strict=True)
    ]
    encoded = [encode(model, q, a, chosen, answer_start) for _, q, a, _ in answers]
    runs = {"z": [Run(e.tokens, range(e.start - 1, len(e.tokens))) for e in encoded]}
    if unlabelled:
        runs["unlabelled"] = unlabelled_runs(model, questions, chosen, seed)
    made = how_captured(chosen, answer_start, uncertainty, seed)
    kept: dict[str, tuple[Tensor | Shards, Tensor]]
    if folder is None:
        kept = {
            name: _in_memory(model, name, own, uncertainty, batch_size, progress=progress)
            for name, own in runs.items()
        }
    else:
        if has_hooks(model):
            raise WorkbenchError(
                "a capture to a folder while an edit or a hook is attached to the model",
                "the model by itself, whose activations the folder is known to hold",
            )
        for own in runs.values():
            list(_parts(model, own, memory))
        place = storage.make_folder(folder)
        _require_same_capture(place, _manifest(model, questions, made, runs, memory))
        kept = {
            name: _to_disk(
                model, name, own, uncertainty, batch_size, place, memory, progress=progress
            )
            for name, own in runs.items()
        }
    shape = shape_of(model)
    nothing = (torch.empty(0, shape.layers, shape.heads, shape.d_head), torch.empty(0))
    return TokenActivations(
        z=kept["z"][0],
        uncertainty=kept["z"][1],
        offsets=torch.tensor([0, *np.cumsum([len(run.span) for run in runs["z"]])]),
        encoded=tuple(encoded),
        question=torch.tensor([number for number, *_ in answers]),
        label=torch.tensor([label for *_, label in answers]),
        unlabelled=kept.get("unlabelled", nothing)[0],
        questions=questions,
        model=identify(model),
        made=made,
    )


def how_captured(
    style: str | PromptFormat, answer_start: AnswerStart, uncertainty: UncertaintyKind, seed: int
) -> dict[str, Any]:
    """What distinguishes activations of the same questions and model."""
    return {
        "style": prompt_format(style),
        "answer_start": answer_start,
        "uncertainty": uncertainty,
        "seed": seed,
    }


@dataclass(frozen=True)
class Run:
    """Tokens to run, and the positions at which to keep what hooks see."""

    tokens: Sequence[int]
    span: range


def unlabelled_runs(
    model: Model, questions: QuestionSet, style: PromptFormat, seed: int
) -> list[Run]:
    """`Q: question A: answer Q: other question`, kept at its last token; a prompt an answer.

    The other question is drawn from the same set, so nothing outside of it is seen. With a single
    question, the question itself follows.
    """
    draw = np.random.default_rng([seed, 2])
    runs = []
    for number, question in enumerate(questions):
        for answer in question.answers:
            others = len(questions) - 1
            other = (number + 1 + int(draw.integers(others))) % len(questions) if others else 0
            asked = questions[other].question
            before = style.asking.split("{question}")[0] if not style.chat else ""
            text = encode(
                model, question.question, answer, style, after=style.between + before + asked
            )
            runs.append(Run(text.tokens, range(len(text.tokens) - 1, len(text.tokens))))
    return runs


def _in_memory(
    model: Model, name: str, runs: Sequence[Run], kind: UncertaintyKind, batch_size: int,
    *, progress: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Z and uncertainty of all runs."""
    with tqdm(total=len(runs), desc=LABEL[name], disable=not progress, leave=False) as bar:
        return fill(model, runs, _kind(name, kind), torch.float32, batch_size, bar)


def _kind(name: str, kind: UncertaintyKind) -> UncertaintyKind | None:
    """Unlabelled prompts measure the spread of z alone."""
    return kind if name == "z" else None


def _to_disk(
    model: Model, name: str, runs: Sequence[Run], kind: UncertaintyKind, batch_size: int,
    folder: Path, memory: int, *, progress: bool,
) -> tuple[Shards, Tensor]:  # fmt: skip
    """The same in shards of a folder; those that are there are kept."""
    dtype = next(model.original_model.parameters()).dtype
    files = []
    with tqdm(total=len(runs), desc=LABEL[name], disable=not progress, leave=False) as bar:
        for number, part in enumerate(_parts(model, runs, memory)):
            file = folder / f"{name}-{number:05d}.safetensors"
            files.append(file)
            if file.exists():
                _require_rows(file, sum(len(runs[n].span) for n in part), part)
                bar.update(len(part))
                continue
            z, entropies = fill(
                model, [runs[n] for n in part], _kind(name, kind), dtype, batch_size, bar
            )
            numbers = torch.tensor([part.start, part.stop])
            storage.write_tensors(file, {"z": z, "uncertainty": entropies, "answers": numbers})
            del z, entropies
    entropies = torch.cat([storage.map_tensor(file, "uncertainty") for file in files])
    return Shards(files, "z"), entropies


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


def _parts(model: Model, runs: Sequence[Run], memory: int) -> Iterator[range]:
    """Runs, in order, whose activations fit into so many bytes together."""
    if not isinstance(memory, int):
        raise WorkbenchError(f"memory={memory!r}", "a whole number of bytes")
    shape = shape_of(model)
    size = next(model.original_model.parameters()).element_size()
    row = shape.layers * shape.heads * shape.d_head * size + shape.layers * 4
    begin, held = 0, 0
    for number, run in enumerate(runs):
        own = len(run.span) * row
        if own > memory:
            raise WorkbenchError(
                f"memory={memory} bytes for an answer of {len(run.span)} positions",
                f"at least its activations, {own} bytes",
            )
        if held + own > memory:
            yield range(begin, number)
            begin, held = number, 0
        held += own
    yield range(begin, len(runs))


def _manifest(
    model: Model, questions: QuestionSet, made: Mapping[str, Any],
    runs: Mapping[str, Sequence[Run]], memory: int,
) -> dict[str, Any]:  # fmt: skip
    """What two captures must have in common to share a folder."""
    texts = hashlib.sha256(repr([asdict(question) for question in questions]).encode())
    tokens = hashlib.sha256(repr([list(run.tokens) for run in runs["z"]]).encode())
    return {
        "format": FORMAT,
        "model": asdict(identify(model)),
        "weights": fingerprint_of_weights(model),
        "dtype": str(next(model.original_model.parameters()).dtype),
        "questions": texts.hexdigest(),
        "tokens": tokens.hexdigest(),
        "memory": memory,
        **{name: value for name, value in made.items() if name != "style"},
        "style": asdict(made["style"]),
    }


def _require_same_capture(folder: Path, manifest: dict[str, Any]) -> None:
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
    differing = [key for key in manifest if before.get(key) != manifest[key]]
    if differing:
        said = "; ".join(f"{key} {before.get(key)!r}, not {manifest[key]!r}" for key in differing)
        raise WorkbenchError(
            f"{folder} holds another capture ({said})",
            "the folder of the same capture, or an empty one",
        )


def fill(
    model: Model,
    runs: Sequence[Run],
    uncertainty: UncertaintyKind | None,
    dtype: torch.dtype,
    batch_size: int,
    bar: Any,
) -> tuple[Float[Tensor, "position layer head d_head"], Float[Tensor, "position kept_layer"]]:
    """Run token rows in batches; z and, if asked for, the uncertainty at all their spans.

    Runs of similar length go together; the result does not depend on the batches.

    Args:
        model: the bridge.
        runs: what to run.
        uncertainty: its kind; None keeps none, and returns no columns.
        dtype: of the z that is returned.
        batch_size: runs in a batch.
        bar: is told how many runs are done.
    """
    shape = shape_of(model)
    starts = np.cumsum([0, *(len(run.span) for run in runs)])
    layers = range(shape.layers)
    z = torch.empty(int(starts[-1]), shape.layers, shape.heads, shape.d_head, dtype=dtype)
    entropies = torch.empty(len(z), shape.layers if uncertainty else 0)
    order = sorted(range(len(runs)), key=lambda index: -len(runs[index].tokens))
    pending: _OnItsWay | None = None
    for begin in range(0, len(order), batch_size):
        batch = order[begin : begin + batch_size]
        seen = _Seen.at(batch, [runs[index].span for index in batch], starts)
        tokens, mask = pad(model, [runs[index].tokens for index in batch])
        looks = {n: seen.doubt(model, n, uncertainty) for n in layers} if uncertainty else {}
        with attached(model, {n: seen.keep(n) for n in layers}, looks, site="projection"):
            forward(model, tokens, mask, keep=1)
        if pending is not None:
            pending.land(z, entropies)
        pending = _OnItsWay.of(seen, dtype)
        bar.update(len(batch))
    if pending is not None:
        pending.land(z, entropies)
    return z, entropies


@dataclass(frozen=True)
class _Seen:
    """What hooks see of one batch at the positions that are kept, on the model's device."""

    row: Int[Tensor, " kept"]
    position: Int[Tensor, " kept"]
    place: Int[Tensor, " kept"]
    z: dict[int, Tensor]
    entropies: dict[int, Tensor]

    @classmethod
    def at(cls, batch: Sequence[int], spans: Sequence[range], starts: np.ndarray) -> _Seen:
        return cls(
            row=torch.tensor([row for row, span in enumerate(spans) for _ in span]),
            position=torch.tensor([position for span in spans for position in span]),
            place=torch.tensor(
                [
                    int(starts[index]) + n
                    for index, span in zip(batch, spans, strict=True)
                    for n in range(len(span))
                ]
            ),
            z={},
            entropies={},
        )

    def keep(self, layer: int) -> Any:
        def look(values: Tensor) -> None:
            self.z[layer] = values[self.row, self.position]

        return look

    def doubt(self, model: Model, layer: int, kind: UncertaintyKind) -> Any:
        def look(residual: Tensor) -> None:
            at = residual[self.row, self.position]
            self.entropies[layer] = entropy_of_layer(model, at, kind)

        return look


@dataclass(frozen=True)
class _OnItsWay:
    """A batch's values on their way to the CPU, in pinned memory where they come from a GPU."""

    place: Int[Tensor, " kept"]
    z: list[Tensor]
    entropies: list[Tensor]
    arrived: list[torch.cuda.Event]

    @classmethod
    def of(cls, seen: _Seen, dtype: torch.dtype) -> _OnItsWay:
        z = [_to_host(seen.z[layer].to(dtype)) for layer in sorted(seen.z)]
        entropies = [_to_host(seen.entropies[layer]) for layer in sorted(seen.entropies)]
        arrived = []
        for device in {value.device for value in seen.z.values() if value.is_cuda}:
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(device))
            arrived.append(event)
        return cls(seen.place, z, entropies, arrived)

    def land(self, z: Tensor, entropies: Tensor) -> None:
        """Write the values to their rows."""
        for event in self.arrived:
            event.synchronize()
        for layer, values in enumerate(self.z):
            z[self.place, layer] = values
        for layer, values in enumerate(self.entropies):
            entropies[self.place, layer] = values


def _to_host(values: Tensor) -> Tensor:
    if not values.is_cuda:
        return values
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)
