import json
import math
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from tests.edits import drawn_edit, random_edit
from tests.questions import write_questions
from workbench import cli
from workbench.editing.attaching import edited
from workbench.editing.generation import generate
from workbench.editing.head_edits import Edit
from workbench.editing.interventions import Positions
from workbench.editing.scoring import score_under
from workbench.editing.strengths import Estimators, Strength
from workbench.editing.token_scores import score_tokens
from workbench.errors import WorkbenchError
from workbench.models.identity import ModelIdentity, ModelShape
from workbench.models.prompts import encode
from workbench.pages.explorer import Exploration, ExploredAnswer, explore
from workbench.pages.explorer.command import explored
from workbench.pages.explorer.page import packed, packed_under, page
from workbench.pages.explorer.running import rerun
from workbench.pages.explorer.widget import widget
from workbench.pages.explorer.widget_figure import empty
from workbench.stages.capture import capture
from workbench.stages.token_graph import GraphSettings, token_graph

HOSTILE = (
    "<script>window.broken = 1</script>",
    "</script><img src=x onerror='window.broken = 2'>",
    "<!--", "&lt;b&gt;", " \n", "שלום", "é🙂", "", "\x00\u202e", "$x$", "\ufffd",
)  # fmt: skip
NONE = "\u2013"
BYTES, ELEMENTS = 15e6, 5000


def made(strings, *, layers=2, heads=3, edited=((1, 2), (0, 0)), answers=1, seed=0, **changes):
    """A record of random values."""
    draw = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(*shape, generator=draw)

    count, alphas = len(strings), (0.0, 1.0, 2.0)
    edit = Edit(
        heads=edited,
        direction=torch.nn.functional.normalize(rand(len(edited), 4), dim=-1),
        spread=rand(len(edited)) + 0.5,
        estimators=Estimators(rand(len(edited), 4), rand(len(edited))),
        alpha=1.0,
        strength=Strength("adaptive", beta=0.25),
        model=ModelIdentity(HOSTILE[0], "0", ModelShape(layers, heads, 4, 4 * heads, 50, 256)),
        **changes,
    )
    found = []
    for number in range(answers):
        upper = rand(2, layers, count, count) * 6
        found.append(
            ExploredAnswer(
                question=f"{HOSTILE[0]} {number}",
                answer="".join(strings),
                kind="incorrect",
                prompt=HOSTILE,
                strings=tuple(strings),
                tokens=tuple(range(len(HOSTILE) + count)),
                begin=len(HOSTILE) - 1,
                graphs=(upper + upper.transpose(-1, -2)) / 2,
                misalignment=rand(len(alphas), count, len(edited)),
                uncertainty=rand(len(alphas), count, layers),
                reached=torch.ones(count, dtype=torch.bool),
                nats=-rand(len(alphas), count),
                written=HOSTILE[: len(alphas)],
            )
        )
    return Exploration(tuple(found), alphas, edit, GraphSettings())


@pytest.fixture(scope="module")
def edit(hearsay):
    return random_edit(hearsay)


@pytest.fixture(scope="module")
def record(hearsay, few, edit):
    return explore(
        hearsay, edit, few[:2], answers="both", alphas=(0, 0.5), max_new_tokens=8, progress=False
    )


def test_answers_are_those_of_the_data_and_of_the_model(hearsay, few, edit, record):
    kinds = [own.kind for own in record.answers]
    assert kinds == ["correct", "incorrect", "greedy"] * 2
    assert record.alphas == (0.0, 0.5, edit.alpha)
    assert record.answers[0].answer == few[0].correct_answers[0]
    assert record.answers[4].answer == few[1].incorrect_answers[0]
    for own in record.answers:
        assert len(own.prompt) + len(own.strings) == len(own.tokens)
    for number, question in enumerate(few[:2]):
        prompt = encode(hearsay, question.question)
        for row, alpha in enumerate(record.alphas):
            (said,) = generate(hearsay, prompt, edit=edit.scaled(alpha), max_new_tokens=8)
            assert record.answers[3 * number].written[row] == said.text


