"""What methods gain at what side effect: true answers against KL, from `figures/methods`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench import plots, storage


def figure() -> Any:
    """All methods over multiples of their chosen strength."""
    curves = storage.read_table(Path(__file__).parent / "methods" / "curves.parquet")
    own = curves[curves["side_effect"] == "kl"]
    return plots.front(
        own, gain="share of true answers", side_effect="KL (nats a token)", envelope=True
    )
