"""Refits: what another fit would change is in the interval, and questions count once."""

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import workbench as wb
from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.rows import COLUMNS
from workbench.evaluation.changes import changes, outcomes
from workbench.evaluation.fronts import area, at_side_effect
from workbench.evaluation.refits import told
from workbench.evaluation.sweeps import sweep_of
from workbench.evaluation.tables import compare, summary
from workbench.runs.ablation import ablate
from workbench.runs.resumable import run
from workbench.runs.run_config import RunConfig
from workbench.runs.study_summary import select, study_summary
from workbench.storage import read_table


def table_of(values, refits=True, method="edit", metric="mc2"):
    """From values [refit, question], half of the questions in each of two folds."""
    rows = []
    for refit, own in enumerate(values):
        for number, value in enumerate(own):
            fold = 2 * refit + (number + refit) % 2
            row = ("m", "truthfulness", method, "", 0, fold, f"q{number}", metric, float(value))
            rows.append((*row, refit))
    table = pd.DataFrame(rows, columns=[*COLUMNS, "refit"])
    return table if refits else table.drop(columns="refit")


def drawn(seed, refits=5, questions=200, of_fits=0.0, of_questions=1.0):
    """Values with a part of the question, a part of the fit, and little noise."""
    draw = np.random.default_rng(seed)
    own, fit = draw.normal(size=questions), draw.normal(size=(refits, 1))
    noise = 0.05 * draw.normal(size=(refits, questions))
    return of_questions * own + of_fits * fit + noise


def width(table):
    found = summary(table).iloc[0]
    return found["high"] - found["low"]


def test_questions_that_are_seen_often_are_no_more_questions():
    """Alike in every refit, they give the interval of one refit, not of five times as many."""
    values = drawn(0)
    single = width(table_of(values[:1]))
    assert width(table_of(values)) == pytest.approx(single, rel=0.1)
    as_others = width(table_of(values, refits=False))
    assert as_others < 0.6 * single


def test_fits_that_differ_widen_it():
    values = drawn(1, of_fits=1.0, refits=8)
    assert width(table_of(values)) > 3 * width(table_of(drawn(1, refits=8)))


@pytest.mark.parametrize("refits", [2, 3, 8])
@pytest.mark.parametrize(("of_fits", "of_questions"), [(1.0, 1.0), (0.0, 1.0), (1.0, 0.1)])
def test_intervals_cover_what_they_say(refits, of_fits, of_questions):
    """Of many data sets' 95 % intervals as many hold the truth, 0, also of few refits."""
    hits, p = [], []
    for seed in range(300):
        values = drawn(seed, refits, 40, of_fits, of_questions)
        of_units = np.random.default_rng(seed).integers(40, size=(400, 40))
        found = told(values.mean(axis=1), values.mean(axis=0)[of_units].mean(axis=1), 40)
        hits.append(found.low <= 0 <= found.high)
        p.append(found.p)
        assert (found.p < 0.05) == (not hits[-1])
    assert 0.92 <= np.mean(hits) <= 0.995


def test_a_table_s_interval_is_of_questions_and_fits():
    values = drawn(5, 4, 60, of_fits=0.5)
    row = summary(table_of(values)).iloc[0]
    s2, q2 = values.mean(axis=1).var(ddof=1), values.mean(axis=0).var(ddof=1) / 60
    wide = stats.t.ppf(0.975, [3, 59]) ** 2
    half = (wide[0] * s2 / 4 + wide[1] * q2) ** 0.5
    assert (row["high"] - row["low"]) / 2 == pytest.approx(half, rel=0.05)
    assert (row["high"] + row["low"]) / 2 == pytest.approx(values.mean())


def test_differences_are_paired_over_questions_and_refits():
    base = drawn(2, of_fits=1.0)
    both = pd.concat([table_of(base, method="no edit"), table_of(base + 0.1)])
    row = compare(both, "no edit").iloc[0]
    assert row["difference"] == pytest.approx(0.1)
    assert row["high"] - row["low"] < 1e-6
    assert row["p"] < 0.001
    assert row["questions"] == 200
    other = pd.concat([table_of(base, method="no edit"), table_of(drawn(3, of_fits=1.0))])
    assert compare(other, "no edit").iloc[0]["p"] > 0.01


def test_the_estimate_is_the_mean_over_refits():
    values = drawn(4, of_fits=1.0)
    assert summary(table_of(values)).iloc[0]["mean"] == pytest.approx(values.mean())


def test_shares_of_questions_count_each_once():
    base = np.zeros((4, 50))
    after = base.copy()
    after[:, :10] = 1
    both = pd.concat([table_of(base, method="no edit"), table_of(after)])
    told = outcomes(changes(both)).iloc[0]
    assert (told["better"], told["questions"]) == (0.2, 50)
    once = pd.concat([table_of(base[:1], method="no edit"), table_of(after[:1])])
    assert told["better_low"] == outcomes(changes(once)).iloc[0]["better_low"]


