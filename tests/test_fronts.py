"""Gains at equal side effects: planted curves are recovered, and faster strengths win nothing."""

import numpy as np
import pandas as pd
import pytest

from workbench.errors import WorkbenchError
from workbench.evaluation.fronts import (
    area,
    at_side_effect,
    compare_at_side_effects,
    curve,
    first_reached,
    front,
)
from workbench.evaluation.resampling import Resamples
from workbench.evaluation.sweeps import Sweep, sweep_of, sweeps_of, worst_of
from workbench.evaluation.tables import summary
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
    columns = ["method", "multiple", "fold", "question", "metric", "value"]
    return pd.DataFrame(rows, columns=columns).assign(capability="truthfulness")


def test_what_draws_of_a_control_make_of_means_is_made_draw_by_draw():
    """Two draws that are true or informative, and never both, gain nothing of both together."""
    rows = []
    for draw, (true, info) in enumerate([(1.0, 0.0), (0.0, 1.0)]):
        for fold in (0, 1):
            for q in range(6):
                for method, multiple, kl in (("random", 1.0, 0.1), ("random", 2.0, 0.4)):
                    rows += [
                        (method, draw, multiple, fold, f"q{q}", name, value)
                        for name, value in (("true", true), ("info", info), ("kl", kl))
                    ]
                if not draw:
                    rows += [
                        ("no edit", 0, 1.0, fold, f"q{q}", name, value)
                        for name, value in (("true", 0.5), ("info", 1.0), ("kl", 0.0))
                    ]
    columns = ["method", "draw", "multiple", "fold", "question", "metric", "value"]
    table = pd.DataFrame(rows, columns=columns).assign(
        capability="truthfulness", model="m", setting=""
    )
    found = curve(sweep_of(table, "true_x_info", "kl", draws=50), "random")
    assert found["gain"].tolist() == [0.5, 0.0, 0.0]
    told = summary(table[table["multiple"] == 1.0].drop(columns="multiple"))
    told = told[(told["method"] == "random") & (told["metric"] == "true_x_info")]
    assert told["mean"].tolist() == [0.0]


def test_a_resample_without_a_unit_of_a_fold_says_nothing_of_it():
    """Where every unit has the same side effect, no resample has another one, or none."""
    rows = []
    for fold, refit in enumerate([0, 0, 1, 1, 2, 2]):
        for q in range(6):
            name = f"q{6 * (fold % 2) + q}"
            for method, multiple, gain, kl in (
                ("no edit", 1.0, 0.4, 0.0), ("ITI", 1.0, 0.5, 0.1), ("ITI", 2.0, 0.6, 0.4),
            ):  # fmt: skip
                rows += [
                    (method, multiple, fold, refit, name, metric, value)
                    for metric, value in (("mc2", gain), ("kl", kl))
                ]
    columns = ["method", "multiple", "fold", "refit", "question", "metric", "value"]
    table = pd.DataFrame(rows, columns=columns).assign(capability="truthfulness")
    sweep = sweep_of(table, "mc2", "kl", draws=400)
    found = curve(sweep, "ITI").set_index("multiple").loc[1.0]
    assert np.allclose(found[["effect_low", "effect", "effect_high"]].astype(float), 0.1)
    assert np.allclose(found[["gain_low", "gain", "gain_high"]].astype(float), 0.5)
    one = area(sweep, "ITI", [0.1]).iloc[0]
    assert np.allclose(one[["area", "low", "high"]].astype(float), 0.5)


@pytest.mark.parametrize("louder", [1.5, 4.0, 8.0])
def test_a_method_that_is_only_stronger_is_equal_at_equal_kl(louder):
    """At equal α it looks better; at equal KL it is not, wherever both were measured."""
    table = planted({"TAE": (1.0, 0.5), "louder": (louder, 0.5)})
    chosen = table[(table["multiple"] == 1.0) & (table["metric"] == "mc2")]
    means = chosen.groupby("method")["value"].mean()
    assert means["louder"] - means["TAE"] > 0.04
    sweep = sweep_of(table, "mc2", "kl", draws=500)
    levels = np.geomspace(0.0008, 0.12, 6).tolist()
    found = compare_at_side_effects(sweep, "TAE", levels)
    apart = found.loc[found["method"] == "louder", "difference"].dropna()
    assert len(apart) >= 1
    assert (apart.abs() < 0.015).all()
    found = area(sweep, "TAE", levels).set_index("method")
    assert abs(found.loc["louder", "difference"]) < (0.02 if louder <= 4 else 0.06)


