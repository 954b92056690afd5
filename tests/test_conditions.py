"""Conditions and CAST: prompts that meet one are edited, others exactly left alone."""

from dataclasses import replace

import pytest
import torch

from workbench.data.plain import plain_texts
from workbench.editing.added_vectors import AddedVector
from workbench.editing.attaching import edited
from workbench.editing.conditions import Condition, Conditional, similarity
from workbench.editing.gates import Gate, Gated
from workbench.editing.generation import generate
from workbench.editing.scoring import score_under
from workbench.errors import WorkbenchError
from workbench.evaluation.metrics.side_effects import side_effects_under
from workbench.methods.cast import ConditionalSteering, best_condition, contrast, f_one
from workbench.methods.controls import evened, strength_sample
from workbench.methods.dsas import DynamicScaling
from workbench.models.batched_passes import Passage, states_at
from workbench.models.identity import identify
from workbench.models.prompts import encode
from workbench.models.tokens import tokenize

PLACE = ("resid_post", 2)


@pytest.fixture(scope="module")
def prompts(few):
    return [f"Q: {question.question}\nA:" for question in few.choose(range(6))]


@pytest.fixture(scope="module")
def edit(hearsay, few):
    """A strong edit of the prompts that a random vector happens to be similar to, about a half."""
    questions = [q.question for q in few.choose(range(6))]
    rows = [encode(hearsay, q, None).tokens for q in questions]
    passages = [Passage(row, range(len(row) - 1, len(row))) for row in rows]
    states = states_at(hearsay, passages, [("resid_post", 1)])["resid_post", 1]
    vector = torch.randn(160, generator=torch.Generator().manual_seed(3))
    middle = float(similarity(states, vector).median()) + 1e-6
    inner = AddedVector(
        places=(PLACE,), alpha=1.0, model=identify(hearsay),
        vector=6 * torch.randn(1, 160, generator=torch.Generator().manual_seed(4)),
        settings={"style": "bare", "seed": 0},
    )  # fmt: skip
    condition = Condition(1, vector, middle, above=True)
    made = Conditional(
        places=inner.places, inner=inner, condition=condition, alpha=1.0, model=inner.model,
        settings=inner.settings,
    )  # fmt: skip
    return made, condition.met(states).tolist()


def test_answers_are_those_of_the_edit_or_of_the_model(hearsay, prompts, edit):
    made, met = edit
    assert 0 < sum(met) < len(met)
    how = {"max_new_tokens": 6, "stop": ()}
    plain = generate(hearsay, prompts, **how)
    inner = generate(hearsay, prompts, edit=made.inner, **how)
    wanted = [i.tokens if own else p.tokens for own, i, p in zip(met, inner, plain, strict=True)]
    assert [p.tokens for p in plain] != [i.tokens for i in inner]
    for more in ({}, {"batch_size": 1}, {"use_cache": False}, {"site": "hook_point"}):
        found = generate(hearsay, prompts, edit=made, **how, **more)
        assert [own.tokens for own in found] == wanted
    thrice = generate(hearsay, [p for p in prompts for _ in range(3)], edit=made, **how)
    assert [own.tokens for own in thrice[::3]] == wanted
    with edited(hearsay, made) as trace:
        generate(hearsay, prompts, **how)
    assert [bool(trace[row].gate[:, 2].all()) for row in range(len(prompts))] == met
    moved = [float(trace[row].moved[:, 2].max()) > 0 for row in range(len(prompts))]
    assert moved == met


def test_scores_are_those_of_the_edit_or_of_the_model(hearsay, few, edit):
    made, met = edit
    asked = few.choose(range(6))
    plain, inner, found = score_under(hearsay, asked, [None, made.inner, made])
    for p, i, own in zip(plain, inner, found, strict=True):
        wanted = i if met[own.question] else p
        assert torch.allclose(own.tokens, wanted.tokens, atol=1e-4)


def test_transformers_own_generation_with_beams(hearsay, prompts, edit):
    made, met = edit
    tokenizer = hearsay.tokenizer
    row = met.index(True), met.index(False)
    for number in row:
        tokens = tokenizer(prompts[number], return_tensors="pt").input_ids
        how = {"max_new_tokens": 5, "num_beams": 2, "do_sample": False, "pad_token_id": 0}
        texts = []
        for one in (None, made.inner, made):
            with edited(hearsay, one, record=False):
                texts.append(hearsay.original_model.generate(tokens, **how).tolist())
        assert texts[2] == texts[1 if met[number] else 0]


def test_a_prompt_that_was_not_seen_is_refused(hearsay, prompts, edit):
    made, _ = edit
    tokens = hearsay.tokenizer(prompts[0], return_tensors="pt").input_ids
    with edited(hearsay, made, start=0, record=False):
        first = hearsay.original_model(tokens, use_cache=True)
    cache = getattr(first, "past_key_values", None) or first.cache
    with (
        edited(hearsay, made, start=0, record=False),
        pytest.raises(WorkbenchError, match="did not see"),
    ):
        hearsay.original_model(tokens[:, :1], past_key_values=cache, use_cache=True)


def test_a_condition_must_come_before_what_it_decides(edit):
    made, _ = edit
    for layer in (3, 5, -1):
        with pytest.raises(WorkbenchError, match="before the first edited"):
            replace(made, condition=replace(made.condition, layer=layer))
    assert replace(made, condition=replace(made.condition, layer=2)).condition.layer == 2
    z = replace(made.inner, places=(("z", 2),))
    with pytest.raises(WorkbenchError, match="before the first edited"):
        replace(made, inner=z, places=z.places, condition=replace(made.condition, layer=2))


