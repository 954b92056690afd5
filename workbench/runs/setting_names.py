"""How a study's settings are called, and their values stand in a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Setting = Mapping[str, Any]


def label(setting: Setting) -> str:
    """A setting's name: `depth=1, heads=16`."""
    return ", ".join(f"{key}={spelled(value)}" for key, value in setting.items()) or "as it is"


def spelled(value: Any) -> str:
    """A value in a setting's name."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {spelled(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + " ".join(map(spelled, value)) + "]"
    return format(value, "g") if isinstance(value, float) else str(value)


def plain_value(value: Any) -> Any:
    """A value as it can stand in a table's column."""
    return spelled(value) if isinstance(value, list | tuple | Mapping) else value
