"""The explorer: what an edit sees and does at every token of some answers, as page and widget.

`explore` runs the model once for every α of a grid and keeps everything; `Exploration.save` writes
it as one HTML page that needs no server, and `Exploration.widget` shows it in a notebook.
"""

from workbench.pages.explorer.record import Exploration, ExploredAnswer
from workbench.pages.explorer.running import explore

__all__ = ["Exploration", "ExploredAnswer", "explore"]