def test_its_even_twin_is_its_share_everywhere(hearsay, few, edit):
    made, met = edit
    sample = strength_sample(hearsay, made, few.choose(range(6)), "bare")
    assert set(sample.flatten().tolist()) == {0.0, 1.0}
    twin = evened(made, sample)
    assert isinstance(twin, Gated)
    assert torch.allclose(twin.gate.bias, sample.mean(dim=0)[:, None])
    assert any(met)


def two_kinds(seed, layers=3, count=60, width=24):
    """States of prompts of which the wanted ones lie along a vector, at layer 1 alone."""
    draw = torch.Generator().manual_seed(seed)
    planted = torch.nn.functional.normalize(
        torch.randn(width, generator=torch.Generator().manual_seed(9)), dim=0
    )
    states = torch.randn(layers, count, width, generator=draw)
    wanted = torch.rand(count, generator=draw) < 0.5
    states[1] += 6 * wanted[:, None] * planted
    return states, wanted, planted


def test_the_planted_condition_is_found_and_holds_for_other_prompts():
    states, wanted, planted = two_kinds(0)
    found = best_condition(states, wanted)
    assert found.layer == 1
    assert torch.cosine_similarity(found.vector, planted, dim=0).abs() > 0.9
    held, kind, _ = two_kinds(1)
    assert float(f_one(found.met(held[1])[None], kind)[0]) > 0.95


def test_with_shuffled_kinds_it_is_not():
    states, wanted, _ = two_kinds(0)
    shuffled = wanted[torch.randperm(len(wanted), generator=torch.Generator().manual_seed(2))]
    found = best_condition(states, shuffled)
    held, kind, _ = two_kinds(1)
    met = found.met(held[found.layer])
    assert float((met == kind).float().mean()) < 0.75


def test_scores_of_conditions_by_hand():
    met = torch.tensor([[True, True, False, False], [False] * 4])
    wanted = torch.tensor([True, False, True, False])
    assert f_one(met, wanted).tolist() == [0.5, 0.0]
    along = contrast(torch.tensor([[2.0, 0.1]]), torch.tensor([[-2.0, 0.0], [-1.0, 0.0]]))
    assert abs(along[0]) > 0.99
    c, h = torch.tensor([2.0, 0.0]), torch.tensor([[3.0, 4.0]])
    wanted = 3 / 5  # cos between (3, 4) and (tanh 3, 0)
    assert similarity(h, c).tolist() == pytest.approx([wanted])


def test_a_model_that_is_always_right_leaves_nothing_to_tell(hearsay, few):
    from workbench.methods.memo import Memo

    train = few.choose(range(8))
    memo, method = Memo(), ConditionalSteering()
    memo.get("wrong answers", (train, "bare"), lambda: torch.zeros(8, dtype=torch.bool))
    with pytest.raises(WorkbenchError, match="0 of 8"):
        method.fit(hearsay, train, memo=memo, progress=False)


def test_a_condition_stands_around_everything_else(hearsay, few, edit):
    """Within another edit nobody would ask it; it may have a gate inside."""
    made, met = edit
    gate = Gate(torch.zeros(1, 1, 160), torch.ones(1, 1), "linear")
    with pytest.raises(WorkbenchError, match="around everything else"):
        Gated.around(made, gate)
    with pytest.raises(WorkbenchError, match="around everything else"):
        replace(made, inner=made)
    with pytest.raises(WorkbenchError, match="around everything else"):
        DynamicScaling(of=ConditionalSteering()).fit(hearsay, few.choose(range(12)), progress=False)
    inside = replace(made, inner=Gated.around(made.inner, gate))
    asked = few.choose(range(6))
    one, other = score_under(hearsay, asked, [made, inside])
    assert [a.total for a in one] == pytest.approx([b.total for b in other], abs=1e-3)
    assert any(met)


def test_answers_that_differ_where_it_is_decided_are_refused(hearsay, few, edit):
    """Three tokens on, answers of one row differ; one by one they are scored."""
    late = replace(edit[0], answer_start="plus_three")
    asked = few.choose(range(3))
    with pytest.raises(WorkbenchError, match="batch_size=1"):
        score_under(hearsay, asked, [late])
    (alone,) = score_under(hearsay, asked, [late], batch_size=1)
    assert len(alone) == sum(len(one.answers) for one in asked)


def test_plain_texts_are_decided_by_their_beginnings(hearsay, edit):
    """Not by the first token, which may be the same in all of them."""
    made, _ = edit
    texts = plain_texts("hearsay", 12, seed=2)
    found, plain = side_effects_under(hearsay, texts, [made, made.inner])
    decided = []
    for text in texts:
        tokens = tokenize(hearsay, text)[0]
        at = min(16, len(tokens) // 2) - 1
        states = states_at(hearsay, [Passage(tokens, range(at, at + 1))], [("resid_post", 1)])
        decided.append(bool(made.condition.met(states["resid_post", 1])[0]))
    assert [own.kl > 1e-9 for own in found] == decided
    assert 0 < sum(decided) < len(decided)
    assert all(own.kl > 1e-9 for own in plain)
