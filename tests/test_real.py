import csv
from dataclasses import replace
from statistics import fmean

import numpy as np
import pandas as pd
import pytest

from tests.browser import require_written
from workbench import cli, storage
from workbench.data.plain import plain_texts
from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.splits import splits
from workbench.pages import demo, demo_report, real
from workbench.pages.demo import differences_of
from workbench.pages.demo_settings import DemoSettings
from workbench.pages.report import report
from workbench.pages.report.account import facts, methods_table
from workbench.pages.report.results import read_results

SMALL = DemoSettings(
    sample=16, heads=4, alphas={"ITI": (1.0, 2.0), "TAE": (1.0,)}, criterion="mc2",
    controls="ITI", draws=2, texts=3, text_kind="english", tokens=12, drawn=4, examples=2,
    risk=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def own_file(questions, tmp_path_factory):
    """Hearsay's questions in the shape of TruthfulQA.csv."""
    path = tmp_path_factory.mktemp("data") / "TruthfulQA.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["Category", "Question", "Best Answer", "Correct Answers",
                       "Incorrect Answers"])  # fmt: skip
        for one in questions[:40]:
            answers = ("; ".join(own[:2]) for own in (one.correct_answers, one.incorrect_answers))
            rows.writerow([one.category, one.question, one.correct_answers[0], *answers])
    return path


@pytest.fixture(scope="module")
def ran(hearsay, own_file, tmp_path_factory):
    settings = replace(SMALL, model=hearsay, questions=own_file)
    folder = tmp_path_factory.mktemp("real")
    return real.run_real(folder, real.RealSettings(settings, explored=1), progress=False)


def test_the_command_measures_every_sampled_question_beside_its_controls(ran):
    table = ran.table
    assert len(ran.questions) == 16
    methods = ["no edit", "random direction", "shuffled labels", "ITI", "TAE"]
    assert list(dict.fromkeys(table["method"])) == methods
    measured = table[table["metric"] == "mc2"].groupby("method")["question"].nunique()
    assert (measured == 16).all()
    kl = ran.summary.set_index(["method", "metric"])["mean"]
    assert kl["no edit", "kl"] == pytest.approx(0, abs=1e-6)
    assert kl["ITI", "kl"] > 1e-6
    assert ran.risk == []


def test_controls_have_the_chosen_method_s_strength(ran):
    random = ran.table[ran.table["method"] == "random direction"]
    assert set(random["draw"]) == {0, 1}
    for fold, alphas in enumerate(ran.alphas):
        assert alphas["ITI"] in (1.0, 2.0)
        settings = random[random["fold"] == fold]["setting"]
        assert all(f"{alphas['ITI']:g}" in text for text in settings)


def test_everything_is_written_and_told(ran):
    names = {path.name for path in ran.files}
    assert {
        "results.parquet", "summary.json", "head_accuracy.html", "token_graph.html",
        "strength_1.html", "strength_parts.html", "differences.html", "explorer.html",
    } <= names  # fmt: skip
    require_written(ran.files)
    text = demo_report.as_text(ran, real.introduction(ran))
    assert "16 questions of TruthfulQA.csv" in text
    assert "TAE − ITI" in text
    assert "ITI − no edit" in text
    assert "strength of ITI" in text
    assert "p̂ (mean" not in text
    assert ran.examples
    for example in ran.examples:
        assert example.question in text
        assert "".join(example.trace.following).startswith(example.after)
        assert example.trace.following[:-1] == example.trace.strings[1:]
    assert max(map(len, text.split("Of held-out")[1].split("Written")[0].split("\n"))) <= 112


