"""CLAS: the sign of the strength is fitted to what the state says of the question."""

from dataclasses import replace

import pytest
import torch

from tests.planted import planted_model, questions, towards
from workbench.editing.added_vectors import AddedVector
from workbench.editing.gates import Gated
from workbench.editing.token_scores import score_tokens_under
from workbench.errors import WorkbenchError
from workbench.methods.by_gradient import changed, log_probabilities, preferences
from workbench.methods.clas import ContextualLinear, fit_gate
from workbench.models.identity import identify
from workbench.models.prompts import encode


@pytest.fixture(scope="module")
def model():
    return planted_model()


@pytest.fixture(scope="module")
def inner(model):
    layers = identify(model).shape.layers
    return AddedVector(
        places=(("resid_post", layers - 1),), vector=towards(model)[None], alpha=1.0,
        model=identify(model),
    )  # fmt: skip


def share_right(model, asked, edit):
    encoded = [encode(model, q.question, a) for q in asked for a in q.answers]
    (nats,) = score_tokens_under(model, encoded, [edit])
    total = torch.stack([own.sum() for own in nats]).view(-1, 2)
    return float((total[:, 0] > total[:, 1]).float().mean())


@pytest.mark.parametrize("objective", ["preference", "likelihood", "truth_per_nat"])
def test_a_strength_that_the_question_decides_is_found(model, inner, objective):
    """One vector, which helps with half of the questions and harms with the other half."""
    train, held = questions(swapped=("my", "some"))
    method = ContextualLinear(objective=objective, epochs=40, rate=0.05)
    gate = fit_gate(model, method.goal(model, train), inner, method)
    edit = Gated.around(inner, gate)
    assert share_right(model, held, None) < 0.8
    assert share_right(model, held, edit) > 0.9
    even = edit.evened(torch.tensor([3.0]))
    assert share_right(model, held, even) < 0.8


def test_with_shuffled_labels_it_is_not(model, inner):
    train, held = questions(swapped=("my", "some"))
    shares = []
    for seed in range(4):
        method = ContextualLinear(
            objective="preference", epochs=40, rate=0.05, shuffle_labels=True, seed=seed
        )
        gate = fit_gate(model, method.goal(model, train), inner, method)
        shares.append(share_right(model, held, Gated.around(inner, gate)))
    assert sum(shares) / 4 < 0.75


def test_what_is_fitted_is_what_scoring_does(model, inner):
    train, _ = questions()
    method = ContextualLinear(epochs=2, rate=0.1)
    gate = fit_gate(model, method.goal(model, train), inner, method)
    edit = Gated.around(inner, gate)
    encoded = [p.chosen for p in preferences(model, train, method)]
    (scored,) = score_tokens_under(model, encoded, [edit])
    changes = {edit.places[0]: lambda x: edit.change(0, x.flatten(0, 1)).view(x.shape)}
    with torch.no_grad():
        found = log_probabilities(model, encoded, changed(model, changes))
    assert torch.allclose(found, torch.stack([own.sum() for own in scored]), atol=1e-3)
    assert gate.weight.abs().max() > 0


def test_a_fit_from_directions_of_its_own(hearsay, few):
    train = few.choose(range(12))
    method = ContextualLinear(epochs=1, pairs=1)
    edit = method.fit(hearsay, train, progress=False)
    assert torch.allclose(edit.inner.vector.norm(dim=1), torch.ones(5))
    assert edit.settings["method"] == "clas"
    again = method.fit(hearsay, train, progress=False)
    assert torch.equal(edit.gate.weight, again.gate.weight)
    other = replace(method, seed=1).fit(hearsay, train, progress=False)
    assert not torch.equal(edit.gate.weight, other.gate.weight)
    some = replace(method, layers=(3, 1)).fit(hearsay, train, progress=False)
    assert some.places == (("resid_post", 3), ("resid_post", 1))
    assert not any(
        p.requires_grad or p.grad is not None for p in hearsay.original_model.parameters()
    )


def test_what_does_not_fit_is_refused(hearsay, few, as_shipped):
    for wrong in ({"objective": "likely"}, {"epochs": 0}, {"pairs": 0}, {"rate": 2.0}):
        with pytest.raises(WorkbenchError):
            ContextualLinear(**wrong)
    for layers in ((9,), (1, 1), ()):
        with pytest.raises(WorkbenchError):
            ContextualLinear(layers=layers).fit(hearsay, few.choose(range(4)), progress=False)


def test_without_context_a_constant_is_fitted(model, inner):
    """Which helps with all questions or with none: half of them are harmed by any."""
    method = ContextualLinear(objective="preference", epochs=40, rate=0.05, contextual=False)
    train, held = questions(swapped=("my", "some"))
    gate = fit_gate(model, method.goal(model, train), inner, method)
    assert torch.equal(gate.weight, torch.zeros_like(gate.weight))
    assert share_right(model, held, Gated.around(inner, gate)) < 0.8
    train, held = questions()
    gate = fit_gate(model, method.goal(model, train), inner, method)
    assert float(gate.bias[0, 0]) > 0.5
    assert share_right(model, held, Gated.around(inner, gate)) > 0.95
