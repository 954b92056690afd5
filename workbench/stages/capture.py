"""Capture: run every answer once, unedited, and keep its heads' outputs, in memory or on disk.

What passes show is put in its place by `filling`. An unlabelled prompt begins with an answer's own
tokens, so one pass shows both. Captured to a folder, answers are filled into shards one after
another, so that no more than one shard is ever in memory, and a capture that was interrupted goes
on at the first missing shard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from workbench import storage
from workbench.data.questions import QuestionSet, require_questions
from workbench.errors import WorkbenchError
from workbench.models.batched_passes import Passage
from workbench.models.fingerprints import fingerprint_of_weights
from workbench.models.identity import Model, identify, shape_of
from workbench.models.prompts import (
    AnswerStart,
    PromptFormat,
    encode,
    prompt_format,
    require_batch_size,
)
from workbench.models.unwrapping import has_hooks
from workbench.stages.activations import TokenActivations
from workbench.stages.filling import fill
from workbench.stages.shards import Shards
from workbench.stages.uncertainty import UncertaintyKind, require_kind

FORMAT = 2  # 1 kept the unlabelled prompts in shards of their own
SHARD_BYTES = 1 << 29
"""512 MB, about the weights of SmolLM2-135M in float32."""


def capture(
    model: Model,
    questions: QuestionSet,
    *,
    style: str | PromptFormat = "bare",
    answer_start: AnswerStart = "offsets",
    uncertainty: UncertaintyKind | None = None,
    uncertainty_layers: Sequence[int] | None = None,
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
        uncertainty: kind of uncertainty to record beside z; None records none. Each layer of it
            costs an unembedding of every kept position, no fit reads it.
        uncertainty_layers: the layers to record it at; all by default.
        batch_size: most answers run together; longest together with longest.
        seed: draws the other question of every unlabelled prompt.
        unlabelled: also run the unlabelled prompts, which fits need for the spread.
        folder: where to keep z, as safetensors shards in the model's dtype; in memory, in float32,
            if it is left out. A folder that holds part of the same capture is completed, and one
            that holds all of it is read without running the model.
        memory: with a folder, most bytes of activations to hold at a time, and of a shard.
        progress: show a bar, which counts tokens.

    Returns:
        Activations on the CPU. In memory no more than one batch is held besides them; with a
        folder no more than one batch and one shard, whatever the number of answers.

    Raises:
        WorkbenchError: an answer without tokens, a prompt longer than the context, or a layer that
            the model does not have; with a folder also one of another capture, memory for less
            than one answer, or anything attached to the model.

    Example:
        >>> acts = wb.capture(model, fold.train, uncertainty="logit_lens", progress=False)
        >>> acts.z.shape, acts.uncertainty.shape
        (torch.Size([1154, 5, 8, 20]), torch.Size([1154, 5]))
        >>> acts.unlabelled.shape
        torch.Size([120, 5, 8, 20])
    """
    require_questions(questions)
    require_batch_size(batch_size)
    layers = _require_layers(model, uncertainty, uncertainty_layers)
    chosen = prompt_format(style)
    answers = [
        (number, question.question, answer, label)
        for number, question in enumerate(questions)
        for answer, label in zip(question.answers, question.labels, strict=True)
    ]
    encoded = [encode(model, asked, said, chosen, answer_start) for _, asked, said, _ in answers]
    passages = [Passage(one.tokens, range(one.start - 1, len(one.tokens))) for one in encoded]
    others = unlabelled_runs(model, questions, chosen, seed) if unlabelled else None
    made = how_captured(chosen, answer_start, uncertainty, seed, layers)
    todo = _Todo(model, passages, others, uncertainty, layers, batch_size)
    if folder is None:
        kept = _in_memory(todo, progress=progress)
    else:
        parts = list(todo.parts(memory))
        if has_hooks(model):
            raise WorkbenchError(
                "a capture to a folder while an edit or a hook is attached to the model",
                "the model by itself, whose activations the folder is known to hold",
            )
        place = storage.make_folder(folder)
        _require_same_capture(
            place, _manifest(model, questions, made, passages, memory, unlabelled)
        )
        kept = _to_disk(todo, parts, place, progress=progress)
    return TokenActivations(
        z=kept.z,
        entropies=_over_all_layers(kept.entropies, layers, shape_of(model).layers),
        offsets=torch.tensor([0, *np.cumsum([len(passage.span) for passage in passages])]),
        encoded=tuple(encoded),
        question=torch.tensor([number for number, *_ in answers]),
        label=torch.tensor([label for *_, label in answers]),
        unlabelled=kept.unlabelled,
        questions=questions,
        model=identify(model),
        made=made,
    )


