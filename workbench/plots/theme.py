"""One look for all figures: colour-blind-safe scales, readable on white, user text never markup."""

from __future__ import annotations

import html
import unicodedata
from typing import Any

SEQUENTIAL = "Cividis"
DIVERGING = ((0.0, "#0072B2"), (0.5, "#F7F7F7"), (1.0, "#D55E00"))
"""Below and above 0, in two of the colours below."""
DARK = -0.84
"""From this share of the left end on, white is easier to read on `DIVERGING` than `INK`."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7A7A7A")
"""Of lines and points that differ in kind: those of Okabe and Ito (2008), grey for their yellow."""
MARK = COLOURS[1]
INK = "#222222"
SIGNS = {"\r": "␍", "\n": "⏎", "\t": "⇥", "\u00a0": "⍽"}
JOINERS = "\u200c\u200d"  # of letters and emoji: they shape what is beside them


def scale_of(low: float, high: float) -> Any:
    """The colour scale of a range: one way, or, where 0 lies within, both ways from there.

    Values that are as far from 0 have colours that are as far from its own, whatever the range.
    """
    if not low < 0 < high:
        return SEQUENTIAL
    from plotly.colors import find_intermediate_color, hex_to_rgb

    most = max(-low, high)
    ends, middle = (DIVERGING[0][1], DIVERGING[2][1]), hex_to_rgb(DIVERGING[1][1])
    first, last = (
        "rgb({:.0f}, {:.0f}, {:.0f})".format(
            *find_intermediate_color(middle, hex_to_rgb(end), size / most)
        )
        for end, size in zip(ends, (-low, high), strict=True)
    )
    return ((0.0, first), (-low / (high - low), DIVERGING[1][1]), (1.0, last))


def ink_on(value: float, low: float, high: float) -> str:
    """The colour of a text that can be read on a value's colour: white on dark ones."""
    dark = value < DARK * max(-low, high) if low < 0 < high else value < (low + high) / 2
    return "#FFFFFF" if dark else INK


def shown(text: str, width: int = 40) -> str:
    """A text as it is typed: markup and formulas escaped, what is invisible made visible, cut.

    Spaces at either end, line ends, control and bidirectional marks get a sign of their own; text
    that runs from right to left is kept from reordering what stands beside it.
    """
    inner = text.strip(" ")
    before = len(text) - len(text.lstrip(" "))
    after = len(text) - len(inner) - before
    seen = "␣" * before + "".join(map(_visible, inner)) + "␣" * after
    if seen and unicodedata.category(seen[0]).startswith("M"):
        seen = "◌" + seen
    if len(seen) > width:
        seen = seen[: width - 1] + "…"
    if any(unicodedata.bidirectional(one) in ("R", "AL") for one in seen):
        seen = f"\u2068{seen}\u2069"
    return escaped(seen) or "∅"


def _visible(one: str) -> str:
    """A character, or a sign for one that cannot be seen."""
    if one in SIGNS:
        return SIGNS[one]
    hidden = unicodedata.category(one) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    return f"⟨{ord(one):02X}⟩" if hidden and one not in JOINERS else one


def escaped(text: str) -> str:
    """Text for plotly and pages: plotly knows no &quot;, and reads $…$ as a formula."""
    plain = html.escape(text, quote=False)
    return plain.replace('"', "&#34;").replace("'", "&#39;").replace("$", "&#36;")


def wrapped(text: str, width: int = 80) -> str:
    """A sentence over several lines, escaped; words longer than a line are broken."""
    lines, line = [], ""
    seen = "".join(map(_visible, text.replace("\n", " \n ")))
    words = [
        word[start : start + width]
        for word in seen.split(" ")
        for start in range(0, max(1, len(word)), width)
    ]
    for word in words:
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "<br>".join(escaped(part) for part in [*lines, line])


def styled(figure: Any, title: str, *, width: int, height: int, top: int = 90) -> Any:
    """Apply the common layout; `title` is escaped and wrapped by the caller."""
    figure.update_layout(
        title={
            "text": title,
            "x": 0.02,
            "xanchor": "left",
            "y": 1 - 22 / height,
            "yanchor": "top",
            "font": {"size": 17},
        },
        template="plotly_white",
        font={"family": "DejaVu Sans, Arial, sans-serif", "size": 13, "color": INK},
        width=width,
        height=height,
        margin={"l": 90, "r": 40, "t": top, "b": 70},
    )
    return figure