def test_a_method_that_is_better_at_equal_kl_is_told():
    """Among a dozen methods and five KLs the correction leaves it significant."""
    methods = {"TAE": (1.0, 0.3), "better": (1.0, 0.5), **{str(k): (1.0, 0.3) for k in range(10)}}
    sweep = sweep_of(planted(methods, questions=60), "mc2", "kl")
    found = compare_at_side_effects(sweep, "TAE", np.geomspace(0.001, 0.1, 5).tolist())
    better = found[(found["method"] == "better") & found["effect"].between(0.009, 0.011)].iloc[0]
    assert better["difference"] == pytest.approx(0.2 * 0.5, abs=0.02)
    assert better["difference_low"] > 0
    assert better["p_holm"] < 0.05
    assert found.loc[found["method"] == "TAE", "p"].isna().all()
    assert (found.loc[found["method"].isin([str(k) for k in range(10)]), "p_holm"] > 0.05).all()
    areas = area(sweep, "TAE", [0.001, 0.01, 0.1]).set_index("method")
    assert areas.loc["better", "difference_low"] > 0
    assert np.isnan(areas.loc["TAE", "p"])


def test_between_two_multiples_the_gain_is_linear_in_the_root_of_the_side_effect():
    table = planted({"TAE": (1.0, 0.5)}, noise=0.0, texts=3, questions=2, folds=1)
    sweep = sweep_of(table, "mc2", "kl", draws=10)
    costs, gains = sweep.side_effect["TAE"][0, 0], sweep.gain["TAE"][0, 0]
    wanted = ((costs[3] ** 0.5 + costs[4] ** 0.5) / 2) ** 2
    assert at_side_effect(sweep, "TAE", wanted)[0].mean() == pytest.approx(
        (gains[3] + gains[4]) / 2
    )
    assert at_side_effect(sweep, "TAE", costs[3])[0].mean() == pytest.approx(gains[3])
    assert np.isnan(at_side_effect(sweep, "TAE", costs[-1] * 1.01)[0]).all()
    assert np.isnan(at_side_effect(sweep, "TAE", costs[1] * 0.99)[0]).all()
    assert front(sweep, "TAE", costs[3])[0].mean() == pytest.approx(gains[3])
    assert front(sweep, "TAE", 1e9)[0].mean() == pytest.approx(gains.max())
    assert front(sweep, "TAE", 1e-12)[0].mean() == pytest.approx(gains[0], abs=1e-4)