def _require_layers(
    model: Model, kind: UncertaintyKind | None, layers: Sequence[int] | None
) -> tuple[int, ...] | None:
    """The layers to read u at; None for all, or where none is asked for."""
    if kind is not None:
        require_kind(kind)
    if layers is None:
        return None
    count = shape_of(model).layers
    chosen = tuple(sorted(set(layers)))
    if kind is None or not chosen or not all(0 <= layer < count for layer in chosen):
        raise WorkbenchError(
            f"uncertainty_layers={list(layers)} with uncertainty={kind!r}",
            f"numbers from 0 to {count - 1}, with uncertainty='logit_lens' or 'amplified'",
        )
    return chosen


def _over_all_layers(
    entropies: Tensor | None, layers: tuple[int, ...] | None, count: int
) -> Float[Tensor, "position layer"] | None:
    """A column a layer, NaN where u was not asked for."""
    if entropies is None or layers is None:
        return entropies
    whole = torch.full((len(entropies), count), torch.nan)
    whole[:, layers] = entropies
    return whole


def how_captured(
    style: str | PromptFormat,
    answer_start: AnswerStart,
    uncertainty: UncertaintyKind | None,
    seed: int,
    uncertainty_layers: tuple[int, ...] | None = None,
) -> dict[str, Any]:
    """What distinguishes activations of the same questions and model."""
    return {
        "style": prompt_format(style),
        "answer_start": answer_start,
        "uncertainty": uncertainty,
        "uncertainty_layers": uncertainty_layers,
        "seed": seed,
    }


def unlabelled_runs(
    model: Model, questions: QuestionSet, style: PromptFormat, seed: int
) -> list[Passage]:
    """`Q: question A: answer Q: other question`, kept at its last token; a prompt an answer.

    The other question is drawn from the same set, so nothing outside of it is seen. With a single
    question, the question itself follows.
    """
    draw = np.random.default_rng([seed, 2])
    passages = []
    for number, question in enumerate(questions):
        for answer in question.answers:
            others = len(questions) - 1
            other = (number + 1 + int(draw.integers(others))) % len(questions) if others else 0
            asked = questions[other].question
            before = style.asking.split("{question}")[0] if not style.chat else ""
            text = encode(
                model, question.question, answer, style, after=style.between + before + asked
            )
            passages.append(Passage(text.tokens, range(len(text.tokens) - 1, len(text.tokens))))
    return passages


@dataclass(frozen=True)
class _Kept:
    """What a capture keeps."""

    z: Tensor | Shards
    unlabelled: Tensor | Shards
    entropies: Tensor | None


@dataclass(frozen=True)
class _Todo:
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
        """Z of a part, the unlabelled prompts' behind the answers', and u of the answers."""
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


def _in_memory(todo: _Todo, *, progress: bool) -> _Kept:
    everything = range(len(todo.answers))
    with todo.bar([everything], progress=progress) as bar:
        z, entropies = todo.fill(everything, torch.float32, bar)
    rows = todo.rows(everything)
    return _Kept(z[:rows], z[rows:], entropies if todo.uncertainty else None)


def _to_disk(todo: _Todo, parts: Sequence[range], folder: Path, *, progress: bool) -> _Kept:
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
    return _Kept(Shards(files, "z"), Shards(files, "unlabelled"), held)


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


def _manifest(
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