def test_graphs_and_uncertainty_are_those_of_the_library(hearsay, few, edit, record):
    acts = capture(hearsay, few[:2], uncertainty="logit_lens", unlabelled=False, progress=False)
    number = {(a.question, a.answer): k for k, a in enumerate(acts)}
    for own in record.answers:
        if own.kind == "greedy":
            continue
        answer = acts[number[own.question, own.answer]]
        assert own.strings == answer.strings
        for layer in (0, 4):
            for turn in (0, 1):
                graph = token_graph(answer, layer, depth=turn)
                assert torch.allclose(own.graphs[turn, layer], graph.similarity, atol=1e-4)
        at = list(edit.layers)
        assert torch.allclose(own.uncertainty[0][:, at], answer.uncertainty[:-1, at], atol=1e-5)
        others = [layer for layer in range(5) if layer not in at]
        assert others
        assert own.uncertainty[:, :, others].isnan().all()


def test_strengths_are_those_of_the_trace(hearsay, edit, record):
    layer, head = torch.tensor(edit.heads).unbind(dim=1)
    for number, own in enumerate(record.answers):
        whole = encode(hearsay, own.question, own.answer.strip())
        assert whole.tokens == own.tokens
        for alpha in (0.5, 1.5):
            with edited(hearsay, edit.scaled(alpha)) as trace:
                (nats,) = score_tokens(hearsay, [whole])
            found, count = trace.only, len(own.strings)
            row = record.row(alpha)
            for mine, theirs in (
                (own.misalignment[row], found.misalignment[:, layer, head]),
                (own.uncertainty[row][:, layer], found.uncertainty[:, layer]),
                (record.strengths(number, alpha), found.strengths[:, layer, head]),
                (record.change(number, alpha), found.change[:, layer, head]),
                (own.nats[row], nats),
            ):
                assert torch.allclose(mine, theirs[:count], atol=1e-4)
        assert not torch.allclose(own.misalignment[0], own.misalignment[2], atol=1e-4)


def test_any_beta_weighs_risk_against_uncertainty(edit, record):
    layers = [layer for layer, _ in edit.heads]
    own = record.answers[1]
    assert torch.equal(record.strengths(1, 0.5, 1.0), 1 + own.misalignment[1])
    assert torch.equal(record.strengths(1, 0.5, 0.0), 1 + own.uncertainty[1][:, layers])


def test_log_probabilities_are_those_of_scores(hearsay, few, edit, record):
    scored = score_under(hearsay, few[:2], [edit.scaled(alpha) for alpha in record.alphas])
    for row in range(3):
        first = [one for one in scored[row] if one.question == 0]
        assert torch.allclose(record.answers[0].nats[row], first[0].tokens, atol=1e-4)


@pytest.mark.parametrize(
    "kind", ["constant", "misalignment", "uncertainty", "threshold", "positions", "plus_three"]
)
def test_other_edits_show_what_they_do(hearsay, few, edit, kind):
    changed = {
        **{
            kind: replace(edit, strength=replace(edit.strength, kind=kind))
            for kind in ("constant", "misalignment", "uncertainty")
        },
        "threshold": replace(
            edit, estimators=replace(edit.estimators, threshold=torch.full((4,), 0.5))
        ),
        "positions": edit.at(Positions(first=1, every=2)),
        "plus_three": replace(edit, answer_start="plus_three"),
    }[kind]
    found = explore(hearsay, changed, few[:1], alphas=(), progress=False)
    layer, head = torch.tensor(edit.heads).unbind(dim=1)
    for number, own in enumerate(found.answers):
        whole = encode(hearsay, own.question, own.answer)
        with edited(hearsay, changed) as trace:
            (nats,) = score_tokens(hearsay, [whole], starts=[own.begin])
        count = len(own.strings)
        expected = torch.full((count, 4), math.nan)
        for place, position in enumerate(trace.only.position.tolist()):
            if 0 <= (row := position - whole.start + 1) < count:
                expected[row] = trace.only.change[place, layer, head]
        mine = found.change(number, changed.alpha)
        assert torch.allclose(mine, expected, atol=1e-4, equal_nan=True)
        assert torch.allclose(own.nats[0], nats, atol=1e-4)
    if kind == "constant":
        assert bool(own.misalignment.isnan().all())
    if kind == "threshold":
        assert 0 < (mine == 0).float().mean() < 1
    if kind in ("positions", "plus_three"):
        assert own.reached.tolist() != [True] * count


