"""From a name, a path or a function to questions, prompts, stereotypes and pairs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from workbench import storage
from workbench.data.crows_pairs import PairSet
from workbench.data.item_sets import ItemSet
from workbench.data.questions import QuestionSet
from workbench.data.registry import SOURCES, Loader
from workbench.data.stereoset import StereotypeSet
from workbench.data.toxicity_prompts import PromptSet
from workbench.errors import WorkbenchError
from workbench.registry import Registry

Own = TypeVar("Own")
Source: TypeAlias = storage.PathLike | Callable[[], ItemSet[Any]] | ItemSet[Any]
"""A registered name, a user's `module:name`, a file's path, a function, or what these lead to."""


def load_questions(source: Source) -> QuestionSet:
    """Load questions.

    Args:
        source: `"hearsay"`; `"truthfulqa"` (from the hub); a file: `.csv` with TruthfulQA's columns
            or one's own, `.json` in the shape of mc_task.json, `.jsonl` of one's own; or a function
            of one's own that returns a `QuestionSet`, itself, as `module:name`, or by the name that
            `SOURCES.questions` has it under.

    Raises:
        WorkbenchError: no such source, or one that does not hold questions.
    """
    return _load(source, SOURCES.questions, (QuestionSet,))


def load_prompts(source: Source) -> PromptSet:
    """Load prompts to continue.

    Args:
        source: `"hearsay"`, `"real-toxicity-prompts"` (from the hub), a `.jsonl` file in the
            shape of RealToxicityPrompts, or a function; see `load_questions`.

    Raises:
        WorkbenchError: no such source, or one that does not hold prompts.
    """
    return _load(source, SOURCES.prompts, (PromptSet,))


def load_contrast(source: Source) -> QuestionSet:
    """Load texts that show an attribute against texts that do not, to fit directions on.

    Args:
        source: `"hearsay"` (polite against rude remarks), a `.csv` or `.jsonl` file with the
            fields that `data.contrast` describes, or a function; see `load_questions`.

    Raises:
        WorkbenchError: no such source, or one that holds no contrast set.
    """
    return _load(source, SOURCES.contrast, (QuestionSet,))


def load_stereotypes(source: Source) -> StereotypeSet:
    """Load stereotypes with their opposites.

    Args:
        source: `"hearsay"`, StereoSet's official `.json`, or a function; see `load_questions`.

    Raises:
        WorkbenchError: no such source, or one that does not hold stereotypes.
    """
    return _load(source, SOURCES.stereotypes, (StereotypeSet,))


def load_pairs(source: Source) -> PairSet:
    """Load sentence pairs.

    Args:
        source: CrowS-Pairs' `.csv`, see `data.crows_pairs`, or a function; see `load_questions`.

    Raises:
        WorkbenchError: no such source, or one that does not hold pairs.
    """
    return _load(source, SOURCES.pairs, (PairSet,))


def load_sentences(source: Source) -> StereotypeSet | PairSet:
    """Load stereotypes or pairs, whichever the source gives; see the two."""
    place = "" if isinstance(source, ItemSet) or callable(source) else str(source)
    if place in SOURCES.pairs or Path(place).suffix.lower() in SOURCES.pairs:
        return load_pairs(source)
    kinds: tuple[type[StereotypeSet | PairSet], ...] = (StereotypeSet, PairSet)
    return _load(source, SOURCES.stereotypes, kinds)


def _load(source: Any, known: Registry[Loader], kinds: tuple[type[Own], ...]) -> Own:
    if isinstance(source, kinds):
        return source
    found = source() if callable(source) else _found(str(source), known)
    if not isinstance(found, kinds):
        raise WorkbenchError(
            f"the {known.what} {source!r:.80}, which gives a {type(found).__name__}",
            f"a {' or a '.join(kind.__name__ for kind in kinds)}",
        )
    return found


def _found(name: str, known: Registry[Loader]) -> ItemSet[Any]:
    """What a name or a path leads to."""
    suffixes = [one for one in known if one.startswith(".")]
    names = [one for one in known if one not in suffixes]
    if name not in names and Path(name).suffix.lower() in suffixes:
        return known[Path(name).suffix.lower()](storage.existing(name))
    if name.lower() in names:
        name = name.lower()
    if name not in names and ":" not in name:
        raise WorkbenchError(
            f"the unknown {known.what} {name!r}",
            f"{', '.join(map(repr, names))}{', ' if names else ''}the path of a "
            f"{' or '.join(suffixes)} file, or module:name of a function of your own",
        )
    return known.find(name)()
