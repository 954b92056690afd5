"""DSAS: the gate opens where answers are going wrong, and around any method that can be gated."""

import pytest
import torch

from workbench.data.plain import plain_texts
from workbench.editing.gates import Gated
from workbench.errors import WorkbenchError
from workbench.methods.caa import ContrastiveAddition
from workbench.methods.dsas import DynamicScaling, logistic_gate
from workbench.methods.iti import inference_time
from workbench.methods.making import make_method, named
from workbench.methods.states import answer_pairs, pair_states, text_states
from workbench.methods.token_aware import TokenAware
from workbench.models.tokens import tokenize
from workbench.stages.directions import auroc


def apart(seed, count=200, width=40):
    """States of incorrect answers lie along a planted vector, those of correct ones against it."""
    draw = torch.Generator().manual_seed(seed)
    planted = torch.zeros(width)
    planted[3] = 1.0
    noise = torch.randn(2, count, width, generator=draw) * torch.linspace(3, 0.5, width)
    return noise[0] - 3 * planted + 5, noise[1] + 3 * planted + 5


def opened(gate, state):
    weight, bias = gate
    return (state @ weight + bias).sigmoid()


def test_the_planted_difference_opens_the_gate():
    gate = logistic_gate(apart(0), 40, 1.0)
    correct, incorrect = apart(1)
    assert float(opened(gate, incorrect).mean()) > 0.7 > 0.3 > float(opened(gate, correct).mean())
    assert auroc(opened(gate, incorrect), opened(gate, correct)) > 0.85
    assert int(gate[0].abs().argmax()) == 3


def test_without_a_difference_it_is_half_open():
    states = torch.cat(apart(0))
    mixed = states[torch.randperm(len(states), generator=torch.Generator().manual_seed(1))]
    gate = logistic_gate((mixed[:200], mixed[200:]), 8, 1.0)
    found = opened(gate, states)
    assert abs(float(found.mean()) - 0.5) < 0.02
    assert 0.2 < float(found.min()) < float(found.max()) < 0.8


