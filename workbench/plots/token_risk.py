"""Which tokens are risky: a sentence with its tokens coloured by the strength of the edit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from workbench.doors import door
from workbench.editing.token_trace import TokenTrace
from workbench.editing.trace import Trace
from workbench.errors import WorkbenchError
from workbench.plots.theme import ink_on, scale_of, shown, styled, wrapped
from workbench.plots.token_cells import (
    FEW,
    NAMES,
    SHORT,
    Quantity,
    at_heads,
    colour_limits,
    columns,
    edited_heads,
    lines_of,
    mean_over,
    number,
    one_trace,
    ticks,
    written,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

Rows = Literal["layers", "heads", "text"]
MOST = 32
"""Most tokens in one line."""
LINE = 860
"""Pixels of a line of text."""
LETTER = 8
"""Pixels of a letter of the colour bar's title, which stands upright."""
HOVER = (
    "%{customdata[0]}<br>%{customdata[1]} → %{customdata[2]}<br>s %{customdata[3]}, "
    "p̂ %{customdata[4]}, u %{customdata[5]}<br>change %{customdata[6]}, moved %{customdata[7]}, "
    "gate %{customdata[8]}<extra></extra>"
)


@door
def token_risk(
    trace: Trace | TokenTrace,
    quantity: Quantity = "strengths",
    *,
    rows: Rows = "layers",
    title: str = "",
    limits: tuple[float, float] | None = None,
) -> go.Figure:
    r"""Tokens coloured by what the edit did as they were about to be written.

    A column is the position at which the model is about to write the token that labels it. Long
    sequences are broken into lines. Cells without a value are blank; hovering shows every number.

    Args:
        trace: of one sequence.
        quantity: what colours the cells; of edits of whole states there are `moved` and, where
            they have one, `gate`.
        rows: `layers`, a row an edited layer, mean over its edited heads; `heads`, a row an edited
            head; `text`, the sentence itself, mean over all edited heads.
        title: the figure's title, shown as typed; a sentence may be long.
        limits: ends of the colour scale, to compare figures; the values' own by default. Values on
            both sides of 0, as some gates have, are coloured both ways from there.

    Raises:
        WorkbenchError: no trace, no such quantity or rows, nothing was edited, or bad limits.

    Example:
        >>> with wb.edited(model, edit) as trace:
        ...     answers = wb.generate(model, "Q: What is the capital of Australia?\nA:")
        >>> figure = wb.plots.token_risk(trace)
        >>> len(figure.data[0].z)  # a row an edited layer
        2
    """
    if rows not in get_args(Rows):
        raise WorkbenchError(f"rows={rows!r}", f"one of {', '.join(get_args(Rows))}")
    one = one_trace(trace, quantity)
    heads = edited_heads(one, quantity)
    if rows == "heads" and heads[0][1] is None:
        raise WorkbenchError("rows='heads' of an edit of whole states", "rows 'layers' or 'text'")
    groups = _groups(heads, rows)
    means = {
        name: np.stack([mean_over(at_heads(one, name, group)) for group in groups.values()])
        for name in SHORT
    }
    low, high = colour_limits(means[quantity], limits)
    cells = _hover(one, list(groups), means)
    draw = _text if rows == "text" else _blocks
    figure, width, height = draw(one, list(groups), means[quantity], cells)
    for heat, text in (
        zip(figure.data[::2], figure.data[1::2], strict=True) if rows == "text" else ()
    ):
        text.textfont.color = [ink_on(value, low, high) for value in heat.z[0]]
    head = wrapped(title, width // 10) if title else NAMES[quantity].capitalize()
    bar = max(110, min(300, height - 40))
    name = NAMES[quantity] if LETTER * len(NAMES[quantity]) < bar + 60 else SHORT[quantity]
    states = heads[0][1] is None
    kind = {
        "layers": "edited layers" if states else "mean over the edited heads of each layer",
        "heads": "edited layers" if states else "edited heads",
        "text": f"coloured by {NAMES[quantity]}, mean over the edited "
                f"{'layers' if states else 'heads'}",
    }[rows]  # fmt: skip
    if rows != "text" and name != NAMES[quantity]:
        kind += f"; {NAMES[quantity]}"
    if np.isnan(means[quantity]).all():
        kind += f"; blank: this edit has no {SHORT[quantity]}"
    head += f"<br><sup>{kind}</sup>"
    room = 22 * head.count("<br>")
    figure.update_layout(
        coloraxis={
            "colorscale": scale_of(low, high),
            "cmin": low,
            "cmax": high,
            "colorbar": {
                "title": {"text": name, "side": "right"},
                "lenmode": "pixels",
                "len": bar,
                "y": 1,
                "yanchor": "top",
                "thickness": 18,
            },
        }
    )
    below = 20 if rows == "text" else 70
    figure = styled(figure, head, width=width, height=height + below + room + 60, top=60 + room)
    return figure.update_layout(margin_b=below)


def _groups(
    heads: list[tuple[int, int | None]], rows: str
) -> dict[str, list[tuple[int, int | None]]]:
    """The heads of each row, by its label."""
    if rows == "text":
        return {"mean over edited heads": heads}
    found: dict[str, list[tuple[int, int | None]]] = {}
    for layer, head in heads:
        label = f"layer {layer}" if rows == "layers" else f"L{layer}·H{head}"
        found.setdefault(label, []).append((layer, head))
    return found


def _hover(trace: Any, labels: list[str], means: dict[str, Any]) -> list[list[list[str]]]:
    before, after = [shown(text, 18) for text in trace.strings], written(trace)
    return [
        [
            [label, before[k], after[k], *(number(float(means[name][row, k])) for name in SHORT)]
            for k in range(len(before))
        ]
        for row, label in enumerate(labels)
    ]


def _blocks(
    trace: Any, labels: list[str], values: Any, cells: list[list[list[str]]]
) -> tuple[go.Figure, int, int]:
    """A heat map a line of tokens, one below the other; the figure, its width and its height."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    names = written(trace)
    lines = lines_of(len(names), MOST)
    step = 52 if len(names) <= FEW else 30
    row, below = 26, 22 + 7 * max(map(columns, names))
    block = row * len(labels)
    inner = block * len(lines) + below * (len(lines) - 1)
    figure = make_subplots(
        rows=len(lines),
        cols=1,
        vertical_spacing=below / inner if len(lines) > 1 else 0,
    )
    longest = max(len(line) for line in lines)
    for place, line in enumerate(lines, start=1):
        heat = go.Heatmap(
            z=values[:, line.start : line.stop],
            x=list(line),
            y=labels,
            customdata=[own[line.start : line.stop] for own in cells],
            hovertemplate=HOVER,
            hoverongaps=False,
            texttemplate="%{z:.2f}" if len(names) <= FEW else None,
            textfont={"size": 11},
            xgap=1,
            ygap=1,
            coloraxis="coloraxis",
        )
        figure.add_trace(heat, row=place, col=1)
        figure.update_xaxes(
            row=place,
            col=1,
            range=[line.start - 0.5, line.start + longest - 0.5],
            **ticks(names, line),
        )
    figure.update_xaxes(title_text="token about to be written", row=len(lines), col=1)
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False, zeroline=False)
    return figure, max(560, 240 + step * longest), inner + below + 10


def _text(
    trace: Any, _labels: list[str], values: Any, cells: list[list[list[str]]]
) -> tuple[go.Figure, int, int]:
    """The sentence in lines, each token in a cell as wide as its text."""
    import plotly.graph_objects as go

    names = written(trace, 30)
    figure = go.Figure()
    for line, (part, ends) in enumerate(_broken([8.5 * columns(name) + 12 for name in names])):
        heat = go.Heatmap(
            z=values[:, part],
            x=ends,
            y=[line - 0.45, line + 0.45],
            customdata=[cells[0][part]],
            hovertemplate=HOVER,
            xgap=2,
            coloraxis="coloraxis",
        )
        text = go.Scatter(
            x=[(ends[k] + ends[k + 1]) / 2 for k in range(len(ends) - 1)],
            y=[line] * (len(ends) - 1),
            text=names[part],
            mode="text",
            textfont={"size": 14},
            hoverinfo="skip",
            showlegend=False,
        )
        figure.add_traces([heat, text])
    lines = max(3, len(figure.data) // 2)
    hidden = {"showgrid": False, "zeroline": False, "showticklabels": False}
    figure.update_xaxes(range=[0, LINE], **hidden)
    figure.update_yaxes(range=[lines - 0.5, -0.5], **hidden)
    return figure, LINE + 240, 34 * lines


def _broken(sizes: list[float]) -> list[tuple[slice, list[float]]]:
    """Lines of cells: which tokens each holds, and the cells' ends in pixels."""
    lines: list[tuple[slice, list[float]]] = []
    start, ends = 0, [0.0]
    for token, size in enumerate(sizes):
        if len(ends) > 1 and ends[-1] + size > LINE:
            lines.append((slice(start, token), ends))
            start, ends = token, [0.0]
        ends.append(ends[-1] + size)
    return [*lines, (slice(start, len(sizes)), ends)]
