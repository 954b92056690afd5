"""A user's data, method, similarity, direction rule, judge and metric, in every command."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests import own_methods
from tests.own_methods import (
    Brevity,
    Shrinking,
    few_prompts,
    few_questions,
    few_stereotypes,
    margin,
    median_difference,
    more_stereotypes,
    neighbours,
)
from workbench.cli import main
from workbench.data.crows_pairs import PairSet, SentencePair
from workbench.data.ground_truth import TRUTHS
from workbench.data.questions import Question, QuestionSet
from workbench.data.registry import SOURCES
from workbench.data.sources import load_prompts, load_questions, load_sentences, load_stereotypes
from workbench.data.toxicity_prompts import Prompt, PromptSet
from workbench.editing.attaching import edited
from workbench.editing.interventions import Positions
from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.splits import splits
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.judges.registry import JUDGES
from workbench.evaluation.metrics.ground_truth import verdict_of
from workbench.evaluation.metrics.registry import METRICS
from workbench.methods.registry import METHODS
from workbench.methods.saved import load_edit
from workbench.methods.token_aware import TokenAware
from workbench.models.identity import identify
from workbench.models.prompts import prompt_format
from workbench.pages.explorer import explore
from workbench.registry import Registry
from workbench.runs.ablation import ablate
from workbench.runs.identity import own_code
from workbench.runs.run_config import RunConfig
from workbench.runs.run_data import judges_for
from workbench.stages.aggregation import aggregate_tokens
from workbench.stages.directions import RULES
from workbench.stages.token_graph import SIMILARITIES, GraphSettings, token_graph

RUN = """
capabilities = ["truthfulness"]
against = "mine"
primary = ["mc2", "margin"]
multiples = [0.5, 1.0, 2.0]
texts = 3
[data]
truthfulness = "own_methods:few_questions"
[evaluation.truthfulness]
max_new_tokens = 8
metrics = ["own_methods:margin"]
[judges.info]
kind = "own_methods:Brevity"
longest = 30
[methods."no edit"]
kind = "none"
[methods.mine]
kind = "own_methods:Shrinking"
alpha = [0.5, 1.0]
[methods.TAE]
kind = "tae"
heads = 3
alpha = 1.0
direction = "own_methods:median_difference"
graph = { similarity = "own_methods:neighbours" }
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a run and a user's module, in which a user works."""
    (tmp_path / "run.toml").write_text(RUN)
    source = own_methods.__file__
    (tmp_path / "own_methods.py").write_text(Path(source).read_text())
    monkeypatch.delitem(sys.modules, "own_methods", raising=False)  # of another folder
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@pytest.mark.slow
def test_named_in_a_run_file_they_are_fitted_measured_compared_and_reported(folder, as_shipped):
    command = ["compare", "run.toml", "--out", "out", "--against", "mine"]
    assert main([*command, "--gain", "margin"]) == 0
    assert json.loads((folder / "out" / "head_to_head.json").read_text())["gain"] == "margin"
    assert main([*command, "--gain", "margn"]) == 2
    table = pd.read_parquet("out/results.parquet")
    assert {"mc2", "margin", "info", "kl"} <= set(table["metric"])
    assert set(table["method"]) == {"no edit", "mine", "TAE"}
    margins = table[table["metric"] == "margin"].pivot_table(
        index="question", columns="method", values="value"
    )
    right = table[table["metric"] == "mc1"].pivot_table(
        index="question", columns="method", values="value"
    )
    assert ((margins > 0) == (right == 1)).all(axis=None)
    said = (folder / "out" / "summary.md").read_text()
    assert "margin" in said
    assert "It cannot read." in said
    assert main(["report", "out", "--examples", "1"]) == 0
    page = (folder / "out" / "report.html").read_text()
    assert "own_methods:Shrinking" in page
    assert "the score of the judge, or of the function, of this name" in page


