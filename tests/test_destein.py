"""DeStein: planted directions, its formula, and fits on hearsay."""

import pytest
import torch

from workbench.errors import WorkbenchError
from workbench.methods import states as states_module
from workbench.methods.destein import DeStein, HeadFusion, blend
from workbench.methods.states import answer_pairs
from workbench.models.identity import identify, shape_of
from workbench.models.passes import attached, forward
from workbench.models.prompts import encode

HEADS, WIDTH = 8, 20


@pytest.fixture(scope="module")
def fold(few):
    return few.folds(2, seed=0)[0]


def planted(questions, layer, head, direction):
    """In place of `answer_states`: noise, and in one head ± a direction by the answer's label."""
    truth = {(q.question, a): (1 if right else -1)
             for q in questions for a, right in zip(q.answers, q.labels, strict=True)}  # fmt: skip

    def states(model, answers, places, **_):
        sign = torch.tensor([truth[answer] for answer in answers], dtype=torch.float32)
        found = []
        for _, own in places:
            draw = torch.Generator().manual_seed(own)
            z = torch.randn(len(answers), HEADS, WIDTH, generator=draw)
            if own == layer:
                z[:, head] += sign[:, None] * direction
            found.append(z)
        return found

    return states


def test_a_planted_direction_is_found_and_its_head_weighs_most(hearsay, fold, monkeypatch):
    direction = 3 * torch.nn.functional.normalize(torch.arange(WIDTH).float().sin(), dim=0)
    monkeypatch.setattr(states_module, "answer_states", planted(fold.train, 3, 5, direction))
    edit = DeStein().fit(hearsay, fold.train, progress=False)
    assert torch.cosine_similarity(edit.direction[3, 5], direction, dim=0) > 0.95
    assert edit.weight[3, 5] > 0.95
    others = torch.cat([edit.weight.flatten()[:29], edit.weight.flatten()[30:]])
    assert others.max() < 0.85
    assert others.mean() == pytest.approx(0.5, abs=0.1)
    control = DeStein(shuffle_labels=True).fit(hearsay, fold.train, progress=False)
    assert abs(float(torch.cosine_similarity(control.direction[3, 5], direction, dim=0))) < 0.6
    assert control.weight[3, 5] < 0.75


def test_a_state_computed_by_hand():
    z = torch.tensor([[[3.0, 4.0], [-2.0, 0.0], [0.0, 0.0], [1.0, 1.0], [-5.0, 0.0]]])
    direction = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    strength = torch.tensor([0.5, 0.25, 1.0, 1.0, 0.5])
    toward = torch.tensor([0.6 + 0.5, 0.8])  # along v: λ = 1
    wanted = torch.stack([
        5 * toward / toward.norm(),
        torch.tensor([-2.0, 0.0]),  # against v: λ = 2, −1 + 2 · 0.25 keeps its sign
        torch.zeros(2),  # nothing to turn
        torch.ones(2),  # nowhere to turn
        torch.zeros(2),  # cancelled: −1 + 2 · 0.5
    ])  # fmt: skip
    assert torch.allclose(blend(z, direction, strength)[0], wanted, atol=1e-6)
    assert torch.equal(blend(z, direction, 0 * strength), z)


def test_lengths_are_kept_and_heads_turn_towards_their_direction():
    draw = torch.Generator().manual_seed(0)
    z = torch.randn(50, HEADS, WIDTH, generator=draw) * 30
    direction = torch.nn.functional.normalize(torch.randn(HEADS, WIDTH, generator=draw), dim=-1)
    moved = blend(z, direction, torch.full((HEADS,), 0.3))
    assert torch.allclose(moved.norm(dim=-1), z.norm(dim=-1), rtol=1e-5)
    before, after = (torch.cosine_similarity(x, direction[None], dim=-1) for x in (z, moved))
    assert (after > before).all()
    far = before < -0.3
    gained = after - before
    assert gained[far].mean() > gained[before.abs() < 0.1].mean()  # λ grows against v
    double = blend(z.double(), direction.double(), torch.full((HEADS,), 0.3).double())
    assert torch.allclose(double.float(), moved, atol=1e-3)


def test_v_is_the_mean_over_pairs_of_means_over_last_tokens(hearsay, fold):
    asked = fold.train.choose(range(2))
    edit = DeStein(last_tokens=3).fit(hearsay, asked, progress=False)
    sides = []
    for pair in answer_pairs(asked):
        for answer in (pair.positive, pair.negative):
            encoded = encode(hearsay, pair.question, answer)
            first = max(encoded.start, len(encoded.tokens) - 3)
            tokens = torch.tensor([encoded.tokens])
            look = {("z", 2): lambda z, first=first: sides.append(z[0, first:].mean(0))}
            with attached(hearsay, look):
                forward(hearsay, tokens, torch.ones_like(tokens))
    raw = (torch.stack(sides[::2]) - torch.stack(sides[1::2])).mean(0)
    wanted = torch.nn.functional.normalize(raw, dim=-1)
    assert torch.allclose(edit.direction[2], wanted, atol=1e-3)
    assert torch.allclose(edit.direction.norm(dim=-1), torch.ones(5, HEADS))


def test_a_fit_does_not_depend_on_batches(hearsay, fold):
    edit = DeStein().fit(hearsay, fold.train, progress=False)
    assert edit.places == tuple(("z", layer) for layer in range(5))
    assert (edit.alpha, edit.settings["method"]) == (0.4, "destein")
    assert ((edit.weight >= 0) & (edit.weight <= 1)).all()
    other = DeStein(batch_size=7).fit(hearsay, fold.train, progress=False)
    assert torch.allclose(other.direction, edit.direction, atol=1e-3)


def test_what_is_no_setting_is_refused(hearsay, fold, as_shipped):
    for settings in (
        {"last_tokens": 0}, {"last_tokens": 2.5}, {"validation_share": 1.0}, {"alpha": "0.4"},
    ):  # fmt: skip
        with pytest.raises(WorkbenchError, match=next(iter(settings))):
            DeStein(**settings)
    with pytest.raises(WorkbenchError, match="instead of questions"):
        DeStein().fit(hearsay, fold)
    shape = shape_of(hearsay)
    direction = torch.ones(1, shape.heads, shape.d_head)
    with pytest.raises(WorkbenchError, match="weight of shape"):
        HeadFusion(
            places=(("z", 0),), direction=direction, weight=torch.ones(1, 3), alpha=1.0,
            model=identify(hearsay),
        )  # fmt: skip
    with pytest.raises(WorkbenchError, match="direction with NaN"):
        HeadFusion(
            places=(("z", 0),), direction=direction * float("nan"),
            weight=torch.ones(1, shape.heads), alpha=1.0, model=identify(hearsay),
        )  # fmt: skip
