"""Gates: each token gets as much of a change as its gate says; even twins get the mean."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from workbench.editing.added_vectors import AddedVector, as_vectors
from workbench.editing.attaching import edited
from workbench.editing.gates import Gate, Gated
from workbench.editing.generation import generate
from workbench.editing.scoring import score_under
from workbench.errors import WorkbenchError
from workbench.methods.controls import evened, random_directions, strength_sample
from workbench.methods.saved import load_edit
from workbench.methods.token_aware import TokenAware
from workbench.models.identity import identify
from workbench.plots.token_risk import token_risk

WIDTH = 160


def totals(model, asked, edits):
    scored = score_under(model, asked, edits, progress=False)
    return [torch.tensor([answer.total for answer in own]) for own in scored]


@pytest.fixture(scope="module")
def vector(hearsay):
    draw = torch.Generator().manual_seed(17)
    return AddedVector(
        places=(("resid_post", 1), ("resid_post", 3)), model=identify(hearsay), alpha=2.0,
        vector=20 * torch.randn(2, WIDTH, generator=draw), settings={"style": "bare", "seed": 0},
    )  # fmt: skip


@pytest.fixture(scope="module")
def gated(vector):
    draw = torch.Generator().manual_seed(1)
    gate = Gate(torch.randn(2, 1, WIDTH, generator=draw) / 100, torch.zeros(2, 1))
    return Gated.around(vector, gate)


def constant(units, value, kind="linear"):
    return Gate(torch.zeros(2, units, WIDTH // units), torch.full((2, units), value), kind)


def test_an_open_gate_is_the_edit_and_a_shut_one_is_none(hearsay, few, vector):
    asked = few.choose(range(4))

    def behind(value, kind="linear"):
        return Gated.around(vector, constant(1, value, kind))

    edits = [
        None, vector, behind(1.0), behind(0.0), behind(0.5), vector.scaled(1.0),
        behind(40.0, "sigmoid"), behind(-3.0, "relu"),
    ]  # fmt: skip
    plain, whole, opened, shut, half, halved, full, none = totals(hearsay, asked, edits)
    assert (whole - plain).abs().max() > 1
    for one, other in (
        (whole, opened),
        (plain, shut),
        (half, halved),
        (whole, full),
        (plain, none),
    ):
        assert torch.allclose(one, other, atol=1e-4)


def test_factors_by_hand():
    gate = Gate(torch.tensor([[[1.0, 0.0], [0.0, 2.0]]]), torch.tensor([[0.0, -1.0]]), "linear")
    state = torch.tensor([[[3.0, 9.0], [9.0, 5.0]]])  # one position, two heads
    assert gate.factor(0, state).tolist() == [[3.0, 9.0]]
    assert replace(gate, kind="relu").factor(0, -state).tolist() == [[0.0, 0.0]]
    assert torch.allclose(
        replace(gate, kind="sigmoid").factor(0, state), torch.tensor([[3.0, 9.0]]).sigmoid()
    )


def test_a_head_each_has_its_own_gate(hearsay, few):
    """Units are z's heads: one that is shut leaves its head alone, whatever the others do."""
    shape = identify(hearsay).shape
    inner = AddedVector(
        places=(("z", 2),), vector=torch.ones(1, shape.heads * shape.d_head), alpha=3.0,
        model=identify(hearsay),
    )  # fmt: skip
    bias = torch.ones(1, shape.heads)
    bias[0, 5] = 0.0
    edit = Gated.around(inner, Gate(torch.zeros(1, shape.heads, shape.d_head), bias, "linear"))
    state = torch.randn(4, shape.heads, shape.d_head)
    moved = edit.change(0, state) - state
    assert torch.equal(moved[:, 5], torch.zeros_like(moved[:, 5]))
    assert torch.allclose(moved[:, 4], torch.full_like(moved[:, 4], 3.0), atol=1e-5)
    assert inner.constant()["z", 2].shape == (shape.heads, shape.d_head)
    with edited(hearsay, edit) as trace:
        generate(hearsay, f"Q: {few[0].question}\nA:", max_new_tokens=3, stop=())
    assert torch.allclose(trace.gate[:, 2], torch.tensor((shape.heads - 1) / shape.heads))