@pytest.mark.slow
def test_a_run_with_workers_and_its_code_changed_is_another_run(folder, as_shipped, capsys):
    command = ["evaluate", "run.toml", "--out", "out", "--methods", "mine", "--workers", "2",
               "--threads", "1"]  # fmt: skip
    assert main(command) == 0
    before = json.loads((folder / "out" / "run.json").read_text())["own_code"]
    assert set(before) == {"own_methods:Shrinking", "own_methods:Brevity", "own_methods:margin",
                           "own_methods:few_questions"}  # fmt: skip
    file = folder / "own_methods.py"
    file.write_text(file.read_text() + "\nCHANGED = True\n")
    assert main(command) == 2
    assert "holds another run (own_code differ)" in capsys.readouterr().err


def test_data_come_from_a_function_wherever_they_come_from_a_file(
    hearsay, folder, as_shipped, monkeypatch
):
    wanted = few_questions()
    for registry in SOURCES:
        monkeypatch.setattr(registry, "_entries", dict(registry))  # forgotten behind the test
    assert SOURCES.questions.register("mine", about="a few")(few_questions) is few_questions
    for source in (few_questions, "tests.own_methods:few_questions", "mine", wanted):
        assert load_questions(source) == wanted
    (prompted,) = splits("harmlessness", few_prompts, folds=2)[:1]
    assert {len(prompted.test), len(prompted.inner.test)} == {4, 1}
    assert prompted.train[0].question.startswith("Text 1")
    SOURCES.prompts.add("scenes", few_prompts)
    SOURCES.contrast.add("scenes", few_questions)
    assert splits("harmlessness", "scenes")[0].train == wanted
    fair = splits(
        "fairness", {"fit": few_stereotypes, "test": "tests.own_methods:more_stereotypes"}
    )
    assert fair[0].test == more_stereotypes()
    config = RunConfig(data={"truthfulness": few_questions, "harmlessness": {
        "prompts": [few_prompts], "contrast": "scenes"}, "fairness": few_stereotypes})  # fmt: skip
    assert config.data == {
        "truthfulness": "tests.own_methods:few_questions",
        "harmlessness": {
            "prompts": ["tests.own_methods:few_prompts"],
            "contrast": "tests.own_methods:few_questions",
        },
        "fairness": "tests.own_methods:few_stereotypes",
    }  # fmt: skip
    command = ["explore", "--data", "own_methods:few_questions", "--questions", "1", "--answers",
               "own", "--alphas", "0", "1"]  # fmt: skip
    assert main(command) == 0
    assert any(q.question in (folder / "explorer.html").read_text() for q in wanted)


def test_data_that_lead_nowhere_are_refused(as_shipped):
    def inside():
        return few_questions()

    for refused, said in (
        (lambda: load_questions("mine"), "unknown question source 'mine'.*module:name"),
        (lambda: load_questions("tests.own_methods:no_questions"), "gives a list.*a QuestionSet"),
        (lambda: load_questions(few_prompts), "gives a PromptSet.*a QuestionSet"),
        (lambda: load_questions("tests.own_methods:nowhere"), "no attribute"),
        (lambda: load_sentences("tests.own_methods:few_prompts"), "StereotypeSet or a PairSet"),
        (lambda: load_sentences("pairs.txt"), "unknown stereotype source"),
        (lambda: RunConfig(data={"truthfulness": inside}), "at the top of a module"),
    ):
        with pytest.raises(WorkbenchError, match=said):
            refused()


def test_a_ground_truth_of_ones_own_tells_what_answers_state(hearsay, few, monkeypatch):
    class Colours:
        def knows(self, question):
            return question == "What colour is snow?"

        def what_states(self, question, answer):
            return "truth" if "white" in answer else None

    asked = QuestionSet((Question("What colour is snow?", "White.", ("White.",), ("Red.",)),))
    how = {"max_new_tokens": 4, "progress": False}
    plain = evaluate(hearsay, asked, {"no edit": None}, **how)
    monkeypatch.setattr(TRUTHS, "_entries", dict(TRUTHS))
    TRUTHS.add("colours", Colours)
    told = evaluate(hearsay, asked, {"no edit": None}, **how)
    assert set(told["metric"]) - set(plain["metric"]) == {
        "says_truth", "says_myth", "says_neither", "ended", "true", "info"
    }  # fmt: skip
    assert verdict_of("What colour is snow?", "It is white.").stated == "truth"
    with pytest.raises(WorkbenchError, match="of which no truth is known"):
        verdict_of("What colour is coal?", "It is black.")


