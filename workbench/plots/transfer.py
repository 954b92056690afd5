"""Transfer as a matrix: where a method was fitted against where it was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from workbench.doors import door
from workbench.errors import WorkbenchError
from workbench.plots.theme import DIVERGING, styled

if TYPE_CHECKING:
    import plotly.graph_objects as go


@door
def transfer(gains: pd.DataFrame, *, title: str = "") -> go.Figure:
    """A panel a method: the gain over the unedited model, fitted on a row's, tested on a column's.

    A cell's interval is written in it, and a star where it is told from no gain after correction
    for the whole matrix (p < 0.05).

    Args:
        gains: from `evaluation.transfers`.
        title: shown above.

    Raises:
        WorkbenchError: an empty table, or one that `transfers` did not make.

    Example:
        >>> domains = {
        ...     "bare": wb.evaluation.Domain.of(questions),
        ...     "inline": wb.evaluation.Domain.of(questions, "inline"),
        ... }
        >>> methods = {"ITI": wb.methods.inference_time(heads=4, alpha=5)}
        >>> table = wb.evaluation.transfer(model, methods, domains, progress=False)
        >>> wb.plots.transfer(wb.evaluation.transfers(table, "mc1")).data[0].z.shape
        (2, 2)
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    absent = [c for c in ("method", "fitted_on", "tested_on", "difference") if c not in gains]
    if absent or gains.empty:
        raise WorkbenchError(
            f"a table without {absent[0] if absent else 'rows'}", "one of `transfers`"
        )
    methods = list(dict.fromkeys(gains["method"]))
    tested = list(dict.fromkeys(gains["tested_on"]))
    fitted = list(dict.fromkeys(gains["fitted_on"]))
    metric = str(gains["metric"].iloc[0])
    figure = make_subplots(
        cols=len(methods), subplot_titles=methods, shared_yaxes=True, horizontal_spacing=0.04
    )
    most = max(float(np.abs(gains["difference"]).max()), 1e-9)
    for number, method in enumerate(methods, 1):
        own = gains[gains["method"] == method].set_index(["fitted_on", "tested_on"])
        cells = [[own.loc[(a, b)] for b in tested] for a in fitted]
        figure.add_trace(
            go.Heatmap(
                x=tested, y=fitted, zmin=-most, zmax=most, colorscale=DIVERGING,
                z=np.array([[float(one["difference"]) for one in row] for row in cells]),
                text=[[_told(one) for one in row] for row in cells], texttemplate="%{text}",
                hovertemplate="fitted on %{y}, tested on %{x}<br>%{text}<extra></extra>",
                showscale=number == len(methods), xgap=2, ygap=2,
                colorbar={"title": {"text": f"gain of {metric}"}},
            ),
            row=1, col=number,
        )  # fmt: skip
        figure.update_xaxes(title_text="tested on", row=1, col=number)
    figure.update_yaxes(autorange="reversed")
    figure.update_yaxes(title_text="fitted on", row=1, col=1)
    width = 190 + len(methods) * (60 + 110 * len(tested))
    return styled(figure, title=title, width=width, height=190 + 70 * len(fitted))


def _told(one: pd.Series) -> str:
    """A gain and its interval, in two lines."""
    star = "*" if one["p_holm"] < 0.05 else ""
    return f"{one['difference']:+.2f}{star}<br>[{one['low']:+.2f}, {one['high']:+.2f}]"
