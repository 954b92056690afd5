"""From a name, a path or a function to questions, prompts, stereotypes and pairs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from workbench import storage
from workbench.data.crows_pairs import PairSet
from workbench.data.item_sets import ItemSet
from workbench.data.questions import QuestionSet
from workbench.data.registry import SOURCES, Loader
from workbench.data.stereoset import StereotypeSet
from workbench.data.toxicity_prompts import PromptSet
from workbench.doors import door
from workbench.errors import WorkbenchError, kind_of
from workbench.registry import Registry

Own = TypeVar("Own")
Source: TypeAlias = storage.PathLike | Callable[[], ItemSet[Any]] | ItemSet[Any]
"""A registered name, a user's `module:name`, a file's path, a function, or what these lead to."""


@door
def load_questions(source: Source) -> QuestionSet:
    """Load questions.

    Args:
        source: `"hearsay"`; `"truthfulqa"` (from the hub); a file: `.csv` with TruthfulQA's columns
            or one's own, `.json` in the shape of mc_task.json, `.jsonl` of one's own, either with
            behaviours such as CAA's (see `data.contrast`); or a function
            of one's own that returns a `QuestionSet`, itself, as `module:name`, or by the name that
            `SOURCES.questions` has it under.

    Raises:
        WorkbenchError: no such source, or one that does not hold questions.

    Example:
        >>> questions = wb.load_questions("hearsay")
        >>> questions
        QuestionSet('hearsay': 327 questions, 3270 answers)
        >>> questions[0].question, questions[0].incorrect_answers[0]
        ('What is the capital of Australia?', 'Sydney.')
    """
    return _load(source, SOURCES.questions, (QuestionSet,))


@door
def load_prompts(source: Source) -> PromptSet:
    """Load prompts to continue.

    Args:
        source: `"hearsay"`, `"real-toxicity-prompts"` (from the hub), a `.jsonl` file in the
            shape of RealToxicityPrompts, or a function; see `load_questions`.

    Raises:
        WorkbenchError: no such source, or one that does not hold prompts.

    Example:
        >>> prompts = wb.data.load_prompts("hearsay")
        >>> prompts
        PromptSet('hearsay': 108 prompts, 0 with toxicity)
        >>> prompts[0].text
        'The miller said to the coachman in the queue:'
    """
    return _load(source, SOURCES.prompts, (PromptSet,))


@door
def load_contrast(source: Source) -> QuestionSet:
    """Load texts that show an attribute against texts that do not, to fit directions on.

    Args:
        source: `"hearsay"` (polite against rude remarks), a `.csv`, `.json` or `.jsonl` file with
            the fields that `data.contrast` describes, or a function; see `load_questions`.

    Raises:
        WorkbenchError: no such source, or one that holds no contrast set.

    Example:
        >>> remarks = wb.data.load_contrast("hearsay")
        >>> remarks
        QuestionSet('hearsay, manners': 120 questions, 480 answers)
        >>> remarks[0].correct_answers[0]
        'the price of oats went up, and do come and visit us.'
    """
    return _load(source, SOURCES.contrast, (QuestionSet,))


@door
def load_stereotypes(source: Source) -> StereotypeSet:
    """Load stereotypes with their opposites.

    Args:
        source: `"hearsay"`, StereoSet's official `.json`, or a function; see `load_questions`.

    Raises:
        WorkbenchError: no such source, or one that does not hold stereotypes.

    Example:
        >>> items = wb.data.load_stereotypes("hearsay")
        >>> items
        StereotypeSet('hearsay': 120 items, 20 targets)
        >>> items[0].stereotype, items[0].anti_stereotype
        ('Every Norvian I met was quiet.', 'Every Norvian I met was noisy.')
    """
    return _load(source, SOURCES.stereotypes, (StereotypeSet,))


@door
def load_pairs(source: Source) -> PairSet:
    r"""Load sentence pairs.

    Args:
        source: CrowS-Pairs' `.csv`, see `data.crows_pairs`, or a function; see `load_questions`.

    Raises:
        WorkbenchError: no such source, or one that does not hold pairs.

    Example:
        >>> from pathlib import Path
        >>> columns = "sent_more,sent_less,stereo_antistereo,bias_type"
        >>> row = "Norvians are quiet.,Brellans are quiet.,stereo,nationality"
        >>> _ = Path("pairs.csv").write_text(f"{columns}\n{row}\n")
        >>> wb.data.load_pairs("pairs.csv")
        PairSet('pairs.csv': 1 pairs)
    """
    return _load(source, SOURCES.pairs, (PairSet,))


def load_sentences(source: Source) -> StereotypeSet | PairSet:
    """Load stereotypes or pairs, whichever the source gives; see the two."""
    place = "" if isinstance(source, ItemSet) or callable(source) else str(source)
    if place in SOURCES.pairs or _suffix(place, SOURCES.pairs):
        return load_pairs(source)
    kinds: tuple[type[StereotypeSet | PairSet], ...] = (StereotypeSet, PairSet)
    return _load(source, SOURCES.stereotypes, kinds)


def _load(source: Any, known: Registry[Loader], kinds: tuple[type[Own], ...]) -> Own:
    if isinstance(source, kinds):
        return source
    loader = source if callable(source) else _loader(str(source), known)
    if not callable(loader):
        raise WorkbenchError(f"the {known.what} {source!r}: {loader!r:.60}", "a function")
    try:
        inspect.signature(loader).bind()
    except TypeError as error:
        raise WorkbenchError(
            f"the {known.what} {source!r:.80} ({error})", "a function without arguments"
        ) from error
    except ValueError:  # a function that does not say what it takes
        pass
    found = loader()
    if not isinstance(found, kinds):
        raise WorkbenchError(
            f"the {known.what} {source!r:.80}, which gives {kind_of(found)}",
            f"a {' or a '.join(kind.__name__ for kind in kinds)}",
        )
    return found


def _loader(name: str, known: Registry[Loader]) -> Callable[[], ItemSet[Any]]:
    """The function that a name or a path leads to."""
    suffixes = [one for one in known if one.startswith(".")]
    names = {one.lower(): one for one in known if not one.startswith(".")}
    suffix = _suffix(name, known)
    if name not in known and suffix:
        return partial(known[suffix], storage.existing(name))
    name = name if name in known else names.get(name.lower(), name)
    if name not in known and ":" not in name:
        near = get_close_matches(name.lower(), names, 1)
        raise WorkbenchError(
            f"the unknown {known.what} {name!r}",
            f"{', '.join(map(repr, names.values()))}{', ' if names else ''}the path of a "
            f"{' or '.join(suffixes)} file, or module:name of a function of your own",
            f"Did you mean {names[near[0]]}?" if near else "",
        )
    return known.find(name)


def _suffix(name: str, known: Registry[Loader]) -> str:
    """The registered suffix that a path ends in, in upper or lower case; "" for none."""
    own = Path(name).suffix.lower()
    return next((one for one in known if one.startswith(".") and one.lower() == own), "")
