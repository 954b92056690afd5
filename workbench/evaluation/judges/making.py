"""Judges from descriptions, as they stand in the file of a run."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from workbench.errors import WorkbenchError, kind_of
from workbench.evaluation.judges.base import Judge
from workbench.evaluation.judges.registry import JUDGES


def require_described(name: str, described: Any) -> None:
    """Refuse a description of no kind of judge or with settings that the kind does not have.

    And one with a key, which files should not hold.
    """
    kind = described.get("kind") if isinstance(described, Mapping) else None
    made = JUDGES.find(kind, f"the judge {name!r} of kind {kind!r}")
    if "key" in described:
        raise WorkbenchError(
            f"a key in the description of the judge {name!r}",
            "the key in the environment variable WORKBENCH_JUDGE_KEY",
            "Descriptions are written into the run's folder.",
        )
    try:
        inspect.signature(made).bind(name, **_settings(described))
    except TypeError as error:
        raise WorkbenchError(
            f"the judge {name!r} described by {', '.join(described)} ({error})",
            f"the settings of a judge of kind {kind}",
        ) from error


def _settings(described: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in described.items() if key != "kind"}


def make_judge(name: str, described: Mapping[str, Any]) -> Judge:
    """A judge of a metric.

    Args:
        name: the metric, such as `true`, `info` or `toxicity`.
        described: `kind`, one of hearsay, truth and info (the published Llama-2-7B judges),
            causal, classifier, endpoint and rudeness, or a user's `module:name`, and the settings
            of that kind.

    Raises:
        WorkbenchError: no such kind, or settings that the kind does not have.
    """
    require_described(name, described)
    kind = str(described["kind"])
    made = JUDGES.find(kind)(name, **_settings(described))
    if not isinstance(made, Judge):
        raise WorkbenchError(
            f"the judge {name!r} of kind {kind}, which is {kind_of(made)}",
            "something with a name, an identity and scores(prompts, answers)",
        )
    if made.name != name:
        raise WorkbenchError(f"the judge {name!r} of kind {kind}, which judges {made.name!r}",
                             f"the name {made.name!r}")  # fmt: skip
    return made