def test_texts_are_gone_on_from(hearsay, edit):
    found = explore(hearsay, edit, ["The miller said to the mayor:"], progress=False, limit=3)
    (own,) = found.answers
    assert own.kind == "greedy"
    assert own.answer == own.written[found.row(edit.alpha)]
    assert "".join(own.strings) == own.answer


def test_an_answer_is_run_again_under_any_strength(hearsay, edit, record):
    for number in (1, 2):
        again = rerun(hearsay, edit.scaled(0.5), record.answers[number], max_new_tokens=8)
        own, before = again.answers[0], record.answers[number]
        assert torch.allclose(own.misalignment[0], before.misalignment[1], atol=1e-4)
        assert torch.allclose(own.nats[0], before.nats[1], atol=1e-4)
        assert own.written == (before.written[1],)
        other = rerun(hearsay, replace(edit, strength=Strength(beta=1.0)), before)
        risk = other.answers[0].misalignment[0]
        assert torch.equal(other.strengths(0, edit.alpha), 1 + risk)
        assert not torch.allclose(risk, before.misalignment[2], atol=1e-4)  # it was run anew


def test_bad_input_is_refused(as_shipped, hearsay, few, edit, record):
    for given, changes, message in (
        (edit, {"answers": "wrong"}, "answers='wrong'"),
        (edit, {"depth": -1}, "depth=-1"),
        (edit, {"limit": 0}, "limit=0"),
        (edit, {"alphas": ("a",)}, "alphas="),
        (edit, {"settings": GraphSettings(scope="head")}, "scope='head'"),
        ("TAE", {}, "an exploration of a str"),
        (drawn_edit(hearsay, torch.ones(2, 4)), {}, "exploration of a DrawnHeads"),
    ):
        with pytest.raises(WorkbenchError, match=message):
            explore(hearsay, given, few[:1], progress=False, **changes)
    with pytest.raises(WorkbenchError, match="no questions"):
        explore(hearsay, edit, [], progress=False)
    with pytest.raises(WorkbenchError, match="an int among the questions"):
        explore(hearsay, edit, [3], progress=False)
    with pytest.raises(WorkbenchError, match="alpha=7"):
        record.strengths(0, 7)
    with pytest.raises(WorkbenchError, match="beta=2"):
        record.strengths(0, 0.5, 2)


def test_packed_values_are_near_the_exact_ones():
    own = made("abcdefg").answers[0]
    found = packed(own)
    import base64

    risk = base64.b64decode(packed_under(own)["risk"])
    raw = np.frombuffer(risk, "<u2") / 65534
    assert np.allclose(raw, own.misalignment.flatten(), atol=1e-5)
    levels = np.frombuffer(base64.b64decode(found["graphs"]), np.uint8).reshape(2, 2, 28)
    low, high = np.array(found["low"]), np.array(found["high"])
    graphs = low[..., None] + (high - low)[..., None] * levels / 255
    rows, columns = torch.triu_indices(7, 7)
    assert np.allclose(graphs, own.graphs[..., rows, columns], atol=6 / 510 + 1e-4)


