"""Who can judge answers, and what can be held against references, by the names of run files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workbench.evaluation.judges.base import Judge
from workbench.registry import Registry

PACKAGE = "workbench.evaluation.judges"
JUDGES: Registry[Callable[..., Judge]] = Registry("kind of judge", PACKAGE)
"""What makes a judge of the name of its metric and the settings of its kind."""
MEASURES: Registry[Any] = Registry("measure of references", PACKAGE)
"""Classes of measures of how like an answer is to a reference; see `references.Measure`."""
