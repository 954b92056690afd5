"""Contrast sets of one's own: texts that show a property against texts that do not.

Pairs have the fields `positive` and `negative` and, if you like, `prompt` and `category`; unpaired
texts have `text` and `label` (1 or positive, 0 or negative) and, if you like, `category`. Spaces
around a field are dropped. Positive texts become correct answers, negative ones incorrect answers.

Behaviours (sycophancy, refusal, corrigibility and others) come as Perez et al. 2022 wrote them and
CAA (Rimsky et al. 2024) uses them: `question`, which holds the choices, `answer_matching_behavior`
and `answer_not_matching_behavior`. The matching answer is the positive one: a fit steers towards
the behaviour (α < 0 away from it), and MC1 is the share of questions in which the model shows it.

>>> common_beginning("The soup is warm.", "The soup is cold.")
'The soup is'
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from workbench import storage
from workbench.checks import is_whole
from workbench.data.questions import Question, QuestionSet
from workbench.data.registry import SOURCES
from workbench.errors import WorkbenchError, kind_of

PAIRED, UNPAIRED = ("positive", "negative"), ("text", "label")
BEHAVIOUR = ("question", "answer_matching_behavior", "answer_not_matching_behavior")
LABELS = {"1": "positive", "positive": "positive", "0": "negative", "negative": "negative"}
FORMS = f"the fields {' and '.join(PAIRED)}, or {' and '.join(UNPAIRED)}, or {', '.join(BEHAVIOUR)}"

Row = tuple[str, dict[str, str]]  # its place for messages, its fields


@dataclass(frozen=True)
class Contrast:
    """Two answers to one prompt.

    Attributes:
        prompt: what both texts begin with.
        positive: the correct answer, without the space that joins it to the prompt.
        negative: the incorrect one.
        category: a free label, "" where there is none.
    """

    prompt: str
    positive: str
    negative: str
    category: str = ""


def common_beginning(first: str, second: str) -> str:
    """The longest beginning of both texts that is whole words and leaves words in both.

    It ends before a single space, so that beginning, space and rest give back each text; where
    several spaces stand together it does not end. "" where there is none.
    """
    found = ""
    for place, (left, right) in enumerate(zip(first, second, strict=False)):
        if left != right:
            break
        rests = first[place + 1 : place + 2], second[place + 1 : place + 2]
        if left == " " and not any(rest.strip() == "" for rest in (first[place - 1], *rests)):
            found = first[:place]
    return found if found.strip() else ""


def merge_contrasts(contrasts: Iterable[Contrast]) -> tuple[Question, ...]:
    """One question a prompt, in order of appearance; repeated answers of a side are kept once.

    The category of a question from several categories is all of them, joined by commas.

    Raises:
        WorkbenchError: an answer of a prompt is positive and negative.
    """
    groups: dict[str, list[Contrast]] = {}
    for contrast in contrasts:
        groups.setdefault(contrast.prompt, []).append(contrast)
    return tuple(
        Question(
            question=prompt,
            best_answer=group[0].positive,
            correct_answers=tuple(dict.fromkeys(c.positive for c in group)),
            incorrect_answers=tuple(dict.fromkeys(c.negative for c in group)),
            category=", ".join(dict.fromkeys(c.category for c in group if c.category)),
        )
        for prompt, group in groups.items()
    )


@SOURCES.contrast.register(".csv", about="a contrast set of one's own")
@SOURCES.contrast.register(
    ".json", about="behaviours in CAA's shape, or a contrast set of one's own"
)
@SOURCES.contrast.register(".jsonl", about="a contrast set of one's own")
def contrast_questions(path: storage.PathLike) -> QuestionSet:
    """Questions from a contrast set: CSV, JSON Lines, or a list in JSON.

    Pairs: the texts continue `prompt`, and rows with the same prompt are one question. Without a
    prompt it is the texts' longest common beginning, and where there is none the neutral lead
    "Text 7:" of row 7. Behaviours: pairs behind their questions; where a side lists several answers
    each counts. Unpaired texts: the k-th positive and the k-th negative stand under the lead
    "Text k:"; no text is used twice or left out.

    Raises:
        WorkbenchError: no such file, no or both forms of fields, a bad or repeated row, a text
            that is positive and negative, or unequal counts of unpaired texts; file and row are
            named.
    """
    rows, form = _rows(path)
    if form == BEHAVIOUR:
        rows = _behaviours(rows)
    contrasts = _pair_up(rows, path) if form == UNPAIRED else _pairs(rows)
    return QuestionSet(merge_contrasts(contrasts), str(path))


def _rows(path: storage.PathLike) -> tuple[list[Row], tuple[str, ...]]:
    """All rows, each with every field that its form requires, and the form."""
    records: list[Any]
    suffix = Path(path).suffix.lower()
    if suffix == ".csv":
        form = _form(storage.csv_columns(path), str(path))
        records = storage.read_csv(path, form)
    elif suffix in (".json", ".jsonl"):
        records = storage.read_json_lines(path) if suffix == ".jsonl" else _listed(path)
        first = records[0] if records and isinstance(records[0], Mapping) else {}
        form = _form(list(first), f"{path}, item 1,") if records else PAIRED
    else:
        raise WorkbenchError(f"the contrast set {path}", "the path of a .csv, .json or .jsonl file")
    if not records:
        raise WorkbenchError(f"{path} holds no rows", "at least one row")
    kind = "row" if suffix == ".csv" else "item"
    return [
        (where, _fields(single, form, where))
        for number, record in enumerate(records, start=1)
        for where in [f"{path}, {kind} {number}"]
        for single in (_answers_one_by_one(record) if form == BEHAVIOUR else [record])
    ], form


def _listed(path: storage.PathLike) -> list[Any]:
    records = storage.read_json(path)
    if not isinstance(records, list):
        raise WorkbenchError(f"{path} holds {kind_of(records)}", "a list of objects")
    return records


def _answers_one_by_one(record: Any) -> list[Any]:
    """A behaviour's row, once for each answer of the one side with each of the other."""
    if not isinstance(record, Mapping):
        return [record]
    sides = [record.get(name) for name in BEHAVIOUR[1:]]
    listed = [side or [""] if isinstance(side, list) else [side] for side in sides]
    return [{**record, **dict(zip(BEHAVIOUR[1:], pair, strict=True))} for pair in product(*listed)]