def test_what_a_trace_holds_is_the_gate_at_every_token(hearsay, few, gated):
    with edited(hearsay, gated) as trace:
        generate(hearsay, f"Q: {few[0].question}\nA:", max_new_tokens=6, stop=())
    gates = trace.gate[:, [1, 3]]
    assert gates.shape[0] > 3
    assert bool(((gates > 0) & (gates < 1)).all())
    length = gated.inner.alpha * gated.inner.vector.norm(dim=1)
    assert torch.allclose(trace.moved[:, [1, 3]], gates * length, rtol=1e-3)
    assert bool(trace.gate[:, [0, 2, 4]].isnan().all())


@dataclass(frozen=True, repr=False, kw_only=True)
class GatedAtOne(AddedVector):
    """Has gates at its first place alone."""

    def gates(self, number, state):
        return None if number else torch.full((len(state), 1), 0.25)


def test_a_trace_has_a_layer_s_mean_gate_and_the_length_of_its_whole_change(hearsay, few):
    """The same whether tokens are passed once or anew; places without a gate play no part in it."""
    places = (("attn_out", 1), ("mlp_out", 1), ("resid_post", 1), ("resid_post", 2))
    inner = AddedVector(
        places=places, vector=torch.eye(4, WIDTH), alpha=8.0, model=identify(hearsay)
    )
    shares = torch.tensor([[0.1], [0.8], [0.6], [0.2]])
    edit = Gated.around(inner, Gate(torch.zeros(4, 1, WIDTH), shares, "linear"))
    prompt = f"Q: {few[0].question}\nA:"
    for use_cache in (True, False):
        with edited(hearsay, edit) as trace:
            generate(hearsay, prompt, max_new_tokens=3, stop=(), use_cache=use_cache)
        assert torch.allclose(trace.gate[:, 1], torch.tensor(0.5))
        assert torch.allclose(trace.gate[:, 2], torch.tensor(0.2))
        whole = 8.0 * shares[:3].norm()
        assert torch.allclose(trace.moved[:, 1], whole, rtol=1e-3)
    for first in places[:3]:
        order = (first, *(place for place in places[:3] if place != first))
        one = GatedAtOne(places=order, vector=torch.eye(3, WIDTH), alpha=8.0, model=inner.model)
        with edited(hearsay, one) as trace:
            generate(hearsay, prompt, max_new_tokens=3, stop=())
        assert torch.equal(trace.gate[:, 1], torch.full((3,), 0.25))


def test_heads_as_vectors_are_the_edit_of_heads(hearsay, few):
    iti = TokenAware(heads=6, alpha=4.0, strength="constant").fit(
        hearsay, few.choose(range(20)), progress=False
    )
    one, other = totals(hearsay, few.choose(range(20, 24)), [iti, as_vectors(iti)])
    assert torch.allclose(one, other, atol=1e-4)
    adaptive = TokenAware(heads=6).fit(hearsay, few.choose(range(20)), progress=False)
    with pytest.raises(WorkbenchError, match="depends on the token"):
        as_vectors(adaptive)


def test_the_even_twin_has_the_mean_gate_everywhere(hearsay, few, gated):
    sample = strength_sample(hearsay, gated, few.choose(range(8)), "bare")
    assert sample.shape[1] == 2
    assert sample.std(dim=0).min() > 0.01
    twin = evened(gated, sample)
    with edited(hearsay, twin) as trace:
        generate(hearsay, f"Q: {few[0].question}\nA:", max_new_tokens=6, stop=())
    wanted = sample.mean(dim=0).expand(len(trace.gate), 2)
    assert torch.allclose(trace.gate[:, [1, 3]], wanted, atol=1e-4)
    assert "even" in twin.settings["strength"]
    with pytest.raises(WorkbenchError, match="gates"):
        strength_sample(hearsay, gated.inner, few.choose(range(2)), "bare")


