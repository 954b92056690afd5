"""Before and after an edit: the truth's and the myth's token through the layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from workbench.doors import door
from workbench.errors import WorkbenchError
from workbench.plots.theme import COLOURS, shown, styled, wrapped

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

ANSWERS = dict(zip(("truth", "myth"), COLOURS, strict=False))
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star")
ACROSS = 3


@door
def trajectory(
    table: pd.DataFrame,
    *,
    quantity: Literal["nats", "rank"] = "nats",
    places: Sequence[int] = (),
    title: str = "",
) -> go.Figure:
    """A line an answer and edit over the layers; a panel for every token of the answers.

    Marks are filled where the edit acts in the layer.

    Args:
        table: from `analysis.trajectory`.
        quantity: `nats`, the log-probability; or `rank`, of which 1 is the most probable token.
        places: numbers of the answers' tokens to show; all by default.
        title: shown above; the question by default.

    Raises:
        WorkbenchError: no such quantity or token, or more edits than there are dashes.

    Example:
        >>> followed = wb.analysis.trajectory(
        ...     model, "What is the capital of Australia?", {"TAE": edit},
        ...     truth="Canberra.", myth="Sydney.",
        ... )
        >>> [line.name for line in wb.plots.trajectory(followed).data]
        ['truth ␣Can, TAE', 'myth ␣S, TAE']
    """
    from plotly.subplots import make_subplots

    if quantity not in ("nats", "rank"):
        raise WorkbenchError(f"the quantity {quantity!r}", "nats or rank")
    known = sorted(set(table["place"]))
    chosen = list(places) or known
    edits = list(dict.fromkeys(table["edit"]))
    if not chosen or not set(chosen) <= set(known):
        raise WorkbenchError(f"the answers' tokens {chosen}", f"some of {known}")
    if len(edits) > len(DASHES):
        raise WorkbenchError(f"{len(edits)} edits", f"at most {len(DASHES)} to tell apart")
    down, across = -(-len(chosen) // ACROSS), min(ACROSS, len(chosen))
    several = len(known) > 1
    figure = make_subplots(
        rows=down, cols=across, shared_yaxes="all", horizontal_spacing=0.03,
        vertical_spacing=0.25 / down,
        subplot_titles=[_heading(table, place) for place in chosen] if several else None,
    )  # fmt: skip
    for number, place in enumerate(chosen):
        where = {"row": number // ACROSS + 1, "col": number % ACROSS + 1}
        for style, edit in enumerate(edits):
            for answer, colour in ANSWERS.items():
                own = table[
                    (table["place"] == place)
                    & (table["edit"] == edit)
                    & (table["answer"] == answer)
                ]
                if len(own):
                    line = _line(own, quantity, colour, style, named=not several)
                    line.showlegend = number == 0
                    figure.add_trace(line, **where)
    name = "log-probability (nats)" if quantity == "nats" else "rank of the token"
    layers = int(table["layer"].max()) + 1
    figure.update_xaxes(
        dtick=1 if layers <= 16 else 4, zeroline=False, range=[-0.3, max(layers - 0.7, 0.3)]
    )
    figure.update_xaxes(title_text="layer", row=down)
    figure.update_yaxes(title_text=name, col=1, zeroline=False)
    if quantity == "rank":
        figure.update_yaxes(type="log", autorange="reversed", dtick=1)
    head = wrapped(title or str(table["question"].iloc[0]), 80)
    behind = "" if several else _behind(chosen[0])
    note = f"logit lens{behind}; last layer: the model's output; filled: the edit acts there"
    lines = head.count("<br>")
    figure.update_annotations(font_size=12)
    figure.update_layout(legend={"x": 1.02, "y": 1, "xanchor": "left"})
    return styled(
        figure, f"{head}<br><sup>{note}</sup>",
        width=820 if across == 1 else 380 * across + 240,
        height=(190 if down > 1 else 160) + 310 * down + 22 * lines,
        top=100 + 22 * lines + (20 if several else 0),
    )  # fmt: skip


def _behind(place: int) -> str:
    return (
        " at the last token of the prompt" if place == 0 else f", token {place + 1} of the answer"
    )


def _heading(table: pd.DataFrame, place: int) -> str:
    """The tokens at a place of the answers, in their colours."""
    own = table[table["place"] == place].drop_duplicates("answer").set_index("answer")["token"]
    if len(own) == 2 and own.iloc[0] == own.iloc[1]:
        return f"{place + 1}: {shown(own.iloc[0], 16)} (both)"
    texts = [
        f'<span style="color:{colour}">{shown(own[answer], 16)}</span>'
        for answer, colour in ANSWERS.items()
        if answer in own.index
    ]
    return f"{place + 1}: " + " / ".join(texts)


def _line(own: pd.DataFrame, quantity: str, colour: str, style: int, *, named: bool) -> go.Scatter:
    """One answer's token under one edit."""
    import plotly.graph_objects as go

    answer, edit = str(own["answer"].iloc[0]), shown(str(own["edit"].iloc[0]))
    token = shown(str(own["token"].iloc[0]), 18)
    symbol = SYMBOLS[style]
    return go.Scatter(
        x=own["layer"],
        y=own[quantity],
        mode="lines+markers",
        name=f"{answer} {token}, {edit}" if named else f"{answer}, {edit}",
        legendgroup=f"{answer} {style}",
        line={"color": colour, "dash": DASHES[style], "width": 2.2},
        marker={
            "size": 9,
            "color": colour,
            "symbol": [symbol if acts else f"{symbol}-open" for acts in own["edited"]],
        },
        text=[f"{answer} {token}, {edit}"] * len(own),
        customdata=own[["nats", "rank"]],
        hovertemplate="%{text}, layer %{x}<br>%{customdata[0]:.2f} nats, rank %{customdata[1]}"
        "<extra></extra>",
    )
