"""Drift as curves: what happens along long answers, position by position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from workbench.doors import door
from workbench.errors import WorkbenchError
from workbench.plots.theme import COLOURS, escaped, styled

if TYPE_CHECKING:
    import plotly.graph_objects as go

TITLES = {
    "entropy": "entropy (nats)",
    "kl": "KL from the unedited (nats)",
    "repeated": "share in repeated runs",
    "moved": "length of the change",
    "strength": "strength s",
    "gate": "gate",
    "misalignment": "p̂",
    "uncertainty": "u",
}
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")


@door
def drift(
    table: pd.DataFrame, quantities: Sequence[str] = (), *, bins: int = 20, title: str = ""
) -> go.Figure:
    """A panel a quantity, a line an edit: means over questions in stretches of the answers.

    Bands are twice the standard error over questions. A stretch is shown where at least half of the
    questions' answers reach it.

    Args:
        table: from `analysis.drift`.
        quantities: which, in order; all that are there by default.
        bins: stretches.
        title: shown above.

    Raises:
        WorkbenchError: a table that `drift` did not make, or a quantity that is not in it.

    Example:
        >>> asked = [question.question for question in fold.test.choose(range(3))]
        >>> told = wb.analysis.drift(model, asked, {"no edit": None, "TAE": edit}, tokens=24)
        >>> figure = wb.plots.drift(told, ["entropy", "moved"], bins=6)
        >>> [line.name for line in figure.data if line.showlegend]
        ['no edit', 'TAE']
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    absent = [c for c in ("edit", "question", "position", "quantity", "value") if c not in table]
    if absent or table.empty:
        raise WorkbenchError(f"a table without {absent[0] if absent else 'rows'}", "one of `drift`")
    known = [name for name in TITLES if name in set(table["quantity"])]
    chosen = list(quantities) or known
    for name in chosen:
        if name not in known:
            raise WorkbenchError.unknown(f"the quantity {name!r}", name, known)
    edits = list(dict.fromkeys(table["edit"]))
    columns = min(2, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = make_subplots(
        rows=rows, cols=columns, subplot_titles=[TITLES[name] for name in chosen],
        horizontal_spacing=0.1, vertical_spacing=0.16 / rows + 0.04,
    )  # fmt: skip
    width = max(1.0, (int(table["position"].max()) + 1) / bins)
    named: set[str] = set()
    for number, name in enumerate(chosen):
        place = {"row": number // columns + 1, "col": number % columns + 1}
        for order, edit in enumerate(edits):
            own = table[(table["quantity"] == name) & (table["edit"] == edit)]
            if own.empty:
                continue
            x, mean, error = _curve(own, width)
            colour = COLOURS[order % len(COLOURS)]
            look = {"color": colour, "dash": DASHES[order % len(DASHES)], "width": 2}
            figure.add_trace(
                go.Scatter(
                    x=np.concatenate([x, x[::-1]]), fill="toself", opacity=0.15, hoverinfo="skip",
                    y=np.concatenate([mean + 2 * error, (mean - 2 * error)[::-1]]),
                    line={"width": 0}, fillcolor=colour, showlegend=False, mode="lines",
                ),
                **place,
            )  # fmt: skip
            figure.add_trace(
                go.Scatter(
                    x=x, y=mean, mode="lines", name=escaped(str(edit)), line=look,
                    legendgroup=str(edit), showlegend=edit not in named,
                    hovertemplate="token %{x:.0f}: %{y:.3g}",
                ),
                **place,
            )  # fmt: skip
            named.add(edit)
        figure.update_xaxes(title_text="token of the answer", **place)
        figure.update_yaxes(rangemode="tozero", **place)
    figure.update_layout(legend={"orientation": "h", "y": -0.16 / rows - 0.02, "x": 0})
    return styled(figure, title=title, width=460 * columns + 60, height=290 * rows + 150)


def _curve(own: pd.DataFrame, width: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Middles of stretches, means over questions and their standard errors."""
    stretch = (own["position"] // width).astype(int)
    wide = own.assign(stretch=stretch).pivot_table(
        index="question", columns="stretch", values="value", aggfunc="mean"
    )
    wide = wide.loc[:, wide.notna().sum() * 2 >= len(wide)]
    count = np.maximum(wide.notna().sum().to_numpy(), 1)
    spread = wide.std(ddof=1).fillna(0.0).to_numpy() / np.sqrt(count)
    return (wide.columns.to_numpy() + 0.5) * width, wide.mean().to_numpy(), spread
