"""One look for all figures: colour-blind-safe scales, readable on white, user text never markup."""

from __future__ import annotations

import html
from typing import Any

SEQUENTIAL = "Cividis"
MARK = "#D55E00"
INK = "#222222"


def escaped(text: str) -> str:
    """A text that plotly shows as it is: no markup, and no formulas between dollars."""
    return html.escape(text).replace("$", "&#36;")


def shown(text: str, width: int = 40) -> str:
    """A text as it is typed: markup escaped, spaces and newlines made visible, long ones cut."""
    seen = text.replace("\r", "␍").replace("\n", "⏎").replace("\t", "⇥")
    if seen.startswith(" "):
        seen = "␣" + seen[1:]
    if len(seen) > width:
        seen = seen[: width - 1] + "…"
    return escaped(seen) or "∅"


def wrapped(text: str, width: int = 80) -> str:
    """A sentence over several lines, escaped."""
    lines, line = [], ""
    for word in text.replace("\n", " ⏎ ").split(" "):
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "<br>".join(escaped(part) for part in [*lines, line])


def styled(figure: Any, title: str, *, width: int, height: int, top: int = 90) -> Any:
    """Apply the common layout; `title` is escaped and wrapped by the caller."""
    figure.update_layout(
        title={"text": title, "x": 0.02, "xanchor": "left", "font": {"size": 17}},
        template="plotly_white",
        font={"family": "DejaVu Sans, Arial, sans-serif", "size": 13, "color": INK},
        width=width,
        height=height,
        margin={"l": 90, "r": 40, "t": top, "b": 70},
    )
    return figure
