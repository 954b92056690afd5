"""The metrics that there are: measured ones, and those that are made of others' means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.checks import is_number
from workbench.errors import WorkbenchError
from workbench.registry import Registry


@dataclass(frozen=True)
class Metric:
    """How a metric comes about.

    Attributes:
        parts: the metrics of whose means it is made; none where it is measured itself.
        of_means: makes it of their means [..., part].
        better: 1 where more is better, −1 where less is, 0 where neither is.
    """

    parts: tuple[str, ...] = ()
    of_means: Callable[[np.ndarray], np.ndarray] | None = None
    better: int = 0


METRICS: Registry[Metric | Callable[..., float]] = Registry(
    "metric", "workbench.evaluation.metrics"
)
"""Metrics by name, with what they mean. A user's is a function; see `own_metrics`."""


SAID = {1: "; more is better", -1: "; less is better", 0: ""}
"""What is added to the meaning of a metric, by `Metric.better`."""


def measured(better: int, /, **told: str) -> None:
    """Register measured metrics, of which more is better (1), less (−1) or neither (0).

    Args:
        better: see `Metric`.
        told: a name and what it means each.
    """
    for name, about in told.items():
        METRICS.add(name, Metric(better=better), f"{about}{SAID[better]}")


def direction_of(metric: str) -> int:
    """1 where more of a metric is better, −1 where less is, 0 where neither is.

    Of judges' scores, measures of references and a user's metrics more is better.
    """
    known = METRICS.get(metric.split("/")[0])
    return known.better if isinstance(known, Metric) else 1


def own_metrics(described: Sequence[Any]) -> dict[str, Callable[..., float]]:
    """A user's metrics by the names of their columns.

    Args:
        described: functions, or the names under which they are registered or found (`module:name`).

    Raises:
        WorkbenchError: no such function, one that is registered under another name than its own, or
            one of the name of a metric that there is already.
    """
    found: dict[str, Callable[..., float]] = {}
    for one in described:
        entry = METRICS.find(one) if isinstance(one, str) else one
        name = getattr(entry, "__name__", "")
        if isinstance(entry, Metric) or not callable(entry) or not name:
            raise WorkbenchError(f"{one!r:.80} as a metric of one's own", "a function with a name")
        if isinstance(one, str) and ":" not in one and one != name:
            raise WorkbenchError(
                f"the metric {one!r}, whose function is called {name!r}",
                "one registered under its function's name, as its column is called",
            )
        if name in found or isinstance(METRICS.get(name), Metric):
            raise WorkbenchError(f"a second metric {name!r}", "a name of its own")
        found[name] = entry
    return found


def own_value(name: str, value: Any, of: str) -> float:
    """What a user's metric gives, if it is a finite number or a truth value."""
    if not is_number(value) and not isinstance(value, bool | np.bool_):
        raise WorkbenchError(f"{name} of {of!r:.80} is {value!r:.60}", "a finite number")
    return float(value)
