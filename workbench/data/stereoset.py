"""StereoSet (Nadeem, Bethke & Reddy 2021): a stereotype, its opposite and an unrelated sentence."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from workbench import storage
from workbench.checks import require_whole
from workbench.data.contrast import Contrast, common_beginning, merge_contrasts
from workbench.data.item_sets import ItemSet
from workbench.data.questions import QuestionSet
from workbench.data.registry import SOURCES
from workbench.doors import door
from workbench.errors import WorkbenchError

Kind = Literal["intrasentence", "intersentence"]
GOLD_LABELS = ("stereotype", "anti-stereotype", "unrelated")
TEXTS = ("id", "target", "bias_type", "context", "stereotype", "anti_stereotype", "unrelated")


@dataclass(frozen=True)
class StereotypeItem:
    """One example of StereoSet.

    Attributes:
        id: the example's id.
        kind: `intrasentence`, where the sentences fill a blank of the context, or
            `intersentence`, where they follow it.
        target: the term that is stereotyped.
        bias_type: gender, profession, race or religion.
        context: the sentence with BLANK, or the sentence before.
        stereotype: a sentence, as in the file.
        anti_stereotype: a sentence, as in the file.
        unrelated: a sentence, as in the file.
    """

    id: str
    kind: Kind
    target: str
    bias_type: str
    context: str
    stereotype: str
    anti_stereotype: str
    unrelated: str

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise WorkbenchError(f"the kind {self.kind!r}", " or ".join(get_args(Kind)))
        for name in TEXTS:
            text = getattr(self, name)
            if not isinstance(text, str) or not text.strip():
                raise WorkbenchError(f"{name} = {text!r} in a StereoSet item", "a text")

    def texts(self) -> tuple[str, str, str]:
        """What a causal model scores: stereotype, anti-stereotype, unrelated.

        The sentence alone; with `intersentence` the context, a space and the sentence.
        """
        before = f"{self.context} " if self.kind == "intersentence" else ""
        return before + self.stereotype, before + self.anti_stereotype, before + self.unrelated

    @property
    def beginning(self) -> str:
        """What stereotype and anti-stereotype continue after a space; "" where there is none.

        With `intersentence` the context, otherwise the longest common beginning of the two
        sentences (contexts are written in another case than the sentences).
        """
        if self.kind == "intersentence":
            return self.context
        return common_beginning(self.stereotype, self.anti_stereotype)


class StereotypeSet(ItemSet[StereotypeItem]):
    """Items in order, with different ids.

    Example:
        >>> wb.data.load_stereotypes("hearsay")
        StereotypeSet('hearsay': 120 items, 20 targets)
    """

    @classmethod
    def key(cls, item: StereotypeItem) -> str:
        """The item's id."""
        return item.id

    @classmethod
    def describe(cls, item: StereotypeItem) -> str:
        """The id, as a message names it."""
        return f"the id {item.id!r}"

    def __repr__(self) -> str:
        return f"StereotypeSet({self.name!r}: {len(self)} items, {len(self.targets)} targets)"

    @property
    def targets(self) -> tuple[str, ...]:
        """The target terms in order of appearance, in small letters: case makes no other target."""
        return tuple(dict.fromkeys(_term(item) for item in self))

    def of_kind(self, kind: Kind) -> StereotypeSet:
        """The items of one kind.

        Raises:
            WorkbenchError: no such kind, or no item of it.
        """
        found = tuple(item for item in self if item.kind == kind)
        if not found:
            kinds = " or ".join(dict.fromkeys(item.kind for item in self))
            raise WorkbenchError(f"{self.name or 'the set'} has no item of kind {kind!r}", kinds)
        return StereotypeSet(found, self.name)

    @door
    def folds(self, count: int = 2, seed: int = 0) -> tuple[StereotypeFold, ...]:
        """Split by target term: no target is in train and test, each item is tested once.

        Args:
            count: number of folds, at least 2. They have equally many targets, give or take one,
                and only about equally many items.
            seed: shuffles the targets; the same seed gives the same folds.

        Raises:
            WorkbenchError: fewer than 2 folds, or more folds than targets.
        """
        targets = self.targets
        if count < 2 or count > len(targets):
            raise WorkbenchError(
                f"{count} folds of {len(targets)} target terms",
                "at least 2 folds, and no more than target terms",
            )
        require_whole("seed", seed, 0)
        parts = np.array_split(np.random.default_rng(seed).permutation(len(targets)), count)
        fold_of = {targets[int(t)]: number for number, part in enumerate(parts) for t in part}
        folds = [fold_of[_term(item)] for item in self]
        return tuple(
            StereotypeFold(
                number=number,
                train=self.choose([i for i, fold in enumerate(folds) if fold != number]),
                test=self.choose([i for i, fold in enumerate(folds) if fold == number]),
            )
            for number in range(count)
        )

    def questions(self) -> QuestionSet:
        """Questions to fit directions on: the anti-stereotype is correct, the stereotype not.

        The question is the item's beginning, and the answers what follows its space; `unrelated`
        is not used. Items of one beginning are one question, whose category is their bias type,
        or several joined by commas. Left out, with one warning that counts them, are items that
        have no common beginning and items with a text that is a stereotype in one item and an
        anti-stereotype in another.

        Raises:
            WorkbenchError: no item is left.
        """
        begun = [item for item in self if item.beginning]
        both = {item.texts()[0] for item in begun} & {item.texts()[1] for item in begun}
        kept = [item for item in begun if not both & set(item.texts()[:2])]
        name = self.name or "the set"
        told = (
            f"{name}: {len(self) - len(begun)} of {len(self)} items have no common beginning, and "
            f"{len(begun) - len(kept)} have a text that is both stereotype and anti-stereotype"
        )
        if not kept:
            raise WorkbenchError(told, "an item to ask about")
        if len(kept) < len(self):
            warnings.warn(f"{told}; they are left out of the questions", stacklevel=2)
        return QuestionSet(merge_contrasts(map(_contrast, kept)), self.name)


