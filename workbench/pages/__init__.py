"""Pages: the report, the explorer and the demo, each whole."""

from workbench.pages.explorer import Exploration, explore

__all__ = ["Exploration", "explore"]
