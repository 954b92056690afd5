"""Gains at equal side effects: planted curves are recovered, and faster strengths win nothing."""

import numpy as np
import pandas as pd
import pytest

from workbench.errors import WorkbenchError
from workbench.fronts import area, at_cost, compare_at_cost, curve, front, sweep_of
from workbench.plots import front as plot

STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0)


def planted(methods, *, questions=200, texts=60, noise=0.3, folds=2, seed=0):
    """A sweep in which a method's gain is g(a·s) and its KL k(a·s), with noise of its own."""
    draw = np.random.default_rng(seed)
    rows = []
    ease = draw.normal(0, noise, (folds, questions))
    weight = draw.lognormal(0, 0.3, (folds, texts))

    def add(method, strength, gain, cost, fold):
        rows.extend(
            (method, strength, fold, f"q{q}", "mc2", gain + ease[fold, q]) for q in range(questions)
        )
        rows.extend(
            (method, strength, fold, f"t{t}", "kl", cost * weight[fold, t]) for t in range(texts)
        )

    for fold in range(folds):
        add("no edit", 1.0, 0.4, 0.0, fold)
        for method, (reach, height) in methods.items():
            for s in STRENGTHS:
                x = reach * s
                add(method, s, 0.4 + height * x / (1 + x), 0.01 * x**2, fold)
    columns = ["method", "strength", "fold", "question", "metric", "value"]
    return pd.DataFrame(rows, columns=columns).assign(task="truthfulness")


def test_a_method_that_is_only_stronger_is_equal_at_equal_kl():
    """At equal α it looks better; at equal KL the difference is 0, and its interval has it."""
    table = planted({"TAE": (1.0, 0.5), "louder": (1.5, 0.5)})
    means = table[(table["strength"] == 1.0) & (table["metric"] == "mc2")].groupby("method")[
        "value"
    ]
    assert means.mean()["louder"] - means.mean()["TAE"] > 0.04
    sweep = sweep_of(table, "mc2", "kl", draws=500)
    found = compare_at_cost(sweep, "TAE", [0.01, 0.05])
    louder = found[found["method"] == "louder"]
    assert (louder["difference"].abs() < 0.02).all()
    areas = area(sweep, 0.001, 0.1).set_index("method")["area"]
    assert abs(areas["louder"] - areas["TAE"]) < 0.02


def test_a_method_that_is_better_at_equal_kl_is_told():
    sweep = sweep_of(planted({"TAE": (1.0, 0.3), "better": (1.0, 0.5)}), "mc2", "kl", draws=500)
    found = compare_at_cost(sweep, "TAE", [0.01]).set_index("method")
    assert found.loc["better", "difference"] == pytest.approx(0.2 * 0.5, abs=0.02)
    assert found.loc["better", "difference_low"] > 0
    assert found.loc["better", "p_holm"] < 0.05
    assert np.isnan(found.loc["TAE", "p"])
    areas = area(sweep, 0.001, 0.1).set_index("method")
    assert areas.loc["better", "low"] > areas.loc["TAE", "area"]


def test_between_two_strengths_both_are_interpolated():
    """Without noise: KL .01·s², gain .4 + .5·s/(1+s); at KL .0225 a third of the way in KL."""
    table = planted({"TAE": (1.0, 0.5)}, noise=0.0, texts=3, questions=2, folds=1)
    table.loc[table["metric"] == "kl", "value"] = (
        table[table["metric"] == "kl"].groupby(["method", "strength"])["value"].transform("mean")
    )
    sweep = sweep_of(table, "mc2", "kl", draws=10)
    costs, gains = sweep.cost["TAE"][0, 0], sweep.gain["TAE"][0, 0]
    wanted = (costs[3] + costs[4]) / 2
    assert at_cost(sweep, "TAE", wanted)[0] == pytest.approx((gains[3] + gains[4]) / 2)
    assert at_cost(sweep, "TAE", costs[3])[0] == pytest.approx(gains[3])
    assert np.isnan(at_cost(sweep, "TAE", costs[-1] * 1.01)[0])
    assert front(sweep, "TAE", costs[3])[0] == pytest.approx(gains[3])
    assert front(sweep, "TAE", 1e9)[0] == pytest.approx(gains.max())
    assert front(sweep, "TAE", 0.0)[0] == pytest.approx(gains[0])


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Sixty draws of data whose true difference at KL .01 is known: 95 % intervals hold it."""
    hits = 0
    for seed in range(60):
        table = planted({"TAE": (1.0, 0.3), "other": (1.0, 0.3)}, questions=40, texts=20, seed=seed)
        noisy = table["method"].eq("other") & table["metric"].eq("mc2")
        draw = np.random.default_rng(seed)
        table.loc[noisy, "value"] += draw.normal(0, 0.5, int(noisy.sum()))
        found = compare_at_cost(sweep_of(table, "mc2", "kl", draws=200), "TAE", [0.01])
        row = found[found["method"] == "other"].iloc[0]
        hits += row["difference_low"] <= 0 <= row["difference_high"]
    assert hits >= 51


def test_a_cost_that_is_never_reached_is_no_number():
    sweep = sweep_of(planted({"TAE": (1.0, 0.5), "weak": (0.1, 0.5)}), "mc2", "kl", draws=50)
    found = compare_at_cost(sweep, "TAE", [0.1]).set_index("method")
    assert np.isnan(found.loc["weak", "gain"])
    assert np.isnan(found.loc["weak", "p_holm"])
    assert found.loc["TAE", "gain"] > 0.7


def test_curves_are_drawn_with_their_intervals():
    sweep = sweep_of(planted({"TAE": (1.0, 0.5), "<b>": (0.5, 0.5)}), "mc2", "kl", draws=50)
    curves = pd.concat([curve(sweep, method) for method in sweep.gain])
    figure = plot(curves, gain="mc2", cost="kl")
    assert [trace.name for trace in figure.data] == ["TAE", "&lt;b&gt;"]
    assert figure.layout.xaxis.type == "log"
    assert len(figure.data[0].x) == len(STRENGTHS)
    own = curves[(curves["method"] == "TAE") & (curves["strength"] > 0)]
    assert list(figure.data[0].y) == pytest.approx(own["gain"].tolist())
    assert (own["gain_low"] < own["gain"]).all()
    linear = plot(curves.assign(cost=-1.0), gain="mc2", cost="ended")
    assert linear.layout.xaxis.type == "linear"
    with pytest.raises(WorkbenchError, match="no curves"):
        plot(curves.head(0))


def test_refusals(as_shipped):
    table = planted({"TAE": (1.0, 0.5)}, questions=4, texts=4)
    sweep = sweep_of(table, "mc2", "kl", draws=10)
    for call, says in (
        (lambda: sweep_of(table.drop(columns="strength"), "mc2", "kl"), "the column 'strength'"),
        (lambda: sweep_of(table, "mc9", "kl"), "the metric 'mc9'"),
        (lambda: sweep_of(table[table["method"] == "TAE"], "mc2", "kl"), "without the method"),
        (lambda: sweep_of(table.iloc[1:], "mc2", "kl"), "different questions"),
        (
            lambda: sweep_of(pd.concat([table, table.assign(task="x")]), "mc2", "kl"),
            "several tasks",
        ),
        (lambda: compare_at_cost(sweep, "ITI", [0.1]), "the method 'ITI'"),
        (lambda: area(sweep, 0.0, 1.0), "costs from"),
    ):
        with pytest.raises(WorkbenchError, match=says):
            call()
