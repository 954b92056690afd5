"""The explorer of edits of states and of the whole model: what it shows is what they do."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.edits import random_edit
from tests.own_methods import Unknown
from tests.test_explorer import HOSTILE, NONE, made
from tests.test_explorer_compared import choose
from tests.test_lora import random_change
from workbench.editing.added_vectors import AddedVector
from workbench.editing.attaching import edited
from workbench.editing.conditions import Condition, Conditional
from workbench.editing.gates import Gate, Gated
from workbench.editing.generation import generate
from workbench.editing.interventions import Positions
from workbench.editing.token_scores import score_tokens
from workbench.errors import WorkbenchError
from workbench.methods.prompting import Prompting
from workbench.models.identity import identify
from workbench.models.prompts import encode
from workbench.pages.explorer import explore
from workbench.pages.explorer.command import explored
from workbench.pages.explorer.page import packed_under
from workbench.pages.explorer.running import rerun
from workbench.pages.explorer.widget import widget

PLACES = (("mlp_out", 1), ("resid_post", 1), ("resid_post", 3))
COLUMNS = ["mlp_out, resid_post 1", "resid_post 3"]
WIDTH = 160
OFFERED = "[...document.querySelectorAll('#quantity option')].map(e => e.value)"
TITLES = (
    "[...document.querySelectorAll('#beside tr')].slice(2)"
    ".map(r => r.querySelector('bdi.text').title)"
)
ROWS = "[...document.querySelectorAll('{}')].map(r => [...r.cells].map(c => c.textContent))"


def number(text):
    """A number as the page writes it."""
    return math.nan if text == NONE else float(text.replace("−", "-"))


@pytest.fixture(scope="module")
def edits(hearsay, few):
    """One of every kind, by name."""
    draw = torch.Generator().manual_seed(5)
    vector = AddedVector(
        places=PLACES, vector=8 * torch.randn(3, WIDTH, generator=draw), alpha=2.0,
        model=identify(hearsay),
    )  # fmt: skip
    weight = torch.randn(3, 1, WIDTH, generator=draw) / 200
    gated = Gated.around(vector, Gate(weight, torch.zeros(3, 1)))
    always = Condition(0, torch.ones(WIDTH), threshold=-2.0, above=True)
    return {
        "heads": random_edit(hearsay),
        "vector": vector,
        "gated": gated,
        "signed": Gated.around(vector, Gate(weight, torch.zeros(3, 1), "linear"), alpha=0.5),
        "every second": gated.at(Positions(first=1, every=2)),
        "condition": Conditional(
            places=PLACES, inner=vector, condition=always, alpha=1.0, model=vector.model
        ),
        "weights": random_change(hearsay, alpha=0.5),
        "words": Prompting(shots=1).fit(hearsay, few.choose(range(20, 30)), progress=False),
    }


@pytest.fixture(scope="module")
def record(hearsay, few, edits):
    return explore(hearsay, edits, few[:2], answers="both", max_new_tokens=8, progress=False)


def alone(record, name):
    return replace(record[name], beside=())


@pytest.mark.parametrize("name", ["vector", "gated", "signed", "every second", "condition"])
def test_states_move_by_what_the_trace_says(hearsay, edits, record, name):
    edit, own_record = edits[name], record[name]
    layers = list(edit.layers)
    for place, own in enumerate(own_record.answers):
        whole = encode(hearsay, own.question, own.answer.strip())
        assert whole.tokens == own.tokens
        count = len(own.strings)
        for alpha in own_record.alphas:
            with edited(hearsay, edit.scaled(alpha)) as trace:
                (nats,) = score_tokens(hearsay, [whole], starts=[own.begin])
            moved = torch.full((count, 2), torch.nan)
            gate = torch.full((count, 2), torch.nan)
            rows = trace.only.position - whole.start + 1
            moved[rows] = trace.only.moved[:, layers]
            gate[rows] = trace.only.gate[:, layers]
            row = own_record.row(alpha)
            assert torch.allclose(own_record.moved(place, alpha), moved, rtol=1e-3, equal_nan=True)
            assert torch.allclose(own.gate[row], gate, atol=1e-4, equal_nan=True)
            assert torch.allclose(own.nats[row], nats, atol=1e-3)
            assert own.reached.tolist() == (~moved[:, 0].isnan()).tolist()
        assert not own_record.moved(place, 0.0).nan_to_num().any()
        assert float(own_record.moved(place, edit.alpha).nan_to_num().max()) > 1
    assert own_record.gated == (name != "vector")
    assert own.misalignment.shape == (5, count, 0)
    assert own.attention is None
    reached = record["every second"].answers[0].reached.tolist()
    assert reached == [n % 2 == 1 for n in range(len(reached))]


@pytest.mark.parametrize("name", ["vector", "gated", "every second"])
def test_what_is_shown_does_not_depend_on_batches(hearsay, few, edits, name):
    """Nor on answers that end before the first edited position."""
    edit = edits[name].at(Positions(first=6)) if name == "every second" else edits[name]
    one, other = (
        explore(hearsay, edit, few[:2], each=3, alphas=(1,), batch_size=size, progress=False)
        for size in (1, 32)
    )
    for a, b in zip(one.answers, other.answers, strict=True):
        assert a.reached.tolist() == b.reached.tolist()
        for field in ("moved", "gate", "nats"):
            mine, theirs = getattr(a, field), getattr(b, field)
            assert torch.allclose(mine, theirs, rtol=1e-3, atol=1e-3, equal_nan=True)
    if name == "every second":
        assert not all(bool(own.reached.any()) for own in one.answers)
        assert any(bool(own.reached.any()) for own in one.answers)


@pytest.mark.parametrize("name", ["weights", "words"])
def test_edits_of_the_whole_model_have_log_probabilities_and_answers(
    hearsay, few, edits, record, name
):
    edit, own_record = edits[name], record[name]
    assert own_record.alphas == ((0.0, 1.0) if name == "words" else (0.0, 0.25, 0.5, 0.75, 1.0))
    for place, own in enumerate(own_record.answers):
        whole = encode(hearsay, own.question, own.answer.strip())
        for row, alpha in enumerate(own_record.alphas):
            (nats,) = score_tokens(hearsay, [whole], edit.scaled(alpha))
            assert torch.allclose(own.nats[row], nats, atol=1e-3)
            prompt = encode(hearsay, own.question)
            (said,) = generate(hearsay, prompt, edit=edit.scaled(alpha), max_new_tokens=8)
            assert own.written[row] == said.text
        assert torch.allclose(own.nats[0], record.answers[place].nats[0], atol=1e-3)
        assert (own.nats[-1] - own.nats[0]).abs().max() > 0.01
        assert own.moved is own.gate is own.attention is None
        assert bool(own.reached.all())


def test_what_an_edit_does_not_have_is_refused(as_shipped, hearsay, few, edits, record):
    for name in ("gated", "weights", "words"):
        for of_heads in (record[name].strengths, record[name].change):
            with pytest.raises(WorkbenchError, match="an Edit of heads, which has p̂ and u"):
                of_heads(0, edits[name].alpha)
    for name in ("weights", "words"):
        with pytest.raises(WorkbenchError, match="an edit of heads or of states"):
            record[name].moved(0, edits[name].alpha)
    with pytest.raises(WorkbenchError, match="alpha=7"):
        record["gated"].moved(0, 7)
    unknown = Unknown(alpha=1.0, model=identify(hearsay))
    for given in (unknown, {"heads": edits["heads"], "unknown": unknown}):
        with pytest.raises(WorkbenchError, match="an exploration of an Unknown"):
            explore(hearsay, given, few[:1], progress=False)
    with pytest.raises(WorkbenchError, match="an exploration of an Unknown"):
        widget(alone(record, "vector"), hearsay, unknown)
    with pytest.raises(WorkbenchError, match="alphas="):
        explore(hearsay, edits["words"], few[:1], alphas=("on",), progress=False)


def test_heads_move_as_far_as_their_trace_says(hearsay, edits, record):
    edit, own = edits["heads"], record.answers[0]
    whole = encode(hearsay, own.question, own.answer)
    with edited(hearsay, edit) as trace:
        score_tokens(hearsay, [whole])
    expected = trace.only.moved[: len(own.strings), list(edit.layers)]
    assert torch.allclose(record.moved(0, edit.alpha), expected, atol=1e-4)


def test_an_answer_is_run_again_under_any_kind(hearsay, edits, record):
    for name in ("gated", "weights", "words"):
        before = record[name].answers[1]
        alpha = record[name].alphas[-1]
        again = rerun(hearsay, edits[name].scaled(alpha), before, max_new_tokens=8)
        own = again.answers[0]
        assert torch.allclose(own.nats[0], before.nats[-1], atol=1e-3)
        assert own.written == before.written[-1:]
        if name == "gated":
            assert torch.allclose(own.moved[0], before.moved[-1], rtol=1e-3)
            assert torch.allclose(own.gate[0], before.gate[-1], atol=1e-4)


def test_what_is_packed_of_states_is_exact_and_of_heads_nothing(record):
    found = packed_under(record["gated"].answers[0])
    own = record["gated"].answers[0]
    assert np.allclose(found["moved"], own.moved, rtol=1e-6)
    assert np.allclose(found["gate"], own.gate, rtol=1e-6)
    assert found["risk"] == found["doubt"] == found["attention"] == ""
    skipped = packed_under(record["every second"].answers[0])["moved"][0]
    assert skipped[0] == [None, None]
    assert not {"moved", "gate"} & set(packed_under(record["words"].answers[0]))


def test_the_page_shows_what_states_do(tab, record, tmp_path):
    own_record = alone(record, "gated")
    path = own_record.save(tmp_path / "page.html")
    tab.open(path)
    own = own_record.answers[0]
    assert tab.texts("#quantity option") == [
        "gate", "how far states moved (norm)", "log-probability (nats)",
        "log-probability over α = 0 (nats)",
    ]  # fmt: skip
    for hidden in ("#heads-section", "#attention-section", "#beside-section"):
        assert tab.run(f"document.querySelector('{hidden}').hidden"), hidden
    for knob, there in (("beta", False), ("stretch", False), ("scope", True), ("alpha", True)):
        assert tab.run(f"document.querySelector('#{knob}').offsetParent !== null") == there, knob
    assert "no p̂, u, s or β" in tab.text("#lacks")
    assert "p̂ is fitted" not in tab.text("#notes")

    def require(values, mean):
        """The table holds values, and the tokens their means."""
        head, *rows = tab.run(ROWS.format("#strengths tr"))
        assert head == ["token", *COLUMNS]
        assert [row[0] for row in rows] == [text.replace(" ", "␣") for text in own.strings]
        shown = [[number(cell) for cell in row[1:]] for row in rows]
        assert np.allclose(shown, values, atol=0.006, rtol=1e-3)
        shown = [number(text) for text in tab.texts(".token .value")]
        assert shown == pytest.approx(mean.tolist(), abs=0.006, rel=1e-3)

    at = own_record.row(own_record.edit.alpha)
    require(own.gate[at], own.gate[at].mean(dim=1))
    colours = "[...document.querySelectorAll('#strengths td')].map(e => e.style.background)"
    before = tab.run(colours)
    assert len(set(before)) > 2
    choose(tab, "quantity", "moved")
    moved = own_record.moved(0, own_record.edit.alpha)
    require(moved, moved.mean(dim=1))
    assert f"states moved by {float(moved[0].mean()):.3f} (norm, mean over layers)" in tab.text(
        "#readout"
    )
    tab.slide("#alpha", "4")
    require(own_record.moved(0, 2.0), own_record.moved(0, 2.0).mean(dim=1))
    tab.click("#strengths tr:nth-child(3) td:nth-child(3)")  # second token, second layer
    assert tab.text("#layer-value") == "3"
    assert tab.run("document.querySelector('.token.chosen').dataset.token") == "1"
    choose(tab, "scope", "layer")
    require(own_record.moved(0, 2.0), own_record.moved(0, 2.0)[:, 1])
    tab.slide("#layer", "2")
    assert tab.text("#layer-value") == "2 (not edited)"
    assert set(tab.texts(".token .value")) == {NONE}
    tab.slide("#alpha", "0")
    for quantity in ("gate", "moved", "nats", "gain"):
        choose(tab, "quantity", quantity)
    tab.require_quiet(path)


def test_gates_on_both_sides_of_0_have_it_in_the_middle_of_their_colours(tab, record, tmp_path):
    own_record = alone(record, "signed")
    tab.open(own_record.save(tmp_path / "page.html"))
    gates = own_record.answers[0].gate
    assert float(gates.min()) < 0 < float(gates.max())
    low, high = number(tab.text("#legend-low")), number(tab.text("#legend-high"))
    assert low == -high
    assert high == pytest.approx(float(gates.mean(dim=-1).abs().max()), abs=0.006)


def test_tokens_that_are_not_edited_have_no_number(tab, record, tmp_path):
    tab.open(alone(record, "every second").save(tmp_path / "page.html"))
    texts = tab.texts(".token .value")
    assert [text == NONE for text in texts] == [n % 2 == 0 for n in range(len(texts))]
    rows = tab.run(ROWS.format("#strengths tr"))[1:]
    assert [row[1:] == [NONE, NONE] for row in rows] == [n % 2 == 0 for n in range(len(rows))]


@pytest.mark.parametrize("name", ["weights", "words"])
def test_the_page_of_a_whole_model_s_edit_shows_nats_and_answers(tab, record, tmp_path, name):
    own_record = alone(record, name)
    path = own_record.save(tmp_path / "page.html")
    tab.open(path)
    own = own_record.answers[0]
    names = ["log-probability (nats)", "log-probability over α = 0 (nats)"]
    assert tab.texts("#quantity option") == names
    at = own_record.row(own_record.edit.alpha)
    gain = own.nats[at] - own.nats[0]
    shown = [number(text) for text in tab.texts(".token .value")]
    assert shown == pytest.approx(gain.tolist(), abs=0.006)
    assert f"{float(gain[0]):.3f} nats over α = 0".replace("-", "−") in tab.text("#readout")
    for hidden in ("#strengths-section", "#heads-section", "#attention-section"):
        assert tab.run(f"document.querySelector('{hidden}').hidden"), hidden
    for knob in ("beta", "stretch", "scope"):
        assert tab.run(f"document.querySelector('#{knob}').offsetParent === null"), knob
    said = {"weights": "for all tokens alike", "words": "text before the prompt"}[name]
    assert said in tab.text("#lacks")
    assert tab.text("#written tr.here td") == f"{own_record.edit.alpha:g}"
    tab.slide("#alpha", "0")
    assert {number(text) for text in tab.texts(".token .value")} == {0.0}
    tab.click("#after")
    tab.slide("#layer", "4")
    tab.require_quiet(path)


def test_edits_of_all_kinds_stand_side_by_side(tab, record, tmp_path):
    path = record.save(tmp_path / "page.html")
    tab.open(path)
    names = list(record.names)

    def rows():
        return tab.run(ROWS.format("#beside tr"))[1:]

    shown = rows()
    assert [row[0] for row in shown] == ["no edit", *names]
    assert ["has no such value" in row[2] for row in shown[1:]] == [False] + [True] * 7
    for one, row in zip(record.every, shown[1:], strict=True):
        at = one.row(one.edit.alpha)
        assert number(row[3]) == pytest.approx(float(one.answers[0].nats[at].sum()), abs=0.006)
        assert row[4].split()[:2] == one.answers[0].written[at].split()[:2]
    choose(tab, "quantity", "moved")
    assert ["has no such value" in row[2] for row in rows()[1:]] == [False] * 6 + [True] * 2
    first = dict(zip(names, tab.run(TITLES), strict=True))
    for name in ("heads", "vector", "gated"):
        expected = float(record[name].moved(0, record[name].edit.alpha)[0].mean())
        assert number(first[name].split(": ")[1]) == pytest.approx(expected, abs=6e-4, rel=1e-3)
    assert first["words"] == f"words: {NONE}"
    assert not tab.run("document.querySelector('#beside-units').hidden")

    kept = {"heads": "moved", "weights": "gain", "words": "gain"}
    for place, name in enumerate(names):
        choose(tab, "quantity", "moved" if "moved" in tab.run(OFFERED) else "nats")
        choose(tab, "edit", place)
        assert tab.run("document.querySelector('#quantity').value") in (
            kept.get(name, "moved"), "nats",
        )  # fmt: skip
        assert tab.run("document.querySelector('#lacks').hidden") == (name == "heads")
        assert tab.run("document.querySelector('#heads-section').hidden") == (name != "heads")
        for quantity in tab.run(OFFERED):
            choose(tab, "quantity", quantity)
            for alpha in range(len(record[name].alphas)):
                tab.slide("#alpha", str(alpha))
            tab.click('[data-token="1"]')
            assert tab.run("document.querySelector('#quantity').value") == quantity
    choose(tab, "edit", 0)
    choose(tab, "quantity", "s")
    choose(tab, "edit", 2)
    assert tab.run("document.querySelector('#quantity').value") == "gate"
    choose(tab, "edit", 7)
    assert tab.run("document.querySelector('#quantity').value") == "gain"
    for width in (420, 1300):
        tab.look(width)
        assert tab.run("document.documentElement.scrollWidth") <= width
    tab.require_quiet(path)


def test_text_beside_states_is_shown_as_typed_and_never_run(tab, edits, tmp_path):
    record = made(HOSTILE, layers=5)
    count = len(HOSTILE)
    of_states = tuple(
        replace(
            own, misalignment=torch.empty(3, count, 0), moved=torch.rand(3, count, 2),
            gate=torch.rand(3, count, 2),
        )
        for own in record.answers
    )  # fmt: skip
    edit = edits["gated"].scaled(1.0)
    path = replace(record, answers=of_states, edit=edit, name=HOSTILE[1]).save(tmp_path / "p.html")
    tab.open(path)
    assert tab.run("window.broken") is None
    assert tab.run("document.querySelectorAll('img, main script').length") == 0
    first = [row[0] for row in tab.run(ROWS.format("#strengths tr"))[1:]]
    assert first[0] == HOSTILE[0][:15] + "…"
    assert first[2:5] == ["<!--", "&lt;b&gt;", "␣⏎"]
    tab.look(420)
    assert tab.run("document.documentElement.scrollWidth") <= 420
    tab.require_quiet(path)


def test_the_widget_follows_edits_of_every_kind(record):
    box = widget(record)
    knobs = {knob.description: knob for knob in box.children[0].children}
    figure = box.children[1]

    def shown():
        return np.array(figure.data[0].z, dtype=float).T

    for place, name in enumerate(record.names):
        knobs["edit"].value = place
        one = record[name]
        own, at = one.answers[0], one.row(one.edit.alpha)
        heads = name == "heads"
        assert knobs["weight β of p̂"].layout.display == (None if heads else "none")
        assert figure.data[2].visible == figure.layout.yaxis3.visible == heads
        if heads:
            continue
        if name in ("weights", "words"):
            assert knobs["colour"].options == ("log-probability (nats)",)
            assert np.allclose(shown()[:, 0], own.nats[at], atol=1e-5)
            assert "log-probabilities and greedy" in figure.layout.annotations[2].text
            continue
        assert list(figure.data[0].y) == COLUMNS
        if name != "vector":
            knobs["colour"].value = "gate"
            assert np.allclose(shown(), own.gate[at], atol=1e-5, equal_nan=True)
            json.dumps([np.asarray(row).tolist() for row in figure.data[0].z], allow_nan=False)
            knobs["colour"].value = "how far states moved (norm)"
        assert np.allclose(shown(), own.moved[at], rtol=1e-4, equal_nan=True)
        knobs["factor α"].value = one.alphas[-1]
        assert np.allclose(shown(), own.moved[-1], rtol=1e-4, equal_nan=True)
    knobs["edit"].value = 0
    assert knobs["colour"].value == "strength s"
    knobs["edit"].value = 3
    assert knobs["colour"].value == "gate"
    knobs["colour"].value = "log-probability (nats)"
    knobs["edit"].value = 6
    knobs["edit"].value = 3
    assert knobs["colour"].value == "log-probability (nats)"  # which both have
    knobs["colour"].value = "gate"
    assert figure.data[0].zmin == -figure.data[0].zmax < 0


def test_a_live_widget_runs_edits_of_every_kind(hearsay, edits, record):
    box = widget(record, hearsay)
    knobs = {knob.description: knob for knob in box.children[0].children}
    figure = box.children[1]
    knobs["edit"].value = record.names.index("gated")
    knobs["factor α"].value = 0.75
    expected = rerun(hearsay, edits["gated"].scaled(0.75), record.answers[0]).answers[0]
    assert np.allclose(np.array(figure.data[0].z).T, expected.gate[0], atol=1e-5)
    knobs["edit"].value = record.names.index("weights")
    knobs["factor α"].value = 0.75
    expected = rerun(hearsay, edits["weights"].scaled(0.75), record.answers[0]).answers[0]
    assert np.allclose(figure.data[0].z[0], expected.nats[0], atol=1e-5)
    knobs["edit"].value = record.names.index("words")
    slider = knobs["factor α"]
    assert (slider.value, slider.min, slider.max, slider.step) == (1.0, 0.0, 1.0, 1.0)
    slider.value = 0.0
    assert np.allclose(figure.data[0].z[0], record.answers[0].nats[0], atol=1e-3)
    other = widget(alone(record, "words"), hearsay, edits["vector"])  # of another kind
    shown = np.array(other.children[1].data[0].z).T
    assert np.allclose(shown, record["vector"].moved(0, 2.0), rtol=1e-3)


def test_the_command_explores_saved_edits_of_every_kind(edits, tmp_path):
    names = ("heads", "gated", "weights", "words")
    for name in names:
        edits[name].save(tmp_path / name)
    row = {"question": "Who wrote it?", "correct_answers": ["He."], "incorrect_answers": ["She."]}
    data = tmp_path / "mine.jsonl"
    data.write_text(json.dumps(row))
    found = explored("hearsay", data, {name: tmp_path / name for name in names}, answers="own")
    assert found.names == names
    assert [one.alphas for one in found.every][-1] == (0.0, 1.0)
    assert found["gated"].answers[0].moved.shape[2] == 2