def test_gain_and_side_effect_of_the_same_questions_are_resampled_together():
    """Answers that are right if they end: at half of them unended the gain is exactly half."""
    draw = np.random.default_rng(0)
    rows = []
    for strength, share in (("no edit", 0.0), (0.5, 0.3), (1.0, 0.7)):
        unended = draw.random(300) < share
        for q, value in enumerate(unended):
            name, s = ("no edit", 1.0) if strength == "no edit" else ("TAE", strength)
            rows.append((name, s, 0, f"q{q}", "ended", 1.0 - value))
            rows.append((name, s, 0, f"q{q}", "mc2", float(value)))
    columns = ["method", "multiple", "fold", "question", "metric", "value"]
    table = pd.DataFrame(rows, columns=columns).assign(capability="truthfulness")
    sweep = sweep_of(table, "mc2", "1 - ended", draws=200)
    assert np.allclose(sweep.gain["TAE"], sweep.side_effect["TAE"], atol=1e-6)


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Sixty draws of data whose true difference at KL .01 is known: 95 % intervals hold it."""
    hits = 0
    for seed in range(60):
        table = planted({"TAE": (1.0, 0.3), "other": (1.0, 0.3)}, questions=40, texts=20, seed=seed)
        noisy = table["method"].eq("other") & table["metric"].eq("mc2")
        draw = np.random.default_rng(seed)
        table.loc[noisy, "value"] += draw.normal(0, 0.5, int(noisy.sum()))
        found = compare_at_side_effects(sweep_of(table, "mc2", "kl", draws=200), "TAE", [0.011])
        row = found[found["method"] == "other"].iloc[0]
        hits += row["difference_low"] <= 0 <= row["difference_high"]
    assert hits >= 51


def test_the_product_of_two_shares_is_that_of_their_means():
    """True × Info: resampled together, so that its interval knows how the two hang together."""
    rows, draw = [], np.random.default_rng(0)
    for question in range(80):
        for method, strength, shift in (("no edit", 1.0, 0), ("a", 1.0, 0.2), ("a", 2.0, 0.4)):
            true = float(draw.random() < 0.4 + shift)
            for metric, value in (("true", true), ("info", 1 - 0.5 * true), ("kl", shift)):
                rows.append((method, strength, 0, f"q{question}", metric, value))
    table = pd.DataFrame(
        rows, columns=["method", "multiple", "fold", "question", "metric", "value"]
    )
    sweep = sweep_of(table.assign(capability="truthfulness"), "true_x_info", "kl", draws=400)
    means = table.groupby(["method", "multiple", "metric"])["value"].mean()
    found = sweep.gain["a"][..., 2].mean(axis=1)
    true = means["a", 2.0, "true"]
    assert found[0] == pytest.approx(true * means["a", 2.0, "info"])
    alone = sweep_of(table.assign(capability="truthfulness"), "true", "kl", draws=400).gain["a"][
        ..., 2
    ]
    assert np.allclose(found, alone.mean(axis=1) * (1 - 0.5 * alone.mean(axis=1)), atol=1e-5)


def test_a_side_effect_that_is_never_reached_is_no_number():
    sweep = sweep_of(planted({"TAE": (1.0, 0.5), "weak": (0.1, 0.5)}), "mc2", "kl", draws=50)
    found = compare_at_side_effects(sweep, "TAE", [0.1]).set_index("method")
    assert np.isnan(found.loc["weak", "gain"])
    assert np.isnan(found.loc["weak", "p_holm"])
    assert found.loc["TAE", "gain"] > 0.7


def test_a_curve_s_intervals_are_of_95_per_cent_unless_told():
    sweep = sweep_of(planted({"TAE": (1.0, 0.5)}), "mc2", "kl", draws=200)
    plain, wide = curve(sweep, "TAE"), curve(sweep, "TAE", level=0.99)
    pd.testing.assert_frame_equal(plain, curve(sweep, "TAE", level=0.95))
    assert (wide["gain_high"] - wide["gain_low"] > plain["gain_high"] - plain["gain_low"]).any()


def test_curves_are_drawn_with_their_intervals():
    sweep = sweep_of(planted({"TAE": (1.0, 0.5), "<b>": (0.5, 0.5)}), "mc2", "kl", draws=50)
    curves = pd.concat([curve(sweep, method) for method in sweep.gain])
    figure = plot(curves, gain="mc2", side_effect="kl")
    assert [trace.name for trace in figure.data] == ["TAE", "&lt;b&gt;", "no edit"]
    assert figure.layout.xaxis.type == "log"
    assert len(figure.data[0].x) == len(STRENGTHS)
    own = curves[(curves["method"] == "TAE") & (curves["multiple"] > 0)]
    assert list(figure.data[0].y) == pytest.approx(own["gain"].tolist())
    assert (own["gain_low"] < own["gain"]).all()
    linear = plot(curves.assign(effect=0.0), gain="mc2", side_effect="1 - ended")
    assert linear.layout.xaxis.type == "linear"
    with pytest.raises(WorkbenchError, match="no curves"):
        plot(curves.head(0))


def test_refusals(as_shipped):
    table = planted({"TAE": (1.0, 0.5)}, questions=4, texts=4)
    sweep = sweep_of(table, "mc2", "kl", draws=10)
    for call, says in (
        (lambda: sweep_of(table.drop(columns="multiple"), "mc2", "kl"), "the column 'multiple'"),
        (lambda: sweep_of(table, "mc9", "kl"), "the metric 'mc9'"),
        (lambda: sweep_of(table[table["method"] == "TAE"], "mc2", "kl"), "without the method"),
        (lambda: sweep_of(table.iloc[1:], "mc2", "kl"), "different questions"),
        (
            lambda: sweep_of(pd.concat([table, table.assign(capability="x")]), "mc2", "kl"),
            "several capabilities",
        ),
        (lambda: compare_at_side_effects(sweep, "ITI", [0.1]), "the method 'ITI'"),
        (lambda: area(sweep, "TAE", [0.0, 1.0]), "side effects above 0"),
        (lambda: area(sweep, "ITI", [1.0]), "the method 'ITI'"),
    ):
        with pytest.raises(WorkbenchError, match=says):
            call()


def test_what_lacks_to_one_is_counted_from_one():
    """A share above 1 lacks less than nothing, and what an edit lacks more counts as its effect."""
    table = planted({"TAE": (1.0, 0.5)}, noise=0.0)
    falls = table.assign(value=table["value"].where(table["metric"] != "kl", 1 - table["value"]))
    one, other = (
        sweep_of(own, "mc2", name, draws=20).side_effect["TAE"]
        for own, name in ((falls, "1 - kl"), (table, "kl"))
    )
    np.testing.assert_allclose(one, other, atol=1e-5)
    above = falls.assign(value=falls["value"].where(falls["metric"] != "kl", falls["value"] + 0.5))
    with pytest.raises(WorkbenchError, match="below 0"):
        sweep_of(above, "mc2", "1 - kl", draws=20)


@pytest.mark.parametrize(("below", "above"), [(0, 99), (3, 96), (50, 49)])
def test_a_p_value_counts_the_data_among_the_resamples(below, above):
    """Never 0: (1 + the rarer side) / (1 + resamples), for two sides, as Phipson and Smyth say."""
    apart = np.array([0.1, *[-1.0] * below, *[1.0] * above, np.nan])
    wanted = min(1.0, 2 * (1 + min(below, above)) / (1 + below + above))
    told = Sweep({}, {}, {}).told(apart[:, None], 0.95)
    assert told.p == pytest.approx(wanted)


def test_the_worst_of_side_effects_decides():
    """Of two side effects the larger one counts, wherever it is the larger."""
    first = Sweep(
        {"a": np.zeros((1, 1, 3))}, {"a": np.array([[[0.0, 1.0, 5.0]]])}, {"a": (0, 1, 2)}
    )
    second = Sweep(
        {"a": np.ones((1, 1, 3))}, {"a": np.array([[[0.0, 2.0, 3.0]]])}, {"a": (0, 1, 2)}
    )
    found = worst_of([first, second])
    assert found.side_effect["a"].tolist() == [[[0.0, 2.0, 5.0]]]
    assert found.gain["a"].tolist() == first.gain["a"].tolist()
    other = Sweep(second.gain, second.side_effect, {"a": (0, 1, 3)})
    for wrong in ([], [first, other]):
        with pytest.raises(WorkbenchError, match="the worst of"):
            worst_of(wrong)


def test_what_is_there_or_not_has_no_half():
    """A prompt of one strength gains nothing below its own side effect."""
    gain = np.array([[[0.25, 0.95]]])
    sweep = Sweep({"prompt": gain}, {"prompt": np.array([[[0.0, 0.6]]])}, {"prompt": (0.0, 1.0)})
    assert front(sweep, "prompt", 0.59, apart=False).tolist() == [[0.25]]
    assert front(sweep, "prompt", 0.6, apart=False).tolist() == [[0.95]]
    with pytest.raises(WorkbenchError, match="a sweep without halves"):
        front(sweep, "prompt", 0.6)


def test_metrics_that_lack_a_fold_are_refused():
    table = planted({"TAE": (1.0, 0.5)}, questions=4, texts=3)
    whole = table[~((table["metric"] == "kl") & (table["fold"] == 1))]
    with pytest.raises(WorkbenchError, match=r"'kl' without a value in the folds \[1\]"):
        sweep_of(whole, "mc2", "kl", draws=10)


def scattered(seed, *, scatter, folds=1, questions=160):
    """Two methods without effect at six multiples: one changes answers at random, one hardly."""
    draw = np.random.default_rng(seed)
    rows = []
    ease = draw.normal(0.4, 0.3, (folds, questions))

    def add(method, multiple, fold, values, kl):
        for q, value in enumerate(values):
            rows.append((method, multiple, fold, f"{fold}.{q}", "mc2", value))
            rows.append((method, multiple, fold, f"{fold}.{q}", "kl", kl))

    for fold in range(folds):
        add("no edit", 1.0, fold, ease[fold], 0.0)
        for method, own in (("still", 0.001), ("restless", scatter)):
            for multiple in (0.25, 0.5, 1.0, 2.0, 4.0):
                noise = draw.normal(0, own, questions)
                add(method, multiple, fold, ease[fold] + noise, 0.01 * multiple**2)
    columns = ["method", "multiple", "fold", "question", "metric", "value"]
    return pd.DataFrame(rows, columns=columns).assign(capability="truthfulness")


def test_scatter_is_no_gain():
    """Of two methods without effect none leads; chosen where it is read the restless one does."""
    told = {True: [], False: []}
    for seed in range(60):
        sweep = sweep_of(scattered(seed, scatter=0.2), "mc2", "kl", draws=2)
        for apart, leads in told.items():
            found = area(sweep, "still", np.geomspace(0.001, 0.1, 8).tolist(), apart=apart)
            leads.append(found.set_index("method").loc["restless", "difference"])
    assert np.mean(told[False]) > 0.008
    error = np.std(told[True]) / np.sqrt(len(told[True]))
    assert abs(np.mean(told[True])) < 3 * error
    assert error < 0.002


def test_both_halves_make_the_whole():
    """Gains of two halves add up to that of all, in every resample; with refits too."""
    table = scattered(0, scatter=0.2, folds=4, questions=7)
    refits = table.assign(
        refit=table["fold"] // 2,
        question=[f"{int(one.split('.')[0]) % 2}.{one.split('.')[1]}" for one in table["question"]],
    )
    for own in (table, refits):
        sweep = sweep_of(own, "mc2", "kl", draws=50)
        for method, gains in sweep.gain.items():
            for halving in sweep.halves[method]:
                whole = halving.sum(axis=0)
                known = np.isfinite(whole)
                assert known[0].all()
                assert known.mean() > 0.9
                np.testing.assert_allclose(whole[known], gains[known], atol=1e-6)
                # Either half is of three or four of seven.
                assert not np.allclose(halving[0, 0], gains[0] / 2, atol=1e-4)
            first, second, third = sweep.halves[method][:, 0, 0]
            assert not np.allclose(first, second, atol=1e-4)
            assert not np.allclose(second, third, atol=1e-4)


def test_a_clear_front_is_that_of_the_means():
    """Where either half sees the same multiple ahead, nothing is lost by choosing apart."""
    sweep = sweep_of(planted({"TAE": (1.0, 0.5), "other": (1.0, 0.2)}), "mc2", "kl", draws=100)
    levels = np.geomspace(0.001, 0.1, 6).tolist()
    one, other = (area(sweep, "other", levels, apart=apart) for apart in (True, False))
    pd.testing.assert_frame_equal(one, other)
    assert one.set_index("method").loc["TAE", "difference_low"] > 0


def test_some_methods_of_a_sweep_are_told_alike():
    sweep = sweep_of(planted({"a": (1.0, 0.5), "b": (2.0, 0.3), "c": (1, 0.1)}), "mc2", "kl")
    whole = area(sweep, "b", [0.001, 0.01]).set_index("method")
    pair = area(sweep.among(["b", "a"]), "b", [0.001, 0.01]).set_index("method")
    pd.testing.assert_frame_equal(pair, whole.loc[["b", "a"]])


def test_a_fold_of_one_question_has_no_halves():
    table = scattered(0, scatter=0.2, folds=2, questions=1)
    sweep = sweep_of(table, "mc2", "kl", draws=10)
    assert np.isnan(front(sweep, "still", 0.01)).all()
    assert np.isfinite(front(sweep, "still", 0.01, apart=False)).all()
    assert area(sweep, "still", [0.01])["area"].isna().all()


def test_some_of_the_questions_are_resampled_as_all_of_them_are():
    """A side effect that is a question's gain, measured on every third, moves as its gains do."""
    draw = np.random.default_rng(5)
    rows = []
    for fold in (0, 1):
        for q in range(60):
            gain = draw.normal(0.5, 0.2)
            for method, multiple, more in (("no edit", 1.0, 0), ("a", 0.5, 1), ("a", 1.0, 1)):
                rows.append((method, multiple, fold, f"{fold}.{q}", "mc2", more * gain))
                if q % 3 == 0:
                    for kl in ("kl_own", "kl_right"):
                        value = more * abs(gain - 0.2 * (kl == "kl_own"))
                        rows.append((method, multiple, fold, f"{fold}.{q}", kl, value))
                if q < 9:
                    rows.append((method, multiple, fold, f"t{fold}.{q}", "kl", more * gain))
    columns = ["method", "multiple", "fold", "question", "metric", "value"]
    table = pd.DataFrame(rows, columns=columns).assign(capability="truthfulness")
    sweeps = sweeps_of(table, "mc2", ["kl", "kl_own", "kl_right"], draws=2_000, seed=3)
    own, right, texts = (
        sweeps[name].side_effect["a"][1:, 0, 1] for name in ("kl_own", "kl_right", "kl")
    )
    assert np.corrcoef(own, right)[0, 1] > 0.95
    gains = sweeps["kl"].gain["a"][1:, 0, 1]
    assert np.corrcoef(gains, right)[0, 1] == pytest.approx(1 / np.sqrt(3), abs=0.12)
    assert abs(np.corrcoef(gains, texts)[0, 1]) < 0.1
    near = sweeps["kl_own"].gain["a"][1:, 0, 1]
    assert np.corrcoef(near, own)[0, 1] == pytest.approx(1 / np.sqrt(3), abs=0.12)
    alone = sweep_of(table, "mc2", "kl_own", draws=2_000, seed=3)
    assert np.array_equal(alone.side_effect["a"], sweeps["kl_own"].side_effect["a"])


