"""A user's method, similarity, direction rule, judge and metric, in every command."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests import own_methods
from tests.own_methods import Brevity, Shrinking, margin, median_difference, neighbours
from tests.questions import write_questions
from workbench.cli import main
from workbench.errors import WorkbenchError
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.metrics.registry import METRICS
from workbench.methods.registry import METHODS
from workbench.methods.token_aware import TokenAware
from workbench.pages.explorer import explore
from workbench.registry import Registry
from workbench.runs.ablation import ablate
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
truthfulness = "asked.jsonl"
[settings.truthfulness]
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
def folder(few, tmp_path, monkeypatch):
    """A folder with a run, a study, questions and a user's module, in which a user works."""
    write_questions(tmp_path / "asked.jsonl", few.choose(range(16)))
    (tmp_path / "run.toml").write_text(RUN)
    source = own_methods.__file__
    (tmp_path / "own_methods.py").write_text(Path(source).read_text())
    monkeypatch.delitem(sys.modules, "own_methods", raising=False)  # of another folder
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_named_in_a_run_file_they_are_fitted_measured_compared_and_reported(folder, as_shipped):
    assert main(["compare", "run.toml", "--out", "out", "--against", "mine"]) == 0
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


def test_a_run_with_workers_and_its_code_changed_is_another_run(folder, as_shipped, capsys):
    command = ["evaluate", "run.toml", "--out", "out", "--methods", "mine", "--workers", "2",
               "--threads", "1"]  # fmt: skip
    assert main(command) == 0
    before = json.loads((folder / "out" / "run.json").read_text())["own_code"]
    assert set(before) == {"own_methods:Shrinking", "own_methods:Brevity", "own_methods:margin"}
    file = folder / "own_methods.py"
    file.write_text(file.read_text() + "\nCHANGED = True\n")
    assert main(command) == 2
    assert "holds another run (own_code differ)" in capsys.readouterr().err


def test_objects_are_taken_where_names_are(hearsay, few, as_shipped):
    asked = few.choose(range(12))
    table = ablate(
        hearsay, asked, {"layer": [0, 2]}, kind=Shrinking, settings={"truthfulness": {
            "max_new_tokens": 4, "metrics": [margin]}}, progress=False,
    )  # fmt: skip
    assert set(table["layer"].dropna()) == {0, 2}
    assert "margin" in set(table["metric"])
    other = ablate(
        hearsay, asked, {"graph.similarity": [neighbours, "uniform"]}, progress=False,
        base={"heads": 2, "direction": median_difference},
        settings={"truthfulness": {"max_new_tokens": 4}},
    )  # fmt: skip
    assert set(other["graph.similarity"].dropna()) == {
        "tests.own_methods:neighbours", "uniform"
    }  # fmt: skip


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
    page = explore(hearsay, ours, few[:2], alphas=(0.0, 1.0), answers="own", progress=False)
    assert page.answers


def test_a_judge_and_a_metric_are_measured_as_they_are(hearsay, few):
    table = evaluate(
        hearsay, few.choose(range(3)), {"no edit": None}, judges=[Brevity("info", 5)],
        metrics=[margin], max_new_tokens=6, progress=False,
    )  # fmt: skip
    assert set(table[table["metric"] == "info"]["value"]) == {0.0}
    assert len(table[table["metric"] == "margin"]) == 3
    assert table.attrs["limits"] == {"truthfulness": {"info": "It cannot read."}}


def test_registered_they_have_a_short_name(hearsay, few, monkeypatch):
    for registry in (RULES, SIMILARITIES, METHODS, METRICS):
        monkeypatch.setattr(registry, "_entries", dict(registry))  # forgotten behind the test
    RULES.register("median", about="medians")(median_difference)
    SIMILARITIES.add("neighbours", neighbours)
    METHODS.add("shrinking", Shrinking, "shrinks")
    METRICS.add("spread_of_choices", own_methods.spread_of_choices)
    edit = TokenAware(
        heads=2, direction="median", graph=GraphSettings(similarity="neighbours")
    ).fit(hearsay, few, progress=False)
    assert edit.settings["direction"] == "median"
    assert GraphSettings(similarity=neighbours).similarity == "neighbours"
    assert METHODS.name_of(Shrinking) == "shrinking"
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
