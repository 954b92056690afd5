"""RealToxicityPrompts (Gehman et al. 2020): beginnings of web sentences, with their toxicity.

Messages name lines and numbers and never quote a prompt, since many are offensive.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from workbench import storage
from workbench.checks import is_share, is_whole, require_whole
from workbench.data.from_hub import rows_of
from workbench.data.item_sets import ItemSet
from workbench.data.questions import Question, QuestionSet
from workbench.data.registry import SOURCES
from workbench.doors import door
from workbench.errors import WorkbenchError

HUB_NAME = "allenai/real-toxicity-prompts"
Choice = Literal["refuse", "drop"]


@dataclass(frozen=True)
class Prompt:
    """The beginning of a text that a model goes on with.

    Attributes:
        text: as in the source.
        toxicity: the classifier's probability that the prompt is toxic, 0 to 1; None where the
            source has none.
        challenging: all of the authors' models went on with it toxically.
        category: a free label, "" where there is none.

    Example:
        >>> wb.data.Prompt("He looked at her and said", toxicity=0.1).toxicity
        0.1
    """

    text: str
    toxicity: float | None = None
    challenging: bool = False
    category: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text.strip():
            raise WorkbenchError("a prompt without text", "a prompt's text")
        if self.toxicity is not None and not is_share(self.toxicity):
            raise WorkbenchError(
                f"a prompt's toxicity of {self.toxicity!r}", "a number from 0 to 1, or none"
            )
        if not isinstance(self.challenging, bool) or not isinstance(self.category, str):
            raise WorkbenchError(
                f"a prompt with challenging = {self.challenging!r} and category = "
                f"{self.category!r}",
                "true or false, and a text",
            )


@dataclass(frozen=True, repr=False)
class PromptSet(ItemSet[Prompt]):
    """Prompts in order, with different texts.

    Attributes:
        judge: the kind of judge, of `JUDGES`, that can tell how toxic what follows is, without a
            model; "" where there is none.
        items, name: see `ItemSet`.

    Example:
        >>> prompts = (wb.data.Prompt("He looked", toxicity=0.1), wb.data.Prompt("She said"))
        >>> wb.data.PromptSet(prompts, "mine")
        PromptSet('mine': 2 prompts, 1 with toxicity)
    """

    what = "prompt"
    judge: str = ""

    @classmethod
    def key(cls, item: Prompt) -> str:
        """The prompt's text."""
        return item.text

    @classmethod
    def describe(cls, item: Prompt) -> str:
        """Its length alone: the text may offend."""
        return f"a text of {len(item.text)} characters"

    def __repr__(self) -> str:
        scored = sum(prompt.toxicity is not None for prompt in self)
        return f"PromptSet({self.name!r}: {len(self)} prompts, {scored} with toxicity)"

    @door
    def folds(self, count: int = 2, seed: int = 0) -> list[tuple[PromptSet, PromptSet]]:
        """Each fold's training prompts and the others, which are tested; each is tested once.

        Raises:
            WorkbenchError: fewer than two folds, or fewer prompts than folds.
        """
        if not is_whole(count) or not 2 <= count <= len(self):
            raise WorkbenchError(f"{count!r} folds of {len(self)} prompts", f"2 to {len(self)}")
        require_whole("seed", seed, 0)
        order = np.random.default_rng([seed, 19]).permutation(len(self))
        tested = [set(order[fold::count].tolist()) for fold in range(count)]
        everyone = range(len(self))
        return [
            (self.choose([n for n in everyone if n not in own]), self.choose(sorted(own)))
            for own in tested
        ]

    def contrast(self) -> QuestionSet:
        """The prompts as texts to fit on: harmless ones against toxic ones, of 0.5 and more.

        The k-th harmless and the k-th toxic one stand under the lead "Text k:", as in unpaired
        contrast sets; what is left of the more frequent kind is left out.

        Raises:
            WorkbenchError: a prompt without toxicity, or none of either kind.
        """
        pairs = zip(self.nontoxic(), self.toxic(), strict=False)
        return QuestionSet(
            tuple(
                Question(f"Text {number}:", good.text, (good.text,), (bad.text,))
                for number, (good, bad) in enumerate(pairs, start=1)
            ),
            self.name,
        )

    def toxic(self, threshold: float = 0.5, missing: Choice = "refuse") -> PromptSet:
        """The prompts of toxicity `threshold` or more, which the authors call toxic at 0.5.

        Args:
            threshold: from 0 to 1.
            missing: what to do with prompts that have no toxicity.

        Raises:
            WorkbenchError: a prompt without toxicity, unless `missing="drop"`; no such prompt; or
                a threshold outside 0 to 1.
        """
        return self._where(lambda toxicity: toxicity >= threshold, threshold, missing, "toxic")

    def nontoxic(self, threshold: float = 0.5, missing: Choice = "refuse") -> PromptSet:
        """The prompts of toxicity below `threshold`; otherwise as `toxic`."""
        return self._where(lambda toxicity: toxicity < threshold, threshold, missing, "nontoxic")

    def _where(
        self, wanted: Callable[[float], bool], threshold: float, missing: Choice, what: str
    ) -> PromptSet:
        _require_choice("missing", missing)
        if not is_share(threshold):
            raise WorkbenchError(f"a threshold of {threshold!r}", "a number from 0 to 1")
        unscored = [number for number, p in enumerate(self) if p.toxicity is None]
        if unscored and missing == "refuse":
            raise WorkbenchError(
                f"{len(unscored)} of {len(self)} prompts have no toxicity (first: number "
                f"{unscored[0]})",
                "prompts with toxicity",
                'Leave them out with missing="drop".',
            )
        found = tuple(p for p in self if p.toxicity is not None and wanted(p.toxicity))
        if not found:
            raise WorkbenchError(
                f"none of {len(self)} prompts is {what} at the threshold {threshold}",
                "at least one",
            )
        return replace(self, items=found)


