"""Contrastive activation addition: planted directions, its formula, and fits on hearsay."""

import pytest
import torch

from workbench.errors import WorkbenchError
from workbench.methods import states as states_module
from workbench.methods.caa import AddedVector, ContrastiveAddition, auroc, choose_layer
from workbench.methods.states import answer_pairs, pair_states
from workbench.models.identity import identify, shape_of
from workbench.models.passes import attached, forward

WIDTH = 160


@pytest.fixture(scope="module")
def fold(few):
    return few.folds(2, seed=0)[0]


def planted(questions, layer, direction):
    """In place of `answer_states`: noise, and at one layer ± a direction by the answer's label."""
    truth = {(q.question, a): (1 if right else -1)
             for q in questions for a, right in zip(q.answers, q.labels, strict=True)}  # fmt: skip

    def states(model, answers, places, **_):
        sign = torch.tensor([truth[answer] for answer in answers], dtype=torch.float32)
        found = []
        for _, own in places:
            draw = torch.Generator().manual_seed(own)
            noise = torch.randn(len(answers), WIDTH, generator=draw)
            shift = sign[:, None] * direction if own == layer else 0.0
            found.append(noise + shift)
        return found

    return states


@pytest.fixture
def direction():
    return 6 * torch.nn.functional.normalize(torch.arange(WIDTH).float().cos(), dim=0)


def test_a_planted_direction_and_its_layer_are_found(hearsay, fold, direction, monkeypatch):
    monkeypatch.setattr(states_module, "answer_states", planted(fold.train, 3, direction))
    edit = ContrastiveAddition().fit(hearsay, fold.train, progress=False)
    assert edit.places == (("resid_post", 3),)
    assert (edit.vector[0] - 2 * direction).norm() < 0.25 * (2 * direction).norm()
    assert torch.cosine_similarity(edit.vector[0], direction, dim=0) > 0.97
    given = ContrastiveAddition(layer=3).fit(hearsay, fold.train, progress=False)
    assert torch.equal(given.vector, edit.vector)
    shuffled = ContrastiveAddition(layer=3, shuffle_labels=True)
    control = shuffled.fit(hearsay, fold.train, progress=False).vector[0]
    assert abs(float(torch.cosine_similarity(control, direction, dim=0))) < 0.4
    assert control.norm() < edit.vector.norm() / 2


def test_validation_questions_choose_the_layer_and_all_questions_fit_v():
    held = torch.tensor([False, False, True])
    mirrored = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-7.0, 1.0]])  # told wrongly where held back
    good = torch.tensor([[0.0, 2.0], [0.0, 4.0], [0.0, 9.0]])
    zero = torch.zeros(3, 2)
    best, vector = choose_layer([(mirrored, zero), (good, zero), (good, zero)], held)
    assert best == 1
    assert vector.tolist() == [0.0, 5.0]


def test_auroc_counts_ties_half():
    found = auroc(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 0.0]))
    assert found == pytest.approx((1 + 1.5 + 2) / 6)


def test_v_is_the_mean_over_pairs_of_means_over_answer_tokens(hearsay, fold):
    from workbench.models.prompts import encode

    question = fold.train.choose(range(2))
    edit = ContrastiveAddition(layer=2, alpha=1.5).fit(hearsay, question, progress=False)
    seen = []
    for pair in answer_pairs(question):
        for answer in (pair.positive, pair.negative):
            encoded = encode(hearsay, pair.question, answer)
            tokens = torch.tensor([encoded.tokens])
            look = {("resid_post", 2): lambda x, e=encoded: seen.append(x[0, e.start :].mean(0))}
            with attached(hearsay, look):
                forward(hearsay, tokens, torch.ones_like(tokens))
    wanted = (torch.stack(seen[::2]) - torch.stack(seen[1::2])).mean(0)
    assert torch.allclose(edit.vector[0], wanted, atol=1e-3)
    state = torch.randn(4, WIDTH)
    assert torch.allclose(edit.change(0, state), state + 1.5 * wanted, atol=1e-2)
    assert torch.equal(edit.scaled(0.0).change(0, state), state)
    unit = ContrastiveAddition(layer=2, normalised=True).fit(hearsay, question, progress=False)
    assert torch.allclose(unit.vector, edit.vector / edit.vector.norm(), atol=1e-6)


def test_a_fit_does_not_depend_on_batches(hearsay, fold):
    edit = ContrastiveAddition(alpha=2.0).fit(hearsay, fold.train, progress=False)
    assert edit.settings["method"] == "caa"
    again = ContrastiveAddition(alpha=2.0, batch_size=7).fit(hearsay, fold.train, progress=False)
    assert again.places == edit.places
    assert torch.allclose(again.vector, edit.vector, atol=1e-3)


def test_answers_of_several_pairs_are_run_once(hearsay, few, monkeypatch):
    run = []

    def states(model, answers, places, **_):
        run.extend(answers)
        return [torch.arange(len(answers)).float()[:, None]]

    monkeypatch.setattr(states_module, "answer_states", states)
    pairs = answer_pairs(few)
    ((positive, negative),) = pair_states(hearsay, pairs, [("resid_post", 0)], style="bare")
    assert len(run) == len(set(run)) == sum(len(q.answers) for q in few)
    named = [(run[int(a)][1], run[int(b)][1]) for a, b in zip(positive, negative, strict=True)]
    assert named == [(pair.positive, pair.negative) for pair in pairs]


def test_what_is_no_setting_is_refused(hearsay, fold, as_shipped):
    for settings in (
        {"layer": -1}, {"layer": 1.0}, {"normalised": 1}, {"validation_share": 0.0},
        {"alpha": float("nan")},
    ):  # fmt: skip
        with pytest.raises(WorkbenchError, match=next(iter(settings))):
            ContrastiveAddition(**settings)
    with pytest.raises(WorkbenchError, match="layer=5 of 5 layers"):
        ContrastiveAddition(layer=shape_of(hearsay).layers).fit(hearsay, fold.train)
    with pytest.raises(WorkbenchError, match="instead of questions"):
        ContrastiveAddition().fit(hearsay, fold)
    with pytest.raises(WorkbenchError, match="vector of shape"):
        AddedVector(
            places=(("resid_post", 0),), vector=torch.ones(2, WIDTH), alpha=1.0,
            model=identify(hearsay),
        )  # fmt: skip
