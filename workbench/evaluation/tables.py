"""What a table of values says: means with intervals, and differences between methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from workbench.doors import door
from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.rows import COLUMNS, SIDE_EFFECTS
from workbench.evaluation.metrics.registry import METRICS, Metric
from workbench.evaluation.refits import Crossed, crossed, strata_of
from workbench.evaluation.statistics import (
    Difference,
    Interval,
    Statistic,
    apart_by,
    beside,
    bootstrap_of_means,
    first_column,
    holm,
    paired_difference,
)


@door
def summary(table: pd.DataFrame, *, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """Mean and bootstrap interval by question of every model, capability, method and metric.

    Metrics of means come with them: `true_x_info`, the product of the two; `perplexity`, the
    exponential of `continuation_nats`; `icat` of `lms` and `ss`. They are taken of every fold and
    draw by itself and then averaged, since each is another fit. The intervals hold the fitted
    edits fixed: they tell how far another sample of questions could move the mean, not how far
    another fit or draw could. Of a table with several refits (column `refit`) they tell both, by
    Student's t; see `refits`.

    Args:
        table: from `evaluate`, or several of them concatenated.
        level: coverage of the intervals.
        seed: of the bootstrap.

    Returns:
        Columns `model`, `capability`, `method`, `metric`, `mean`, `low`, `high`, `questions` (how
        many), in the table's order; `attrs["limits"]` where the table has it.

    Raises:
        WorkbenchError: a table without `evaluate`'s columns, or one that measures a question twice.

    Example:
        >>> means = wb.summary(table).pivot(index="method", columns="metric", values="mean")
        >>> means[["mc1", "true"]].round(2).to_dict("index")
        {'TAE': {'mc1': 0.92, 'true': 1.0}, 'no edit': {'mc1': 0.25, 'true': 0.42}}
    """
    rows = []
    for key, values in by_method(table).items():
        for metric, (parts, statistic) in _metrics(_names(values)).items():
            chosen = _whole(values, parts)
            strata, design = _strata(values, parts, chosen)
            if design is None:
                found = bootstrap_of_means(strata, statistic, level=level, seed=seed)
            else:
                one = crossed(strata, statistic, design, level=level, seed=seed)
                found = Interval(one.mean, one.low, one.high, design.count)
            rows.append((*key, metric, found.mean, found.low, found.high, found.count))
    columns = ["model", "capability", "method", "metric", "mean", "low", "high", "questions"]
    result = pd.DataFrame(rows, columns=columns)
    if "limits" in table.attrs:
        result.attrs["limits"] = table.attrs["limits"]
    return result


@door
def compare(
    table: pd.DataFrame,
    against: str,
    *,
    primary: Sequence[str] = (),
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Every method minus one of them, on the same questions.

    Of a table with several refits intervals are over questions and refits, and p is that of
    Student's t; see `refits`. Questions for which one of the two has no value of a metric (a prompt
    whose continuations are all empty has no surprise) are left out of that metric's comparison, and
    `questions` says how many are in it.

    Args:
        table: from `evaluate`, or several of them concatenated.
        against: the method to subtract.
        primary: the metrics that are to decide; choose them before you look. All by default.
        level: coverage of the intervals, each by itself.
        seed: of bootstrap and permutations.

    Returns:
        Columns `model`, `capability`, `metric`, `method`, `against`, `difference`, `low`,
        `high`, `p` (a permutation test's, see `statistics.paired_difference`), `p_holm`
        (corrected for all comparisons of primary metrics of the same model and capability; NaN for
        other metrics) and `questions`.

    Raises:
        WorkbenchError: no such method or metric, or two methods that were measured on different
            questions.

    Example:
        >>> compared = wb.compare(table, against="no edit", primary=["mc1"])
        >>> compared.set_index("metric")["difference"].round(2)[["mc1", "true"]].to_dict()
        {'mc1': 0.67, 'true': 0.58}
    """
    measured = by_method(table)
    pairs = []
    for (model, capability, method), values in measured.items():
        base = measured.get((model, capability, against))
        if base is None:
            known = sorted({name for *_, name in measured})
            raise WorkbenchError(
                f"no method {against!r} for {capability} on {model}", f"one of {', '.join(known)}"
            )
        if method != against:
            require_same(values, base, method, against)
            pairs.append((model, capability, method, values, base.reindex(values.index)))
    metrics = list(dict.fromkeys(m for *_, own, _ in pairs for m in _metrics(_names(own))))
    absent = [metric for metric in primary if metric not in metrics]
    if absent:
        raise WorkbenchError(f"the primary metric {absent[0]!r}", f"some of {', '.join(metrics)}")
    draws = max(4_000, 100 * len(pairs) * (len(primary) or len(metrics)))
    rows = []
    for model, capability, method, values, base in pairs:
        shared = [name for name in _names(values) if name in _names(base)]
        for metric, (parts, statistic) in _metrics(shared).items():
            both = _whole(values, parts) & _whole(base, parts)
            if not both.any():
                continue
            found = _difference(
                _strata(values, parts, both), _strata(base, parts, both), statistic,
                level=level, draws=draws, seed=seed,
            )  # fmt: skip
            rows.append(
                (model, capability, metric, method, against, found.difference, found.low,
                 found.high, found.p, found.count)
            )  # fmt: skip
    columns = ["model", "capability", "metric", "method", "against", "difference", "low", "high",
               "p", "questions"]  # fmt: skip
    result = pd.DataFrame(rows, columns=columns)
    family = result[result["metric"].isin(primary)] if primary else result
    corrected = family.groupby(["model", "capability"], sort=False)["p"].transform(
        lambda own: holm(own.tolist())
    )
    result.insert(columns.index("questions"), "p_holm", corrected.reindex(result.index))
    return result