def test_the_page_shows_the_numbers_of_the_library(tab, hearsay, edit, record, tmp_path):
    path = record.save(tmp_path / "page.html")
    tab.open(path)
    own, number = record.answers[1], 1
    tab.run(
        "(() => {const e = document.querySelector('#answer'); e.value = '1';"
        "e.dispatchEvent(new Event('change', {bubbles: true}))})()"
    )
    assert tab.texts(".token .text") == [
        text.replace(" ", "␣") if text.startswith(" ") else text for text in own.strings
    ]
    tab.click('[data-token="2"]')
    assert tab.text(".token.chosen .text") == own.strings[2].replace(" ", "␣")

    def require(alpha, beta, layer, turn):
        s = record.strengths(number, alpha, beta)
        change = record.change(number, alpha, beta)
        shown = [float(text) for text in tab.texts(".token .value")]
        assert shown == pytest.approx(s.mean(dim=1).tolist(), abs=0.006)
        row = own.graphs[turn, layer, 2]
        bits = [float(text) for text in tab.texts(".token .bits") if text != "●"]
        expected = [value for n, value in enumerate(row.tolist()) if n != 2]
        assert bits == pytest.approx(expected, abs=0.02)
        table = {
            (int(cells[0]), int(cells[1])): [float(cell.replace("−", "-")) for cell in cells[2:]]
            for cells in tab.run(
                "[...document.querySelectorAll('#strengths tr')].slice(1)"
                ".map(r => [...r.cells].map(c => c.textContent))"
            )
        }
        a = record.row(alpha)
        for place, head in enumerate(edit.heads):
            values = [
                edit.spread[place], own.misalignment[a][2, place],
                own.uncertainty[a][2, head[0]], s[2, place], change[2, place],
            ]  # fmt: skip
            assert table[head] == pytest.approx([float(v) for v in values], abs=6e-4)
        assert f"{own.nats[a].sum():.2f}".replace("-", "−") in tab.text("#nats-note")
        assert tab.text("#written tr.here td") == f"{alpha:g}"

    first = edit.heads[0][0]
    require(edit.alpha, edit.strength.beta, first, 0)
    colours = "[...document.querySelectorAll('.token .text')].map(e => e.style.background)"
    before = tab.run(colours)
    tab.slide("#alpha", "0")
    require(0.0, edit.strength.beta, first, 0)
    assert tab.run(colours) != before
    tab.slide("#beta", "1")
    require(0.0, 1.0, first, 0)
    tab.slide("#layer", "4")
    require(0.0, 1.0, 4, 0)
    tab.slide("#depth", "1")
    require(0.0, 1.0, 4, 1)
    tab.require_quiet(path)


def test_the_page_follows_keys_and_clicks(tab, record, tmp_path):
    path = record.save(tmp_path / "page.html")
    tab.open(path)
    tab.click('[data-token="1"]')
    tab.key("ArrowRight")
    assert tab.run("document.activeElement.dataset.token") == "2"
    assert tab.run("document.activeElement.getAttribute('aria-pressed')") == "true"
    tab.key("End")
    last = len(record.answers[0].strings)
    assert f"token {last} of {last}" in tab.text("#readout")
    tab.key("Home")
    assert "token 1 of" in tab.text("#readout")
    layer = record.edit.heads[-1][0]
    tab.click(f'.head[data-row="{len(record.edit.heads) - 1}"]')
    assert tab.text("#layer-value").startswith(str(layer))
    tab.click("#after")
    assert "Incorrect" in tab.text("#sentence-title")
    tab.slide("#scope", "layer")
    tab.slide("#layer", "4")
    assert set(tab.texts(".token .value")) == {NONE}
    for quantity in ("risk", "doubt", "change", "nats", "gain"):
        tab.slide("#quantity", quantity)
    tab.require_quiet(path)


@pytest.mark.parametrize("count", [1, 11, 200])
def test_text_is_shown_as_typed_and_never_run(tab, count, tmp_path):
    strings = [HOSTILE[n % len(HOSTILE)] for n in range(count)]
    text = page(made(strings), HOSTILE[1])
    assert "<img" not in text
    assert text.count("</script>") == 4  # what all share, the answer, it under the edit, the script
    path = tmp_path / "hostile.html"
    path.write_text(text, encoding="utf-8")
    tab.open(path)
    assert tab.run("window.broken") is None
    assert tab.run("document.querySelectorAll('img, main script').length") == 0
    shown = tab.texts(".token .text")
    assert shown[0] == HOSTILE[0]
    if count >= len(HOSTILE):
        assert shown[:11] == [
            *HOSTILE[:4], "␣⏎", "שלום", "é🙂", "∅", "␀\u2039U+202E\u203a", "$x$", "\ufffd",
        ]  # fmt: skip
    assert tab.text("h1") == HOSTILE[1]
    assert HOSTILE[0] in tab.text("#answer option")
    tab.click(f'[data-token="{count - 1}"]')
    for width in (600, 1300):
        tab.look(width)
        assert tab.run("document.documentElement.scrollWidth") <= width
    tab.require_quiet(path)


