"""Models that ship in the package, by the names that `load_model` calls them."""

from __future__ import annotations

from collections.abc import Mapping

from workbench import storage

SHIPPED: Mapping[str, str] = {"hearsay": str(storage.package_path("hearsay", "model"))}
"""The folder of each."""


def shipped_name(folder: str) -> str:
    """The name of the model in a folder; of other folders and names themselves."""
    return next((name for name, place in SHIPPED.items() if place == folder), folder)
