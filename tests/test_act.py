"""ACT: questions whose truth lies in opposite directions are told apart, and both edited."""

from dataclasses import replace

import pytest
import torch

from workbench.editing.attaching import edited
from workbench.editing.generation import generate
from workbench.errors import WorkbenchError
from workbench.methods.act import AdaptiveSteering, differences, shuffled_within
from workbench.methods.controls import evened, strength_sample
from workbench.models.identity import identify

HEAD = (1, 2)


def planted(seed=0, questions=60):
    """z in which, at one head, truth is +e₀ for half of the questions and −e₀ for the others."""
    draw = torch.Generator().manual_seed(seed)
    question = torch.arange(questions).repeat_interleave(4)
    label = torch.tensor([1, 1, 0, 0]).repeat(questions)
    z = torch.randn(len(label), 2, 3, 8, generator=draw) / 2
    kind = question % 2 * 2 - 1
    z[:, HEAD[0], HEAD[1], 0] += kind * (2.0 * label - 1)
    z[:, HEAD[0], HEAD[1], 1] += 4 * kind  # so that the two kinds lie apart
    return z, question, label, kind


def probed(clusters, label=None, seed=0):
    z, question, own, kind = planted(seed)
    label = own if label is None else label(question, own)
    method = AdaptiveSteering(clusters=clusters, heads=1)
    cluster = method._clusters(differences(z, question, label))
    return [method._probed(z, question, label, cluster == k) for k in range(clusters)], kind


def test_both_directions_are_found_at_the_planted_head():
    found, _ = probed(2)
    for own in found:
        best = divmod(int(own.accuracy.flatten().argmax()), 3)
        assert best == HEAD
        assert float(own.accuracy[HEAD]) > 0.9
    first, second = (own.direction[HEAD] for own in found)
    assert float(torch.cosine_similarity(first, second, dim=0)) < -0.5
    assert abs(float(first[0])) > 0.7


def test_one_cluster_sees_none_of_it():
    (only,), _ = probed(1)
    assert float(only.accuracy[HEAD]) < 0.75


def test_with_shuffled_labels_there_is_nothing():
    found, _ = probed(1, lambda question, label: shuffled_within(question, label, 0))
    assert float(found[0].accuracy.max()) < 0.8
    question, label = torch.arange(20).repeat_interleave(4), torch.tensor([1, 1, 0, 0]).repeat(20)
    shuffled = shuffled_within(question, label, 0)
    assert torch.equal(shuffled.view(-1, 4).sum(dim=1), torch.full((20,), 2))
    assert not torch.equal(shuffled, label)
    assert torch.equal(shuffled, shuffled_within(question, label, 0))


def test_differences_by_hand():
    z = torch.tensor([[1.0], [3.0], [10.0], [5.0], [2.0]])
    found = differences(z, torch.tensor([0, 0, 0, 1, 1]), torch.tensor([1, 1, 0, 1, 0]))
    assert found.tolist() == [[-8.0], [3.0]]


@pytest.fixture(scope="module")
def edit(hearsay, few):
    method = AdaptiveSteering(heads=3, clusters=2, alpha=2.0)
    return method.fit(hearsay, few.choose(range(30)), progress=False)


def test_a_change_by_hand(edit):
    shape = edit.model.shape
    state = torch.randn(5, shape.heads, shape.d_head)
    number = 0
    wanted = state.clone()
    for row, (layer, head) in enumerate(edit.heads):
        if layer == edit.places[number][1]:
            doubt = (state[:, head] @ edit.coefficient[row] + edit.intercept[row]).sigmoid()
            step = edit.alpha * edit.spread[row] * (edit.base + doubt)
            wanted[:, head] += step[:, None] * edit.direction[row]
    assert torch.allclose(edit.change(number, state), wanted, atol=1e-5)
    assert torch.allclose(edit.direction.norm(dim=1), torch.ones(len(edit.heads)))
    towards = torch.linalg.vecdot(edit.direction, edit.coefficient)
    assert bool((towards < 0).all()), "away from what the probe finds incorrect"


def test_its_even_twin_has_its_mean_strength(hearsay, few, edit):
    sample = strength_sample(hearsay, edit, few.choose(range(6)), "bare")
    assert sample.shape[1] == len(edit.heads)
    twin = evened(edit, sample)
    state = torch.randn(4, edit.model.shape.heads, edit.model.shape.d_head)
    moved = twin.change(0, state) - state
    assert torch.allclose(moved[0], moved[1], atol=1e-5)
    rows, heads = edit.rows_of(0)
    wanted = torch.zeros_like(moved[0])
    for place, (row, head) in enumerate(zip(rows, heads, strict=True)):
        mean = sample[:, place].mean()
        wanted[head] += edit.alpha * edit.spread[row] * mean * edit.direction[row]
    assert torch.allclose(moved[0], wanted, atol=1e-5)
    with edited(hearsay, twin) as trace:
        generate(hearsay, f"Q: {few[0].question}\nA:", max_new_tokens=4, stop=())
    gates = trace.gate[:, list(edit.layers)]
    assert torch.allclose(gates, gates[:1].expand_as(gates))


def test_what_does_not_fit_is_refused(hearsay, few, edit, as_shipped):
    train = few.choose(range(6))
    for wrong in ({"heads": 41}, {"clusters": 7}):
        with pytest.raises(WorkbenchError):
            AdaptiveSteering(**wrong).fit(hearsay, train, progress=False)
    with pytest.raises(WorkbenchError, match="rank heads"):
        AdaptiveSteering(heads=2, clusters=6).fit(hearsay, train, progress=False)
    with pytest.raises(WorkbenchError):
        replace(edit, heads=edit.heads[:-1])
    assert identify(hearsay).shape.layers == 5