def test_folds_of_two_or_three_questions_have_a_front_without_an_interval():
    table = scattered(0, scatter=0.2, folds=4, questions=2)
    found = area(sweep_of(table, "mc2", "kl", draws=100), "still", [0.01, 0.04])
    assert found["area"].notna().all()
    undefined = found[["low", "high", "difference_low", "difference_high", "p"]].isna()
    assert undefined.to_numpy().all()
    many = area(
        sweep_of(scattered(0, scatter=0.2, folds=4), "mc2", "kl", draws=100), "still", [0.01]
    )
    assert many.drop(columns="p").notna().to_numpy().all()
    whole = area(sweep_of(table, "mc2", "kl", draws=100), "still", [0.01], apart=False)
    assert whole.drop(columns="p").notna().to_numpy().all()


def test_what_cannot_be_swept_is_told():
    table = planted({"a": (1.0, 0.5)}, questions=5, texts=5)
    with pytest.raises(WorkbenchError, match="the gain 'kl' against 'kl'"):
        sweep_of(table, "kl", "kl")
    with pytest.raises(WorkbenchError, match="against nothing"):
        sweeps_of(table, "mc2", [])
    sweep = sweep_of(table, "mc2", "kl", draws=10)
    for wrong in (
        lambda: sweep.among(["a", "b"]),
        lambda: front(sweep, "b", 0.1),
        lambda: at_side_effect(sweep, "b", 0.1),
        lambda: area(sweep, "b", [0.1]),
    ):
        with pytest.raises(WorkbenchError, match="the method 'b'"):
            wrong()
    assert sweep_of(table, "mc2", "kl", draws=10).halves["a"].dtype == np.float32


