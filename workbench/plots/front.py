"""What methods gain against their side effects, over a sweep of α."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.doors import door
from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.rows import NO_EDIT
from workbench.plots.theme import COLOURS, INK, MARK, shown, styled

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

ORDER = (MARK, *(colour for colour in COLOURS if colour != MARK))
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "triangle-down",
           "pentagon", "hexagon2", "bowtie", "hourglass")  # fmt: skip
DASHES = ("solid", "dash", "dot")
FEW_DECADES = 1e3
"""Up to this ratio of side effects a logarithmic axis has 1, 2 and 5 of each decade."""


@door
def front(
    curves: pd.DataFrame,
    *,
    gain: str = "gain",
    side_effect: str = "side effect",
    title: str = "",
    envelope: bool = False,
) -> go.Figure:
    """A line a method through its multiples of α: further up is better, further left is cheaper.

    Bars are 95 % intervals, of the gain over questions and of the side effect over its own units.
    Where all side effects are positive they are on a logarithmic scale; the unedited model, whose
    side effect is 0, is then the dashed line.

    Args:
        curves: from `fronts.curve`, of several methods.
        gain: what is gained, for the axis.
        side_effect: what it is weighed against, for the axis.
        title: shown above.
        envelope: draw the most that each method gains at a side effect or a lower one, no edit
            among them, as steps through the multiples that were measured; the others are faint
            points without bars.

    Raises:
        WorkbenchError: no curves.

    Example:
        >>> import pandas as pd
        >>> curves = pd.DataFrame({
        ...     "method": "TAE", "multiple": [0.0, 1.0],
        ...     "gain": [0.4, 0.7], "gain_low": [0.3, 0.6], "gain_high": [0.5, 0.8],
        ...     "effect": [0.0, 0.10], "effect_low": [0.0, 0.08], "effect_high": [0.0, 0.12],
        ... })
        >>> figure = wb.plots.front(curves, gain="mc1", side_effect="kl")
        >>> [line.name for line in figure.data]
        ['TAE', 'no edit']
    """
    import plotly.graph_objects as go

    if curves.empty:
        raise WorkbenchError("no curves", "those of at least one method")
    edited = curves[curves["multiple"] > 0]
    plain = curves[curves["multiple"] == 0]
    logarithmic = bool((edited["effect"] > 0).all())
    drawn = edited if logarithmic else curves
    floor = float(plain["gain"].iloc[0]) if len(plain) and logarithmic else float("-inf")
    figure = go.Figure()
    for number, method in enumerate(dict.fromkeys(curves["method"])):
        own = drawn[drawn["method"] == method].sort_values("multiple").reset_index()
        style = _style(number, str(method))
        own = own.assign(gain_name=shown(gain), effect_name=shown(side_effect))
        if not envelope:
            whole = _points(own, style)
            figure.add_trace(whole.update(mode="lines+markers", showlegend=True))
            continue
        best = _best(own, floor)
        rest = own[~own.index.isin(best.index)]
        faint = _points(rest, style).update(opacity=0.3, error_x=None, error_y=None)
        figure.add_traces([_steps(own, best, style), faint, _points(best, style)])
    if logarithmic and len(plain):
        figure.add_hline(y=floor, line={"color": INK, "width": 1, "dash": "dash"})
        key = {"mode": "lines", "line": {"color": INK, "width": 1, "dash": "dash"}}
        figure.add_trace(go.Scatter(x=[None], y=[None], name=NO_EDIT, **key))
    kind = "log" if logarithmic else "linear"
    figure.update_xaxes(type=kind, title_text=shown(side_effect), exponentformat="power")
    if logarithmic and edited["effect"].max() < FEW_DECADES * edited["effect"].min():
        ticks = [digit * 10.0**power for power in range(-12, 6) for digit in (1, 2, 5)]
        figure.update_xaxes(tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])
    figure.update_yaxes(title_text=shown(gain))
    figure.update_layout(legend={"x": 1.02, "y": 1, "xanchor": "left"})
    points = (
        "steps: the most gained at a side effect or a lower one; faint: other multiples of α"
        if envelope
        else "points are multiples of the chosen α"
    )
    heading = shown(title or f"{gain} against {side_effect}", 100)
    note = f"<br><sup>{points}; bars are 95 % intervals</sup>"
    return styled(figure, heading + note, width=960, height=560)


def _style(number: int, method: str) -> dict[str, Any]:
    """How a method's points look."""
    colour, name = ORDER[number % len(ORDER)], shown(method, 30)
    return {
        "line": {"color": colour, "dash": DASHES[number // len(ORDER) % len(DASHES)]},
        "marker": {"symbol": SYMBOLS[number % len(SYMBOLS)], "size": 9, "color": colour},
        "name": name,
        "legendgroup": f"{number}",
    }


def _best(own: pd.DataFrame, floor: float) -> pd.DataFrame:
    """The multiples that gain more than the unedited model and all with no larger side effect."""
    order = own.sort_values(["effect", "gain"], ascending=[True, False])
    before = order["gain"].cummax().shift(fill_value=float("-inf")).clip(lower=floor)
    return order[order["gain"] > before]


def _steps(own: pd.DataFrame, best: pd.DataFrame, style: dict[str, Any]) -> go.Scatter:
    """The envelope, up to the greatest side effect; the method's entry in the legend."""
    import plotly.graph_objects as go

    x = [*best["effect"], own["effect"].max()] if len(best) else [None]
    y = [*best["gain"], best["gain"].max()] if len(best) else [None]
    line = {**style["line"], "shape": "hv", "width": 2.2}
    seen = [*[1.0] * len(best), 0.0] if len(best) else [1.0]
    return go.Scatter(
        x=x, y=y, mode="lines+markers", line=line, marker={**style["marker"], "opacity": seen},
        name=style["name"], legendgroup=style["legendgroup"], hoverinfo="skip",
    )  # fmt: skip


def _points(own: pd.DataFrame, style: dict[str, Any]) -> go.Scatter:
    """Multiples of α with their bars."""
    import plotly.graph_objects as go

    return go.Scatter(
        x=own["effect"],
        y=own["gain"],
        mode="markers",
        error_y=_bars(own, "gain"),
        error_x=_bars(own, "effect"),
        customdata=own[["multiple", "gain_name", "effect_name"]],
        hovertemplate="%{fullData.name}, %{customdata[0]:g} times its α<br>%{customdata[1]} "
        "%{y:.3f}, %{customdata[2]} %{x:.3g}<extra></extra>",
        showlegend=False,
        **style,
    )


def _bars(own: pd.DataFrame, side: str) -> dict[str, object]:
    return {
        "type": "data",
        "array": own[f"{side}_high"] - own[side],
        "arrayminus": own[side] - own[f"{side}_low"],
        "thickness": 1,
        "width": 3,
    }