def test_rows_and_columns_of_the_graph_have_their_tokens(tab, tmp_path):
    strings = [" a", "b\n", "a token that is too long to stand here", "<i>"]
    path = made(strings).save(tmp_path / "page.html")
    tab.open(path)
    labels = ["␣a", "b⏎", "a token that is…", "<i>"]
    assert tab.texts("#graph-labels .label[data-token]") == labels
    assert tab.texts("#graph-labels .label[transform]") == labels
    edges = "(e => e.getBoundingClientRect())(document.querySelector({!r})).{}"
    left = tab.run(edges.format("#graph", "left"))
    assert tab.run(edges.format('.label[data-token="2"]', "right")) <= left
    tab.click('.label[data-token="2"]')
    assert tab.text(".token.chosen .text") == strings[2]
    assert tab.text(".label.chosen") == labels[2]
    y = tab.run(edges.format('.label[data-token="1"]', "top")) + 6
    for kind in ("mousePressed", "mouseReleased"):
        tab.send("Input.dispatchMouseEvent", type=kind, x=left + 5, y=y, button="left",
                   clickCount=1)  # fmt: skip
    assert tab.text(".token.chosen .text") == "b⏎"
    tab.look(420)
    assert tab.run("document.documentElement.scrollWidth") <= 420
    tab.require_quiet(path)


def test_a_crowded_graph_labels_every_so_many_tokens(tab, tmp_path):
    path = made([f" word{n}" for n in range(120)]).save(tmp_path / "page.html")
    tab.open(path)
    tops = tab.run(
        "[...document.querySelectorAll('.label[data-token]')]"
        ".map(e => e.getBoundingClientRect().top)"
    )
    assert 20 <= len(tops) <= 40
    assert min(b - a for a, b in pairwise(tops)) >= 12
    tab.click('[data-token="7"]')
    assert tab.text(".label.chosen") == "␣word7"


def test_the_page_says_what_its_numbers_are(tab, record, tmp_path):
    tab.open(record.save(tmp_path / "page.html"))
    value = float(record.change(0, record.edit.alpha).mean(dim=1)[0])
    told = f"α·σ·s {value:.3f}".replace("-", "−")
    assert f"{told} added along θ (units of z)" in tab.text("#readout")
    notes = tab.text("#notes")
    assert "p̂ is fitted to tell, among the tokens of incorrect answers," in notes
    assert "will be misaligned" not in notes


def test_one_layer_and_missing_values_are_drawn(tab, tmp_path):
    record = made(["a", "b"], layers=1, heads=1, edited=((0, 0),))
    own = record.answers[0]
    nothing = replace(
        own, misalignment=own.misalignment * math.nan, reached=torch.tensor([False, True])
    )
    path = replace(record, answers=(nothing,)).save(tmp_path / "one.html")
    tab.open(path)
    assert tab.texts(".token .value")[0] == NONE
    tab.slide("#quantity", "risk")
    assert tab.texts(".token .value") == [NONE, NONE]
    tab.require_quiet(path)


def test_a_large_page_is_small_and_draws_only_the_answer_that_is_looked_at(tab, tmp_path):
    heads = tuple((2 * n, n) for n in range(16))
    strings = [f" word{n}" for n in range(60)]
    record = made(strings, layers=32, heads=32, edited=heads, answers=50)
    path = record.save(tmp_path / "large.html")
    assert path.stat().st_size < BYTES
    tab.open(path)
    assert tab.run("document.querySelectorAll('*').length") < ELEMENTS
    assert len(tab.texts(".token")) == 60
    assert len(tab.texts("#answer option")) == 50
    tab.require_quiet(path)


