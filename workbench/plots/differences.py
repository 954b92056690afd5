"""How far methods are from one of them: paired differences with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench.doors import door
from workbench.errors import WorkbenchError
from workbench.plots.theme import INK, MARK, shown, styled

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

ALIKE = "#7A7A7A"


@door
def differences(
    compared: pd.DataFrame,
    metrics: Sequence[str] = (),
    *,
    title: str = "",
    level: float = 0.05,
    comparisons: int | None = None,
) -> go.Figure:
    """A panel a metric: a row a method, its difference and interval, in the metric's own units.

    Rows whose corrected p-value is below `level` are coloured and have a filled mark; the others
    are grey and open.

    Args:
        compared: from `compare`, of one model and capability.
        metrics: those to show, in this order; all by default.
        title: shown above.
        level: of significance, for the colours.
        comparisons: how many the p-values were corrected for, to be told; there may be more than
            are shown.

    Raises:
        WorkbenchError: no such metric, nothing to show, or several models or capabilities.

    Example:
        >>> compared = wb.compare(table, against="no edit")
        >>> figure = wb.plots.differences(compared, ["mc1", "true"])
        >>> [panel.y for panel in figure.data]
        [('TAE',), ('TAE',)]
    """
    from plotly.subplots import make_subplots

    chosen = _chosen(compared, metrics)
    methods = list(dict.fromkeys(compared["method"]))
    against = shown(str(compared["against"].iloc[0]))
    figure = make_subplots(
        rows=1, cols=len(chosen), shared_yaxes=True, horizontal_spacing=0.04,
        subplot_titles=[shown(metric) for metric in chosen],
    )  # fmt: skip
    for column, metric in enumerate(chosen, start=1):
        part = compared[compared["metric"] == metric].set_index("method").reindex(methods)
        figure.add_trace(_marks(part, level), row=1, col=column)
        figure.add_vline(x=0, line={"color": INK, "width": 1, "dash": "dot"}, row=1, col=column)
    figure.update_yaxes(autorange="reversed", showgrid=True, automargin=True)
    figure.update_xaxes(
        zeroline=False,
        nticks=4,
        tickangle=0,
        exponentformat="power",
        title_text=f"difference from {against}",
        title_font_size=11,
    )
    questions = int(compared[compared["metric"].isin(chosen)]["questions"].max())
    over = f" over {comparisons} comparison{'s' * (comparisons > 1)}" if comparisons else ""
    note = (
        f"<br><sup>95 % intervals over {questions} questions; filled: p < {level:g} after Holm's "
        f"correction{over}</sup>"
    )
    return styled(
        figure,
        shown(title or f"Differences from {against}", 100) + note,
        width=max(640, 250 + 210 * len(chosen)),
        height=190 + 30 * len(methods),
        top=120,
    )


def _chosen(compared: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
    """The metrics to show; refused where the table lacks one, or mixes models or capabilities."""
    known = list(dict.fromkeys(compared["metric"]))
    chosen = list(metrics) or known
    absent = [metric for metric in chosen if metric not in known]
    if absent or not chosen:
        raise WorkbenchError(
            f"no differences in {absent[0] if absent else 'any metric'!r}",
            f"some of {', '.join(known)}",
        )
    if len(compared[["model", "capability"]].drop_duplicates()) > 1:
        raise WorkbenchError(
            "differences of several models or capabilities",
            "those of one",
            "compared[compared.capability == 'fairness'], for example.",
        )
    return chosen


def _marks(part: pd.DataFrame, level: float) -> go.Scatter:
    """The differences in one metric, a row a method, with their intervals."""
    import plotly.graph_objects as go

    significant = (part["p_holm"] < level).tolist()
    colours = [MARK if sure else ALIKE for sure in significant]
    return go.Scatter(
        x=part["difference"],
        y=[shown(method, 60) for method in part.index],
        mode="markers",
        marker={
            "color": colours,
            "size": 10,
            "symbol": ["circle" if sure else "circle-open" for sure in significant],
            "line": {"width": 2, "color": colours},
        },
        error_x={
            "type": "data",
            "array": part["high"] - part["difference"],
            "arrayminus": part["difference"] - part["low"],
            "color": INK,
            "thickness": 1.2,
            "width": 4,
        },
        customdata=part[["low", "high", "p_holm", "questions"]],
        hovertemplate="%{y}: %{x:.3g} [%{customdata[0]:.3g}, %{customdata[1]:.3g}]<br>"
        "p = %{customdata[2]:.2g} (Holm), %{customdata[3]} questions<extra></extra>",
        showlegend=False,
    )
