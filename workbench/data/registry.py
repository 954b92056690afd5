"""Where data come from, by the names that calls, run files and the command line use.

A source is a function that gives a data set: under a name such as `hearsay` a function of nothing,
under a suffix such as `.csv` a function of the path of such a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from workbench.data.item_sets import ItemSet
from workbench.registry import Registry

PACKAGE = "workbench.data"
Loader = Callable[..., ItemSet[Any]]


class Sources(NamedTuple):
    """A registry for each kind of data.

    Attributes:
        questions: give a `QuestionSet`; `load_questions` looks here.
        contrast: give a `QuestionSet` of texts to fit on; `load_contrast`.
        prompts: give a `PromptSet`; `load_prompts`.
        stereotypes: give a `StereotypeSet`; `load_stereotypes`.
        pairs: give a `PairSet`; `load_pairs`.

    Example:
        >>> @wb.data.SOURCES.questions.register("easy")
        ... def easy():
        ...     sum_up = wb.data.Question("2 + 2?", "4", ("4",), ("5",))
        ...     return wb.data.QuestionSet((sum_up,), "easy")
        >>> wb.load_questions("easy")
        QuestionSet('easy': 1 questions, 2 answers)
    """

    questions: Registry[Loader] = Registry("question source", PACKAGE)
    contrast: Registry[Loader] = Registry("contrast source", PACKAGE)
    prompts: Registry[Loader] = Registry("prompt source", PACKAGE)
    stereotypes: Registry[Loader] = Registry("stereotype source", PACKAGE)
    pairs: Registry[Loader] = Registry("pair source", PACKAGE)

    def named(self, source: Any, kind: str = "") -> Any:
        """A source as a run file holds it, also within tables; see `Registry.name_of`.

        Args:
            source: a function, a name, a path, or a table or list of them.
            kind: the registry it belongs to, where that is known.

        Raises:
            WorkbenchError: a function that no name leads to.
        """
        if isinstance(source, Mapping):
            return {key: self.named(own, key) for key, own in source.items()}
        if isinstance(source, list | tuple):
            return [self.named(own, kind) for own in source]
        where = [getattr(self, kind)] if kind in self._fields else self
        if callable(source):
            holding = (registry for registry in where if source in registry.values())
            return next(holding, self.questions).name_of(source)
        if not isinstance(source, str):
            return source
        names = {registry.name_of(source) for registry in where if source in registry}
        return names.pop() if len(names) == 1 else source


SOURCES = Sources()
