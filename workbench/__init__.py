"""workbench: look inside, ablate and compare token-level representation editing.

The names of `__all__`, and the rooms `data`, `models`, `stages`, `editing`, `methods`,
`evaluation`, `analysis`, `runs`, `plots` and `pages`, are loaded when they are first used, so that
`import workbench` costs next to nothing. Which name comes from where stands in `__init__.pyi`.
"""

import lazy_loader

ROOMS = ("analysis", "data", "editing", "evaluation", "methods", "models", "pages", "plots", "runs",
         "stages")  # fmt: skip

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ = [name for name in __all__ if name not in ROOMS]
