import csv
from dataclasses import replace
from statistics import fmean

import numpy as np
import pandas as pd
import pytest

from workbench import cli
from workbench.data.plain import plain_texts
from workbench.errors import WorkbenchError
from workbench.evaluation.evaluate import evaluate
from workbench.methods.iti import inference_time
from workbench.pages import demo_report, real
from workbench.pages.demo import DemoSettings, differences_of
from workbench.pages.demo_parts import choose_alpha

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
    assert all(path.stat().st_size > 0 for path in ran.files)
    text = demo_report.as_text(ran, real.introduction(ran))
    assert "16 questions of TruthfulQA.csv" in text
    assert "TAE − ITI" in text
    assert "ITI − no edit" in text
    assert "strength of ITI" in text
    assert "p̂ (mean" not in text
    for example in ran.examples:
        assert example.question in text
        assert "".join(example.trace.following).startswith(example.after)
        assert example.trace.following[:-1] == example.trace.strings[1:]
    assert max(map(len, text.split("Of held-out")[1].split("Written")[0].split("\n"))) <= 112


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


def test_an_unknown_criterion_is_refused(as_shipped, hearsay, few):
    with pytest.raises(WorkbenchError, match="criterion='mc9'"):
        choose_alpha(hearsay, inference_time(heads=4), None, (1.0, 2.0), "mc9")


def test_alpha_is_the_one_of_highest_mc2_on_held_back_training_questions(hearsay, few):
    method = inference_time(heads=4)
    activations = method.capture(hearsay, few, progress=False)
    held = few.validation_mask(method.validation_share, method.seed)
    asked = few.choose([n for n, out in enumerate(held) if out])
    rest = activations.choose([n for n, out in enumerate(held) if not out])
    edit = method.fit(hearsay, rest.questions, activations=rest, progress=False)
    alphas = (4.0, 0.0, 1.0, 0.0)
    table = evaluate(
        hearsay, asked, {str(alpha): edit.scaled(alpha) for alpha in set(alphas)},
        max_new_tokens=1, progress=False,
    )  # fmt: skip
    mean = table[table["metric"] == "mc2"].groupby("method")["value"].mean()
    assert mean.max() > mean["0.0"]
    best = choose_alpha(hearsay, method, activations, alphas, "mc2")
    assert best == float(mean.idxmax())
    assert choose_alpha(hearsay, method, activations, (7.0,), "mc2") == 7.0


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


def test_a_real_model_goes_all_the_way(smollm2, tmp_path):
    """No claim of an effect: four questions tell nothing; values must be sane."""
    settings = replace(
        real.SETTINGS, model=smollm2, sample=4, alphas={"ITI": (10.0,), "TAE": (8.0,)}, texts=1,
        tokens=24, drawn=2, examples=1,
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
