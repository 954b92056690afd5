"""The explorer's two comparisons: attention without and under an edit, and edits side by side."""

import base64
import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.edits import random_edit
from workbench import cli
from workbench.errors import WorkbenchError
from workbench.models.shipped import SHIPPED
from workbench.pages.explorer import explore
from workbench.pages.explorer.page import packed_under
from workbench.pages.explorer.widget import widget


@pytest.fixture(scope="module")
def edits(hearsay):
    """Edits of other heads and strengths."""
    return {
        "first": random_edit(hearsay, alpha=4.0),
        "second": random_edit(hearsay, heads=((1, 2), (3, 0)), alpha=8.0, seed=1),
        "even": random_edit(hearsay, alpha=2.0, strength="constant", answer_start="plus_three"),
    }


@pytest.fixture(scope="module")
def record(hearsay, few, edits):
    return explore(hearsay, edits, few[:2], answers="both", max_new_tokens=8, progress=False)


def test_attention_is_the_model_s_own(record, edits):
    """Transformers' own attentions, asked of the plain model."""
    own = record.answers[1]
    plain = AutoModelForCausalLM.from_pretrained(SHIPPED["hearsay"], attn_implementation="eager")
    found = plain(torch.tensor([own.tokens[:-1]]), output_attentions=True).attentions
    start = len(own.prompt)
    for row, (layer, head) in enumerate(edits["first"].heads):
        expected = found[layer][0, head, start - 1 :]
        assert torch.allclose(own.attention[0, row], expected, atol=1e-5)
    assert own.attention.shape == (2, 4, len(own.strings), len(own.tokens) - 1)
    assert torch.allclose(own.attention.sum(dim=-1), torch.ones(()), atol=1e-5)
    for token in range(len(own.strings)):
        assert not own.attention[:, :, token, start + token :].any()


def test_an_edit_moves_attention_behind_its_first_layer_alone(record, edits):
    own = record.answers[0]
    apart = (own.attention[1] - own.attention[0]).abs().amax(dim=(1, 2))
    for row, (layer, _) in enumerate(edits["first"].heads):
        assert (float(apart[row]) > 1e-4) == (layer > 0)


def test_edits_side_by_side_are_what_each_is_alone(hearsay, few, edits, record):
    assert record.names == ("first", "second", "even")
    assert record["second"].edit is edits["second"]
    alone = explore(hearsay, edits["second"], few[:2], alphas=[0, 4], progress=False)
    own = [one for one in record["second"].answers if one.kind != "greedy"]
    assert [one.answer for one in own] == [one.answer for one in alone.answers]
    for mine, other in zip(own, alone.answers, strict=True):
        for alpha in (0.0, 4.0, 8.0):
            a, b = record["second"].row(alpha), alone.row(alpha)
            assert torch.allclose(mine.nats[a], other.nats[b], atol=1e-4)
            assert torch.allclose(mine.misalignment[a], other.misalignment[b], atol=1e-4)
            assert mine.written[a][:3] == other.written[b][:3]
        assert torch.allclose(mine.attention, other.attention, atol=1e-5)
    for one in record.every:
        assert [answer.tokens for answer in one.answers] == [a.tokens for a in record.answers]
    with pytest.raises(WorkbenchError, match="an edit 'third'"):
        record["third"]


def test_alpha_runs_beyond_an_edit_s_own(hearsay, few, edits, record):
    assert record["second"].alphas == (0.0, 4.0, 8.0, 12.0, 16.0)
    off = explore(hearsay, edits["first"].scaled(0), few[:1], progress=False)
    assert off.alphas == (0.0, 0.5, 1.0, 1.5, 2.0)


def test_bad_edits_are_refused(as_shipped, hearsay, few, edits):
    for given, message in (
        ({1: edits["first"]}, "1 as the name of an edit"),
        ({}, "no edit to explore"),
        ({"a": edits["first"], "b": None}, "an exploration of a NoneType"),
        ([edits["first"]], "an exploration of"),
    ):
        with pytest.raises(WorkbenchError, match=message):
            explore(hearsay, given, few[:1], progress=False)


def test_packed_attention_is_near_the_exact_one(record):
    own = record["even"].answers[2]
    raw = base64.b64decode(packed_under(own)["attention"])
    found = np.frombuffer(raw, np.uint8).reshape(own.attention.shape) / 255
    assert np.allclose(found, own.attention, atol=0.5 / 255 + 1e-6)


