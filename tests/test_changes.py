"""Who is helped and who is hurt: changes of every question, and shares of them."""

import math

import pandas as pd
import pytest
from scipy.stats import binomtest

from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.rows import COLUMNS
from workbench.evaluation.changes import changes, outcomes, wilson
from workbench.evaluation.metrics.registry import METRICS, Metric, direction_of
from workbench.plots.changes import changes as draw


def table(**values):
    """`evaluate`'s table of a metric: lists of a value a question by method; folds of two."""
    rows = []
    for name, own in values.items():
        method, _, draws = name.partition("__")
        for number, value in enumerate(own):
            rows.append(("m", "truthfulness", method.replace("_", " "), "", int(draws or 0),
                         number // 2, f"q{number}", "mc2", value))  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


def test_changes_and_shares_by_hand():
    made = changes(table(no_edit=[0.2, 0.5, 0.5, 1.0], TAE=[0.6, 0.5, 0.505, 0.3]))
    assert made["change"].round(6).tolist() == [0.4, 0.0, 0.005, -0.7]
    assert made["question"].tolist() == ["q0", "q1", "q2", "q3"]
    assert made[["before", "after"]].iloc[3].tolist() == [1.0, 0.3]
    (row,) = outcomes(made).to_dict("records")
    assert (row["better"], row["worse"], row["unchanged"]) == (0.25, 0.25, 0.5)
    assert row["questions"] == 4
    (all_count,) = outcomes(made, least=0).to_dict("records")
    assert (all_count["better"], all_count["unchanged"]) == (0.5, 0.25)


def test_shares_of_nobody_have_an_interval():
    made = changes(table(no_edit=[0.0] * 20, TAE=[1.0] * 20))
    (row,) = outcomes(made).to_dict("records")
    z2 = 1.959964**2  # Wilson's bound of 0 of n: z² / (n + z²)
    assert (row["worse"], row["worse_low"]) == (0.0, 0.0)
    assert row["worse_high"] == pytest.approx(z2 / (20 + z2), abs=1e-6)
    assert row["better_low"] == pytest.approx(20 / (20 + z2), abs=1e-6)


def test_the_interval_is_scipy_s():
    for count, of in ((0, 7), (3, 7), (7, 7), (40, 817)):
        wanted = binomtest(count, of).proportion_ci(0.9, method="wilson")
        assert wilson(count / of, of, 0.9) == pytest.approx((wanted.low, wanted.high))


def test_where_less_is_better_the_sign_is_turned_and_where_neither_is_it_is_left_out():
    both = table(no_edit=[1.0, 2.0], TAE=[3.0, 1.0])
    assert changes(both.assign(metric="kl"))["change"].tolist() == [-2.0, 1.0]
    assert changes(both.assign(metric="ss")).empty
    assert outcomes(changes(both.assign(metric="ss"))).empty
    assert direction_of("a judge of one's own") == 1
    assert direction_of("any_toxic/women") == -1


def test_what_a_metric_s_text_says_is_how_it_is_counted():
    for name, entry in METRICS.items():
        if isinstance(entry, Metric) and not entry.parts:
            about = METRICS.about(name)
            assert entry.better == ("more is better" in about) - ("less is better" in about), name


def test_draws_are_averaged_and_questions_without_a_value_left_out():
    given = table(no_edit=[0.0, 0.0], TAE__0=[1.0, 1.0], TAE__1=[0.0, math.nan])
    made = changes(given)
    assert made[["draw", "change"]].to_numpy().tolist() == [[0, 1.0], [0, 1.0], [1, 0.0]]
    (row,) = outcomes(made).to_dict("records")
    assert (row["better"], row["questions"]) == (pytest.approx(2 / 3), 2)
    assert (row["better_low"], row["better_high"]) == wilson(2 / 3, 2)
    silent = pd.concat([table(no_edit=[0.0], TAE=[1.0, 1.0]), given.assign(metric="mc1")])
    assert changes(silent).query("metric == 'mc2'")["question"].tolist() == ["q0"]


def test_refusals():
    given = table(no_edit=[0.0, 0.0], TAE=[1.0, 1.0])
    with pytest.raises(WorkbenchError, match="no method 'ITI'"):
        changes(given, "ITI")
    with pytest.raises(WorkbenchError, match="different questions"):
        changes(given.drop(index=0))
    with pytest.raises(WorkbenchError, match="the column 'against'"):
        outcomes(given)
    for bad in ({"least": -1.0}, {"level": 1.0}):
        with pytest.raises(WorkbenchError, match=next(iter(bad))):
            outcomes(changes(given), **bad)
    with pytest.raises(WorkbenchError, match="no changes in 'mc1'"):
        draw(changes(given), "mc1")
    with pytest.raises(WorkbenchError, match="the column 'change'"):
        draw(given, "mc2")
    two = pd.concat([given, given.assign(model="n")])
    with pytest.raises(WorkbenchError, match="several models"):
        draw(changes(two), "mc2")


def test_the_figure_orders_every_method_by_itself():
    made = changes(table(no_edit=[0.0] * 4, a=[0.4, -0.1, 0.0, 0.2], b=[-0.3, 0.1, 0.0, 0.0]))
    first, second = draw(made, "mc2").data
    assert list(first.y) == [-0.1, 0.0, 0.2, 0.4]
    assert list(second.y) == [-0.3, 0.0, 0.0, 0.1]
    assert list(first.x) == [12.5, 37.5, 62.5, 87.5]
    assert first.text[0].startswith("q1<br>0 → -0.1")