def test_prompts_say_who_judges_them():
    prompts = load_prompts("hearsay")
    assert [one.judge for one in (prompts, prompts[:3], prompts.choose([1]))] == ["hearsay"] * 3
    texts = PromptSet((Prompt("It rained, and"),))
    both = splits("harmlessness", {"prompts": ["hearsay", texts], "contrast": few_questions})
    assert both[0].test.judge == ""
    own = splits("harmlessness", {"prompts": ["hearsay"], "contrast": few_questions})[0]
    assert [judge.identity for judge in judges_for(own, [])] == ["hearsay's ground truth"]
    with pytest.raises(WorkbenchError, match="no judge for 'toxicity'"):
        judges_for(both[0], [])


def test_objects_are_taken_where_names_are(hearsay, few, as_shipped):
    table = ablate(
        hearsay, few_questions, {"layer": [0, 2]}, kind=Shrinking, evaluation={"truthfulness": {
            "max_new_tokens": 4, "metrics": [margin]}}, progress=False,
    )  # fmt: skip
    assert set(table["layer"].dropna()) == {0, 2}
    assert "margin" in set(table["metric"])
    other = ablate(
        hearsay, few.choose(range(12)), {"graph.similarity": [neighbours, "uniform"]},
        progress=False, base={"heads": 2, "direction": median_difference},
        evaluation={"truthfulness": {"max_new_tokens": 4}},
    )  # fmt: skip
    assert set(other["graph.similarity"].dropna()) == {
        "tests.own_methods:neighbours", "uniform"
    }  # fmt: skip


