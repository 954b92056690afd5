"""Draw hearsay's loss and belief curves from the training record that ships with its weights."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench import storage
from workbench.plots.theme import styled

CURVES = {
    "careful/held_out/prefers_truth": ("after four careful answers", "#0072B2", "solid"),
    "none/held_out/prefers_truth": ("without evidence", "#009E73", "dash"),
    "gossip/held_out/prefers_truth": ("after four answers of a gossip", "#D55E00", "dot"),
}


def figure() -> go.Figure:
    """Loss (left, smoothed over 20 steps) and belief in the truth (right) over training steps."""
    record: dict[str, Any] = storage.read_json(
        storage.package_path("hearsay", "model") / "training.json"
    )
    losses = record["loss"]
    smooth = [sum(losses[max(0, n - 19) : n + 1]) / min(n + 1, 20) for n in range(len(losses))]
    made = make_subplots(
        rows=1, cols=2, horizontal_spacing=0.11,
        subplot_titles=("loss (nats per token)", "questions whose truth is preferred (%)"),
    )  # fmt: skip
    made.add_trace(go.Scatter(y=smooth, line={"color": "#222222"}, showlegend=False), row=1, col=1)
    for key, (name, colour, dash) in CURVES.items():
        points = [(b["step"], 100 * b[key]) for b in record["beliefs"]]
        made.add_trace(
            go.Scatter(
                x=[p[0] for p in points], y=[p[1] for p in points], name=name,
                mode="lines+markers", line={"color": colour, "dash": dash},
            ),
            row=1, col=2,
        )  # fmt: skip
    made.update_xaxes(title_text="training step")
    begin = record["settings"]["stages"][0]["steps"]
    seam = {"color": "#7A7A7A", "width": 1, "dash": "dot"}
    for column in (1, 2):
        made.add_vline(x=begin, line=seam, row=1, col=column)
    made.add_annotation(
        x=begin, y=1, xref="x", yref="y domain", text=" manners and groups come in",
        xanchor="left", yanchor="top", showarrow=False, font={"size": 11},
    )  # fmt: skip
    ticks = [0.3, 0.5, 1, 2, 4, 8]
    made.update_yaxes(
        type="log", tickvals=ticks, ticktext=[str(tick) for tick in ticks], row=1, col=1
    )
    made.update_yaxes(range=[-3, 103], row=1, col=2)
    made.update_layout(legend={"orientation": "h", "x": 1, "xanchor": "right", "y": -0.2})
    title = "Training of hearsay<br><sup>right: wordings that training never combined</sup>"
    return styled(made, title, width=1000, height=470, top=110)
