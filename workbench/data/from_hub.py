"""Data sets of the Hugging Face hub."""

from __future__ import annotations

from typing import Any

from workbench.errors import WorkbenchError
from workbench.hub import asking_the_hub


def rows_of(name: str, *config: str, split: str, instead: str) -> Any:
    """The rows of a data set, from the cache alone where the hub does not answer.

    Args:
        name: `owner/name`.
        config: of a data set that has several.
        split: which rows.
        instead: what to do without a hub.

    Raises:
        WorkbenchError: there is no such data set, or no hub.
    """
    from datasets import load_dataset

    try:
        with asking_the_hub():
            return load_dataset(name, *config, split=split)
    except Exception as error:
        told = (str(error).strip() or "no message").splitlines()[0]
        raise WorkbenchError(
            f"the data set {name!r} could not be loaded from the hub ({type(error).__name__}: "
            f"{told})",
            "a reachable hub",
            instead,
        ) from error