@SOURCES.prompts.register(".jsonl", about="RealToxicityPrompts")
def real_toxicity_jsonl(path: storage.PathLike, duplicates: Choice = "refuse") -> PromptSet:
    """RealToxicityPrompts' JSON Lines: `prompt.text`, `prompt.toxicity` and `challenging`.

    Args:
        path: the file. A toxicity of null is kept as None; other fields are ignored.
        duplicates: what to do with a text that an earlier line has: refuse it, or drop it with
            one warning that counts such texts.

    Raises:
        WorkbenchError: no such file, no prompts, or a line that is none or repeats a text; the
            lines are named.
    """
    lines = enumerate(storage.read_text(path).split("\n"), start=1)
    places = [f"line {number}" for number, line in lines if line.strip()]
    records = storage.read_json_lines(path)
    return _collect(zip(places, records, strict=True), str(path), duplicates)


@SOURCES.prompts.register(HUB_NAME)
@SOURCES.prompts.register("real-toxicity-prompts", about="RealToxicityPrompts, from the hub")
def real_toxicity_hub(name: str = HUB_NAME, duplicates: Choice = "drop") -> PromptSet:
    """The data set on the Hugging Face hub; otherwise as `real_toxicity_jsonl`.

    Repeated texts are dropped with a warning, since nobody can take them out of the hub's copy.
    """
    instead = "Without one, give the path of its JSON Lines file to real_toxicity_jsonl."
    rows = rows_of(name, split="train", instead=instead)
    numbered = ((f"row {number}", row) for number, row in enumerate(rows, start=1))
    return _collect(numbered, name, duplicates)


def _collect(records: Iterable[tuple[str, Any]], name: str, duplicates: Choice) -> PromptSet:
    """Prompts from records and their places; repeated texts are refused or dropped."""
    _require_choice("duplicates", duplicates)
    prompts, places, repeats = [], dict[str, str](), list[str]()
    for place, record in records:
        prompt = _prompt(record, f"{name}, {place}")
        first = places.setdefault(prompt.text, place)
        if first == place:
            prompts.append(prompt)
        elif duplicates == "drop":
            repeats.append(f"{place} repeats the text of {first}")
        else:
            raise WorkbenchError(
                f"{name}: {place} repeats the text of {first}",
                "different prompts",
                'Keep the first of each with duplicates="drop".',
            )
    if repeats:
        warnings.warn(
            f"{name}: {len(repeats)} of {len(prompts) + len(repeats)} prompts are dropped, since "
            f"they repeat an earlier text (first: {repeats[0]})",
            stacklevel=3,
        )
    return PromptSet(tuple(prompts), name)


def _prompt(record: Any, where: str) -> Prompt:
    prompt = record.get("prompt") if isinstance(record, Mapping) else None
    if not isinstance(prompt, Mapping) or not {"text", "toxicity"} <= set(prompt):
        raise WorkbenchError(
            f"{where} has no prompt with text and toxicity",
            "RealToxicityPrompts' fields, toxicity null where it is not known",
        )
    try:
        return Prompt(prompt["text"], prompt["toxicity"], record.get("challenging", False))
    except WorkbenchError as error:
        raise WorkbenchError(f"{where}: {error.came}", error.expected, error.mend) from error


def _require_choice(name: str, given: str) -> None:
    if given not in get_args(Choice):
        raise WorkbenchError(f"{name} = {given!r}", " or ".join(map(repr, get_args(Choice))))
