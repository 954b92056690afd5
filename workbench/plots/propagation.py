"""Where propagation over the token graph moves an answer's tokens."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.analysis.propagations import Propagation
from workbench.doors import door
from workbench.plots.theme import MARK, shown, styled, wrapped
from workbench.plots.token_cells import columns

if TYPE_CHECKING:
    import plotly.graph_objects as go

START = "#0072B2"
PLOT = (760, 560)
"""Width and height of the plotting area, in pixels."""
LABELLED = 40
"""Most tokens with a label; the others tell theirs on hover."""
HALO = "0 0 2px white, 0 0 3px white, 0 0 4px white"
"""So that labels are read over lines."""
LETTER, LINE = 7.2, 15
SIDES = {
    "middle right": (0.0, -0.5),
    "middle left": (-1.0, -0.5),
    "top center": (-0.5, -1.6),
    "bottom center": (-0.5, 0.6),
    "top right": (0.0, -1.4),
    "bottom right": (0.0, 0.4),
    "top left": (-1.0, -1.4),
    "bottom left": (-1.0, 0.4),
}
"""Where a label may stand: its box's upper left corner, in its own widths and heights."""


@door
def propagation(record: Propagation) -> go.Figure:
    """A line a token from before propagation to after its last round, with an arrow's head there.

    Both axes have the same scale. Labels stand where they cover neither each other nor a token's
    start, for at most 40 tokens; hovering names all of them.

    Args:
        record: from `analysis.propagation`.

    Example:
        >>> figure = wb.plots.propagation(wb.analysis.propagation(acts[0], layer=2))
        >>> figure.layout.title.text.split("<br>")[0]
        'Tokens before and after propagation, layer 2'
    """
    import plotly.graph_objects as go

    points = np.asarray(record.points, dtype=float)
    spread = np.asarray(record.spread, dtype=float)
    explained = 100 * np.asarray(record.explained, dtype=float)
    names = [shown(text, 18) for text in record.strings]
    rounds = len(points) - 1
    figure = go.Figure()
    figure.add_trace(_paths(points, names))
    x_range, y_range, scale = _ranges(points)
    pixels = np.stack([points[0, :, 0] - x_range[0], y_range[1] - points[0, :, 1]], 1) / scale
    sides = _placed(pixels, names)
    figure.add_trace(
        go.Scatter(
            x=points[0, :, 0],
            y=points[0, :, 1],
            mode="markers+text",
            marker={"size": 8, "color": START},
            text=[name if side else "" for name, side in zip(names, sides, strict=True)],
            textposition=[side or "middle right" for side in sides],
            textfont={"size": 12, "shadow": HALO},
            hovertext=names,
            hovertemplate="%{hovertext}, before<extra></extra>",
            name="before",
        )
    )
    figure.update_xaxes(range=x_range, title_text=f"first component ({explained[0]:.0f} %)")
    figure.update_yaxes(range=y_range, title_text=f"second component ({explained[1]:.0f} %)")
    figure.update_layout(legend={"x": 1.02, "y": 1, "xanchor": "left"})
    where = f"layer {record.layer}" + ("" if record.head is None else f", head {record.head}")
    sentence = wrapped("".join(record.strings).strip(), 110)
    title = f"Tokens before and after propagation, {where}<br><sup>{sentence}<br>"
    title += f"{_told(rounds, spread)}</sup>"
    room = 22 * title.count("<br>")
    width, height = PLOT[0] + 90 + 150, PLOT[1] + 70 + 65 + room
    styled(figure, title, width=width, height=height, top=65 + room)
    return figure.update_layout(margin={"r": 150, "l": 90, "b": 70})


def _paths(points: Any, names: list[str]) -> go.Scatter:
    """All tokens' ways through the rounds, parted by gaps."""
    import plotly.graph_objects as go

    rounds, tokens, _ = points.shape
    gap = np.full((1, tokens, 2), np.nan)
    ways = np.concatenate([points, gap]).transpose(1, 0, 2).reshape(-1, 2)
    each = [f"after round {number}" for number in range(rounds)]
    return go.Scatter(
        x=ways[:, 0],
        y=ways[:, 1],
        mode="lines+markers",
        line={"color": MARK, "width": 1.2},
        marker={
            "symbol": "arrow",
            "angleref": "previous",
            "color": MARK,
            "opacity": 1,
            "size": [*[0] * (rounds - 1), 10 if rounds > 1 else 0, 0] * tokens,
        },
        hovertext=[f"{name}, {one}" for name in names for one in [*each, ""]],
        hovertemplate="%{hovertext}<extra></extra>",
        name=f"after round {rounds - 1}" if rounds > 1 else "no propagation",
    )


def _ranges(points: Any) -> tuple[list[float], list[float], float]:
    """Ranges of both axes, room for labels added, and the units that a pixel takes in each."""
    low, high = points.min(axis=(0, 1)), points.max(axis=(0, 1))
    extent = 1.1 * (high - low)
    scale = float(max(extent[0] / (PLOT[0] - 150), extent[1] / (PLOT[1] - 50))) or 1.0
    middle = (low + high) / 2
    half = scale * np.array(PLOT) / 2
    return (
        [float(middle[0] - half[0]), float(middle[0] + half[0])],
        [float(middle[1] - half[1]), float(middle[1] + half[1])],
        scale,
    )


def _placed(pixels: Any, names: list[str]) -> list[str | None]:
    """The side on which each label stands; None where there is room on none."""
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in pixels.tolist()]
    sides: list[str | None] = []
    for number, (name, (x, y)) in enumerate(zip(names, pixels.tolist(), strict=True)):
        wide = LETTER * columns(name) + 4
        others = [box for k, box in enumerate(taken) if k != number]
        found = None
        for side, (across, down) in SIDES.items() if _count(sides) < LABELLED else ():
            left = x + across * wide + 8 * (1 + math.floor(across) * 2) * (across in (0.0, -1.0))
            box = (left, y + down * LINE, left + wide, y + (down + 1) * LINE)
            if not any(_meet(box, other) for other in others):
                found = side
                taken.append(box)
                break
        sides.append(found)
    return sides


def _count(sides: list[str | None]) -> int:
    return sum(side is not None for side in sides)


def _meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _told(rounds: int, spread: Any) -> str:
    planes = "components of the tokens before and after together, units of z"
    if not rounds or math.isnan(spread[0]):
        return planes
    shares = ", ".join(f"{100 * share:.1f} %" for share in spread[1:6])
    after = "round 1" if rounds == 1 else f"rounds 1 to {min(rounds, 5)}"
    return f"{planes}; distance from the tokens' mean after {after}: {shares} of that before"