def swept(of_fits, refits=6, questions=80):
    """A gain that grows with α, by how much a fit decides; a side effect that is α's."""
    draw = np.random.default_rng(0)
    slope = 1 + of_fits * draw.normal(size=(refits, 1))
    parts = []
    for method, multiple in (("no edit", 0.0), ("edit", 1.0), ("edit", 2.0), ("edit", 3.0)):
        noise = 0.01 * draw.normal(size=(refits, questions))
        gain = table_of(multiple * slope + noise, method=method)
        kl = table_of(np.full((refits, questions), multiple**2), method=method, metric="kl")
        parts += [own.assign(multiple=multiple or 1.0) for own in (gain, kl)]
    return pd.concat(parts, ignore_index=True)


def test_fronts_hold_what_another_fit_would_change():
    spread = {}
    for of_fits in (0.0, 0.5):
        sweep = sweep_of(swept(of_fits), "mc2", "kl", draws=2000)
        found = at_side_effect(sweep, "edit", 4.0)
        assert np.isfinite(found).all()
        one = sweep.told(found, 0.95)
        spread[of_fits] = one.high - one.low
        own = area(sweep, "edit", [1.0, 4.0]).iloc[0]
        assert own["low"] < own["area"] < own["high"]
    assert spread[0.5] > 10 * spread[0.0]
    alone = sweep_of(swept(0.5).drop(columns="refit"), "mc2", "kl", draws=2000)
    one = alone.told(at_side_effect(alone, "edit", 4.0), 0.95)
    assert one.high - one.low < 0.2 * spread[0.5]


def test_a_run_draws_folds_and_fits_anew(hearsay, few, tmp_path):
    file = tmp_path / "few.jsonl"
    file.write_text("\n".join(json.dumps(asdict(one)) for one in few.choose(range(12))))
    config = RunConfig(
        data={"truthfulness": str(file)}, refits=2, against="no edit", texts=2,
        methods={"no edit": {"kind": "none"}, "random": {"kind": "random", "heads": 2, "draws": 2},
                 "ITI": {"kind": "iti", "heads": 2}},
    )  # fmt: skip
    table = run(config, tmp_path / "run", model=hearsay, progress=False)
    assert sorted(set(zip(table["refit"], table["fold"], strict=True))) == [
        (0, 0),
        (0, 1),
        (1, 2),
        (1, 3),
    ]
    mc1 = table[(table["metric"] == "mc1") & (table["method"] == "ITI")]
    assert mc1.groupby("question")["refit"].nunique().eq(2).all()
    folds = mc1.groupby("fold")["question"].agg(lambda own: frozenset(own))
    assert folds[0] not in (folds[2], folds[3])
    edits = sorted((tmp_path / "run" / "edits").iterdir())
    seeds = {json.loads((one / "edit.json").read_text())["settings"]["seed"] for one in edits}
    assert len(seeds) == 2
    once = run(
        replace(config, refits=1), tmp_path / "run", name="once", model=hearsay, progress=False
    )
    assert "refit" not in once
    first = table[table["refit"] == 0].drop(columns="refit").reset_index(drop=True)
    keys = ["method", "draw", "fold", "question", "metric"]
    one, other = (own.set_index(keys)["value"].sort_index() for own in (once, first))
    assert np.allclose(one, other, atol=1e-4)
    assert (tmp_path / "run" / "comparison.parquet").exists()
    alone = read_table(tmp_path / "run" / "alone.parquet")
    assert set(alone["method"]) == {"answers alone", "lengths alone"}
    assert set(alone["metric"]) == {"mc1", "mc2", "mc3"}
    asked = mc1.set_index(["refit", "fold", "question"]).index
    for _, own in alone[alone["metric"] == "mc1"].groupby("method"):
        assert set(own.set_index(["refit", "fold", "question"]).index) == set(asked)
    assert "| answers alone |" in (tmp_path / "run" / "summary.md").read_text()


