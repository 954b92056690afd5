from dataclasses import replace

import pytest
import torch

from tests.architectures import hf_model, tokenizer
from tests.by_hand import nats_from
from tests.edits import random_edit
from workbench.editing.attaching import edited
from workbench.editing.combining import combine, conflict
from workbench.editing.generation import generate
from workbench.editing.strengths import Strength
from workbench.editing.token_scores import score_tokens, score_tokens_under
from workbench.errors import WorkbenchError
from workbench.methods.saved import load_edit
from workbench.models.loading import load_model
from workbench.models.passes import attached, forward
from workbench.models.prompts import encode


@pytest.fixture(scope="module")
def model():
    return load_model(hf_model("llama"), tokenizer(bos=True))


@pytest.fixture(scope="module")
def pair(model):
    one = random_edit(model, seed=1, alpha=2.0)
    other = random_edit(model, seed=2, alpha=1.5)
    return one, replace(other, strength=one.strength)


def z_under(model, *edits, site):
    """Z of the first layer with edits attached in turn."""
    seen = []
    tokens = torch.tensor([[5, 6, 7, 8, 9]])
    if not edits:
        with attached(model, {("z", 0): lambda z: seen.append(z.detach().clone())}, site=site):
            forward(model, tokens, torch.ones_like(tokens))
        return seen[0]
    with edited(model, edits[0], start=1, site=site, record=False):
        return z_under(model, *edits[1:], site=site)


def test_a_combination_adds_both_changes_read_off_the_same_z(model, pair):
    """In the first layer, where nothing upstream differs: z + Δ₁(z) + Δ₂(z)."""
    plain = z_under(model, site="hook_point")
    alone = [z_under(model, edit, site="hook_point") for edit in pair]
    both = combine({"one": pair[0], "other": pair[1]})
    found = z_under(model, both, site="hook_point")
    wanted = plain + sum(edit - plain for edit in alone)
    assert (alone[0] - plain).abs().max() > 0.1
    assert (alone[1] - plain).abs().max() > 0.1
    assert torch.allclose(found, wanted, atol=1e-5)


def test_constant_combinations_are_the_nested_edits(model, pair):
    constant = [replace(edit, strength=Strength("constant")) for edit in pair]
    both = combine(dict(zip("ab", constant, strict=True)))
    assert both.shares_heads
    encoded = [encode(model, "What is it?", answer) for answer in ("Canberra.", "It was.")]
    combined = score_tokens(model, encoded, both)
    for rows, answer in zip(combined, encoded, strict=True):
        start = answer.start - 1
        with (
            edited(model, constant[0], start=start, record=False),
            edited(model, constant[1], start=start, record=False),
        ):
            nats = nats_from(model, answer.tokens, answer.start)
        assert torch.allclose(rows, nats, atol=1e-5)


def test_combinations_share_batches_with_other_edits_and_generate_alike_everywhere(model, pair):
    both = combine({"one": pair[0], "other": pair[1]})
    encoded = [encode(model, "What is it?", answer) for answer in ("Canberra.", "It was.")]
    together = score_tokens_under(model, encoded, [pair[0], both, None])
    for edit, rows in zip((pair[0], both, None), together, strict=True):
        for one, other in zip(rows, score_tokens(model, encoded, edit), strict=True):
            assert torch.allclose(one, other, atol=1e-5)
    texts = [
        [c.tokens for c in generate(model, ["Q: Who?\nA:"], edit=both, max_new_tokens=8, **how)]
        for how in ({}, {"use_cache": False}, {"site": "hook_point"})
    ]
    assert texts[0] == texts[1] == texts[2]


def test_saved_and_loaded(model, pair, tmp_path):
    both = combine({"one": pair[0], "other": pair[1]})
    found = load_edit(both.save(tmp_path), model)
    assert found.goals == both.goals
    assert found.heads == both.heads
    assert torch.equal(found.spread, both.spread)


def test_conflicts(pair):
    one, other = pair
    found = conflict(one, other)
    assert set(found.shared) == set(one.heads) & set(other.heads)
    assert len(found.shared) > 0
    for head, cosine in zip(found.shared, found.cosine, strict=True):
        a = one.direction[one.heads.index(head)]
        b = other.direction[other.heads.index(head)]
        assert float(cosine) == pytest.approx(float(a @ b), abs=1e-5)
    against = conflict(one, replace(one, direction=-one.direction))
    assert torch.allclose(against.cosine, torch.tensor(-1.0))


def test_refusals(model, pair, as_shipped):
    one, other = pair
    both = combine({"one": one, "other": other})
    for edits, says in (
        ({"one": one}, "1 edits"),
        (
            {"one": one, "other": replace(other, strength=Strength(beta=0.1))},
            "'other' with strength.*beta=0.1",
        ),
        ({"one": one, "other": replace(other, strength=Strength("constant"))}, "kind='constant'"),
        ({"one": one, "both": both}, "'both', which is a combination"),
        ({"both": both, "one": one}, "a combination to combine"),
    ):
        with pytest.raises(WorkbenchError, match=says):
            combine(edits)
    with pytest.raises(WorkbenchError, match="different"):
        replace(both, goals=())
    with pytest.raises(WorkbenchError, match="1 goals"):
        replace(both, goals=("one",))
    refused = pytest.raises(WorkbenchError, match="one inside the other")
    with refused, edited(model, both):
        pass
