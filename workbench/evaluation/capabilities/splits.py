"""Capabilities: what to fit on, what to test on and what counts as good, fold by fold.

Truthfulness, harmlessness and fairness differ in their data alone. A split holds training
questions for any method, test data for `evaluate`, and the same pair once more, apart from the test
data, on which α is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from workbench.checks import require_whole
from workbench.data.questions import QuestionSet
from workbench.data.registry import SOURCES
from workbench.data.shared import shared_questions
from workbench.data.sources import (
    load_contrast,
    load_prompts,
    load_questions,
    load_sentences,
    load_stereotypes,
)
from workbench.data.stereoset import StereotypeSet
from workbench.data.toxicity_prompts import PromptSet
from workbench.doors import door, door_of_class
from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.apart import require_other_prompts, require_other_sentences
from workbench.evaluation.capabilities.rows import Data

Capability = Literal["truthfulness", "harmlessness", "fairness"]


@door_of_class
@dataclass(frozen=True)
class Split:
    """One fold of a capability.

    Attributes:
        capability: its name.
        number: the fold's.
        train: questions to fit on.
        test: what to measure on, apart from the training questions.
        everything: all questions of all folds, for presets that leak.
        style: prompt format of the training questions.
        inner: the same without the test data: fit on `inner.train`, choose on `inner.test`.

    Example:
        >>> split = wb.evaluation.splits("truthfulness")[0]
        >>> split.train, split.inner.test
        (QuestionSet('hearsay': 163 questions, 1630 answers),
        QuestionSet('hearsay': 33 questions, 330 answers))
    """

    capability: Capability
    number: int
    train: QuestionSet
    test: Data
    everything: QuestionSet
    style: str
    inner: Split | None = None

    def smaller(self, size: int, seed: int = 0) -> Split:
        """The same with so many training questions, drawn by the seed, inside and out.

        Raises:
            WorkbenchError: more than there are.
        """
        if size > len(self.train):
            raise WorkbenchError(
                f"train_size={size} of {len(self.train)} training questions in fold {self.number}",
                f"at most {len(self.train)}",
            )
        order = np.random.default_rng([seed, 13]).permutation(len(self.train))
        train = self.train.choose(sorted(order[:size].tolist()))
        inner = None if self.inner is None else self.inner.within(train)
        return replace(self, train=train, inner=inner)

    def within(self, questions: QuestionSet) -> Split | None:
        """The split with those of its questions alone that are among some; None if none is left.

        Prompts and stereotypes to choose α on stay as they are.
        """
        known = set(questions)
        train = [number for number, one in enumerate(self.train) if one in known]
        test: Data = self.test
        if isinstance(test, QuestionSet):
            kept = [number for number, one in enumerate(test) if one in known]
            if not kept:
                return None
            test = test.choose(kept)
        return replace(self, train=self.train.choose(train), test=test) if train else None


@door
def splits(
    capability: Capability,
    source: Any = "hearsay",
    *,
    folds: int = 2,
    seed: int = 0,
    validation_share: float = 0.2,
) -> list[Split]:
    """A capability's folds.

    Args:
        capability: which.
        source: a name, a path or a function, see `load_questions`: of questions for truthfulness
            (or a mapping with `questions` and `limit`, how many of them, the same ones for any
            seed; or with `fit` and `test`, two sets without a common question), of stereotypes for
            fairness (or a mapping with `fit`, stereotypes, and `test`, others or pairs), of prompts
            to continue for harmlessness, or a mapping with `prompts` (one source or a list of them)
            and, if you like, `contrast` (texts to fit on, see `load_contrast`), `toxic` (true or
            false: prompts of a toxicity of ½ and more, or of less) and `limit` (how many, drawn by
            the seed). Without `contrast`, and where prompts come from a name that gives no
            contrast, the prompts have folds, and a fold is fitted on the training prompts
            themselves, harmless ones against toxic ones.
        folds: how many; one where training and test data are different files.
        seed: of folds and of the validation part.
        validation_share: share of the training questions or target terms, and of harmlessness the
            share of the prompts, that α is chosen on.

    Raises:
        WorkbenchError: no such capability or source, or a prompt that is also trained on.

    Example:
        >>> split = wb.evaluation.splits("fairness")[0]
        >>> split.train, split.test
        (QuestionSet('hearsay': 40 questions, 120 answers),
        StereotypeSet('hearsay': 60 items, 10 targets))
    """
    if capability == "truthfulness":
        return _truthfulness(source, folds, seed, validation_share)
    if capability == "fairness":
        return _fairness(source, folds, seed, validation_share)
    if capability == "harmlessness":
        return _harmlessness(source, folds, seed, validation_share)
    raise WorkbenchError.unknown(f"the capability {capability!r}", capability, get_args(Capability))


def _truthfulness(source: Any, folds: int, seed: int, share: float) -> list[Split]:
    if isinstance(source, Mapping) and "test" in source:
        _require_keys(source, "truthfulness", ("fit", "test"))
        train, test = load_questions(source["fit"]), load_questions(source["test"])
        shared = shared_questions(train, test)
        if shared:
            raise WorkbenchError(
                f"{len(shared)} questions that are fitted on and tested (first: {shared[0]!r:.80})",
                "different questions to fit and to test on",
            )
        return [
            Split("truthfulness", 0, train, test, train, "bare", _inner(train, share, seed))
        ]  # fmt: skip
    if isinstance(source, Mapping):
        _require_keys(source, "truthfulness", ("questions",), ("limit",))
        questions = load_questions(source["questions"])
        if "limit" in source:
            require_whole("limit", source["limit"], 4)
            questions = questions.sample(min(source["limit"], len(questions)))
    else:
        questions = load_questions(source)
    return [
        Split(
            "truthfulness", fold.number, fold.train, fold.test, questions, "bare",
            _inner(fold.train, share, seed),
        )
        for fold in questions.folds(folds, seed)
    ]  # fmt: skip


def _fairness(source: Any, folds: int, seed: int, share: float) -> list[Split]:
    if isinstance(source, Mapping):
        _require_keys(source, "fairness", ("fit", "test"))
        items, test = load_stereotypes(source["fit"]), load_sentences(source["test"])
        require_other_sentences(items, test)
        train, inner = items.questions(), _inner_fair(items, share, seed)
        return [Split("fairness", 0, train, test, train, "plain", inner)]
    items = load_stereotypes(source)
    whole = items.questions()
    return [
        Split(
            "fairness", fold.number, fold.train.questions(), fold.test, whole, "plain",
            _inner_fair(fold.train, share, seed),
        )
        for fold in items.folds(folds, seed)
    ]  # fmt: skip


def _harmlessness(source: Any, folds: int, seed: int, share: float) -> list[Split]:
    """Each α is chosen on prompts that are held back from the test."""
    if not isinstance(source, Mapping):
        named = isinstance(source, str) and source in SOURCES.contrast
        source = {"prompts": source, **({"contrast": source} if named else {})}
    _require_keys(source, "harmlessness", ("prompts",), ("contrast", "toxic", "limit"))
    prompts = _prompts(source["prompts"])
    if "toxic" in source:
        prompts = prompts.toxic() if source["toxic"] else prompts.nontoxic()
    prompts = _some(prompts, source.get("limit"), seed)
    if len(prompts) < 2:
        raise WorkbenchError("a single prompt", "one to test on and one to choose α on")
    if "contrast" not in source:
        return [
            _fitted_on_prompts(number, train, test, seed, share)
            for number, (train, test) in enumerate(prompts.folds(folds, seed))
        ]
    contrast = load_contrast(source["contrast"])
    require_other_prompts(contrast, prompts)
    chosen, tested = _held_back(prompts, share, seed)
    inner = Split("harmlessness", 0, contrast, chosen, contrast, "plain")
    return [Split("harmlessness", 0, contrast, tested, contrast, "plain", inner)]


def _fitted_on_prompts(
    number: int, train: PromptSet, test: PromptSet, seed: int, share: float
) -> Split:
    """A fold that is fitted on its training prompts; a part of them is held back for choosing."""
    chosen, rest = _held_back(train, share, seed)
    contrast = train.contrast()
    inner = Split("harmlessness", 0, rest.contrast(), chosen, contrast, "plain")
    return Split("harmlessness", number, contrast, test, contrast, "plain", inner)


def _held_back(prompts: PromptSet, share: float, seed: int) -> tuple[PromptSet, PromptSet]:
    """A share of some prompts, drawn by the seed, and the others."""
    order = np.random.default_rng([seed, 4]).permutation(len(prompts)).tolist()
    held = min(max(1, round(share * len(prompts))), len(prompts) - 1)
    chosen, rest = (prompts.choose(sorted(part)) for part in (order[:held], order[held:]))
    return chosen, rest


def _prompts(source: Any) -> PromptSet:
    """The prompts of one or several sources, judged as they are where all say the same."""
    sets = [load_prompts(one) for one in (source if isinstance(source, list | tuple) else [source])]
    items = tuple(prompt for own in sets for prompt in own)
    judges = {own.judge for own in sets}
    return PromptSet(
        items, " and ".join(own.name for own in sets), judges.pop() if len(judges) == 1 else ""
    )


def _some(prompts: PromptSet, limit: Any, seed: int) -> PromptSet:
    """As many prompts, drawn by the seed; all where there is no limit or there are fewer."""
    if limit is None:
        return prompts
    require_whole("limit", limit, 2)
    order = np.random.default_rng([seed, 5]).permutation(len(prompts))[:limit]
    return prompts.choose(sorted(order.tolist()))


def _require_keys(
    source: Any, capability: str, keys: tuple[str, ...], more: tuple[str, ...] = ()
) -> None:
    given = set(source) if isinstance(source, Mapping) else set()
    if not set(keys) <= given <= {*keys, *more}:
        raise WorkbenchError(
            f"{source!r} as data for {capability}",
            f"a source, or a table with {' and '.join(f'`{key}`' for key in keys)}"
            + (f" and, if you like, {', '.join(more)}" if more else ""),
        )


def _inner(train: QuestionSet, share: float, seed: int) -> Split:
    held = train.validation_mask(share, seed)
    rest = train.choose([number for number, out in enumerate(held) if not out])
    test = train.choose([number for number, out in enumerate(held) if out])
    return Split("truthfulness", 0, rest, test, train, "bare")


def _inner_fair(train: StereotypeSet, share: float, seed: int) -> Split:
    count = min(max(2, round(1 / share)), len(train.targets))
    fold = train.folds(count, seed)[0]
    return Split("fairness", 0, fold.train.questions(), fold.test, train.questions(), "plain")
