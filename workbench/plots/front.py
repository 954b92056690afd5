"""What methods gain against what they cost, over a sweep of their strength."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.errors import WorkbenchError
from workbench.plots.theme import INK, shown, styled

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7A7A7A")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "triangle-down",
           "pentagon", "hexagon2", "bowtie", "hourglass")  # fmt: skip
DASHES = ("solid", "dash", "dot")


def front(
    curves: pd.DataFrame, *, gain: str = "gain", cost: str = "side effect", title: str = ""
) -> go.Figure:
    """A line a method through its strengths: further up is better, further left is cheaper.

    Bars are 95 % intervals, of the gain over questions and of the side effect over its own units.
    Where all side effects are positive they are on a logarithmic scale; the unedited model, whose
    side effect is 0, is then the dashed line.

    Args:
        curves: from `fronts.curve`, of several methods.
        gain: what is gained, for the axis.
        cost: what it costs, for the axis.
        title: shown above.

    Raises:
        WorkbenchError: no curves.
    """
    import plotly.graph_objects as go

    if curves.empty:
        raise WorkbenchError("no curves", "those of at least one method")
    edited = curves[curves["strength"] > 0]
    logarithmic = bool((edited["cost"] > 0).all())
    drawn = edited if logarithmic else curves
    figure = go.Figure()
    for number, method in enumerate(dict.fromkeys(curves["method"])):
        own = drawn[drawn["method"] == method].sort_values("strength")
        colour = COLOURS[number % len(COLOURS)]
        figure.add_trace(
            go.Scatter(
                x=own["cost"],
                y=own["gain"],
                name=shown(str(method)),
                mode="lines+markers",
                line={"color": colour, "dash": DASHES[number // len(COLOURS) % len(DASHES)]},
                marker={"symbol": SYMBOLS[number % len(SYMBOLS)], "size": 9, "color": colour},
                error_y=_bars(own, "gain"),
                error_x=_bars(own, "cost"),
                customdata=own[["strength"]],
                hovertemplate=f"{shown(str(method))}, %{{customdata[0]:g}} times its α<br>"
                f"{shown(gain)} %{{y:.3f}}, {shown(cost)} %{{x:.3g}}<extra></extra>",
            )
        )
    plain = curves[curves["strength"] == 0]
    if logarithmic and len(plain):
        figure.add_hline(
            y=float(plain["gain"].iloc[0]),
            line={"color": INK, "width": 1, "dash": "dash"},
            annotation_text="no edit",
            annotation_position="bottom right",
        )
    kind = "log" if logarithmic else "linear"
    figure.update_xaxes(type=kind, title_text=shown(cost), exponentformat="power")
    figure.update_yaxes(title_text=shown(gain))
    figure.update_layout(legend={"x": 1.02, "y": 1, "xanchor": "left"})
    note = "<br><sup>points are multiples of the chosen strength; bars are 95 % intervals</sup>"
    heading = shown(title or f"{gain} against {cost}", 100) + note
    return styled(figure, heading, width=960, height=560)


def _bars(own: pd.DataFrame, side: str) -> dict[str, object]:
    return {
        "type": "data",
        "array": own[f"{side}_high"] - own[side],
        "arrayminus": own[side] - own[f"{side}_low"],
        "thickness": 1,
        "width": 3,
    }
