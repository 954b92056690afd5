"""workbench: look inside, ablate and compare token-level representation editing.

The names of `__all__`, and the rooms `data`, `models`, `stages`, `editing`, `methods`,
`evaluation`, `analysis`, `runs`, `plots` and `pages`, are loaded when they are first used, so that
`import workbench` costs next to nothing. Which name comes from where stands in `__init__.pyi`.

Example:
    The examples of all other docstrings go on from here, each in an empty folder.

    >>> import workbench as wb
    >>> model = wb.load_model("hearsay", device="cpu")
    >>> questions = wb.load_questions("hearsay").sample(24)
    >>> fold = questions.folds()[0]
    >>> acts = wb.capture(model, fold.train, progress=False)
    >>> directions = wb.fit_directions(wb.aggregate(acts), fold.train)
    >>> edit = wb.TokenAware(heads=4, alpha=5).fit(model, fold.train, progress=False)
    >>> table = wb.evaluate(model, fold.test, {"no edit": None, "TAE": edit}, progress=False)
    >>> study = wb.ablate(
    ...     model, questions.sample(4), {"depth": [0, 1]}, base={"heads": 2}, progress=False
    ... )
"""

from difflib import get_close_matches
from importlib import resources
from typing import Any

import lazy_loader

ROOMS = ("analysis", "data", "editing", "evaluation", "methods", "models", "pages", "plots", "runs",
         "stages")  # fmt: skip

_attached, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ = [name for name in __all__ if name not in ROOMS]


def __getattr__(name: str) -> Any:
    """A public name, loaded now; of one that is not there, those that it may have meant."""
    try:
        return _attached(name)
    except AttributeError:
        if name in (*__all__, *ROOMS) or name.startswith("_"):
            raise
    here = resources.files(__name__)
    rooms = [room for room in ROOMS if f'"{name}"' in (here / room / "__init__.py").read_text()]
    near = [f"{room}.{name}" for room in rooms] or get_close_matches(name, [*__all__, *ROOMS], 3)
    meant = f" Did you mean {' or '.join(near)}?" if near else ""
    raise AttributeError(f"workbench has no attribute {name}.{meant}", name=name)