def test_components_are_those_of_a_regression_on_them():
    """The folded weights are scikit-learn's PCA, whitening and logistic regression in a row."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    correct, incorrect = apart(0)
    label = [1] * 200 + [0] * 200
    wanted = make_pipeline(
        PCA(6, whiten=True, svd_solver="full"), LogisticRegression(tol=1e-10, max_iter=1000)
    ).fit(torch.cat([incorrect, correct]).double().numpy(), label)
    state = torch.cat(apart(3))
    found = opened(logistic_gate((correct, incorrect), 6, 1.0), state)
    told = torch.from_numpy(wanted.predict_proba(state.double().numpy())[:, 1]).float()
    assert torch.allclose(found, told, atol=2e-3)


def test_on_hearsay_it_tells_answers_to_other_questions(hearsay, few):
    """At the edited places together; with shuffled labels it does not."""
    train, held = few.choose(range(30)), few.choose(range(30, 40))
    found = {}
    for shuffled in (False, True):
        method = DynamicScaling(
            of=inference_time(heads=6), components=8, shuffle_labels=shuffled, seed=1
        )
        edit = method.fit(hearsay, train, progress=False)
        sides = pair_states(hearsay, answer_pairs(held), edit.places, style="bare")
        gates = [
            torch.stack([edit.gates(n, own).mean(dim=1) for own in side])
            for n, side in enumerate(sides)
        ]
        correct, incorrect = torch.stack(gates).mean(dim=0)
        found[shuffled] = auroc(incorrect, correct)
    assert found[False] > 0.65
    assert found[False] > found[True] + 0.15


def test_neutral_texts_are_left_alone(hearsay, few):
    """Texts that the fit never saw shut the gate, answers open it; shuffled labels do neither."""
    train, held = few.choose(range(30)), few.choose(range(30, 40))
    seen, unseen = plain_texts("hearsay", 60, seed=1), plain_texts("hearsay", 20, seed=2)
    unseen = [text for text in unseen if text not in seen]
    found = {}
    for shuffled in (False, True):
        method = DynamicScaling(neutral=tuple(seen), shuffle_labels=shuffled)
        edit = method.fit(hearsay, train, progress=False)
        answers = pair_states(hearsay, answer_pairs(held), edit.places, style="bare")
        texts = text_states(hearsay, unseen, edit.places)
        found[shuffled] = [
            (
                float(edit.gates(n, alone).mean()),
                *(float(edit.gates(n, own).mean()) for own in side),
            )
            for n, (alone, side) in enumerate(zip(texts, answers, strict=True))
        ]
    for alone, correct, incorrect in found[False]:
        assert alone < 0.1
        assert min(correct, incorrect) > 0.8
    for alone, _, incorrect in found[True]:
        assert abs(incorrect - alone) < 0.3


def test_neutral_texts_change_the_gate_and_not_the_edit(hearsay, few):
    train = few.choose(range(20))
    texts = tuple(plain_texts("hearsay", 30, seed=1))
    plain = DynamicScaling().fit(hearsay, train, progress=False)
    gated = DynamicScaling(neutral=texts).fit(hearsay, train, progress=False)
    assert torch.equal(gated.inner.vector, plain.inner.vector)
    assert not torch.equal(gated.gate.weight, plain.gate.weight)
    one = DynamicScaling(neutral=texts, batch_size=1).fit(hearsay, train, progress=False)
    assert torch.allclose(one.gate.weight, gated.gate.weight, atol=1e-3)


def test_neutral_texts_from_a_file(tmp_path, as_shipped):
    """Settings hold the texts themselves, so that a changed file is another fit."""
    path = tmp_path / "neutral.json"
    path.write_text('["One text.", "Another text."]')
    told = DynamicScaling(neutral=path)
    assert told == DynamicScaling(neutral=["One text.", "Another text."])
    assert told == make_method("dsas", {"neutral": str(path)})
    assert told == make_method("dsas", {"neutral": list(told.neutral)})
    path.write_text('["One text.", "One text."]')
    for wrong, message in (
        (path, "1 of them different"), ("no such file.json", "no such file"),
        ([3], "texts with words"), (["  "], "texts with words"), (None, "texts with words"),
    ):  # fmt: skip
        with pytest.raises(WorkbenchError, match=message):
            DynamicScaling(neutral=wrong)


def test_mean_states_of_texts_are_those_behind_the_first_token(hearsay):
    texts = ["The cook is in the garden.", "A river."]
    place = ("resid_post", 1)
    found = text_states(hearsay, texts, [place], batch_size=2)[0]
    for text, own in zip(texts, found, strict=True):
        tokens = torch.tensor([tokenize(hearsay, text)[0]])
        _, cache = hearsay.run_with_cache(tokens)
        assert torch.allclose(own, cache["blocks.1.hook_resid_post"][0, 1:].mean(dim=0), atol=1e-5)


def test_it_goes_around_what_can_be_gated(hearsay, few):
    train = few.choose(range(20))
    for of in (
        ContrastiveAddition(alpha=2.0), inference_time(heads=3, alpha=5.0),
        make_method("sea", {"keep": 0.99}), make_method("truthx", {"epochs": 1, "modules": 2}),
        DynamicScaling(),
    ):  # fmt: skip
        edit = DynamicScaling(of=of, seed=3, style="inline").fit(hearsay, train, progress=False)
        assert isinstance(edit, Gated)
        assert edit.gate.weight.shape[0] == len(edit.places)
        assert edit.settings["of"]["seed"] == 3
        assert edit.settings["of"]["style"] == "inline"
    with pytest.raises(WorkbenchError, match="strength of its own"):
        DynamicScaling(of=TokenAware(heads=2)).fit(hearsay, train, progress=False)


def test_described_by_tables(as_shipped):
    of = {"kind": "iti", "heads": 4, "alpha": 5.0}
    method = make_method("dsas", {"of": of, "components": 4})
    assert method == DynamicScaling(of=inference_time(heads=4, alpha=5.0), components=4)
    told = named({"kind": DynamicScaling, "of": method.of})
    assert told["kind"] == "dsas"
    assert told["of"]["kind"] == "tae"
    assert make_method("dsas", {"of": told["of"]}).of == method.of
    with pytest.raises(WorkbenchError, match=r"'hedas'.*Did you mean"):
        make_method("dsas", {"of": {"kind": "iti", "hedas": 4}})
    with pytest.raises(WorkbenchError, match="kind of method"):
        make_method("dsas", {"of": {"kind": "itti"}})
    with pytest.raises(WorkbenchError, match="a method"):
        DynamicScaling(of="iti")
