"""What lm-evaluation-harness logged of a task, document by document, as rows of a table."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from workbench.checks import is_number
from workbench.evaluation.capabilities.rows import Row
from workbench.evaluation.metrics.registry import METRICS, Metric

PERPLEXITIES: Mapping[str, str] = {
    "word_perplexity": "words", "byte_perplexity": "bytes", "bits_per_byte": "bytes",
}  # fmt: skip
"""What the harness counts the documents of a perplexity in."""
NEAR = 1e-6
"""How far a mean may be from the harness' own result, relative to it."""
Parts = dict[str, list[tuple[str, float]]]


def rows_of(
    samples: Iterable[Mapping[str, Any]], results: Mapping[str, Any]
) -> tuple[list[Row], list[str]]:
    """Rows of a task's documents, and the metrics that are no mean over documents.

    A metric is told where the mean of its documents' values is what the harness says of the task.
    A value of a filter other than `none` is called `metric,filter`, as the harness calls it. Of a
    perplexity there are the parts that `summary` makes it of again: `nats`, and `words` or `bytes`.

    Args:
        samples: what `simple_evaluate` logs of the task.
        results: what it says of the task, by `metric,filter`.
    """
    units: dict[str, list[str]] = defaultdict(list)
    found: dict[str, Parts] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        for metric in sample["metrics"]:
            key = f"{metric},{sample['filter']}"
            units[key].append(f"document {sample['doc_id']}")
            for part, number in _parts(metric, key, sample[metric]):
                found[key][part].append((units[key][-1], number))
    rows: dict[tuple[str, str], Row] = {}
    left_out = []
    for key, parts in found.items():
        if not _is_mean(key, parts, results.get(key)):
            left_out.append(key.removesuffix(",none"))
            continue
        for part, values in parts.items():
            rows |= {(unit, part): Row(unit, part, value) for unit, value in values}
    return list(rows.values()), left_out


def _parts(metric: str, key: str, value: Any) -> list[tuple[str, float]]:
    """The rows of a value; NaN where it is no number."""
    if metric in PERPLEXITIES and isinstance(value, tuple):
        return [("nats", -float(value[0])), (PERPLEXITIES[metric], float(value[1]))]
    known = is_number(value) or isinstance(value, bool | np.bool_)
    return [(key.removesuffix(",none"), float(value) if known else math.nan)]


def _is_mean(key: str, parts: Parts, told: Any) -> bool:
    """Whether the harness says of a metric what a table's means say."""
    means = np.array([np.mean([value for _, value in own]) for own in parts.values()])
    metric = key.split(",")[0]
    entry = METRICS.get(metric)
    if metric in PERPLEXITIES and isinstance(entry, Metric) and entry.of_means is not None:
        own = float(entry.of_means(means[None])[0])
    else:
        own = float(means[0])
    return is_number(told) and math.isclose(own, told, rel_tol=NEAR, abs_tol=NEAR)
