import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import WorkbenchError
from workbench.statistics import (
    bootstrap_mean,
    bootstrap_of_means,
    holm,
    paired_difference,
)


def first(means):
    return means[..., 0]


def test_paired_intervals_are_narrower_than_unpaired_ones_where_questions_differ_in_difficulty():
    draw = np.random.default_rng(0)
    difficulty = draw.normal(0, 3, size=(200, 1))
    one = difficulty + 0.3 + draw.normal(0, 0.2, size=(200, 1))
    other = difficulty + draw.normal(0, 0.2, size=(200, 1))
    found = paired_difference(one, other, first)
    assert found.low < 0.3 < found.high
    assert found.high - found.low < 0.1
    single = bootstrap_mean(one[:, 0])
    assert single.high - single.low > 0.5
    assert found.p == pytest.approx(1 / 4001)
    assert found.count == 200


def test_differences_are_antisymmetric_and_nothing_differs_from_itself():
    draw = np.random.default_rng(1)
    one, other = draw.normal(size=(2, 40, 2))

    def product(means):
        return means[..., 0] * means[..., 1]

    there, back = paired_difference(one, other, product), paired_difference(other, one, product)
    assert there.difference == pytest.approx(-back.difference)
    assert (there.low, there.high) == (pytest.approx(-back.high), pytest.approx(-back.low))
    assert there.p == pytest.approx(back.p, abs=0.03)
    same = paired_difference(one, one, product)
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_under_no_difference_p_values_are_spread_evenly_and_intervals_cover_nothing():
    draw = np.random.default_rng(2)
    found = [
        paired_difference(*draw.normal(size=(2, 30, 1)), first, draws=400, seed=k)
        for k in range(200)
    ]
    small = np.mean([f.p <= 0.1 for f in found])
    assert 0.04 < small < 0.17
    covered = np.mean([f.low <= 0 <= f.high for f in found])
    assert 0.87 < covered < 0.99


def test_clustered_bootstrap_of_a_derived_metric_matches_the_delta_method():
    draw = np.random.default_rng(3)
    values = draw.binomial(1, (0.7, 0.4), size=(400, 2)).astype(float)
    found = bootstrap_of_means(values, lambda m: m[..., 0] * m[..., 1])
    a, b = values.mean(0)
    assert found.mean == pytest.approx(a * b)
    spread = np.sqrt(np.array([b, a]) @ np.cov(values.T) @ np.array([b, a]) / 400)
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(spread, rel=0.1)


@given(st.lists(st.floats(0, 1), max_size=8))
@settings(max_examples=100)
def test_holm_is_what_its_definition_says(p):
    found = holm(p)
    order = np.argsort(p, kind="stable")
    for rank, number in enumerate(order):
        steps = [(len(p) - k) * p[order[k]] for k in range(rank + 1)]
        assert found[number] == pytest.approx(min(1.0, max(steps)))
    assert all(one >= own for one, own in zip(found, p, strict=True))


def test_refusals(as_shipped):
    with pytest.raises(WorkbenchError, match="3 and 2 units"):
        paired_difference(np.zeros((3, 1)), np.zeros((2, 1)), first)
    with pytest.raises(WorkbenchError, match="0 values"):
        bootstrap_of_means(np.zeros((0, 1)), first)
    with pytest.raises(WorkbenchError, match="finite: False"):
        bootstrap_of_means(np.array([[np.nan]]), first)
    with pytest.raises(WorkbenchError, match="level of 1"):
        bootstrap_of_means(np.zeros((2, 1)), first, level=1.0)
    with pytest.raises(WorkbenchError, match="p-values"):
        holm([0.5, 1.5])