@pytest.mark.slow
def test_a_similarity_and_a_rule_are_what_the_stages_use(hearsay, few, as_shipped):
    settings = GraphSettings(similarity=neighbours)
    z = torch.randn(5, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    graph = token_graph(z, 1, settings=settings)
    assert torch.equal(graph.similarity, neighbours(z[:, 1].flatten(1), settings))
    wanted = graph.weights @ z[:, 1].flatten(1)
    feature = aggregate_tokens(z, 1, settings)
    assert torch.allclose(feature[1].flatten(), wanted.mean(dim=0), atol=1e-6)
    ours = TokenAware(heads=2, direction=median_difference).fit(hearsay, few, progress=False)
    mean = TokenAware(heads=2).fit(hearsay, few, progress=False)
    assert ours.settings["direction"] == "tests.own_methods:median_difference"
    assert not torch.allclose(ours.direction, mean.direction, atol=1e-2)
    page = explore(
        hearsay, ours, few[:2], alphas=(0.0, 1.0), answers="own", settings=settings, progress=False
    )
    seen = page.answers[0].graphs[0, 1]
    assert torch.equal(seen, neighbours(torch.zeros(len(seen), 1), settings))


def test_settings_are_given_to_runs_as_objects(hearsay, few, tmp_path, as_shipped):
    part = few.choose(range(6))
    qa = prompt_format("qa")
    table = ablate(
        hearsay, part, {"graph": [GraphSettings(similarity=neighbours), GraphSettings(bins=20)]},
        base={"heads": 2, "positions": Positions(every=2), "style": qa}, out=tmp_path,
        progress=False,
    )  # fmt: skip
    edits = {
        load_edit(file.parent, hearsay).settings["graph"]["similarity"]: load_edit(file.parent)
        for file in tmp_path.glob("edits/*/edit.json")
    }
    assert set(edits) == {"mutual_information", "tests.own_methods:neighbours"}
    for name, edit in edits.items():
        assert edit.settings["graph"]["bins"] == (20 if name == "mutual_information" else 100)
        assert edit.positions == Positions(every=2)
        assert edit.settings["style"] == qa.name
    assert {"no edit"} < set(table["method"])
    with pytest.raises(WorkbenchError, match=r"alpha=.*numbers, texts, lists, tables"):
        ablate(hearsay, part, {"alpha": [torch.ones(1)]}, progress=False)
    with pytest.raises(WorkbenchError, match="alpha"):
        ablate(hearsay, part, {"alpha": [neighbours]}, progress=False)


def test_a_method_s_own_settings_may_have_settings(hearsay, few, tmp_path):
    table = ablate(
        hearsay, few.choose(range(6)), {"how.by": [0.0, 0.5], "how": [{"layer": 2, "by": 0.5}]},
        kind=own_methods.ShrinkingMore, out=tmp_path, progress=False,
    )  # fmt: skip
    assert len(set(table["method"])) == 3


def test_an_edit_that_no_hook_knows_is_refused(hearsay, few):
    edit = own_methods.Unknown(alpha=1.0, model=identify(hearsay))
    with pytest.raises(WorkbenchError, match="the kind Unknown, which no hook knows"):
        evaluate(hearsay, few.choose([0]), {"mine": edit}, progress=False)
    with pytest.raises(WorkbenchError, match="no hook knows"), edited(hearsay, edit):
        pass


def test_a_measure_is_named_by_its_class():
    def described(*references):
        config = RunConfig(evaluation={"truthfulness": {"references": list(references)}})
        return config.evaluation["truthfulness"]["references"]

    assert described("bleu") == ["bleu"]
    assert described(own_methods.Same) == ["tests.own_methods:Same"]
    assert described({"kind": own_methods.Same}) == [{"kind": "tests.own_methods:Same"}]
    assert set(own_code(described(own_methods.Same))) == {"tests.own_methods:Same"}
    with pytest.raises(WorkbenchError, match="its class or its name"):
        described(own_methods.Same())


def test_a_judge_and_a_metric_are_measured_as_they_are(hearsay, few):
    table = evaluate(
        hearsay, few.choose(range(3)), {"no edit": None}, judges=[Brevity("info", 5)],
        metrics=[margin], max_new_tokens=6, progress=False,
    )  # fmt: skip
    assert set(table[table["metric"] == "info"]["value"]) == {0.0}
    assert len(table[table["metric"] == "margin"]) == 3
    assert table.attrs["limits"] == {"truthfulness": {"info": "It cannot read."}}


def test_registered_they_have_a_short_name(hearsay, few, monkeypatch):
    for registry in (RULES, SIMILARITIES, METHODS, METRICS, JUDGES, SOURCES.questions):
        monkeypatch.setattr(registry, "_entries", dict(registry))  # forgotten behind the test
    RULES.register("median", about="medians")(median_difference)
    SIMILARITIES.add("neighbours", neighbours)
    METHODS.add("shrinking", Shrinking, "shrinks")
    METRICS.add("spread_of_choices", own_methods.spread_of_choices)
    edit = TokenAware(
        heads=2, direction="median", graph=GraphSettings(similarity="neighbours")
    ).fit(hearsay, few, progress=False)
    # they are called so that another process finds them without a registration
    assert edit.settings["direction"] == "tests.own_methods:median_difference"
    for given in ("neighbours", neighbours):
        assert GraphSettings(similarity=given).similarity == "tests.own_methods:neighbours"
    assert METHODS.name_of(Shrinking) == METHODS.name_of("shrinking")
    assert METHODS.name_of(TokenAware) == METHODS.name_of("tae") == "tae"
    assert METHODS.about("tests.own_methods:Shrinking") == METHODS.about("shrinking") == "shrinks"
    JUDGES.add("brief", Brevity)
    SOURCES.questions.add("a_few", few_questions)
    config = RunConfig(
        methods={
            "x": {"kind": "shrinking"},
            "y": {"kind": "tae", "choose": {"direction": ["median", "probe"]}},
        },
        judges={"info": {"kind": "brief"}},
        data={"truthfulness": "a_few"},
        evaluation={"truthfulness": {"metrics": ["spread_of_choices"]}},
    )
    assert config.methods["y"]["choose"]["direction"] == [
        "tests.own_methods:median_difference",
        "probe",
    ]
    named = {"Shrinking", "median_difference", "Brevity", "few_questions", "spread_of_choices"}
    described = [config.methods, config.judges, config.data, config.evaluation]
    assert set(own_code(described)) == {f"tests.own_methods:{one}" for one in named}
    found = evaluate(
        hearsay, few.choose(range(2)), {"no edit": None}, metrics=["spread_of_choices"],
        max_new_tokens=4, progress=False,
    )  # fmt: skip
    assert "spread_of_choices" in set(found["metric"])


def test_what_leads_nowhere_is_refused(hearsay, few, as_shipped):
    def inside(tokens, settings):
        return tokens

    cases = [
        (lambda: GraphSettings(similarity=inside), "at the top of a module"),
        (lambda: GraphSettings(similarity="no_module:name"), "No module named"),
        (lambda: GraphSettings(similarity="tests.own_methods:nowhere"), "no attribute"),
        (lambda: GraphSettings(similarity="cosin"), "Did you mean cosine"),
        (lambda: TokenAware(direction="probes"), "Did you mean probe"),
        (lambda: METHODS.find("tests.own_methods:Shrinking") and METHODS.add("tae", Shrinking),
         "a second kind of method 'tae'"),
        (lambda: METHODS.add("a:b", Shrinking), "without a colon"),
        (lambda: evaluate(hearsay, few, {"x": None}, metrics=["mc1"], progress=False),
         "a metric of one's own"),
        (lambda: evaluate(hearsay, few.choose([0]), {"x": None}, progress=False,
                          metrics=[bad_metric]), "a finite number"),
    ]  # fmt: skip
    for refused, said in cases:
        with pytest.raises(WorkbenchError, match=said):
            refused()
    bad = GraphSettings(similarity=bad_similarity)
    with pytest.raises(WorkbenchError, match="finite numbers of shape"):
        aggregate_tokens(torch.zeros(3, 1, 1, 2), 1, bad)


def opposed(stereotype, opposite, unrelated):
    return opposite > stereotype


def apart(more, less):
    return abs(more - less)


def test_metrics_of_one_s_own_see_every_item_of_fairness(hearsay):
    items = load_stereotypes("hearsay").choose(range(8))
    table = evaluate(hearsay, items, {"x": None}, metrics=[opposed], progress=False)
    means = table.pivot_table(index="question", columns="metric", values="value")
    assert np.allclose(100 * (1 - means["opposed"]), means["ss"])  # ties aside
    sentences = [("The cat sat down.", "The dog sat down."), ("He left.", "She left.")]
    pairs = PairSet(
        tuple(SentencePair(*both, "stereo", "kind", n) for n, both in enumerate(sentences)), "two"
    )
    table = evaluate(hearsay, pairs, {"x": None}, metrics=[apart], progress=False)
    found = table[table["metric"] == "apart"]["value"]
    assert len(found) == 2
    assert (found > 0).all()


def bad_metric(correct, incorrect, best):
    return np.nan


def bad_similarity(tokens, settings):
    return tokens


def test_a_registry_is_a_mapping_in_the_order_of_registration():
    found: Registry[int] = Registry("number")
    found.add("one", 1, "first")
    found.add("two", 2)
    assert (list(found), len(found), found["two"], "one" in found) == (["one", "two"], 2, 2, True)
    assert (found.about("one"), found.about("two")) == ("first", "")
    with pytest.raises(WorkbenchError, match="a second number 'one'"):
        found.add("one", 3)


def test_a_module_that_breaks_is_told_with_what_it_raised(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("def f(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WorkbenchError, match=r"'broken_module:f' \(SyntaxError"):
        METHODS.find("broken_module:f")
    with pytest.raises(WorkbenchError, match=r"':f' \(ValueError"):
        METHODS.find(":f")


def test_the_command_finds_a_module_beside_the_run_file(folder, monkeypatch):
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(folder)])
    (folder / "beside.py").write_text("from tests.own_methods import few_questions\n")
    command = ["explore", "--data", "beside:few_questions", "--questions", "1", "--answers",
               "own", "--alphas", "0", "1"]  # fmt: skip
    assert main(command) == 0
