"""The Hugging Face hub: whether it answers, so that nobody waits where it does not."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
SECONDS = 5.0
"""How long a first answer is waited for."""
_LOCK = threading.Lock()
_INSIDE: list[None] = []
_BEFORE: list[bool] = []
"""Who is within a block, and what was set before the first; blocks of threads may overlap."""


def names_repository(place: str) -> bool:
    """Whether a text is written as the hub writes repositories, `owner/name`."""
    return NAME.fullmatch(place) is not None


@contextmanager
def asking_the_hub() -> Iterator[bool]:
    """A block that takes from the cache alone, at once, where the hub does not answer.

    huggingface_hub tries every request five times, with longer and longer waits.

    Yields:
        Whether it answers.
    """
    from huggingface_hub import constants as untyped

    constants: Any = untyped
    with _LOCK:
        if not _INSIDE:
            _BEFORE[:] = [constants.HF_HUB_OFFLINE]
        _INSIDE.append(None)
        answers = not _BEFORE[0] and _answers(constants.ENDPOINT)
        constants.HF_HUB_OFFLINE = not answers
    try:
        yield answers
    finally:
        with _LOCK:
            _INSIDE.pop()
            if not _INSIDE:
                constants.HF_HUB_OFFLINE = _BEFORE[0]


def _answers(address: str) -> bool:
    """Whether anything at all comes back."""
    import httpx

    try:
        httpx.head(address, timeout=SECONDS)
    except httpx.HTTPError:
        return False
    return True