def test_the_first_refits_are_told_and_the_rest_goes_on_there(hearsay, few, tmp_path):
    """Plain texts are shared out among the folds of all refits, so those of the first stay."""
    file, texts = tmp_path / "few.jsonl", tmp_path / "texts.json"
    file.write_text("\n".join(json.dumps(asdict(one)) for one in few.choose(range(8))))
    texts.write_text(json.dumps(wb.data.plain_texts("hearsay", 12, seed=5)))
    config = RunConfig(
        data={"truthfulness": str(file)}, refits=3, against="no edit", texts=str(texts), together=2,
        methods={"no edit": {"kind": "none"}, "ITI": {"kind": "iti", "heads": 2}},
    )  # fmt: skip
    place = tmp_path / "run"

    def made(refits):
        return run(replace(config, refits_now=refits), place, model=hearsay, progress=False)

    first = made(1)
    assert "refit" not in first
    assert set(first["fold"]) == {0, 1}
    parts = {one: one.stat().st_mtime_ns for one in (place / "parts").iterdir()}
    assert len(parts) == 4
    assert len(list((place / "edits").iterdir())) == 2
    assert "by question, the first of 3 refits]" in (place / "summary.md").read_text()
    two = made(2)
    assert set(two["refit"]) == {0, 1}
    assert "refit (the first 2 of 3)" in (place / "summary.md").read_text()
    with pytest.raises(WorkbenchError, match="refits_now=1 in a folder whose tables are of 2"):
        made(1)
    assert set(pd.read_parquet(place / "results.parquet")["refit"]) == {0, 1}
    whole = made(None)
    assert set(whole["refit"]) == {0, 1, 2}
    assert "by question and refit (3)" in (place / "summary.md").read_text()
    with pytest.raises(WorkbenchError, match="whose tables are of 3"):
        made(2)
    assert {one: one.stat().st_mtime_ns for one in parts} == parts
    at_once = run(config, tmp_path / "at once", model=hearsay, progress=False)
    keys = ["method", "refit", "fold", "question", "metric"]
    one, other = (own.set_index(keys)["value"].sort_index() for own in (whole, at_once))
    pd.testing.assert_series_equal(one, other)
    for wrong in (0, 4, 1.5):
        with pytest.raises(WorkbenchError, match="refits_now"):
            replace(config, refits_now=wrong)


def test_a_study_s_settings_are_told_over_refits(hearsay, few, tmp_path):
    """A refit is no axis: a setting's interval is that of its run, over questions and refits."""
    file = tmp_path / "few.jsonl"
    file.write_text("\n".join(json.dumps(asdict(one)) for one in few.choose(range(10))))
    study = ablate(
        hearsay, str(file), {"heads": [1, 2]}, kind="iti", refits=2,
        out=tmp_path / "study", progress=False,
    )  # fmt: skip
    assert set(study["refit"]) == {0, 1}
    found = study_summary(study)
    assert list(dict.fromkeys(found["method"])) == ["no edit", "heads=1", "heads=2"]
    assert "refit" not in found
    told = summary(study.drop(columns="heads"))
    one, other = (
        own.set_index(["method", "metric"])[["mean", "low", "high"]] for own in (found, told)
    )
    assert np.allclose(one, other.reindex(one.index))
    with pytest.raises(WorkbenchError, match="the axis 'refit'"):
        select(study, refit=0)


def test_what_does_not_fit_is_refused(as_shipped):
    for wrong in (0, 1.5, "two"):
        with pytest.raises(WorkbenchError, match="refits"):
            RunConfig(refits=wrong)


def test_rows_without_a_refit_beside_others_are_refused():
    mixed = pd.concat([table_of(drawn(0)), table_of(drawn(1), refits=False, method="other")])
    with pytest.raises(WorkbenchError, match="'other' without a refit"):
        summary(mixed)


def test_data_that_are_given_apart_are_fitted_anew_too(hearsay, few, tmp_path):
    """Folds of the same data have keys of their own in every refit."""
    for name, numbers in (("fit", range(12)), ("test", range(20, 26))):
        chosen = few.choose(numbers)
        lines = [json.dumps(asdict(one)) for one in chosen]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    data = {name: str(tmp_path / f"{name}.jsonl") for name in ("fit", "test")}
    config = RunConfig(
        data={"truthfulness": data}, refits=2,
        methods={"no edit": {"kind": "none"}, "prompt": {"kind": "prompt", "shots": 2}},
    )  # fmt: skip
    table = run(config, tmp_path / "run", model=hearsay, progress=False)
    assert set(table["refit"]) == {0, 1}
    assert len(list((tmp_path / "run" / "edits").iterdir())) == 2
    mc2 = table[(table["metric"] == "mc2") & (table["method"] == "prompt")]
    first, second = (own["value"].to_numpy() for _, own in mc2.groupby("refit"))
    assert not np.allclose(first, second)


def test_without_resamples_there_is_no_interval():
    nothing = told(np.array([0.1, 0.2]), np.full(50, np.nan), 30)
    assert nothing.mean == pytest.approx(0.15)
    assert np.isnan([nothing.low, nothing.high, nothing.p]).all()
    for mean, p in ((0.0, 1.0), (0.25, 0.0)):
        still = told(np.full(3, mean), np.full(50, mean), 30)
        assert (still.mean, still.low, still.high, still.p) == (mean, mean, mean, p)
