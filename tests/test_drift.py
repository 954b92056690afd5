"""Drift: what is told of every token of a long answer is what the edit and the model did there."""

import numpy as np
import pandas as pd
import pytest
import torch

from tests.architectures import hf_model, tokenizer
from workbench.analysis.drifting import drift, drifts, repeated
from workbench.editing.added_vectors import AddedVector
from workbench.editing.attaching import edited
from workbench.editing.gates import Gate, Gated
from workbench.editing.generation import generate
from workbench.editing.interventions import Positions
from workbench.errors import WorkbenchError
from workbench.methods.prompting import Prompting
from workbench.models.identity import identify
from workbench.models.loading import load_model
from workbench.models.passes import forward
from workbench.models.prompts import encode
from workbench.plots.drift import drift as drawn

ASKED = ["What is the a?", "What is the of?", "What is my b?"]


@pytest.fixture(scope="module")
def model():
    return load_model(hf_model("llama"), tokenizer(bos=True))


@pytest.fixture(scope="module")
def edit(model):
    shape = identify(model).shape
    draw = torch.Generator().manual_seed(5)
    inner = AddedVector(
        places=(("resid_post", 1),), vector=2 * torch.randn(1, shape.d_model, generator=draw),
        alpha=1.0, model=identify(model), settings={"style": "bare"},
    )  # fmt: skip
    weight = torch.randn(1, 1, shape.d_model, generator=draw) / 4
    return Gated.around(inner, Gate(weight, torch.zeros(1, 1)))


@pytest.fixture(scope="module")
def table(model, edit):
    edits = {"no edit": None, "gated": edit, "even": edit.inner}
    return drift(model, ASKED, edits, tokens=24)


def of(table, name, quantity, question=ASKED[0]):
    own = table[(table["edit"] == name) & (table["quantity"] == quantity)]
    return own[own["question"] == question].sort_values("position")["value"].to_numpy()


def test_what_is_told_is_what_passes_say(model, edit, table):
    prompt = encode(model, ASKED[0], None)
    written = generate(model, [prompt], edit=edit, max_new_tokens=24, stop=())[0]
    tokens = torch.tensor([[*prompt.tokens, *written.tokens]])
    start = len(prompt.tokens)
    logs = []
    for one in (edit, None):
        with edited(model, one, start=start - 1, record=False):
            logits = forward(model, tokens, torch.ones_like(tokens))[0][0]
        logs.append(logits[start - 1 : -1].log_softmax(dim=-1))
    own, plain = logs
    entropy = -(own.exp() * own).sum(dim=-1)
    kl = (own.exp() * (own - plain)).sum(dim=-1)
    assert np.allclose(of(table, "gated", "entropy"), entropy, atol=1e-4)
    assert np.allclose(of(table, "gated", "kl"), kl, atol=1e-4)
    assert kl.max() > 1e-3
    with edited(model, edit) as trace:
        generate(model, [prompt], max_new_tokens=24, stop=())
    assert np.allclose(of(table, "gated", "gate"), trace[0].gate[:, 1][:24], atol=1e-5)
    assert np.allclose(of(table, "gated", "moved"), trace[0].moved[:, 1][:24], rtol=1e-4)


def test_what_plays_no_part_is_left_out(table):
    told = table.groupby("edit")["quantity"].agg(set)
    assert told["no edit"] == {"entropy", "repeated"}
    assert told["gated"] == {"entropy", "kl", "repeated", "moved", "gate"}
    assert told["even"] == {"entropy", "kl", "repeated", "moved"}
    length = of(table, "even", "moved")
    assert np.allclose(length, length[0], rtol=1e-4)


def test_runs_that_stood_before():
    assert repeated([1, 2, 3, 4, 1, 2, 3, 4, 5]).tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 0]
    assert repeated([7] * 8).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert repeated([1, 2]).tolist() == [0, 0]


def test_positions_that_are_left_alone_are_told_as_such(model, edit):
    every = edit.inner.at(Positions(every=2))
    told = of(drift(model, ASKED[:1], {"every": every}, tokens=12), "every", "moved")
    assert (told[::2] > 0).all()
    assert (told[1::2] == 0).all()


def test_a_foreword_drifts_too(hearsay, few):
    told = Prompting(shots=2).fit(hearsay, few.choose(range(6)), progress=False)
    asked = [few[9].question]
    found = drift(hearsay, asked, {"prompt": told}, tokens=8)
    assert set(found["quantity"]) == {"entropy", "kl", "repeated"}
    prompt = encode(hearsay, asked[0], None)
    written = generate(hearsay, [prompt], edit=told, max_new_tokens=8, stop=())[0]
    assert len(of(found, "prompt", "kl", asked[0])) == len(written.tokens)


def test_changes_are_of_the_last_quarter_from_the_first(table):
    found = drifts(table).set_index(["edit", "quantity"])
    row = found.loc["gated", "entropy"]
    firsts, lasts = [], []
    for question in ASKED:
        values = of(table, "gated", "entropy", question)
        firsts.append(values[: len(values) // 4].mean())
        lasts.append(values[-(len(values) // 4) :].mean())
    assert row["first"] == pytest.approx(np.mean(firsts))
    assert row["change"] == pytest.approx(np.mean(lasts) - np.mean(firsts))
    assert row["low"] <= row["change"] <= row["high"]
    assert row["questions"] == 3
    planted = pd.DataFrame(
        {"edit": "x", "question": f"q{n}", "position": p, "quantity": "kl", "value": p / 10 + n}
        for n in range(20)
        for p in range(40)
    )
    told = drifts(planted).iloc[0]
    assert (told["low"], told["high"]) == pytest.approx((3.0, 3.0))


def test_the_figure_has_a_line_an_edit_and_a_panel_a_quantity(table):
    figure = drawn(table, bins=6)
    assert [own.name for own in figure.data if own.showlegend] == ["no edit", "gated", "even"]
    lines = [own for own in figure.data if own.line.width == 2]
    assert len(lines) == 3 + 2 + 3 + 2 + 1
    entropy = np.concatenate([of(table, "no edit", "entropy", q)[:4] for q in ASKED])
    assert lines[0].y[0] == pytest.approx(entropy.mean())


def test_what_does_not_fit_is_refused(model, edit, table, as_shipped):
    for asked, edits in (([], {"a": None}), ("one", {"a": None}), (ASKED, {})):
        with pytest.raises(WorkbenchError):
            drift(model, asked, edits, tokens=4)
    with pytest.raises(WorkbenchError, match="tokens"):
        drift(model, ASKED, {"a": None}, tokens=1)
    with pytest.raises(WorkbenchError, match="quantity"):
        drawn(table, ["speed"])
    for wrong in (table.drop(columns="value"), table.iloc[:0]):
        with pytest.raises(WorkbenchError, match="of `drift`"):
            drawn(wrong)
    with pytest.raises(WorkbenchError, match="of `drift`"):
        drifts(table.drop(columns="edit"))


def test_a_first_position_that_is_left_alone_moves_nothing(model, edit):
    late = edit.inner.at(Positions(first=3))
    table = drift(model, ASKED[:2], {"late": late}, tokens=12)
    told = of(table, "late", "moved")
    assert (told[:3] == 0).all()
    assert (told[3:] > 0).all()
    assert len(drifts(table)) == 4