def planted_scatter(seed):
    return scattered(seed, scatter=0.2, questions=80)


@pytest.mark.parametrize("make", [planted_scatter, lambda seed: lasting(seed)])
def test_intervals_of_fronts_cover(make):
    """What is so on average is inside in 95 of 100, or more where chance differs by multiple."""
    inside, lengths, told = [], [], []
    for seed in range(80):
        sweep = sweep_of(make(seed), "mc2", "kl", draws=200, seed=seed)
        found = area(sweep, "still", np.geomspace(0.001, 0.1, 4).tolist()).set_index("method")
        own = found.loc["restless"]
        inside.append(own["difference_low"] <= 0 <= own["difference_high"])
        lengths.append(own["difference_high"] - own["difference_low"])
        told.append(own["difference"])
    assert np.mean(inside) >= 0.88
    assert np.mean(lengths) < 1.5 * 3.92 * np.std(told)


def lasting(seed):
    """As `scattered`, but a question changes alike at all multiples, as questions do."""
    draw = np.random.default_rng([seed, 7])
    table = scattered(seed, scatter=0.001, questions=80)
    moved = dict(zip(table["question"].unique(), draw.normal(0, 0.2, 80), strict=True))
    own = (table["method"] == "restless") & (table["metric"] == "mc2")
    grown = np.sqrt(table["multiple"] / 4) * table["question"].map(moved)
    return table.assign(value=table["value"] + np.where(own, grown, 0))


