"""What two settings do together: a metric over two axes of a study."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workbench.doors import door
from workbench.plots.settings import blank, chosen, ordered, spelled
from workbench.plots.theme import SEQUENTIAL, shown, styled

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@door
def ablation_map(
    summary: pd.DataFrame, x: str, y: str, metric: str, *, title: str = ""
) -> go.Figure:
    """A heat map over two settings; hovering shows the intervals.

    Args:
        summary: from `study_summary`.
        x: the setting along the figure.
        y: the setting upwards.
        metric: what is measured.
        title: shown above.

    Raises:
        WorkbenchError: as `ablation_curves`.

    Example:
        >>> means = wb.runs.study_summary(study).assign(heads=2)
        >>> figure = wb.plots.ablation_map(means, "depth", "heads", "mc2")
        >>> figure.data[0].z.shape
        (1, 2)
    """
    import plotly.graph_objects as go

    rows = chosen(summary, [x, y], metric)
    across, up = ordered(rows, x), ordered(rows, y)
    numbers = np.full((3, len(up), len(across)), np.nan)
    for at, over, *found in rows[[x, y, "mean", "low", "high"]].itertuples(index=False):
        numbers[:, up.index(over), across.index(at)] = found
    few = max(len(across), len(up)) <= 16
    figure = go.Figure(
        go.Heatmap(
            z=numbers[0],
            x=list(range(len(across))),
            y=list(range(len(up))),
            customdata=np.moveaxis(numbers[1:], 0, -1),
            text=[
                [f"{shown(x)} = {spelled(a)}, {shown(y)} = {spelled(b)}" for a in across]
                for b in up
            ],
            colorscale=SEQUENTIAL,
            showscale=bool(np.unique(numbers[0][np.isfinite(numbers[0])]).size > 1),
            colorbar={"title": {"text": shown(metric, 16)}},
            hovertemplate="%{text}<br>%{z:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]"
            "<extra></extra>",
            hoverongaps=False,
            texttemplate="%{z:.2f}" if few else None,
            xgap=1,
            ygap=1,
        )
    )
    for values, update, name in ((across, figure.update_xaxes, x), (up, figure.update_yaxes, y)):
        update(
            tickmode="array", tickvals=list(range(len(values))),
            ticktext=[spelled(value) for value in values], title_text=shown(name),
            showgrid=False, zeroline=False, automargin=True,
        )  # fmt: skip
    plain = blank(summary, metric)
    note = f"mean over {int(rows['questions'].max())} questions"
    if plain is not None:
        note += f"; no edit: {plain[0]:.2f} [{plain[1]:.2f}, {plain[2]:.2f}]"
    size = 64 if few else 24
    return styled(
        figure, f"{shown(title or f'{metric} over {x} and {y}', 100)}<br><sup>{note}</sup>",
        width=min(1400, max(640, 260 + size * len(across))),
        height=min(1200, max(340, 190 + 52 * size // 64 * len(up))),
    )  # fmt: skip