def interrupted(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.long
def test_an_interrupted_run_goes_on_after_its_finished_folds(ran, tmp_path, monkeypatch):
    settings = real.RealSettings(ran.settings, explored=1)
    run_fold, ran_folds = demo.run_fold, []

    def first_alone(model, fold, settings, *, progress):
        ran_folds.append(fold.number)
        return (interrupted if fold.number else run_fold)(model, fold, settings, progress=progress)

    monkeypatch.setattr(demo, "run_fold", first_alone)
    with pytest.raises(KeyboardInterrupt):
        real.run_real(tmp_path, settings, progress=False)
    (kept,) = tmp_path.iterdir()
    assert [place.name for place in kept.iterdir()] == ["0"]
    assert ran_folds == [0, 1]
    with pytest.raises(KeyboardInterrupt):  # other settings find nothing of it
        real.run_real(tmp_path, replace(settings, demo=replace(ran.settings, texts=2)))
    assert ran_folds == [0, 1, 0, 1]
    monkeypatch.setattr(demo, "run_fold", run_fold)
    monkeypatch.setattr(real, "explore", interrupted)
    with pytest.raises(KeyboardInterrupt):
        real.run_real(tmp_path, settings, progress=False)
    assert [place.name for place in sorted(kept.iterdir())] == ["0", "1"]
    monkeypatch.undo()
    monkeypatch.setattr(demo, "run_fold", interrupted)
    found = real.run_real(tmp_path, settings, progress=False)
    pd.testing.assert_frame_equal(found.table, ran.table)
    pd.testing.assert_frame_equal(found.compared, ran.compared)
    assert found.alphas == ran.alphas
    assert [own.after for own in found.examples] == [own.after for own in ran.examples]
    assert {path.name for path in found.files} == {path.name for path in ran.files}
    assert not kept.exists()


def test_a_fold_with_its_risk_is_kept_exactly(hearsay, questions, tmp_path):
    settings = replace(SMALL, texts=1, risk=True, text_kind="hearsay", draws=2)
    some = questions.sample(8)
    fold = splits("truthfulness", lambda: some)[0]
    made = demo.run_fold(hearsay, fold, settings, progress=False)
    kept = demo.KeptFolds(tmp_path / "folds")
    assert kept.fold(0, hearsay, lambda: made) is made
    found = kept.fold(0, hearsay, interrupted)
    assert found.risk == made.risk
    assert found.edits["TAE"].alpha == made.edits["TAE"].alpha
    assert (found.edits["ITI"].direction == made.edits["ITI"].direction).all()
    assert found.figures["token_graph"] == made.figures["token_graph"]
    kept.remove()
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_tells_that_finished_folds_are_kept(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "run_demo", interrupted)
    monkeypatch.setattr(real, "run_demo", interrupted)
    for command in ("demo", "real"):
        assert cli.main([command, "--out", str(tmp_path)]) == 130
        assert "Finished folds are kept" in capsys.readouterr().err


def test_the_report_tells_a_demo_s_settings_and_its_own_comparisons(ran, tmp_path):
    results = read_results(ran.files[0].parent)
    told = dict(facts(results))
    assert told["Seed"] == "0"
    assert "the best on a part of the training questions" in told["How strong"]
    rows = {row[0]: row for row in methods_table(results).rows}
    assert rows["ITI"][2] == "heads 4, style bare, alpha 1/2, criterion mc2"
    assert rows["TAE"][2] == "heads 4, style bare, alpha 1"
    assert rows["shuffled labels"][1] == "control: ITI fitted on shuffled labels"
    plain = ran.compared[ran.compared["against"] == "no edit"]
    own = results.compared[results.compared["metric"].isin(set(plain["metric"]))]
    keys = ["metric", "method"]
    corrected = [one.set_index(keys)["p_holm"].sort_index() for one in (plain, own)]
    pd.testing.assert_series_equal(*corrected)
    assert results.compared["p_holm"].notna().sum() == len(plain)
    over = f"correction over {len(plain)} comparisons"
    page = report(results.folder, tmp_path / "page.html").read_text()
    assert over in page.split("<figure>")[0]
    assert over in page.split("<figure>")[1]
    assert over in (results.folder / "differences.html").read_text()
    assert "A demo keeps no edits" in page


def test_settings_of_a_demo_that_ran_elsewhere_are_not_told(ran, tmp_path):
    for name in ("results.parquet", "demo.json"):
        (tmp_path / name).write_bytes((ran.files[0].parent / name).read_bytes())
    assert dict(facts(read_results(tmp_path)))["Seed"] == "0"
    storage.write_table(tmp_path / "results.parquet", ran.table[ran.table["fold"] == 0])
    assert dict(facts(read_results(tmp_path)))["Seed"] == "not recorded"


def test_the_projects_own_questions_are_not_called_truthfulqa(ran, monkeypatch, own_file):
    other = replace(ran, settings=replace(ran.settings, questions="hearsay"))
    assert "not TruthfulQA" in real.introduction(other).replace("\n", " ")
    monkeypatch.delenv(real.VARIABLE, raising=False)
    assert real.asked() == "hearsay"
    monkeypatch.setenv(real.VARIABLE, str(own_file))
    assert real.asked() == str(own_file)
    assert real.asked("mine.csv") == "mine.csv"


def test_differences_are_paired_by_question(ran):
    found = differences_of(ran.table).set_index(["method", "against", "metric"])["difference"]
    values = ran.table[ran.table["metric"] == "mc2"].groupby(["method", "question"])["value"].mean()
    expected = float((values["TAE"] - values["ITI"]).mean())
    assert found["TAE", "ITI", "mc2"] == pytest.approx(expected, abs=1e-9)


def test_samples_and_plain_texts_are_drawn_by_the_seed(questions):
    one, other = questions.sample(10, 0), questions.sample(10, 1)
    assert len(one) == 10
    assert set(one) != set(other)
    assert list(one) == list(questions.sample(10, 0))
    assert questions.sample(None, 0) is questions
    for count in (0, len(questions) + 1):
        with pytest.raises(WorkbenchError, match="a sample of"):
            questions.sample(count, 0)
    texts = plain_texts("english", 24)
    assert len(set(texts)) == 24
    assert all(20 <= len(text.split()) <= 45 for text in texts)
    assert set(plain_texts("english", 5, 1)) < set(texts)
    assert plain_texts("english", 5, 1) != plain_texts("english", 5, 2)
    assert len(plain_texts("hearsay", 3)) == 3
    with pytest.raises(WorkbenchError, match="at most 24"):
        plain_texts("english", 25)
    with pytest.raises(WorkbenchError, match="'englisch'"):
        plain_texts("englisch", 1)


def test_refused_input_ends_with_status_two(tmp_path, capsys):
    given = ["real", "--out", str(tmp_path / "out"), "--model", str(tmp_path / "absent")]
    assert cli.main(given) == 2
    assert "absent" in capsys.readouterr().err
    assert cli.main([*given[:3], "--questions", str(tmp_path / "no.csv")]) == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["real", "--style", "chatt"], "Did you mean chat?"),
        (["real", "--sample", "9999"], "a sample of 9999"),
        (["real", "--sample", "3"], "2 folds of 3 questions"),
        (["demo", "--alpha", "nan"], "alpha=nan"),
        (["explore", "--style", "chatt"], "Did you mean chat?"),
        (["explore", "--alphas", "inf"], "alpha=inf"),
        (["explore", "--edit", "absent"], "no folder at absent"),
    ],
)
def test_arguments_are_refused_before_the_model_is_loaded(
    given, said, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("workbench.pages.demo.load_model", None)
    monkeypatch.setattr("workbench.pages.explorer.command.load_model", None)
    monkeypatch.delenv(real.VARIABLE, raising=False)
    assert cli.main([*given, "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", [["--heads", "99", "--style", "bare"], []])
def test_what_the_model_does_not_allow_leaves_no_folder(given, tmp_path, capsys):
    status = cli.main(
        ["real", "--model", "hearsay", "--sample", "8", "--out", str(tmp_path / "out"), *given]
    )
    assert status == 2
    assert ("1 to 40" if given else "no chat template") in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_settings_that_cannot_be_used_are_refused(as_shipped):
    for changes, said in (
        ({"controls": "CAA"}, "controls='CAA'"),
        ({"draws": 3}, "draws=3"),
        ({"tokens": 0}, "tokens=0"),
        ({"alphas": {"ITI": (1.0,), "TAE": ()}}, "no α of TAE"),
        ({"texts": 25}, "at most 24"),
        ({"heads": 0}, "heads=0"),
    ):
        with pytest.raises(WorkbenchError, match=said):
            replace(SMALL, **changes)


def test_a_real_model_goes_all_the_way(smollm2, tmp_path):
    """No claim of an effect: four questions tell nothing; values must be sane."""
    settings = replace(
        real.SETTINGS, model=smollm2, sample=4, alphas={"ITI": (10.0,), "TAE": (8.0,)}, texts=1,
        tokens=12, drawn=2, examples=1,
    )  # fmt: skip
    found = real.run_real(tmp_path, real.RealSettings(settings, explored=0), progress=False)
    text = demo_report.as_text(found, real.introduction(found))
    assert "30 layers x 9 heads" in text
    assert "Q4_1" in text
    means = found.summary.set_index(["method", "metric"])["mean"]
    for method in ("no edit", "ITI", "TAE"):
        assert 0 < means[method, "mc2"] < 1
    assert means["no edit", "cross_entropy"] < 5  # it reads English
    assert 0 < means["ITI", "kl"] < means["no edit", "cross_entropy"]
    values = pd.Series([one.trace.strengths.numpy() for one in found.examples])
    for strengths in values:
        known = strengths[~np.isnan(strengths)]
        assert ((known >= 1) & (known <= 2)).all()
        assert known.std() > 0.01
        assert fmean(known.tolist()) > 1