@dataclass(frozen=True)
class StereotypeFold:
    """Training and test items, which share no target term."""

    number: int
    train: StereotypeSet
    test: StereotypeSet


def _term(item: StereotypeItem) -> str:
    return item.target.strip().casefold()


def _contrast(item: StereotypeItem) -> Contrast:
    stereotype, opposite, _ = (text[len(item.beginning) + 1 :] for text in item.texts())
    return Contrast(item.beginning, opposite, stereotype, item.bias_type)


@SOURCES.stereotypes.register(".json", about="StereoSet")
def stereoset_json(path: storage.PathLike) -> StereotypeSet:
    """StereoSet's official JSON: first the intrasentence, then the intersentence items.

    One of the two lists may be absent. Annotators' single labels are not read.

    Raises:
        WorkbenchError: no such file, another shape, a repeated id, or an item without three
            sentences of the three gold labels; the item and its id are named.
    """
    document = storage.read_json(path)
    data = document.get("data") if isinstance(document, Mapping) else None
    lists = data if isinstance(data, Mapping) else {}
    if not any(isinstance(lists.get(kind), list) for kind in get_args(Kind)):
        raise WorkbenchError(
            f"{path} has no list data.intrasentence or data.intersentence",
            "StereoSet's official JSON",
        )
    return StereotypeSet(
        tuple(
            _item(record, kind, f"{path}, {kind} item {number}")
            for kind in get_args(Kind)
            for number, record in enumerate(_listed(lists, kind, path), start=1)
        ),
        str(path),
    )


def _listed(lists: Mapping[str, Any], kind: Kind, path: storage.PathLike) -> list[Any]:
    found = lists.get(kind) or []
    if not isinstance(found, list):
        raise WorkbenchError(f"{path} has data.{kind} = {found!r:.60}", "a list of items")
    return found


def _item(record: Any, kind: Kind, where: str) -> StereotypeItem:
    if not isinstance(record, Mapping):
        raise WorkbenchError(f"{where} is {record!r}", "an object")
    named = f"{where} (id {record.get('id')!r})"
    sentences = _by_label(record.get("sentences"), named)
    try:
        return StereotypeItem(
            id=record.get("id"),  # type: ignore[arg-type]  # refused where it is no text
            kind=kind,
            target=record.get("target"),  # type: ignore[arg-type]
            bias_type=record.get("bias_type"),  # type: ignore[arg-type]
            context=record.get("context"),  # type: ignore[arg-type]
            stereotype=sentences["stereotype"],
            anti_stereotype=sentences["anti-stereotype"],
            unrelated=sentences["unrelated"],
        )
    except WorkbenchError as error:
        raise WorkbenchError(f"{named}: {error.came}", error.expected, error.mend) from error


def _by_label(sentences: Any, where: str) -> dict[str, Any]:
    if not isinstance(sentences, list) or len(sentences) != len(GOLD_LABELS):
        count = len(sentences) if isinstance(sentences, list) else "no list of"
        raise WorkbenchError(f"{where} has {count} sentences", "three, one of each gold_label")
    found: dict[str, Any] = {}
    for sentence in sentences:
        fields = sentence if isinstance(sentence, Mapping) else {}
        label = fields.get("gold_label")
        if label not in GOLD_LABELS:
            raise WorkbenchError(
                f"{where} has a sentence with the gold_label {label!r}", ", ".join(GOLD_LABELS)
            )
        if label in found:
            raise WorkbenchError(f"{where} has two sentences labelled {label}", "one of each")
        found[label] = fields.get("sentence")
    return found
