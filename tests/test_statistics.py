import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import WorkbenchError
from workbench.evaluation.statistics import (
    bootstrap_mean,
    bootstrap_of_means,
    first_column,
    holm,
    paired_difference,
)


def column(values):
    """One fold and one draw of some units."""
    return [np.asarray(values, dtype=float).reshape(len(values), 1, -1)]


def test_paired_intervals_are_narrower_than_unpaired_ones_where_questions_differ_in_difficulty():
    draw = np.random.default_rng(0)
    difficulty = draw.normal(0, 3, size=(200, 1))
    one = difficulty + 0.3 + draw.normal(0, 0.2, size=(200, 1))
    other = difficulty + draw.normal(0, 0.2, size=(200, 1))
    found = paired_difference(column(one), column(other), first_column)
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

    there, back = (
        paired_difference(column(a), column(b), product) for a, b in ((one, other), (other, one))
    )
    assert there.difference == pytest.approx(-back.difference)
    assert (there.low, there.high) == (pytest.approx(-back.high), pytest.approx(-back.low))
    assert there.p == pytest.approx(back.p, abs=0.03)
    same = paired_difference(column(one), column(one), product)
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_under_no_difference_p_values_are_spread_evenly_and_intervals_cover_nothing():
    draw = np.random.default_rng(2)
    found = [
        paired_difference(*map(column, draw.normal(size=(2, 30))), first_column, draws=400, seed=k)
        for k in range(200)
    ]
    small = np.mean([f.p <= 0.1 for f in found])
    assert 0.04 < small < 0.17
    covered = np.mean([f.low <= 0 <= f.high for f in found])
    assert 0.87 < covered < 0.99


def test_clustered_bootstrap_of_a_derived_metric_matches_the_delta_method():
    draw = np.random.default_rng(3)
    values = draw.binomial(1, (0.7, 0.4), size=(400, 2)).astype(float)
    found = bootstrap_of_means(column(values), lambda m: m[..., 0] * m[..., 1])
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


def bend(means):
    """A statistic with a peak, as ICAT has one."""
    return 1 - np.abs(means[..., 0] - 0.5)


def test_fits_that_err_in_opposite_ways_do_not_make_one_that_is_right():
    """Over draws of one fold, and over folds, every fit's own statistic is averaged."""
    low, high = np.full((20, 1), 0.2), np.full((20, 1), 0.8)
    draws = [np.stack([low, high], axis=1)]
    folds = [low[:, None], high[:, None]]
    for strata in (draws, folds):
        found = bootstrap_of_means(strata, bend)
        assert (found.mean, found.low, found.high) == pytest.approx((0.7, 0.7, 0.7))
    ideal = column(np.full(20, 0.5))
    assert paired_difference(draws, ideal, bend).difference == pytest.approx(-0.3)
    assert bootstrap_of_means(draws, first_column).mean == pytest.approx(0.5)


def test_draws_of_two_methods_are_paired_each_with_each():
    draw = np.random.default_rng(0)
    one, other = draw.normal(size=(30, 2, 1)), draw.normal(size=(30, 3, 1))
    found = paired_difference([one], [other], first_column)
    assert found.difference == pytest.approx(one.mean() - other.mean())
    pairs = [one[:, k] - other[:, m] for k in range(2) for m in range(3)]
    alone = bootstrap_of_means([np.mean(pairs, axis=0)[:, None]], first_column)
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high))


def test_folds_weigh_by_their_units_and_keep_their_numbers_of_units():
    strata = [np.full((30, 1, 1), 1.0), np.full((10, 1, 1), 0.0)]
    found = bootstrap_of_means(strata, first_column)
    assert (found.mean, found.low, found.high, found.count) == (0.75, 0.75, 0.75, 40)


def test_p_values_of_several_draws_hold_for_a_statistic_with_a_peak():
    """A single edit against four draws of the same law; one draw of each kind errs alike."""
    draw = np.random.default_rng(4)
    found = []
    for k in range(150):
        one = draw.binomial(1, 0.5, size=(40, 4, 1)).astype(float)
        other = draw.binomial(1, 0.5, size=(40, 1, 1)).astype(float)
        found.append(paired_difference([one], [other], bend, draws=300, seed=k))
    assert np.mean([f.p <= 0.1 for f in found]) < 0.17
    assert abs(np.mean([f.difference for f in found])) < 0.01


def test_opposite_draws_of_a_mean_are_no_difference_and_a_common_one_is():
    """Each of two draws differs, their mean does not; p and interval agree."""
    draw = np.random.default_rng(6)
    other = draw.normal(size=(120, 1, 1))
    apart = np.stack([other[:, 0] + 0.5, other[:, 0] - 0.5], axis=1)
    apart = apart + draw.normal(0, 0.3, size=apart.shape)
    found = paired_difference([apart], [other], first_column)
    assert found.low < 0 < found.high
    assert found.p > 0.2
    assert paired_difference([apart[:, :1]], [other], first_column).p < 0.001
    assert paired_difference([apart + 0.2], [other], first_column).p < 0.001
    levels = [
        paired_difference(
            [draw.normal(size=(30, 4, 1))], [draw.normal(size=(30, 1, 1))], first_column,
            draws=300, seed=k,
        ).p
        for k in range(200)
    ]  # fmt: skip
    assert 0.05 < np.mean([p <= 0.1 for p in levels]) < 0.16


def test_chunks_of_draws_change_nothing(monkeypatch):
    draw = np.random.default_rng(5)
    one, other = column(draw.normal(size=50)), column(draw.normal(size=50))
    whole = paired_difference(one, other, first_column, draws=500)
    monkeypatch.setattr("workbench.evaluation.statistics.CHUNK", 50 * 70)
    assert paired_difference(one, other, first_column, draws=500) == whole


def test_refusals(as_shipped):
    with pytest.raises(WorkbenchError, match="3 and 2 units"):
        paired_difference(column([0.0] * 3), column([0.0] * 2), first_column)
    with pytest.raises(WorkbenchError, match="0 values"):
        bootstrap_of_means([np.zeros((0, 1, 1))], first_column)
    with pytest.raises(WorkbenchError, match="finite: False"):
        bootstrap_of_means(column([np.nan]), first_column)
    with pytest.raises(WorkbenchError, match="level of 1"):
        bootstrap_of_means(column([0.0] * 2), first_column, level=1.0)
    with pytest.raises(WorkbenchError, match="p-values"):
        holm([0.5, 1.5])
