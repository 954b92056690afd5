"""Figures, as pages and pictures."""

from __future__ import annotations

import html
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workbench.storage.files import write_bytes, write_text
from workbench.storage.paths import PathLike

CONFIG = {"displayModeBar": "hover", "displaylogo": False}
HEAD = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<style>body { padding-top: 24px; } .modebar-container { top: -28px !important; }</style>
"""
"""Of a figure's page: without the room above, plotly's buttons cover the figure's title."""


def write_figure(path: PathLike, figure: Any, *, image: bool = True) -> list[Path]:
    """Write a plotly figure as a self-contained HTML page and as PNG.

    The page's buttons come when the pointer is over the figure, and stand above it.

    Args:
        path: without suffix; `.html` and `.png` are added.
        figure: the figure.
        image: also write the PNG, which needs a Chrome or Chromium on this machine.

    Returns:
        The files written.
    """
    place = Path(path)
    drawn = figure.to_html(full_html=False, include_plotlyjs=True, config=CONFIG)
    page = f"{HEAD}<title>{html.escape(place.name)}</title>\n<body>\n{drawn}\n</body>\n</html>\n"
    written = [write_text(place.with_suffix(".html"), page)]
    if image:
        written.append(write_bytes(place.with_suffix(".png"), picture(figure)))
    return written


def picture(figure: Any, scale: float = 2) -> bytes:
    """A plotly figure as PNG."""
    import kaleido

    size = {"width": figure.layout.width, "height": figure.layout.height}
    options = {"format": "png", "scale": scale, **size}
    drawn: bytes = kaleido.calc_fig_sync(figure.to_dict(), opts=options)
    return drawn


@contextmanager
def drawing() -> Iterator[bool]:
    """Keep one browser open for many pictures; yields whether there is one to draw with."""
    if not can_draw_images():
        yield False
        return
    import kaleido

    kaleido.start_sync_server(silence_warnings=True)
    try:
        yield True
    finally:
        kaleido.stop_sync_server(silence_warnings=True)


def can_draw_images() -> bool:
    """Whether a Chrome or Chromium is there that kaleido can draw with."""
    from choreographer.browsers.chromium import Chromium

    return Chromium.find_browser(skip_local=False) is not None
