"""What a method does to every question: changes from the most hurt to the most helped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.doors import door
from workbench.errors import WorkbenchError
from workbench.plots.theme import COLOURS, INK, MARK, shown, styled

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

ORDER = (MARK, *(colour for colour in COLOURS if colour != MARK))
DASHES = ("solid", "dash", "dot", "dashdot")


@door
def changes(changed: pd.DataFrame, metric: str, *, title: str = "") -> go.Figure:
    """A line a method through the changes of its questions, in ascending order.

    Where a line is below 0, questions became worse; where it reaches 0 on the horizontal axis is
    their share. Of several draws all are in the line. Point at it to read a question.

    Args:
        changed: from `evaluation.changes`, of one model and capability.
        metric: whose changes.
        title: shown above.

    Raises:
        WorkbenchError: no such metric, or several models or capabilities.

    Example:
        >>> figure = wb.plots.changes(wb.evaluation.changes(table), "mc2")
        >>> [line.name for line in figure.data]
        ['TAE']
    """
    import plotly.graph_objects as go

    if "change" not in changed:
        raise WorkbenchError("a table without the column 'change'", "one of evaluation.changes")
    own = changed[changed["metric"] == metric]
    if own.empty:
        known = ", ".join(dict.fromkeys(changed["metric"])) or "none"
        raise WorkbenchError(f"no changes in {metric!r}", f"one of {known}")
    if len(own[["model", "capability"]].drop_duplicates()) > 1:
        raise WorkbenchError("changes of several models or capabilities", "those of one")
    figure = go.Figure()
    for number, (method, part) in enumerate(own.groupby("method", sort=False)):
        rows = part.sort_values("change", kind="stable")
        share = [100 * (place + 0.5) / len(rows) for place in range(len(rows))]
        told = [
            f"{shown(question, 80)}<br>{before:.3g} → {after:.3g}"
            for question, before, after in zip(
                rows["question"], rows["before"], rows["after"], strict=True
            )
        ]
        line = {"color": ORDER[number % len(ORDER)], "dash": DASHES[number // len(ORDER) % 4]}
        figure.add_trace(
            go.Scatter(
                x=share, y=rows["change"], name=shown(str(method), 30), mode="lines",
                line={**line, "shape": "hvh", "width": 2}, text=told, showlegend=True,
                hovertemplate="%{text}<extra>%{fullData.name}</extra>",
            )
        )  # fmt: skip
    figure.add_hline(y=0, line={"color": INK, "width": 1, "dash": "dot"})
    against = shown(str(own["against"].iloc[0]))
    figure.update_xaxes(
        title_text="questions, from the most hurt to the most helped (%)", range=[0, 100]
    )
    figure.update_yaxes(title_text=f"change in {shown(metric)} (better is up)")
    figure.update_layout(legend={"x": 1.02, "y": 1, "xanchor": "left"})
    count = own["question"].nunique()
    note = f"<br><sup>{count} questions; each line is sorted by itself</sup>"
    heading = shown(title or f"Who is helped and who is hurt: {metric} against {against}", 100)
    return styled(figure, heading + note, width=960, height=520)
