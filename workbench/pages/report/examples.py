"""Worked examples: held-out questions answered without and with the edits of a finished run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from workbench.data.ground_truth import ground_truth_of
from workbench.data.questions import Question, QuestionSet
from workbench.editing.attaching import edited
from workbench.editing.generation import generate
from workbench.editing.head_edits import Edit
from workbench.editing.interventions import Intervention
from workbench.editing.state_edits import StateEdit
from workbench.editing.token_trace import TokenTrace
from workbench.editing.writing import Continuation
from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.rows import NO_EDIT
from workbench.evaluation.metrics.ground_truth import verdict_of
from workbench.models.identity import Model
from workbench.models.prompts import encode, prompt_format
from workbench.pages.report.results import Results
from workbench.runs.description import read_config
from workbench.runs.loaded_run import LoadedRun
from workbench.runs.method_plan import control_of

POOL = 8
"""Questions that are drawn for each that is shown."""
METHODS = 3
"""Adaptive methods whose answers are shown at most."""


@dataclass(frozen=True)
class Token:
    """A token that was written, and the edit at the position that wrote it.

    Attributes:
        text: as the tokenizer has it.
        strength: s, the mean over the edited heads; None where nothing was edited.
        misalignment: p̂, likewise.
        uncertainty: u, the mean over the edited layers.
        gate: of an edit of states, the mean over the edited layers.
    """

    text: str
    strength: float | None = None
    misalignment: float | None = None
    uncertainty: float | None = None
    gate: float | None = None

    @property
    def shown(self) -> float | None:
        """The strength or the gate; None where nothing was edited."""
        return self.gate if self.strength is None else self.strength

    @property
    def told(self) -> str:
        """What there is to be told of it, in a line."""
        names = (("s", self.strength), ("p̂", self.misalignment), ("u", self.uncertainty),
                 ("gate", self.gate))  # fmt: skip
        return ", ".join(f"{name} {value:.3f}" for name, value in names if value is not None)


@dataclass(frozen=True)
class Answer:
    """What one method answers.

    Attributes:
        method: its name.
        tokens: of the answer.
        verdict: what the answer states, where that is known.
        changed: whether it differs from the unedited model's.
    """

    method: str
    tokens: tuple[Token, ...]
    verdict: str
    changed: bool


@dataclass(frozen=True)
class Example:
    """A held-out question and its answers, the unedited model's first."""

    question: str
    best: str
    answers: tuple[Answer, ...]

    @property
    def changed(self) -> bool:
        """Whether some method changes the answer."""
        return any(answer.changed for answer in self.answers)


@dataclass(frozen=True)
class Examples:
    """The section of worked examples.

    Attributes:
        shown: the examples; none where `absent` says why.
        drawn: how many questions they were chosen among.
        changed: of those, how many answers some method changes.
        methods: those shown, and how many adaptive ones there are.
        absent: why there are no examples.
    """

    shown: tuple[Example, ...] = ()
    drawn: int = 0
    changed: int = 0
    methods: tuple[str, ...] = ()
    adaptive: int = 0
    absent: str = ""


def worked_examples(results: Results, count: int, model: Model | None = None) -> Examples:
    """Answers of a run's adaptive methods, on questions of fold 0, which they were not fitted on.

    Drawn are `POOL` times as many questions as are shown, by the run's seed; those whose greedy
    answer some method changes come first.

    Args:
        results: of a run.
        count: how many to show.
        model: the run's model, if it is loaded already.

    Returns:
        The examples, or why there are none: no run, no edits, or other data or another model than
        the run's.
    """
    if not results.run:
        return Examples(absent="These results come with no manifest, so no edits can be found.")
    if results.demo:
        return Examples(absent="A demo keeps no edits; its own examples are among its figures.")
    if "truthfulness" not in results.run.get("capabilities", ()):
        return Examples(absent="The run has no questions: truthfulness was not measured.")
    place = _edits_of(results.folder)
    if place is None:
        return Examples(absent=f"No edits are kept at {results.folder / 'edits'}.")
    try:
        work = LoadedRun(read_config(results.folder / "manifest.json"), model)
        _require_same(work, results.run)
        return _examples(work, place, count)
    except (WorkbenchError, OSError) as error:
        return Examples(absent=f"The run's model, data or edits cannot be read: {error}")


