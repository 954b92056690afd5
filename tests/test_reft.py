"""ReFT-r1: one direction, fitted by the likelihood of correct answers, makes them likelier."""

from dataclasses import replace

import pytest
import torch

from tests.planted import planted_model, questions, towards
from tests.test_clas import share_right
from workbench.errors import WorkbenchError
from workbench.methods import reft
from workbench.methods.by_gradient import log_probabilities, preferences
from workbench.methods.reft import RankOneReFT, Steered
from workbench.models.identity import identify


@pytest.fixture(scope="module")
def model():
    return planted_model()


def fitted(model, **more):
    last = identify(model).shape.layers - 1
    method = RankOneReFT(layer=last, epochs=60, rate=0.1, **more)
    return method.fit(model, questions()[0], progress=False)


def test_the_planted_direction_is_found(model):
    edit = fitted(model)
    held = questions()[1]
    cosine = torch.cosine_similarity(edit.vector[0], towards(model), dim=0)
    assert float(cosine) > 0.5
    assert share_right(model, held, None) < 0.8
    assert share_right(model, held, edit) > 0.95


def test_with_shuffled_labels_it_is_not(model):
    """Half of the answers that it is to make likely are then the other one."""
    edit = fitted(model, shuffle_labels=True)
    assert float(torch.cosine_similarity(edit.vector[0], towards(model), dim=0)) < 0.4


def test_where_no_state_lies_it_begins_again(model, monkeypatch, as_shipped):
    """With this seed the first direction is pushed out of all states, where no gradient is."""
    last = identify(model).shape.layers - 1
    method = RankOneReFT(layer=last, epochs=6, rate=0.5, sparsity=3.0, largest=1, seed=2)
    edit = method.fit(model, questions()[0], progress=False)
    assert float(edit.vector.norm()) > 1
    monkeypatch.setattr(reft, "BEGINNINGS", 1)
    with pytest.raises(WorkbenchError, match="no answer's states lie"):
        method.fit(model, questions()[0], progress=False)


def test_what_a_pass_adds_by_hand(model):
    """The mean of the k largest projections from the last prompt token on, and what is left."""
    own = [p.chosen for p in preferences(model, questions()[0], RankOneReFT(), 1)][:3]
    place = ("resid_post", 0)
    steered = Steered(torch.randn(identify(model).shape.d_model), 2)
    with torch.no_grad():
        log_probabilities(model, own, steered.around(model, place))
        alone = [
            (
                log_probabilities(model, [one], steered.around(model, place)),
                steered.lengths[-1].item(),
            )
            for one in own
        ]
        together = log_probabilities(model, own, steered.around(model, place))
    assert torch.allclose(torch.cat([nats for nats, _ in alone]), together, atol=1e-4)
    assert steered.lengths[-1].tolist() == pytest.approx([length for _, length in alone], abs=1e-5)
    state = torch.tensor([[[0.0, 1.0], [3.0, 0.0], [1.0, 0.0], [2.0, 7.0], [-4.0, 1.0]]])
    where = torch.tensor([[False, True, True, True, True]])
    two = Steered(torch.tensor([2.0, 0.0]), 2)
    moved = two._hook(where)(state)
    assert [own.tolist() for own in two.lengths] == [[2.5]]
    assert [own.tolist() for own in two.rest] == [[0.25]]
    assert (moved - state)[0, :, 0].tolist() == [0.0, 2.5, 2.5, 2.5, 2.5]
    assert torch.equal(moved[..., 1], state[..., 1])


def test_a_fit_chooses_its_layer_and_repeats(hearsay, few):
    train = few.choose(range(12))
    method = RankOneReFT(epochs=1, pairs=1)
    edit, again = (method.fit(hearsay, train, progress=False) for _ in range(2))
    assert torch.equal(edit.vector, again.vector)
    other = replace(method, seed=1).fit(hearsay, train, progress=False)
    assert not torch.equal(edit.vector, other.vector)
    assert edit.settings["method"] == "reft_r1"


def test_what_does_not_fit_is_refused(hearsay, few, as_shipped):
    for wrong in ({"largest": 0}, {"layer": -1}, {"rate": 0.0}, {"sparsity": -1.0}):
        with pytest.raises(WorkbenchError):
            RankOneReFT(**wrong)
    with pytest.raises(WorkbenchError, match="0 to 4"):
        RankOneReFT(layer=5).fit(hearsay, few.choose(range(4)), progress=False)


def test_padding_is_no_state(hearsay, few):
    """Answers of different lengths: what is fitted does not depend on what stands beside them."""
    train = few.choose(range(12))
    one, many = (
        RankOneReFT(layer=2, epochs=1, pairs=2, batch_size=size).fit(hearsay, train, progress=False)
        for size in (1, 64)
    )
    assert torch.allclose(one.vector, many.vector, rtol=1e-4)
    answers = [p.chosen for p in preferences(hearsay, train, RankOneReFT(), 3)]
    assert len({len(own.tokens) for own in answers}) > 3
    direction, place = (
        torch.randn(160, generator=torch.Generator().manual_seed(0)),
        ("resid_post", 2),
    )
    together, alone = Steered(direction, 8), Steered(direction, 8)
    with torch.no_grad():
        log_probabilities(hearsay, answers, together.around(hearsay, place))
        for own in sorted(answers, key=lambda own: -len(own.tokens)):
            log_probabilities(hearsay, [own], alone.around(hearsay, place))
    assert len(together.lengths) < len(alone.lengths)
    for one, other in ((together.lengths, alone.lengths), (together.rest, alone.rest)):
        assert torch.allclose(torch.cat(one), torch.cat(other), rtol=1e-3, atol=1e-4)