def test_the_widget_follows_its_knobs(record):
    box = widget(record)
    knobs = {knob.description: knob for knob in box.children[0].children}
    figure = box.children[1]
    number = 1
    knobs["answer"].value = number
    own = record.answers[number]

    def require(alpha, beta, layer, turn, token):
        s = record.strengths(number, alpha, beta)
        for place, layer_shown in enumerate(record.edit.layers):
            own_heads = [k for k, (at, _) in enumerate(record.edit.heads) if at == layer_shown]
            expected = s[:, own_heads].mean(dim=1)
            assert np.allclose(figure.data[0].z[place], expected, atol=1e-5)
        assert np.allclose(figure.data[1].y, own.graphs[turn, layer, token])
        (at, head), *_ = record.edit.heads
        assert figure.data[2].z[at][head] == pytest.approx(float(s[token, 0]), abs=1e-5)

    first = record.edit.heads[0][0]
    require(record.edit.alpha, record.edit.strength.beta, first, 0, 0)
    knobs["factor α"].value = 0.5
    knobs["weight β of p̂"].value = 1.0
    require(0.5, 1.0, first, 0, 0)
    knobs["layer of the graph"].value = 4
    knobs["rounds of propagation"].value = 1
    knobs["token"].value = 2
    require(0.5, 1.0, 4, 1, 2)
    clicked = type("Points", (), {"point_inds": [(0, 1)]})
    figure.data[0]._dispatch_on_click(clicked, None)
    assert knobs["token"].value == 1
    for quantity in knobs["colour"].options:
        knobs["colour"].value = quantity
    assert "change" in figure.layout.annotations[0].text


def test_the_widget_runs_the_model_where_it_has_one(hearsay, record):
    box = widget(record, hearsay)
    knobs = {knob.description: knob for knob in box.children[0].children}
    knobs["factor α"].value = 0.75
    knobs["weight β of p̂"].value = 0.0
    used = replace(record.edit, alpha=0.75, strength=Strength(beta=0.0))
    expected = rerun(hearsay, used, record.answers[0]).strengths(0, 0.75)
    (at, head), *_ = record.edit.heads
    shown = box.children[1].data[2].z[at][head]
    assert shown == pytest.approx(float(expected[0, 0]), abs=1e-5)


def test_the_widget_shows_text_as_typed():
    figure = widget(made(HOSTILE)).children[1]
    assert "<script" not in figure.to_json().replace("\\u003c", "<")
    assert "&lt;script&gt;" in figure.layout.title.text


def test_a_widget_without_its_packages_names_the_extra(as_shipped, record, edit, monkeypatch):
    with pytest.raises(WorkbenchError, match="an edit without a model"):
        record.widget(edit=edit)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(WorkbenchError, match=r"'\.\[lab\]'"):
        record.widget()
    assert len(empty().data) == 3


def test_the_command_writes_the_page_of_a_saved_edit(edit, tmp_path, capsys):
    edit.save(tmp_path / "edit")
    rows = [
        {"question": f"Who wrote {HOSTILE[0]}?", "correct_answers": ["Bram Stoker."],
         "incorrect_answers": ["Mary Shelley."]}
    ]  # fmt: skip
    data = tmp_path / "mine.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "out.html"
    status = cli.main([
        "explore", "--edit", str(tmp_path / "edit"), "--data", str(data), "--out", str(out),
        "--alphas", "0", "1", "--answers", "own",
    ])  # fmt: skip
    assert status == 0
    assert str(out) in capsys.readouterr().out
    assert "Bram" in out.read_text()


def test_the_command_fits_on_one_half_and_shows_the_other(few, tmp_path):
    chosen = few.choose(range(12))
    data = write_questions(tmp_path / "mine.jsonl", chosen)
    record = explored("hearsay", data, questions=3, heads=4, alphas=(), alpha=1.0, answers="own")
    assert record.alphas == (1.0,)
    assert len(record.edit.heads) == 4
    held_out = {question.question for question in chosen.folds(2, 0)[0].test}
    shown = {own.question for own in record.answers}
    assert len(shown) == 3
    assert shown <= held_out


def test_long_titles_leave_room_for_the_figure():
    figure = widget(made([" word"] * 200)).children[1]
    assert len(figure.data[0].x) == 200
    assert figure.layout.margin.t < figure.layout.height / 3
    assert "…" in figure.layout.title.text


def test_what_a_widget_sends_is_json(record):
    """Heads that are not edited hold NaN, which JSON does not know."""
    figure = widget(record).children[1]
    assert None in np.asarray(figure.data[2].z).tolist()[0]
    for number in (0, 2):
        json.dumps([np.asarray(row).tolist() for row in figure.data[number].z], allow_nan=False)