def _edits_of(folder: Path) -> Path | None:
    """The folder whose `edits` a run uses: its own, or that of a study with a name."""
    places = [folder, folder.resolve().parent]
    return next((place for place in places if (place / "edits").is_dir()), None)


def _require_same(work: LoadedRun, before: Mapping[str, Any]) -> None:
    """Refuse a model or data other than those of the run."""
    for name in ("weights", "tokenizer", "fingerprints"):
        if work.identity[name] != before.get(name):
            raise WorkbenchError(f"{name} that are not the run's", "the same model and data")


def _examples(work: LoadedRun, place: Path, count: int) -> Examples:
    edits, adaptive = _adaptive(work, place)
    if not edits:
        return Examples(
            absent="No method of the run has a strength or a gate that follows the token."
        )
    split = work.splits["truthfulness"][0]
    drawn = _drawn(cast("QuestionSet", split.test), POOL * count, work.config.seed)
    chosen = prompt_format(split.style)
    prompts = [encode(work.model, one.question, None, chosen) for one in drawn]
    length = dict(work.config.evaluation.get("truthfulness", {})).get("max_new_tokens", 50)
    plain = generate(work.model, prompts, max_new_tokens=length)
    rows = [[answer_of(NO_EDIT, one, b, None)] for one, b in zip(drawn, plain, strict=True)]
    for method, edit in edits.items():
        with edited(work.model, edit) as trace:
            written = generate(work.model, prompts, max_new_tokens=length)
        for number, after in enumerate(written):
            own = answer_of(method, drawn[number], after, trace[number])
            rows[number].append(replace(own, changed=after.text != plain[number].text))
    found = [
        Example(one.question, one.best_answer, tuple(row))
        for one, row in zip(drawn, rows, strict=True)
    ]
    ordered = sorted(found, key=lambda example: not example.changed)
    changed = sum(example.changed for example in found)
    return Examples(tuple(ordered[:count]), len(found), changed, tuple(edits), adaptive)


def follows(edit: Intervention) -> bool:
    """Whether it has a strength or a gate that follows the token."""
    if isinstance(edit, Edit):
        return any(edit.factors) and not edit.shares_heads
    return isinstance(edit, StateEdit) and type(edit).gates is not StateEdit.gates


def _adaptive(work: LoadedRun, place: Path) -> tuple[dict[str, Intervention], int]:
    """The first adaptive edits of fold 0 that are there, and how many there are."""
    found: dict[str, Intervention] = {}
    for piece in work.pieces():
        described = work.config.methods[piece.method]
        fits = work.fits(piece.method, piece.capability, piece.number)
        there = all((place / "edits" / fit.key / "edit.json").exists() for fit in fits)
        if (piece.capability, piece.number) != ("truthfulness", 0) or not there:
            continue
        if described["kind"] == "none" or control_of(described):
            continue
        edit = work.edits(piece, place)
        if isinstance(edit, Intervention) and follows(edit):
            found[piece.method] = edit
    return dict(list(found.items())[:METHODS]), len(found)


def _drawn(questions: QuestionSet, count: int, seed: int) -> list[Question]:
    """So many different questions, drawn by the seed."""
    order = np.random.default_rng([seed, 14]).permutation(len(questions))[:count]
    return [questions[int(number)] for number in order]


def answer_of(
    method: str, asked: Question, written: Continuation, trace: TokenTrace | None
) -> Answer:
    """An answer's tokens with what the edit did at the positions that wrote them.

    Args:
        method: its name.
        asked: the question.
        written: the answer.
        trace: of the edit; None for the unedited model.
    """
    tokens = [Token(text) for text in written.strings[: written.kept]]
    if trace is not None:
        before = len(written.prompt_tokens) - 1
        for row, position in enumerate(trace.position.tolist()):
            if position - before < len(tokens):
                tokens[position - before] = _token(written.strings[position - before], trace, row)
    truth = ground_truth_of([asked.question])
    verdict = verdict_of(asked.question, written.text, truth).stated if truth else ""
    return Answer(method, tuple(tokens), verdict, changed=False)


def _token(text: str, trace: TokenTrace, row: int) -> Token:
    gate = trace.gate[row]
    if not gate.isnan().all():
        return Token(text, gate=float(gate.nanmean()))
    strengths = trace.strengths[row]
    layers = ~strengths.isnan().all(dim=-1)
    values: Sequence[Any] = (strengths, trace.misalignment[row], trace.uncertainty[row][layers])
    return Token(text, *(float(value.nanmean()) for value in values))