def test_random_directions_keep_lengths_and_gates(gated):
    first, second = random_directions(gated, draws=2)
    assert torch.equal(first.inner.vector, -second.inner.vector)
    assert torch.equal(first.gate.weight, gated.gate.weight)
    norms = gated.inner.vector.norm(dim=1)
    assert torch.allclose(first.inner.vector.norm(dim=1), norms)
    cosine = torch.cosine_similarity(first.inner.vector, gated.inner.vector)
    assert cosine.abs().max() < 0.4


def test_a_gate_around_a_gate_is_saved_with_all_that_is_in_it(hearsay, few, gated, tmp_path):
    edit = Gated.around(gated, constant(1, 0.7), alpha=1.5)
    found = load_edit(edit.save(tmp_path), hearsay)
    assert found.inner.inner.vector.equal(gated.inner.vector)
    assert (found.alpha, found.inner.inner.alpha, found.gate.kind) == (1.5, 2.0, "linear")
    one, other = totals(hearsay, few.choose(range(3)), [edit, found])
    assert torch.equal(one, other)


def test_gates_that_do_not_fit_are_refused(vector, as_shipped):
    for weight, bias in (
        (torch.zeros(1, 1, WIDTH), torch.zeros(1, 1)),
        (torch.zeros(2, 3, WIDTH // 3), torch.zeros(2, 3)),
        (torch.zeros(2, 1, WIDTH), torch.full((2, 1), torch.nan)),
        (torch.zeros(2, 1, WIDTH), torch.zeros(2)),
    ):
        with pytest.raises(WorkbenchError):
            Gated.around(vector, Gate(weight, bias))
    with pytest.raises(WorkbenchError, match="one of"):
        Gate(torch.zeros(2, 1, WIDTH), torch.zeros(2, 1), "tanh")
    with pytest.raises(WorkbenchError, match="one size"):
        replace(vector, places=(("z", 1), ("resid_post", 1)), model=_of_other_widths(vector))


def _of_other_widths(edit):
    """A model whose heads have more channels together than the residual stream."""
    return replace(edit.model, shape=replace(edit.model.shape, d_head=40))


def test_a_gate_is_seen_token_by_token(hearsay, few, gated):
    with edited(hearsay, gated) as trace:
        generate(hearsay, f"Q: {few[0].question}\nA:", max_new_tokens=5, stop=())
    heat = token_risk(trace, "gate").data[0]
    assert np.allclose(np.asarray(heat.z), trace.gate[:, [1, 3]].T, atol=1e-6)
    bare = token_risk(trace, "gate", rows="text")
    assert "gate" in bare.layout.coloraxis.colorbar.title.text


def test_even_twins_of_places_out_of_order(hearsay, few, gated):
    """Every place gets its own mean, in whatever order the passes come to it."""
    turned = Gated.around(
        replace(gated.inner, places=gated.places[::-1], vector=gated.inner.vector.flip(0)),
        replace(gated.gate, weight=gated.gate.weight.flip(0), bias=gated.gate.bias.flip(0)),
    )
    asked = few.choose(range(6))
    one, other = (strength_sample(hearsay, own, asked, "bare") for own in (gated, turned))
    assert torch.allclose(one, other.flip(1), atol=1e-5)
    state = torch.randn(3, WIDTH)
    twin, back = evened(gated, one), evened(turned, other)
    assert torch.allclose(twin.change(0, state), back.change(1, state), atol=1e-5)


def test_random_directions_of_heads_stay_at_their_heads(hearsay, few):
    """Behind a gate a layer's heads are one vector; those that were left alone still are."""
    train = few.choose(range(20))
    iti = TokenAware(heads=4, alpha=4.0, strength="constant").fit(hearsay, train, progress=False)
    inner = as_vectors(iti)
    drawn = random_directions(Gated.around(inner, Gate(
        torch.zeros(len(inner.places), 1, WIDTH), torch.ones(len(inner.places), 1), "linear",
    )), draws=2)[0].inner  # fmt: skip
    heads = inner.model.shape.heads
    before, after = (own.vector.view(len(inner.places), heads, -1) for own in (inner, drawn))
    assert torch.allclose(before.norm(dim=-1), after.norm(dim=-1), atol=1e-5)
    assert int((after.norm(dim=-1) > 0).sum()) == 4
    assert not torch.allclose(before, after, atol=1e-2)