def parted(true, info):
    """A gain of two parts, each measured on some questions of two folds, and 0.5 on all of them."""
    rows = []
    for method, multiple, kl in (("no edit", 1.0, 0.0), ("a", 0.5, 0.1), ("a", 1.0, 0.4)):
        for fold in (0, 1):
            for name, asked in (("true", true), ("info", info), ("kl", range(20))):
                rows += [
                    (method, multiple, fold, f"{fold}.{q}", name, kl if name == "kl" else 0.5)
                    for q in asked
                ]
    columns = ["method", "multiple", "fold", "question", "metric", "value"]
    return pd.DataFrame(rows, columns=columns).assign(capability="truthfulness")


@pytest.mark.parametrize(
    ("true", "info"),
    [(range(20), range(10, 20)), (range(10, 20), range(20)), (range(12), range(8, 20))],
)
def test_a_gain_of_parts_is_of_the_questions_that_have_both(true, info):
    table = parted(true, info)
    sweep = sweep_of(table, "true_x_info", "kl", draws=20)
    assert sweep.gain["a"] == pytest.approx(0.25)
    with_part = sweeps_of(
        table.assign(value=table["value"].abs()), "true_x_info", ["info"], draws=5
    )
    assert with_part["info"].gain["a"] == pytest.approx(0.25)
    with pytest.raises(WorkbenchError, match="true and info of different questions"):
        sweep_of(parted(range(5), range(5, 9)), "true_x_info", "kl", draws=5)