def choose(tab, name, value):
    tab.run(
        f"(() => {{const e = document.querySelector('#{name}'); e.value = '{value}';"
        "e.dispatchEvent(new Event('change', {bubbles: true}))})()"
    )


def test_the_page_shows_the_edits_side_by_side(tab, record, tmp_path):
    path = record.save(tmp_path / "page.html")
    tab.open(path)
    rows = (
        "[...document.querySelectorAll('#beside tr')].slice(1)"
        ".map(r => [...r.cells].map(c => c.textContent))"
    )
    shown = tab.run(rows)
    assert [row[0] for row in shown] == ["no edit", "first", "second", "even"]
    bare = float(record.answers[0].nats[0].sum())
    assert shown[0][3] == f"{bare:.2f}".replace("-", "−")
    for one, row in zip(record.every, shown[1:], strict=True):
        at = one.row(one.edit.alpha)
        assert row[1] == f"{one.edit.alpha:g}"
        total = f"{float(one.answers[0].nats[at].sum()):.2f}".replace("-", "−")
        assert row[3] == total
        assert row[4].split()[:2] == one.answers[0].written[at].split()[:2]
    choose(tab, "edit", 1)
    second = record["second"]
    s = second.strengths(0, second.edit.alpha)
    values = [float(text) for text in tab.texts(".token .value")]
    assert values == pytest.approx(s.mean(dim=1).tolist(), abs=0.006)
    assert tab.run("document.querySelector('#beside tr.here button').textContent") == "second"
    for name in ("risk", "doubt", "change", "nats", "gain"):
        choose(tab, "quantity", name)
    tab.require_quiet(path)


def test_the_page_shows_what_the_chosen_head_attends_to(tab, record, tmp_path):
    path = record.save(tmp_path / "page.html")
    tab.open(path)
    row, (layer, head) = 2, record.edit.heads[2]
    tab.run(
        f"document.querySelector('#heads [data-row=\"{row}\"]')"
        ".dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    )
    tab.click('[data-token="2"]')
    assert f"layer {layer}, head {head}" in tab.text("#attention-title")
    own = record.answers[0]
    seen = len(own.prompt) + 2
    for chosen, values in (
        ("0", own.attention[0, row, 2]),
        ("1", own.attention[1, row, 2]),
        ("difference", own.attention[1, row, 2] - own.attention[0, row, 2]),
    ):
        choose(tab, "pass", chosen)
        shown = [float(text.replace("−", "-")) for text in tab.texts(".look .value")]
        assert shown == pytest.approx(values[:seen].tolist(), abs=0.01)
    tab.require_quiet(path)


def test_the_widget_changes_the_edit(record):
    box = widget(record)
    knobs = {knob.description: knob for knob in box.children[0].children}
    knobs["edit"].value = 1
    second = record["second"]
    assert knobs["factor α"].value == second.edit.alpha
    (at, head), *_ = second.edit.heads
    shown = box.children[1].data[2].z[at][head]
    assert shown == pytest.approx(float(second.strengths(0, 8.0)[0, 0]), abs=1e-5)
    knobs["factor α"].value = 16.0
    shown = box.children[1].data[2].z[at][head]
    assert shown == pytest.approx(float(second.strengths(0, 16.0)[0, 0]), abs=1e-5)


def test_a_live_widget_reaches_beyond_the_edit_s_own(hearsay, record):
    box = widget(record, hearsay)
    knobs = {knob.description: knob for knob in box.children[0].children}
    assert knobs["factor α"].max == 8.0
    knobs["edit"].value = 1
    assert (knobs["factor α"].value, knobs["factor α"].max) == (8.0, 16.0)
    json.dumps(knobs["factor α"].get_state(), default=str, allow_nan=False)  # as it is sent


@pytest.mark.slow
def test_the_command_takes_several_edits(edits, tmp_path):
    for name in ("first", "second"):
        edits[name].save(tmp_path / name)
    row = {"question": "Who wrote it?", "correct_answers": ["He."], "incorrect_answers": ["She."]}
    data, out = tmp_path / "mine.jsonl", tmp_path / "out.html"
    data.write_text(json.dumps(row))
    given = ["--edit", str(tmp_path / "first"), str(tmp_path / "second"), "--answers", "own"]
    assert cli.main(["explore", "--data", str(data), "--out", str(out), *given]) == 0
    text = out.read_text()
    assert '"name":"first"' in text
    assert '"name":"second"' in text
    twice = ["--edit", str(tmp_path / "first"), str(tmp_path / "first")]
    assert cli.main(["explore", "--data", str(data), "--out", str(out), *twice]) != 0