def _form(fields: list[str], where: str) -> tuple[str, ...]:
    forms = [form for form in (PAIRED, UNPAIRED, BEHAVIOUR) if set(form) <= set(fields)]
    if len(forms) != 1:
        raise WorkbenchError(f"{where} has the fields {', '.join(fields) or '(none)'}", FORMS)
    return forms[0]


def _fields(record: Any, form: tuple[str, ...], where: str) -> dict[str, str]:
    """The fields of a row as trimmed texts; those that `form` requires are not empty."""
    if not isinstance(record, Mapping) or any(name not in record for name in form):
        raise WorkbenchError(f"{where} is {record!r}", f"the fields {' and '.join(form)}")
    fields = {}
    for name in (*form, "prompt", "category"):
        value = record.get(name, "")
        if name == "label" and is_whole(value):
            value = str(value)
        if value is None and name not in form:
            value = ""
        if not isinstance(value, str):
            raise WorkbenchError(f"{where} has {name} = {value!r}", "a text")
        if name in form and not value.strip():
            raise WorkbenchError(f"{where} has an empty {name}", "a text")
        fields[name] = value.strip()
    return fields


def _behaviours(rows: list[Row]) -> list[Row]:
    """The same rows as pairs behind a prompt."""
    names = dict(zip(BEHAVIOUR, ("prompt", *PAIRED), strict=True))
    return [
        (where, {**row, **{ours: row[theirs] for theirs, ours in names.items()}})
        for where, row in rows
    ]


def _pairs(rows: list[Row]) -> list[Contrast]:
    """A contrast a row; full texts may not change sides, nor rows repeat."""
    sides: dict[str, tuple[str, str]] = {}
    seen: dict[tuple[str, ...], str] = {}
    contrasts = []
    for number, (where, row) in enumerate(rows, start=1):
        texts = [f"{row['prompt']} {row[side]}".strip() for side in PAIRED]
        for text, side in zip(texts, PAIRED, strict=True):
            earlier, place = sides.setdefault(text, (side, where))
            if earlier != side:
                raise WorkbenchError(
                    f"{where} has {text!r} as {side}, and {place} as {earlier}",
                    "each text, its prompt included, on one side",
                )
        first = seen.setdefault(tuple(texts), where)
        if first != where:
            raise WorkbenchError(f"{where} repeats {first}", "different rows")
        contrasts.append(_contrast(row, number))
    return contrasts


def _contrast(row: dict[str, str], number: int) -> Contrast:
    positive, negative, category = row["positive"], row["negative"], row["category"]
    if row["prompt"]:
        return Contrast(row["prompt"], positive, negative, category)
    shared = common_beginning(positive, negative)
    if not shared:
        return Contrast(_lead(number), positive, negative, category)
    after = len(shared) + 1
    return Contrast(shared, positive[after:], negative[after:], category)


def _lead(number: int) -> str:
    return f"Text {number}:"


def _pair_up(rows: list[Row], path: storage.PathLike) -> list[Contrast]:
    """The k-th positive text with the k-th negative one."""
    positive, negative = _sides(rows)
    if len(positive) != len(negative):
        raise WorkbenchError(
            f"{path} has {len(positive)} positive and {len(negative)} negative texts",
            "as many positive as negative ones, since each is used once",
            f"Take {abs(len(positive) - len(negative))} of the more frequent label out.",
        )
    return [
        Contrast(
            _lead(number),
            up["text"],
            down["text"],
            ", ".join(dict.fromkeys(c for c in (up["category"], down["category"]) if c)),
        )
        for number, (up, down) in enumerate(zip(positive, negative, strict=True), start=1)
    ]


def _sides(rows: list[Row]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The unpaired rows labelled positive, and those labelled negative; no text stands twice."""
    sides: dict[str, list[dict[str, str]]] = {"positive": [], "negative": []}
    seen: dict[str, tuple[str, str]] = {}
    for where, row in rows:
        side = LABELS.get(row["label"].lower())
        if side is None:
            raise WorkbenchError(f"{where} has the label {row['label']!r}", ", ".join(LABELS))
        if row["prompt"]:
            raise WorkbenchError(
                f"{where} is an unpaired text with a prompt",
                "prompts for pairs only",
                f"Give {' and '.join(PAIRED)} of each prompt in one row.",
            )
        earlier, place = seen.setdefault(row["text"], (side, where))
        if place != where:
            raise WorkbenchError(
                f"{where} has the {side} text {row['text']!r}, which {place} has as {earlier}",
                "different texts",
            )
        sides[side].append(row)
    return sides["positive"], sides["negative"]
