"""The report: its numbers are the tables', texts stay texts, and it loads nothing."""

import base64
import html
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from itertools import product

import pandas as pd
import pytest
import torch

from tests.questions import write_questions
from workbench import storage
from workbench.cli import main
from workbench.data.questions import Question
from workbench.data.sources import load_questions
from workbench.editing.added_vectors import AddedVector
from workbench.editing.attaching import edited
from workbench.editing.gates import Gate, Gated
from workbench.editing.generation import generate
from workbench.editing.interventions import Positions
from workbench.errors import WorkbenchError
from workbench.evaluation.tables import compare
from workbench.methods.saved import load_edit
from workbench.models.identity import identify
from workbench.models.prompts import encode, prompt_format
from workbench.pages.report import report
from workbench.pages.report.examples import (
    Answer,
    Example,
    Examples,
    Token,
    answer_of,
    follows,
    worked_examples,
)
from workbench.pages.report.figures import WIDTH, curves, forests, fronts, leading
from workbench.pages.report.page import as_html
from workbench.pages.report.results import read_results
from workbench.pages.report.tables import NONE, interval, number
from workbench.plots.theme import shown
from workbench.runs.loaded_run import LoadedRun
from workbench.runs.resumable import run
from workbench.runs.run_config import RunConfig

MARKUP = "<script>document.title='owned'</script>"
QUESTION = f"What does {MARKUP} & <img src=http://example.org/x.png onerror=alert(1)> do?"
METHODS = {
    "no edit": {"kind": "none"},
    "TAE": {"kind": "tae", "heads": 6, "alpha": 2.0},
    MARKUP: {"kind": "iti", "heads": 2, "alpha": 1.0},
}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A run on ten of hearsay's questions and two with markup in them."""
    folder = tmp_path_factory.mktemp("asked")
    nothing = ("<b>Nothing</b>.",)
    marked_up = [
        Question(f"{QUESTION} {number}", nothing[0], nothing, ("</div>All.",)) for number in (1, 2)
    ]
    asked = load_questions("hearsay").choose(range(0, 320, 32))
    write_questions(folder / "asked.jsonl", [*asked, *marked_up])
    return RunConfig(
        data={"truthfulness": str(folder / "asked.jsonl")}, methods=METHODS, against="no edit",
        primary=["mc2"], evaluation={"truthfulness": {"max_new_tokens": 8}}, texts=2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(hearsay, config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    run(config, folder, model=hearsay, progress=False)
    return folder


@pytest.fixture(scope="module")
def written(finished, hearsay, tmp_path_factory):
    """The page of the run, with every question that may be drawn."""
    return report(finished, tmp_path_factory.mktemp("page") / "report.html", model=hearsay,
                  examples=6)  # fmt: skip


@pytest.fixture
def copied(finished, tmp_path):
    """The run's files, to spoil."""
    place = tmp_path / "run"
    shutil.copytree(finished, place)
    return place


class Reader(HTMLParser):
    """Tables by caption, texts of tokens, ids, and addresses that the page would load."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.ids, self.loaded, self.links, self.styles = [], [], [], [], []
        self.scripts, self.words, self.within = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.within = tag if tag in ("script", "style", "caption", "th", "td", "h3", "dd") else ""
        self.ids += [given["id"]] if "id" in given else []
        self.loaded += [v for k, v in attributes if k in ("src", "srcset", "data", "poster")]
        self.loaded += [given["href"]] if tag in ("link", "base") and "href" in given else []
        self.links += [given["href"]] if tag == "a" else []
        if tag == "table":
            self.tables.append(["", []])
        elif tag == "tr":
            self.tables[-1][1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][1][-1].append("")
        elif tag in ("script", "style"):
            (self.scripts if tag == "script" else self.styles).append("")

    def handle_endtag(self, tag):
        self.within = ""

    def handle_data(self, data):
        if self.within == "caption":
            self.tables[-1][0] += data
        elif self.within in ("th", "td"):
            self.tables[-1][1][-1][-1] += data
        elif self.within in ("script", "style"):
            (self.scripts if self.within == "script" else self.styles)[-1] += data
        else:
            self.words.append(data)

    def rows(self, caption):
        """The rows of all tables whose caption begins so, without their heads."""
        return [row for name, rows in self.tables if name.startswith(caption) for row in rows[1:]]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def page(written):
    return Reader(written.read_text())


def test_the_numbers_are_those_of_the_tables(page, finished):
    results = read_results(finished)
    cells = {}
    for caption, rows in page.tables:
        if caption.startswith("Means: "):
            names = [name.split(" (n\u00a0=\u00a0")[0] for name in rows[0]]
            for row in rows[1:]:
                cells |= {
                    (row[0], metric): cell for metric, cell in zip(names[1:], row[1:], strict=True)
                }
    cells = {key: cell for key, cell in cells.items() if cell != "\u2013"}
    controls = {"answers alone", "lengths alone"}
    assert controls < {method for method, _ in cells}
    assert len(cells) == len(results.found) == 3 * 5 + 2 * 3
    for one in results.found.to_dict("records"):
        assert cells[one["method"], one["metric"]] == interval(one["mean"], one["low"], one["high"])
    told = {(row[0], row[1]): row[2:] for row in page.rows("Differences from no edit")}
    compared = storage.read_table(finished / "comparison.parquet")
    assert len(told) == len(compared) == 2 * 5
    for one in compared.to_dict("records"):
        difference, p, holm, count = told[one["metric"], one["method"]]
        assert difference.startswith(f"{number(one['difference'], '+')} [")
        assert "+0 " not in difference
        assert float(p) == pytest.approx(one["p"], rel=0.06)
        assert holm == (NONE if one["metric"] != "mc2" else f"{one['p_holm']:.2g}")
        assert count == str(one["questions"])
    assert number(1.5e-17, "+") == "0"
    assert number(-0.0, "+") == "0"


def test_what_was_run_is_told(page, finished):
    for said in ("5 layers of 8 heads", "12 questions", "truthfulness in 2", "4 plain texts"):
        assert said in page.text, said
    rows = {row[0]: row for row in page.rows("Methods")}
    assert rows["TAE"][2] == "heads 6, alpha 2"
    assert rows["TAE"][3] == "6 heads, alpha 2"
    made_with = json.loads((finished / "manifest.json").read_text())["made with"][0]
    assert ["torch", made_with["torch"]] in page.rows("Made with")
    assert "Nothing: every method was fitted and measured" in page.text


def test_contents_lead_somewhere_and_ids_are_unique(page):
    assert len(page.links) >= 5
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)


def test_nothing_is_loaded_and_plotly_is_there_once(page, written):
    assert [address for address in page.loaded if not address.startswith("data:")] == []
    assert not re.search(r"url\(|@import", "".join(page.styles))
    assert sum("plotly.js v" in script for script in page.scripts) == 1
    assert written.stat().st_size < 15e6


def test_texts_are_shown_as_typed(page, written):
    text = written.read_text()
    assert MARKUP not in text
    assert "<img src=http" not in text
    assert "<b>Nothing</b>" not in text
    assert QUESTION in page.text
    assert MARKUP in {row[0] for row in page.rows("Methods")}
    assert "<b>Nothing</b>." in page.text


def test_the_same_results_give_the_same_page(written, finished, hearsay, tmp_path):
    again = report(finished, tmp_path / "again.html", model=hearsay, examples=6)
    assert again.read_bytes() == written.read_bytes()


def test_worked_examples_are_what_the_edit_does(finished, config, hearsay):
    results = read_results(finished)
    worked = worked_examples(results, 6, hearsay)
    assert worked.methods == ("TAE",)
    assert (worked.drawn, len(worked.shown)) == (6, 6)
    work = LoadedRun(config, hearsay)
    test = {one.question for one in work.splits["truthfulness"][0].test}
    assert {example.question for example in worked.shown} == test
    order = [example.changed for example in worked.shown]
    assert order == sorted(order, reverse=True)
    assert sum(order) == worked.changed
    fit = work.fits("TAE", "truthfulness", 0)[0]
    edit = load_edit(finished / "edits" / fit.key, hearsay)
    for example in worked.shown:
        prompt = encode(hearsay, example.question, None, prompt_format("bare"))
        plain = generate(hearsay, [prompt], max_new_tokens=8)[0]
        with edited(hearsay, edit) as trace:
            after = generate(hearsay, [prompt], max_new_tokens=8)[0]
        before, answer = example.answers
        assert "".join(token.text for token in before.tokens) == plain.text
        assert "".join(token.text for token in answer.tokens) == after.text
        assert answer.changed == (plain.text != after.text)
        assert {token.strength for token in before.tokens} <= {None}
        strengths = trace.only.first(after.kept).strengths.flatten(1).nanmean(dim=1)
        assert [t.strength for t in answer.tokens] == pytest.approx(strengths.tolist(), abs=1e-5)


def test_an_edit_that_skips_tokens_colours_only_those_it_changes(finished, hearsay):
    fit = next(
        p.parent for p in (finished / "edits").glob("*/edit.json") if '"adaptive"' in p.read_text()
    )
    edit = load_edit(fit, hearsay).at(Positions(first=1, every=2))
    asked = Question("What is the capital of Australia?", "Canberra.", ("Canberra.",), ("Sydney.",))
    with edited(hearsay, edit) as trace:
        after = generate(hearsay, f"Q: {asked.question}\nA:", max_new_tokens=8)[0]
    answer = answer_of("x", asked, after, trace[0])
    there = [token.strength is not None for token in answer.tokens]
    assert there == [place % 2 == 1 for place in range(len(there))]
    assert len(there) > 2


def test_a_gate_is_shown_where_there_is_no_strength(hearsay):
    draw = torch.Generator().manual_seed(0)
    vector = AddedVector(
        places=(("resid_post", 1), ("resid_post", 3)), alpha=1.0, model=identify(hearsay),
        vector=torch.randn(2, 160, generator=draw),
    )  # fmt: skip
    edit = Gated.around(
        vector, Gate(torch.randn(2, 1, 160, generator=draw) / 200, torch.zeros(2, 1))
    )
    assert follows(edit)
    assert not follows(vector)
    asked = Question("What is the capital of Australia?", "Canberra.", ("Canberra.",), ("Sydney.",))
    with edited(hearsay, edit) as trace:
        after = generate(hearsay, f"Q: {asked.question}\nA:", max_new_tokens=8)[0]
    tokens = answer_of("x", asked, after, trace[0]).tokens
    wanted = trace.only.first(after.kept).gate.nanmean(dim=1)
    assert [token.shown for token in tokens] == pytest.approx(wanted.tolist(), abs=1e-6)
    assert len({token.gate for token in tokens}) > 2
    assert tokens[0].told == f"gate {tokens[0].gate:.3f}"


def drawn(tokens, results):
    """A page with one example of these tokens."""
    answers = (Answer("no edit", (Token("x"),), "", False), Answer("TAE", tokens, "", True))
    shown = Examples((Example("Why?", "So.", answers),), 1, 1, ("TAE",), 1)
    return as_html(results, shown)


@pytest.mark.parametrize("count", [1, 200])
def test_tokens_of_any_kind_are_coloured_and_visible(count, finished):
    results = replace(read_results(finished), compared=None)
    texts = ["<b>", " a\n", "שלום", "\u200b", "", "&amp;", "日本", "�"]
    tokens = tuple(
        Token(texts[k % len(texts)], 1 + k / 200, float("nan"), 0.5) for k in range(count)
    )
    text = drawn(tokens, results)
    assert text.count('<span class="token" title=') == count
    assert "&lt;b&gt;" in text
    assert "u 0.500" in text
    assert "p̂ nan" in text
    if count > 1:
        assert "␣a⏎" in text
        assert "&amp;amp;" in text
        assert text.count('#000000">') > 20
        assert text.count('#ffffff">') > 20


def test_the_section_says_why_there_are_no_examples(finished, copied, hearsay, tmp_path):
    def absent(folder, model=hearsay):
        return worked_examples(read_results(folder), 2, model).absent

    shutil.rmtree(copied / "edits")
    assert "No edits are kept" in absent(copied)
    text = report(copied, tmp_path / "page.html", model=hearsay).read_text()
    assert "There are none. No edits are kept" in text
    shutil.copytree(finished / "edits", copied / "edits")
    assert absent(copied) == ""
    manifest = json.loads((copied / "manifest.json").read_text())

    def spoilt(model=hearsay, **changes):
        new = {**manifest, "run": {**manifest["run"], **changes}}
        (copied / "manifest.json").write_text(json.dumps(new))
        return absent(copied, model)

    assert "weights that are not the run's" in spoilt(weights="0" * 16)
    assert "/nowhere/q.jsonl" in spoilt(data={"truthfulness": "/nowhere/q.jsonl"})
    assert "no questions" in spoilt(capabilities=["fairness"])


def touched_by(*_, **__):
    """What a stranger's manifest would have run."""
    TOUCHED.append(1)
    return Judged()


class Judged:
    name, identity = "true", "nobody"

    def scores(self, prompts, answers):
        return [1.0] * len(answers)


TOUCHED = []


@pytest.mark.parametrize("named", ["judges", "data", "methods", "metrics"])
def test_code_that_results_name_is_not_run(named, copied, hearsay, tmp_path, capsys):
    """A report of a stranger's folder ran any command that its manifest named."""
    TOUCHED.clear()
    told = f"{touched_by.__module__}:touched_by"
    manifest = json.loads((copied / "manifest.json").read_text())
    changed = {
        "judges": {"judges": {"x": {"kind": told}}},
        "data": {"data": {"truthfulness": told}},
        "methods": {"methods": {**manifest["run"]["methods"], "x": {"kind": told}}},
        "metrics": {"evaluation": {"truthfulness": {"metrics": [told]}}},
    }[named]
    manifest["run"] |= changed
    (copied / "manifest.json").write_text(json.dumps(manifest))
    text = report(copied, tmp_path / "page.html", model=hearsay).read_text()
    assert not TOUCHED
    assert "code that these results name" in text
    if named == "judges":
        report(copied, tmp_path / "page.html", model=hearsay, trust=True)
        assert TOUCHED


def test_examples_can_be_left_out(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("workbench.pages.report.page.worked_examples", None)
    text = report(finished, tmp_path / "page.html", examples=0).read_text()
    assert "None were asked for" in text


def test_results_without_a_manifest_are_told_with_their_pictures(copied, tmp_path):
    for name in ("manifest.json", "run.json", "comparison.parquet"):
        (copied / name).unlink()
    (copied / "token_graph.png").write_bytes(b"\x89PNG and more")
    page = Reader(report(copied, tmp_path / "page.html").read_text())
    assert "data:image/png;base64,iVBORyBhbmQgbW9yZQ==" in page.loaded
    assert "no manifest" in page.text
    rows = {row[0]: row for row in page.rows("Methods")}
    assert rows["TAE"][1].startswith("token-aware editing")
    assert rows[MARKUP][1:3] == [NONE, NONE]
    assert len(page.rows("Differences from no edit")) == 2 * 5


def test_versions_of_several_sessions_stand_together(copied, tmp_path):
    manifest = json.loads((copied / "manifest.json").read_text())
    once = manifest["made with"][0]
    manifest["made with"] = [once, {**once, "torch": "0.0.<i>"}]
    (copied / "manifest.json").write_text(json.dumps(manifest))
    page = Reader(report(copied, tmp_path / "page.html", examples=0).read_text())
    rows = page.rows("Made with")
    assert ["torch", f"{once['torch']}, 0.0.<i>"] in rows
    assert len(rows) == len(once)


def test_p_values_of_several_draws_are_explained(copied, tmp_path):
    for name in ("manifest.json", "run.json"):
        (copied / name).unlink()

    def told():
        return Reader(report(copied, tmp_path / "page.html", examples=0).read_text()).text

    assert "several draws" not in told()
    table = storage.read_table(copied / "results.parquet")
    again = table[table["method"] == "TAE"].assign(draw=1)
    storage.write_table(copied / "results.parquet", pd.concat([table, again], ignore_index=True))
    assert "Of TAE there are several draws: p is that of their mean" in told()


def test_failures_are_told(copied, tmp_path):
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["failed"] = [
        {"method": "CAA", "capability": "truthfulness", "fold": 1, "error": "Boom: <i>why</i>"}
    ]
    (copied / "manifest.json").write_text(json.dumps(manifest))
    text = report(copied, tmp_path / "page.html", examples=0).read_text()
    assert "Boom: &lt;i&gt;why&lt;/i&gt;" in text
    assert "only these are tried again" in text


def contest(place):
    """What `compare` adds, planted."""
    names = ("TAE", MARKUP)
    curves = [
        (method, strength, gain, gain - 0.1, gain + 0.1, strength / 9, strength / 10, strength / 8,
         "kl")
        for method in names
        for strength, gain in ((0.0, 0.3), (1.0, 0.5), (2.0, 0.6125))
    ]  # fmt: skip
    columns = ["method", "multiple", "gain", "gain_low", "gain_high", "effect", "effect_low",
               "effect_high", "side_effect"]  # fmt: skip
    storage.write_table(place / "curves.parquet", pd.DataFrame(curves, columns=columns))
    nan = float("nan")
    apart = ["difference", "difference_low", "difference_high"]
    matched = [
        (0.0123, "TAE", 0.777, 0.7, 0.8, 0.0, 0.0, 0.0, nan, nan),
        (0.0123, MARKUP, nan, nan, nan, nan, nan, nan, nan, nan),
    ]
    storage.write_table(place / "matched.parquet", pd.DataFrame(
        matched, columns=["effect", "method", "gain", "low", "high", *apart, "p", "p_holm"]
    ))  # fmt: skip
    areas = [("TAE", 0.4, 0.3, 0.5, 0.0, 0.0, 0.0, nan, "kl"),
             (MARKUP, 0.456, 0.3, 0.5, 0.056, -0.1, 0.2, 0.31, "kl")]  # fmt: skip
    storage.write_table(place / "areas.parquet", pd.DataFrame(
        areas, columns=["method", "area", "low", "high", *apart, "p", "side_effect"]
    ))  # fmt: skip
    storage.write_table(place / "costs.parquet", pd.DataFrame(
        [("TAE", 1.25, 3.5, 123456)],
        columns=["method", "fit_seconds", "ms_per_token", "stored"],
    ))  # fmt: skip
    storage.write_json(place / "head_to_head.json", {"gain": "true_x_info", "against": "TAE"})
    manifest = json.loads((place / "manifest.json").read_text())
    manifest["shown"]["against"] = None
    (place / "manifest.json").write_text(json.dumps(manifest))


def test_a_comparison_shows_fronts_and_equal_side_effects(copied, tmp_path):
    contest(copied)
    text = report(copied, tmp_path / "page.html", examples=0).read_text()
    page = Reader(text)
    assert page.rows("Gain at equal KL") == [
        ["0.0123", "TAE", "0.777 [0.7,\u00a00.8]", NONE, NONE],
        ["0.0123", MARKUP, NONE, NONE, NONE],
    ]
    assert [row[0] for row in page.rows("Mean of the front")] == [MARKUP, "TAE"]
    assert page.rows("What the methods cost") == [["TAE", "1.25", "3.5", "123,456"]]
    assert page.words.count("At equal side effects") == 2
    assert "The gain is true_x_info; differences are from TAE" in page.text
    (figure,) = fronts(read_results(copied).contest)
    assert {line.name for line in figure.data} == {"TAE", shown(MARKUP, 30), "no edit"}
    assert figure.layout.yaxis.title.text == "true_x_info"
    assert list(figure.data[2].y) == [0.5, 0.6125]


def test_a_comparison_s_differences_are_from_its_method(copied):
    contest(copied)
    results = read_results(copied)
    expected = compare(results.table, "TAE", primary=["mc2"], seed=results.seed)
    pd.testing.assert_frame_equal(results.compared, expected)
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["failed"] = [{"method": MARKUP, "capability": "truthfulness", "fold": 1, "error": ""}]
    (copied / "manifest.json").write_text(json.dumps(manifest))
    assert set(read_results(copied).compared["method"]) == {"no edit"}


def test_differences_that_were_not_kept_are_computed(copied):
    written = read_results(copied).compared
    (copied / "comparison.parquet").unlink()
    pd.testing.assert_frame_equal(read_results(copied).compared, written)


def studied(table, axes):
    """A study of planted values: 0.1 of each axis' place, whatever the question."""
    rows, settings = [], list(product(*(enumerate(values) for values in axes.values())))
    own = table[(table["method"] == "TAE") & (table["metric"] == "mc2")]
    for setting in settings:
        name = ", ".join(f"{a}={v}" for a, (_, v) in zip(axes, setting, strict=True))
        value = sum(place for place, _ in setting) / 10
        columns = {a: v for a, (_, v) in zip(axes, setting, strict=True)}
        rows.append(own.assign(method=name, value=value, **columns))
    blank = table[(table["method"] == "no edit") & (table["metric"] == "mc2")]
    return pd.concat([*rows, blank], ignore_index=True)[[*axes, *table.columns]]


def test_a_study_draws_what_its_settings_do(copied, tmp_path):
    table = storage.read_table(copied / "results.parquet")
    study = studied(table, {MARKUP: ["0", "last"], "heads": [8.0, 2.0, 4.0]})
    storage.write_table(copied / "study.parquet", study)
    text = report(copied, tmp_path / "page.html", examples=0).read_text()
    page = Reader(text)
    title = f"A study of {html.escape(MARKUP, quote=False)}, heads: truthfulness of hearsay"
    assert title in text.replace("&#39;", "'")
    assert "What the settings do" in page.words
    (figure,) = curves(study, [MARKUP, "heads"], ["mc2"])
    lines = [line for line in figure.data if line.mode == "lines+markers"]
    assert [list(line.x) for line in lines] == [[2.0, 4.0, 8.0]] * 2
    assert [list(line.y) for line in lines] == [
        pytest.approx([0.1, 0.2, 0.0]), pytest.approx([0.2, 0.3, 0.1])
    ]  # fmt: skip
    assert figure.layout.xaxis.title.text == "heads"


def test_a_study_s_table_is_enough(copied):
    table = storage.read_table(copied / "results.parquet")
    storage.write_table(copied / "study.parquet", studied(table, {"heads": [2, 4]}))
    whole = read_results(copied)
    (copied / "results.parquet").unlink()
    with pytest.raises(WorkbenchError, match="not finished"):
        read_results(copied)
    (copied / "run.json").unlink()
    alone = read_results(copied)
    assert alone.axes == whole.axes == ["heads"]
    assert alone.methods == ["heads=2", "heads=4", "no edit"]
    assert alone.run == whole.run


def test_three_axes_are_drawn_one_by_one_and_constant_ones_not(copied):
    table = storage.read_table(copied / "results.parquet")
    axes = {"a": [1.0, 2.0], "b": ["x"], "c": ["p", "q"], "d": [0.5, 1.0, 2.0]}
    found = curves(studied(table, axes), list(axes), ["mc2"])
    assert [figure.layout.xaxis.title.text for figure in found] == ["a", "c", "d"]
    last = next(line for line in found[2].data if line.mode == "lines+markers")
    assert list(last.y) == pytest.approx([0.1, 0.2, 0.3])


def test_what_a_study_is_drawn_by():
    measured = ["mc1", "mc2", "says_truth", "kl"]
    assert leading(measured, ["mc1", "absent"]) == ["mc1", "kl"]
    assert leading(measured, []) == ["says_truth", "kl"]
    assert leading(["mine"], []) == ["mine"]
    assert leading([], []) == []


def test_methods_that_are_too_many_for_a_page_are_told_and_not_drawn(copied, tmp_path):
    table = storage.read_table(copied / "results.parquet")
    one = table[(table["metric"] == "mc2") & (table["method"] != MARKUP)]
    copies = [one[one["method"] == "TAE"].assign(method=f"TAE {k}") for k in range(25)]
    many = pd.concat([one[one["method"] == "no edit"], *copies], ignore_index=True)
    storage.write_table(copied / "results.parquet", many)
    (copied / "manifest.json").unlink()
    (copied / "run.json").unlink()
    text = report(copied, tmp_path / "page.html", examples=0).read_text()
    page = Reader(text)
    assert "Not drawn, since 25 methods are too many" in page.text
    assert not any(name.startswith("figure-") for name in page.ids)
    assert len(page.rows("Differences from no edit")) == 25
    assert len(forests(read_results(copied).compared, ["mc2"])) == 1


def test_bad_folders_are_refused(copied, tmp_path, as_shipped):
    with pytest.raises(WorkbenchError, match="no folder at"):
        report(tmp_path / "nowhere", tmp_path / "x.html")
    with pytest.raises(WorkbenchError, match="which is a file"):
        report(copied / "results.parquet", tmp_path / "x.html")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WorkbenchError, match=r"without results\.parquet"):
        report(tmp_path / "empty", tmp_path / "x.html")
    with pytest.raises(WorkbenchError, match=r"There are results in .*run"):
        report(tmp_path, tmp_path / "x.html")
    with pytest.raises(WorkbenchError, match="examples=-1"):
        report(copied, tmp_path / "x.html", examples=-1)
    assert not (tmp_path / "x.html").exists()


def test_unfinished_runs_are_refused(copied, tmp_path):
    def refused(match):
        with pytest.raises(WorkbenchError, match=match) as caught:
            report(copied, tmp_path / "x.html")
        assert "goes on from there" in str(caught.value)
        assert not (tmp_path / "x.html").exists()

    table = storage.read_table(copied / "results.parquet")
    storage.write_table(copied / "results.parquet", table.iloc[:-1])
    refused("of other results")
    storage.write_table(copied / "results.parquet", table)
    contest(copied)
    (copied / "head_to_head.json").unlink()
    refused(r"without head_to_head\.json")
    manifest = (copied / "manifest.json").read_bytes()
    (copied / "manifest.json").unlink()
    refused("no manifest yet")
    (copied / "manifest.json").write_bytes(manifest)
    (copied / "results.parquet").unlink()
    refused("no results yet")


def test_the_command_writes_beside_the_results_or_where_it_is_told(copied, tmp_path, capsys):
    assert main(["report", str(copied), "--examples", "0"]) == 0
    assert (copied / "report.html").exists()
    assert main(["report", str(copied), "--examples", "0", "--out", str(tmp_path / "a.html")]) == 0
    assert (tmp_path / "a.html").read_bytes() == (copied / "report.html").read_bytes()
    assert str(tmp_path / "a.html") in capsys.readouterr().out
    assert main(["report", str(tmp_path / "nowhere")]) == 2


@pytest.fixture
def tab(tab):
    tab.look(1200)
    return tab


DRAWN = "document.querySelectorAll('.plotly-graph-div .main-svg').length"
OVER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def test_a_browser_draws_the_page_without_a_complaint(tab, written, page):
    tab.open(written)
    tab.require_quiet(written)
    count = sum(name.startswith("figure-") for name in page.ids)
    assert count == 4
    assert tab.run("document.querySelectorAll('.js-plotly-plot').length") == count
    assert tab.run(DRAWN) >= count
    assert tab.run("document.querySelector('figure > div').offsetWidth") == WIDTH
    assert tab.run("document.title") == "An evaluation of editing: truthfulness of hearsay"
    assert MARKUP in tab.texts("tbody th")
    assert {QUESTION in text for text in tab.texts("article h3")} == {True, False}
    ticks = tab.texts(".ytick text")
    assert any(text.startswith("<script>document.title") for text in ticks), ticks


def test_a_request_or_an_error_would_be_heard(tab, written, tmp_path):
    text = written.read_text()
    loud = tmp_path / "loud.html"
    for bad in ('<img src="http://127.0.0.1:9/x.png"><h1>', "<script>nothing()</script><h1>"):
        tab.complaints.clear()
        tab.requests.clear()
        loud.write_text(text.replace("<h1>", bad, 1))
        tab.open(loud)
        with pytest.raises(AssertionError):
            tab.require_quiet(loud)


@pytest.mark.parametrize("width", [360, 700, 1200])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_its_width(tab, written, width, dark):
    tab.look(width, dark=dark)
    tab.open(written)
    assert tab.run(OVER) == 0
    ground = tab.run("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") is not dark


def test_a_link_of_the_contents_leads_to_its_section(tab, written):
    tab.look(700)
    tab.open(written)
    tab.click('nav a[href="#manifest"]')
    assert tab.run("location.hash") == "#manifest"


def test_paper_has_all_of_it(tab, written):
    tab.open(written)
    printed = base64.b64decode(tab.send("Page.printToPDF", preferCSSPageSize=True)["data"])
    assert printed.startswith(b"%PDF")
    tab.look(700, media="print")
    tab.run("dispatchEvent(new Event('beforeprint'))")
    assert tab.run("document.querySelectorAll('details:not([open])').length") == 0
    heights = tab.run(
        "[...document.querySelectorAll('details > :not(summary)')].map(e => e.offsetHeight)"
    )
    assert min(heights) > 0
    tab.run("dispatchEvent(new Event('afterprint'))")
    assert tab.run("document.querySelectorAll('details[open]').length") == 0
    assert tab.run(OVER) == 0
