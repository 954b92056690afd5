"""How far correct and incorrect answers lie apart along a truth direction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workbench.analysis.projection import Projections
from workbench.doors import door
from workbench.plots.theme import shown, styled

if TYPE_CHECKING:
    import plotly.graph_objects as go

KINDS = ((1, "correct", "#0072B2", ""), (0, "incorrect", "#D55E00", "/"))


@door
def projection(record: Projections, *, standardised: bool = False) -> go.Figure:
    """Densities of the two kinds of answers, each answer a stroke beneath.

    Args:
        record: from `analysis.projections`.
        standardised: in units of the direction's σ instead of those of z.

    Example:
        >>> features = wb.aggregate(acts)
        >>> found = wb.analysis.projections(features, directions, 1, 1, fitted_on=fold.train)
        >>> [part.name for part in wb.plots.projection(found).data if part.name]
        ['correct (48)', 'incorrect (72)']
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    values = np.asarray(record.standardised if standardised else record.value, dtype=float)
    label, asked = np.asarray(record.label), np.asarray([shown(q, 80) for q in record.question])
    figure = make_subplots(
        rows=2, cols=1, row_heights=[0.85, 0.15], shared_xaxes=True, vertical_spacing=0.02
    )
    for row, (kind, name, colour, pattern) in enumerate(KINDS):
        own = values[label == kind]
        figure.add_trace(
            go.Histogram(
                x=own,
                name=f"{name} ({len(own)})",
                histnorm="probability density",
                bingroup="both",
                nbinsx=40,
                opacity=0.6,
                marker={"color": colour, "pattern": {"shape": pattern, "size": 6}},
                hovertemplate=f"{name}: %{{y:.3f}} at %{{x}}<extra></extra>",
            ),
            row=1,
            col=1,
        )
        figure.add_trace(
            go.Scatter(
                x=own,
                y=np.full(len(own), row),
                mode="markers",
                marker={"symbol": "line-ns-open", "color": colour, "size": 10, "opacity": 0.5},
                customdata=asked[label == kind],
                hovertemplate=f"{name} %{{x:.3f}}<br>%{{customdata}}<extra></extra>",
                showlegend=False,
            ),
            row=2,
            col=1,
        )
    unit = "in σ" if standardised else "units of z"
    figure.update_xaxes(zeroline=False)
    figure.update_xaxes(title_text=f"projection on θ ({unit})", row=2, col=1)
    figure.update_yaxes(title_text="density", zeroline=False, row=1, col=1)
    figure.update_yaxes(visible=False, range=[1.6, -0.6], row=2, col=1)
    figure.update_layout(
        barmode="overlay",
        legend={"x": 1, "y": 1.01, "xanchor": "right", "yanchor": "bottom", "orientation": "h"},
    )
    title = f"Answers along the truth direction, layer {record.layer}, head {record.head}"
    return styled(
        figure, f"{title}<br><sup>{_caption(record)}</sup>", width=800, height=510, top=110
    )


def _caption(record: Projections) -> str:
    found = record.auroc
    if record.held_out:
        whose = f"{found.count} held-out questions"
    elif record.fitted == found.count:
        whose = f"fitted on these {found.count} questions: not held out"
    else:
        whose = f"fitted on {record.fitted} of these {found.count} questions: not held out"
    interval = ""
    if np.isfinite([found.low, found.high]).all():
        interval = f" [{found.low:.2f}, {found.high:.2f}]"
    return f"AUROC {found.mean:.2f}{interval}, 95 % by question; {whose}; σ = {record.spread:.3g}"
