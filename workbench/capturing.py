"""Capture: run every answer once, unedited, and keep its heads' outputs, in memory or on disk.

What passes show is gathered in `gathering`. Captured to a folder, answers are filled into shards
one after another, so that no more than one shard is ever in memory, and a capture that was
interrupted goes on at the first missing shard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from workbench import storage
from workbench.activations import TokenActivations
from workbench.data.questions import QuestionSet, require_questions
from workbench.errors import WorkbenchError
from workbench.gathering import Run, fill
from workbench.models import Model, identify, shape_of
from workbench.prompts import (
    AnswerStart,
    PromptFormat,
    encode,
    prompt_format,
    require_batch_size,
)
from workbench.shards import Shards
from workbench.uncertainty import UncertaintyKind
from workbench.unwrapping import has_hooks

FORMAT = 1
SHARD_BYTES = 1 << 29
WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
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
    memory: int = SHARD_BYTES,
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
        said = "; ".join(_difference(key, before.get(key), manifest[key]) for key in differing)
        raise WorkbenchError(
            f"{folder} holds another capture ({said})",
            "the folder of the same capture, or an empty one",
        )


def fingerprint_of_weights(model: Model) -> str:
    """A fingerprint of each parameter, by two sums over its bits and sixteen of its values.

    Sums of whole numbers do not depend on their order, so neither does the fingerprint on the
    number of threads.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(model.original_model.named_parameters()):
        flat = parameter.detach().reshape(-1)
        some = flat[torch.linspace(0, len(flat) - 1, min(16, len(flat))).long().to(flat.device)]
        bits = flat.view(WHOLE[flat.element_size()])
        sums = [int(one.sum(dtype=torch.int64)) for one in (bits, (bits % 8191).square())]
        digest.update(name.encode() + some.double().cpu().numpy().tobytes() + repr(sums).encode())
    return digest.hexdigest()[:16]
