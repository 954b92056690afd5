"""What endpoints reply: chat completions, scores in them, errors and how long to wait."""

from __future__ import annotations

import json
import math
import time
from email.utils import parsedate_to_datetime
from typing import Any

from workbench.checks import is_share

SHOWN = 80


class AttemptError(Exception):
    """An attempt that another may follow, after so many seconds."""

    def __init__(self, reason: str, *, wait: float = 0.0, malformed: bool = False) -> None:
        super().__init__(reason)
        self.wait, self.malformed = wait, malformed


def score_in(reply: str) -> float:
    """The score in a reply: of its one JSON object with a `score`, whatever surrounds it.

    What a model thinks aloud before `</think>` is left out.

    Raises:
        AttemptError: no such object, several that differ, or a score that is no number in [0, 1].
    """
    text = reply.rpartition("</think>")[2]
    found: list[Any] = []
    begin = text.find("{")
    while begin >= 0:
        try:
            value, end = _DECODER.raw_decode(text, begin)
        except (ValueError, RecursionError):
            end = begin + 1
        else:
            found += [value["score"]] if "score" in value else []
        begin = text.find("{", end)
    if not found or not all(map(is_share, found)) or len(set(found)) > 1:
        raise _malformed(reply)
    return float(found[0])


def seconds_asked(text: str) -> float:
    """The seconds that a Retry-After header asks for, as a number or a date; 0 where it is none."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            seconds = 0.0
    return max(seconds, 0.0) if not math.isnan(seconds) else 0.0


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, refused where it names something twice."""
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name twice")
    return dict(pairs)


_DECODER = json.JSONDecoder(object_pairs_hook=_once)


def _malformed(text: str) -> AttemptError:
    return AttemptError(f"the reply {text[:SHOWN]!r} holds no score", malformed=True)


def content_of(body: str) -> str:
    """The message in a chat completion."""
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        content = None
    if not isinstance(content, str):
        raise _malformed(body)
    return content


def message_of(body: str) -> str:
    """What an endpoint says of an error, on one line."""
    try:
        said = json.loads(body)["error"]["message"]
    except (ValueError, LookupError, TypeError, RecursionError):
        said = body
    return " ".join(str(said).split())