def indexed(pairs):
    return pd.MultiIndex.from_tuples(pairs, names=["fold", "question"])


@pytest.mark.parametrize("refits", [[[0, 1]], [[0, 1], [2, 3]]])
def test_units_keep_their_weights_in_any_order_and_beside_strange_ones(refits):
    """Of two refits a question is as often in each; of strange units each has its own number."""
    draw = np.random.default_rng(0)
    names = [f"q{n}" for n in range(12)]
    pairs = []
    for refit in range(len(refits)):
        mixed = draw.permutation(names)
        pairs += [(2 * refit + (n >= 6), str(name)) for n, name in enumerate(mixed)]
    index = indexed(sorted(pairs))
    drawn = Resamples.of(index, 50, 3, refits)

    def weights(resamples):
        return {
            resamples.index[row]: own[:, column]
            for rows, own in zip(resamples.rows, resamples.weights, strict=True)
            for column, row in enumerate(rows)
        }

    known = weights(drawn)
    if len(refits) > 1:
        for (fold, name), own in known.items():
            assert all(
                np.array_equal(own, other) for (_, n), other in known.items() if n == name
            ), fold
    some = [index[n] for n in draw.permutation(len(index))[:7]]
    strange = [(0, "a text"), (1, "another")]
    beside = weights(drawn.beside(indexed([some[0], strange[0], *some[1:], strange[1]]), [3, 1]))
    assert all(np.array_equal(beside[pair], known[pair]) for pair in some)
    assert all(beside[pair][0] == 1 for pair in strange)
    alone = weights(drawn.beside(indexed(strange), [3, 1]))
    assert all(np.array_equal(beside[pair], alone[pair]) for pair in strange)


def test_multiples_are_those_at_which_the_gain_was_measured():
    """Another metric may have been measured at more of them."""
    table = planted({"a": (1.0, 0.5)}, questions=5, texts=5)
    more = table[(table["method"] == "a") & (table["multiple"] == 4.0) & (table["metric"] == "kl")]
    both = pd.concat([table, more.assign(multiple=8.0, metric="cross_entropy")])
    assert sweep_of(both, "mc2", "kl", draws=5).multiples["a"] == (0.0, *STRENGTHS)


def test_what_rises_is_reached_where_it_first_does():
    rising = np.array([[0.0, 1.0, 3.0, 2.0, 4.0], [0.0, 0.5, 0.6, 0.7, 0.8]])
    values = np.array([[0.0, 10.0, 20.0, 30.0, 40.0]] * 2)
    found = first_reached(rising, values, np.array([2.0, 0.9]))
    assert found[0] == 15.0
    assert np.isnan(found[1])
    assert first_reached(rising, values, 0.5).tolist() == [5.0, 10.0]
