"""What lm-evaluation-harness logged of a task, document by document, as rows of a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from workbench.checks import is_number
from workbench.evaluation.capabilities.rows import Row

PERPLEXITIES: Mapping[str, str] = {
    "word_perplexity": "words", "byte_perplexity": "bytes", "bits_per_byte": "bytes",
}  # fmt: skip
"""What the harness counts the documents of a perplexity in."""


def rows_of(samples: Iterable[Mapping[str, Any]]) -> tuple[list[Row], list[str]]:
    """Rows of a task's documents, and the metrics that are no mean over documents.

    A value of a filter other than `none` is called `metric,filter`, as the harness calls it. Of a
    perplexity there are the parts that `summary` makes it of again: `nats`, and `words` or `bytes`.

    Args:
        samples: what `simple_evaluate` logs.
    """
    rows: dict[tuple[str, str], Row] = {}
    left_out: dict[str, None] = {}
    for sample in samples:
        unit = f"document {sample['doc_id']}"
        for metric in sample["metrics"]:
            value, name = sample[metric], metric
            if sample["filter"] != "none":
                name = f"{metric},{sample['filter']}"
            for part, number in _parts(metric, name, value):
                if math.isnan(number):
                    left_out[name] = None
                else:
                    rows[unit, part] = Row(unit, part, number)
    return list(rows.values()), list(left_out)


def _parts(metric: str, name: str, value: Any) -> list[tuple[str, float]]:
    """The rows of a value; NaN where it is no number."""
    if metric in PERPLEXITIES and isinstance(value, tuple):
        return [("nats", -float(value[0])), (PERPLEXITIES[metric], float(value[1]))]
    known = is_number(value) or isinstance(value, bool)
    return [(name, float(value) if known else math.nan)]
