"""How the tokens of a held-out answer hang together: mutual information as arcs."""

from __future__ import annotations

from typing import Any

import workbench as wb
from figures.fitted import fitted
from workbench import plots


def figure() -> Any:
    """The longest of the first hundred held-out answers, at the layer of the best head."""
    made = fitted()
    answer = max((made.held[k] for k in range(100)), key=lambda one: len(one.tokens))
    return plots.token_arcs(wb.token_graph(answer, layer=made.tae.heads[0][0]))
