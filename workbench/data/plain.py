"""Plain texts: everyday English on which an edit is to change nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from workbench import storage
from workbench.checks import require_whole
from workbench.doors import door
from workbench.errors import WorkbenchError
from workbench.hearsay.corpus import plain_documents


@door
def plain_texts(kind: str, count: int, seed: int = 0) -> list[str]:
    """So many texts, drawn by the seed.

    Args:
        kind: `english`, short passages that were written for this project, 24 of them; or
            `hearsay`, of the embedded model's own corpus, as many as are wanted.
        count: how many.
        seed: which.

    Raises:
        WorkbenchError: no such kind, or more texts than there are.

    Example:
        >>> wb.data.plain_texts("english", 1)[0][:47]
        'The orchestra rehearsed the slow movement three'
    """
    sources: Mapping[str, Callable[[int, int], list[str]]] = {
        "english": _passages, "hearsay": plain_documents,
    }  # fmt: skip
    if kind not in sources:
        raise WorkbenchError.unknown(f"plain texts of the kind {kind!r}", kind, sources)
    return sources[kind](count, seed)


def read_texts(path: storage.PathLike) -> list[str]:
    """Plain texts of one's own, from a JSON list.

    Raises:
        WorkbenchError: a file that holds no list of different texts.
    """
    found = storage.read_json(path)
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise WorkbenchError(f"{path} holds no list of texts", "a JSON list of texts")
    if len(set(found)) < len(found):
        raise WorkbenchError(
            f"{path} holds {len(found)} texts, {len(set(found))} of them different",
            "different texts",
        )
    return found


def _passages(count: int, seed: int) -> list[str]:
    text = storage.read_text(storage.package_path("data", "plain.txt"))
    passages = [" ".join(part.split()) for part in text.split("\n\n")]
    if not 0 <= count <= len(passages):
        raise WorkbenchError(f"{count} plain passages", f"at most {len(passages)}")
    require_whole("seed", seed, 0)
    order = np.random.default_rng(seed).permutation(len(passages))
    return [passages[number] for number in sorted(order[:count].tolist())]
