"""What a setting does: a metric over the values of one axis of a study."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.doors import door
from workbench.plots.settings import UNSET, blank, chosen, numeric, ordered, spelled
from workbench.plots.theme import COLOURS, INK, shown, styled

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "pentagon")
DASHES = ("solid", "dash", "dot", "dashdot")
DECADES = 30
"""From this ratio of the greatest to the least value on, a numeric axis is logarithmic."""


@door
def ablation_curves(
    summary: pd.DataFrame, axis: str, metric: str, *, by: str | None = None, title: str = ""
) -> go.Figure:
    """Means with 95 % bands over a setting's values; a curve for each value of another.

    Numbers stand in order on an axis of numbers, which is logarithmic where they are positive and
    far apart; other values stand side by side, with bars. The unedited model is the dashed line
    with the grey band.

    Args:
        summary: from `study_summary`.
        axis: the setting along the figure.
        metric: what is measured.
        by: the setting that curves differ in.
        title: shown above.

    Raises:
        WorkbenchError: no such axis or metric, several models or capabilities, or several settings
            for the same values: `study_summary(table, [axis, by])` averages over the other axes.

    Example:
        >>> figure = wb.plots.ablation_curves(wb.runs.study_summary(study), "depth", "mc2")
        >>> figure.layout.xaxis.title.text
        'depth'
    """
    import plotly.graph_objects as go

    rows = chosen(summary, [axis] if by is None else [axis, by], metric)
    values = ordered(rows, axis)
    number = numeric(values)
    figure = go.Figure()
    plain = blank(summary, metric)
    if plain is not None:
        figure.add_hrect(
            y0=plain[1],
            y1=plain[2],
            fillcolor="#BBBBBB",
            opacity=0.35,
            line_width=0,
            layer="below",
        )
        figure.add_hline(y=plain[0], line={"color": INK, "width": 1.2, "dash": "dash"})
        figure.add_trace(_key(plain))
    bands, lines = [], []
    kinds: list[Any] = [None] if by is None else ordered(rows, by)
    for place, kind in enumerate(kinds):
        own = rows if by is None else rows[rows[by] == kind]
        own = own.set_index(axis).reindex([v for v in values if v in set(own[axis])])
        name = shown(metric) if by is None else f"{shown(by)} = {spelled(kind)}"
        if number:
            bands.append(_band(own, name, place))
            lines.append(_line(own, name, place))
        else:
            shift = 0.0 if len(kinds) == 1 else 0.36 * (place / (len(kinds) - 1) - 0.5)
            lines.append(_bars(own, name, place, [values.index(v) + shift for v in own.index]))
    figure.add_traces([*bands, *lines])
    _axis(figure, axis, values)
    figure.update_yaxes(title_text=shown(metric), zeroline=False)
    figure.update_layout(
        legend={"x": 1.02, "y": 1, "xanchor": "left"},
        showlegend=by is not None or plain is not None,
    )
    questions = int(rows["questions"].max())
    heading = shown(title or f"{metric} over {axis}", 100)
    note = f"<br><sup>mean and 95 % interval over {questions} questions</sup>"
    return styled(figure, heading + note, width=880, height=480)


def _key(plain: tuple[float, float, float]) -> go.Scatter:
    """The unedited model's entry in the legend."""
    import plotly.graph_objects as go

    return go.Scatter(
        x=[None], y=[None], mode="lines", line={"color": INK, "width": 1.2, "dash": "dash"},
        name=f"no edit: {plain[0]:.3g}",
    )  # fmt: skip


def _style(place: int) -> tuple[str, str, str]:
    return (
        COLOURS[place % len(COLOURS)],
        SYMBOLS[place % len(SYMBOLS)],
        DASHES[place // len(COLOURS) % len(DASHES)],
    )


def _band(own: pd.DataFrame, name: str, place: int) -> go.Scatter:
    """The band around a line."""
    import plotly.graph_objects as go

    colour = _style(place)[0]
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return go.Scatter(
        x=[*own.index, *own.index[::-1]],
        y=[*own["high"], *own["low"][::-1]],
        fill="toself",
        fillcolor=f"rgba({red},{green},{blue},0.18)",
        line={"width": 0},
        mode="lines",
        legendgroup=name,
        hoverinfo="skip",
        showlegend=False,
    )


def _line(own: pd.DataFrame, name: str, place: int) -> go.Scatter:
    """The means of a curve."""
    import plotly.graph_objects as go

    colour, symbol, dash = _style(place)
    return go.Scatter(
        x=list(own.index),
        y=own["mean"],
        name=name,
        legendgroup=name,
        mode="lines+markers",
        line={"color": colour, "dash": dash, "width": 2.2},
        marker={"symbol": symbol, "size": 8},
        **_hover(own, name, [spelled(value) for value in own.index]),
    )


def _bars(own: pd.DataFrame, name: str, place: int, x: list[float]) -> go.Scatter:
    """Marks with bars, side by side."""
    import plotly.graph_objects as go

    colour, symbol, _ = _style(place)
    return go.Scatter(
        x=x,
        y=own["mean"],
        name=name,
        mode="markers",
        marker={"symbol": symbol, "size": 10, "color": colour},
        error_y={
            "type": "data",
            "array": own["high"] - own["mean"],
            "arrayminus": own["mean"] - own["low"],
            "thickness": 1.4,
            "width": 4,
        },
        **_hover(own, name, [spelled(value) for value in own.index]),
    )


def _hover(own: pd.DataFrame, name: str, at: list[str]) -> dict[str, Any]:
    data = [
        list(row)
        for row in zip([f"{name}, {text}" for text in at], own["low"], own["high"], strict=True)
    ]
    return {
        "customdata": data,
        "hovertemplate": "%{customdata[0]}<br>%{y:.3f} [%{customdata[1]:.3f}, "
        "%{customdata[2]:.3f}]<extra></extra>",
    }


def _axis(figure: go.Figure, axis: str, values: list[Any]) -> None:
    """The settings along the figure."""
    title = shown(axis)
    if not numeric(values):
        ticks: dict[str, Any] = {"tickvals": list(range(len(values))), "zeroline": False}
        ticks["ticktext"] = [UNSET if value == UNSET else spelled(value) for value in values]
        ticks["range"] = [-0.6, len(values) - 0.4]
        figure.update_xaxes(tickmode="array", automargin=True, title_text=title, **ticks)
        return
    apart = min(values) > 0 and max(values) / min(values) >= DECADES
    if apart:
        title += " (logarithmic)"
    few = {"tickmode": "array", "tickvals": values, "ticktext": [spelled(v) for v in values]}
    figure.update_xaxes(
        type="log" if apart else "linear", title_text=title, zeroline=False,
        **(few if len(values) <= 12 else {}),
    )  # fmt: skip