def by_method(table: pd.DataFrame) -> dict[tuple[str, str, str], pd.DataFrame]:
    """For every model, capability and method a frame: a row a question, a column a metric and draw.

    Rows are named by refit (0 where the table has none), fold and question.

    Plain texts and unrelated questions that several folds share are one unit each, the mean over
    the folds.
    """
    absent = [column for column in COLUMNS if column not in table]
    if absent:
        raise WorkbenchError(f"a table without the column {absent[0]!r}", "a table of `evaluate`")
    keys = ["model", "capability", "method", "draw", "fold", "question", "metric"]
    twice = table.duplicated(keys)
    if twice.any():
        row = table[twice].iloc[0]
        raise WorkbenchError(
            f"{row['metric']} of {row['method']} twice for {row['question']!r} in fold "
            f"{row['fold']}",
            "every value once",
            "Give different names to different methods and folds.",
        )
    _require_same_draws(table)
    on_texts = table["metric"].isin(SIDE_EFFECTS)
    table = table.assign(fold=table["fold"].astype(object).mask(on_texts, "texts"))
    if "refit" not in table:
        table = table.assign(refit=0)
    if table["refit"].isna().any():
        raise WorkbenchError(
            f"{table[table['refit'].isna()]['method'].iloc[0]!r} without a refit beside others "
            "that have one",
            "tables of one run, or all of them with the column `refit`",
        )
    found: dict[tuple[str, str, str], pd.DataFrame] = {}
    for key, part in table.groupby(["model", "capability", "method"], sort=False):
        model, capability, method = map(str, key)
        found[model, capability, method] = part.pivot_table(
            index=["refit", "fold", "question"], columns=["metric", "draw"], values="value",
            aggfunc="mean", sort=False,
        )  # fmt: skip
    return found


def _require_same_draws(table: pd.DataFrame) -> None:
    """Refuse a method that was drawn more often in one fold than in another."""
    keys = ["model", "capability", "method", "fold", "draw"]
    each: dict[tuple[Any, ...], dict[Any, set[Any]]] = {}
    for *key, fold, draw in table[keys].drop_duplicates().itertuples(index=False):
        each.setdefault(tuple(key), {}).setdefault(fold, set()).add(draw)
    for (*_, method), folds in each.items():
        first, draws = next(iter(folds.items()))
        for fold, own in folds.items():
            if own != draws:
                raise WorkbenchError(
                    f"{method!r} with the draws {sorted(draws)} in fold {first} and {sorted(own)} "
                    f"in fold {fold}",
                    "the same draws in every fold",
                    "Leave out those that not every fold has: table[table.draw < n].",
                )


def _names(values: pd.DataFrame) -> list[str]:
    """The measured metrics, in their order."""
    return list(dict.fromkeys(values.columns.get_level_values("metric")))


def _whole(values: pd.DataFrame, parts: Sequence[str]) -> np.ndarray:
    """Which questions have a value of all of some metrics in every draw."""
    return np.asarray(values.loc[:, list(parts)].notna().to_numpy().all(axis=1))


def _strata(
    values: pd.DataFrame, parts: Sequence[str], chosen: np.ndarray
) -> tuple[list[np.ndarray], Crossed | None]:
    """By refit and fold the values [question, draw, metric] of the chosen questions.

    With them which units they are, where there are several refits.
    """
    stacked = np.stack([values[part].to_numpy()[chosen] for part in parts], axis=-1)
    index: Any = values.index[chosen]
    return [stacked[rows] for rows in strata_of(index).values()], Crossed.of(index)


def _difference(
    one: tuple[list[np.ndarray], Crossed | None],
    other: tuple[list[np.ndarray], Crossed | None],
    statistic: Statistic,
    *,
    level: float,
    draws: int,
    seed: int,
) -> Difference:
    """Paired by question; over questions and refits where there are several refits."""
    design = one[1]
    if design is None:
        return paired_difference(one[0], other[0], statistic, level=level, draws=draws, seed=seed)
    both = [beside(a, b) for a, b in zip(one[0], other[0], strict=True)]
    apart = apart_by(statistic, one[0][0].shape[2])
    found = crossed(both, apart, design, level, draws, seed)
    return Difference(found.mean, found.low, found.high, found.p, design.count)


def _metrics(measured: Sequence[str]) -> dict[str, tuple[tuple[str, ...], Statistic]]:
    """Every metric's columns and what is made of their means: measured ones, then derived ones."""
    found: dict[str, tuple[tuple[str, ...], Statistic]] = {
        metric: ((metric,), first_column) for metric in measured
    }
    for name, metric in METRICS.items():
        if not isinstance(metric, Metric) or metric.of_means is None:
            continue
        first = metric.parts[0]
        for group in [m.removeprefix(first) for m in measured if m.split("/")[0] == first]:
            parts = tuple(f"{part}{group}" for part in metric.parts)
            if set(parts) <= set(measured):
                found[f"{name}{group}"] = (parts, metric.of_means)
    return found


def require_same(one: pd.DataFrame, other: pd.DataFrame, method: str, against: str) -> None:
    """Refuse to compare methods on different questions; a question of only one is named."""
    apart = one.index.symmetric_difference(other.index, sort=False)
    if len(apart):
        _, fold, question = apart[0]
        lacking = against if apart[0] in one.index else method
        raise WorkbenchError(
            f"{method!r} and {against!r} measured on different questions: {lacking!r} lacks "
            f"{question!r} of fold {fold} ({len(apart)} such)",
            "both measured on the same questions",
        )
