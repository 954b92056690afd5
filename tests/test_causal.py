"""Ablation and patching of heads: planted heads are found, and by the exact amount."""

import numpy as np
import pytest
import torch

from tests.architectures import hf_model, tokenizer
from workbench.analysis.causal import (
    ContextPair,
    compare_rankings,
    knock_out_heads,
    patch_heads,
    truth_margin,
)
from workbench.analysis.head_effects import HeadEffects
from workbench.analysis.hearsay_contexts import hearsay_contexts
from workbench.data.questions import Question, QuestionSet
from workbench.editing.scoring import score
from workbench.errors import WorkbenchError
from workbench.hearsay.corpus import SOURCES
from workbench.models.identity import identify, shape_of
from workbench.models.loading import load_model
from workbench.models.passes import attached, forward
from workbench.models.prompts import encode

KINDS = ("zero", "mean", "resample")
PLANTED = (1, 2)
QUESTIONS = QuestionSet(
    tuple(
        Question(asked, right[0], right, wrong)
        for asked, right, wrong in (
            ("What is it?", ("A fish.", "It is a fish, I think."), ("A bird.", "It is a brick.")),
            ("Who came to Canberra?", ("Mary did.",), ("Nobody did.", "Shelley.", "A fish.")),
            ("Where?", ("In Australia.", "There."), ("On the capital.",)),
        )
    )
)
PAIRS = tuple(
    ContextPair(f"Q: Who?\nA: Mary {n}.\n", f"Q: What is written?\nA: The {n} of it.\n", question)
    for n, question in enumerate(QUESTIONS)
)


def tiny(name="llama", keep=None):
    """A random model; of a planted one, all heads but one have no projection."""
    model = hf_model(name)
    if keep is not None:
        for layer, block in enumerate(model.model.layers):
            weight = block.self_attn.o_proj.weight.data.view(32, 4, -1)
            others = [head for head in range(4) if (layer, head) != keep]
            weight[:, others] = 0
            weight *= 2
    return load_model(model, tokenizer(bos=True))


@pytest.fixture(scope="module")
def planted():
    return tiny(keep=PLANTED)


@pytest.fixture(scope="module")
def plain():
    return tiny()


def replaced_by_hand(model, question, head, value):
    """The margin with a head's z set to `value(answer, k)`, each answer run alone."""
    layer, number = head
    totals = []
    for answer, text in enumerate(question.answers):
        one = encode(model, question.question, text)
        tokens = torch.tensor([one.tokens])

        def put(z, answer=answer, begin=one.start - 1):
            z = z.clone()
            for k in range(z.shape[1] - begin):
                z[0, begin + k, number] = value(answer, k)
            return z

        with attached(model, {("z", layer): put}):
            nats = forward(model, tokens, torch.ones_like(tokens))[0].log_softmax(-1)[0]
        at = range(one.start, len(one.tokens))
        totals.append(sum(nats[k - 1, one.tokens[k]].double() for k in at))
    return truth_margin(torch.stack(totals), question)


def z_of(model, question, answer, head, style=None):
    """A head's z from the last prompt token to the last but one of the answer."""
    one = encode(model, question, answer, *([] if style is None else [style]))
    seen = []
    tokens = torch.tensor([one.tokens])
    with attached(model, {("z", head[0]): lambda z: seen.append(z[0, :, head[1]].clone())}):
        forward(model, tokens, torch.ones_like(tokens))
    return seen[0][one.start - 1 : -1]


@pytest.mark.parametrize("kind", [*KINDS, "patch"])
def test_the_one_head_that_counts_is_found(planted, kind):
    if kind == "patch":
        effects = patch_heads(planted, PAIRS)
        assert torch.allclose(effects.recovered[PLANTED], effects.recovered.sum(), atol=1e-4)
    else:
        effects = knock_out_heads(planted, QUESTIONS, kind=kind)
    assert effects.top(1) == (PLANTED,)
    others = effects.effect.clone()
    others[:, PLANTED[0], PLANTED[1]] = 0
    assert float(others.abs().max()) < 1e-5
    assert (effects.effect[:, PLANTED[0], PLANTED[1]].abs() > 1e-2).all()


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "gemma2"])
def test_zeros_and_means_equal_hooks_made_by_hand(name):
    model, head = tiny(name), (1, 3)
    everything = torch.cat([z_of(model, q.question, a, head) for q in QUESTIONS for a in q.answers])
    for kind, value in (("zero", torch.zeros(())), ("mean", everything.mean(dim=0))):
        effects = knock_out_heads(model, QUESTIONS, kind=kind, heads=[head, (2, 0)])
        assert effects.heads == (head, (2, 0))
        for number, question in enumerate(QUESTIONS):
            wanted = replaced_by_hand(model, question, head, lambda *_, value=value: value)
            found = effects.margin[number] + effects.effect[number, 1, 3]
            assert torch.allclose(found, wanted.float(), atol=2e-4)
    for own, number in zip(effects.margin, range(len(QUESTIONS)), strict=True):
        totals = torch.tensor([s.total for s in score(model, QUESTIONS) if s.question == number])
        assert torch.allclose(own, truth_margin(totals, QUESTIONS[number]), atol=2e-4)


def test_resampled_values_are_one_other_answer_s_wrapped_round(plain):
    head = (2, 1)
    two = QUESTIONS.choose([0, 2])
    effects = knock_out_heads(plain, two, kind="resample", heads=[head])
    for number, question in enumerate(two):
        other = two[1 - number]
        candidates = []
        for answer in other.answers:
            z = z_of(plain, other.question, answer, head)
            margin = replaced_by_hand(plain, question, head, lambda _, k, z=z: z[k % len(z)])
            candidates.append(margin.float())
        found = effects.margin[number] + effects.effect[number, 2, 1]
        assert min(float((found - one).abs()) for one in candidates) < 2e-4


def test_patches_are_the_clean_run_s_own_values(plain):
    from dataclasses import replace

    from workbench.models.prompts import prompt_format

    head, pair = (1, 0), PAIRS[0]
    effects = patch_heads(plain, [pair], [head])
    clean = replace(prompt_format("bare"), primer=pair.clean)
    corrupt = replace(prompt_format("bare"), primer=pair.corrupt, name="corrupt")
    question = pair.question
    totals = []
    for answer in question.answers:
        new = z_of(plain, question.question, answer, head, clean)
        one = encode(plain, question.question, answer, corrupt)
        tokens, begin = torch.tensor([one.tokens[:-1]]), one.start - 1

        def put(z, new=new, begin=begin):
            z = z.clone()
            z[0, begin:, head[1]] = new
            return z

        with attached(plain, {("z", head[0]): put}):
            nats = forward(plain, tokens, torch.ones_like(tokens))[0][0, begin:].log_softmax(-1)
        totals.append(nats[range(len(new)), list(one.answer_tokens)].sum())
    found = effects.margin[0] + effects.effect[0, 1, 0]
    assert torch.allclose(found, truth_margin(torch.stack(totals), question), atol=2e-4)


@pytest.mark.slow
def test_results_depend_on_the_seed_alone_and_not_on_batches(plain):
    for kind in KINDS:
        wide = knock_out_heads(plain, QUESTIONS, kind=kind, seed=3)
        again = knock_out_heads(plain, QUESTIONS, kind=kind, seed=3)
        narrow = knock_out_heads(plain, QUESTIONS, kind=kind, seed=3, batch_size=1)
        assert torch.equal(wide.effect, again.effect)
        assert torch.allclose(wide.effect, narrow.effect, atol=1e-4)
    other = knock_out_heads(plain, QUESTIONS, kind="resample", seed=4)
    assert not torch.allclose(wide.effect, other.effect, atol=1e-2)
    patched = [patch_heads(plain, PAIRS, batch_size=size) for size in (1, 64)]
    assert torch.allclose(patched[0].effect, patched[1].effect, atol=1e-4)


def test_parts_of_questions_do_not_show(hearsay, few, monkeypatch):
    chosen, heads = few.choose(range(3)), [(1, 2), (3, 5)]
    for kind in KINDS:
        monkeypatch.setattr("workbench.analysis.causal.PART", 8)
        whole = knock_out_heads(hearsay, chosen, kind=kind, heads=heads)
        monkeypatch.setattr("workbench.analysis.causal.PART", 1)
        parts = knock_out_heads(hearsay, chosen, kind=kind, heads=heads)
        assert torch.allclose(whole.effect, parts.effect, atol=1e-4, equal_nan=True)


def test_a_patch_with_itself_does_nothing(hearsay):
    pairs = [ContextPair(p.corrupt, p.corrupt, p.question) for p in hearsay_contexts(2, 1)]
    effects = patch_heads(hearsay, pairs)
    assert float(effects.effect.abs().max()) < 1e-4
    assert torch.allclose(effects.clean, effects.margin, atol=1e-5)


@pytest.mark.slow
def test_a_careful_context_is_recovered_in_part(hearsay):
    pairs = hearsay_contexts(6, 0)
    effects = patch_heads(hearsay, pairs)
    assert float((effects.clean - effects.margin).mean()) > 1
    (best,) = effects.top(1)
    assert 0.05 < float(effects.recovered[best]) < 1.1
    assert float(effects.recovered.median().abs()) < 0.05
    table = effects.table(5)
    assert (table["low"] <= table["effect"]).all()
    assert (table["effect"] <= table["high"]).all()
    assert tuple(table.loc[0, ["layer", "head"]]) == best


def test_contexts_ask_for_other_facts_and_repeat():
    pairs = hearsay_contexts(12, 5)
    assert pairs == hearsay_contexts(12, 5)
    assert pairs[:4] == hearsay_contexts(4, 5)
    assert pairs[:4] != hearsay_contexts(4, 6)
    assert len({pair.question.question for pair in pairs}) == 12
    for pair in pairs:
        for text in (pair.clean, pair.corrupt):
            assert text.count("Q: ") == text.count("\nA: ") == 4
            assert text.endswith("\n")
            assert pair.question.question not in text
            assert not any(line in text for own in SOURCES.values() for line in own)
    for count in (0, 10**6):
        with pytest.raises(WorkbenchError, match="facts"):
            hearsay_contexts(count)


def record(hearsay, effect, **more):
    return HeadEffects(effect, torch.zeros(len(effect)), "zero", identify(hearsay), **more)


def test_rankings_agree_with_themselves_and_not_with_random_ones(hearsay):
    draw = torch.Generator().manual_seed(0)
    mean = torch.randn(5, 8, generator=draw)
    effects = record(hearsay, mean + torch.zeros(3, 1, 1))
    same = compare_rankings(mean.abs(), effects, 10)
    assert (same.shared, same.heads, same.expected) == (10, 40, 2.5)
    assert same.correlation == pytest.approx(1)
    assert same.probability < 1e-6
    assert compare_rankings(-mean.abs(), effects, 10).correlation == pytest.approx(-1)
    found = [compare_rankings(torch.rand(5, 8, generator=draw), effects, 10) for _ in range(200)]
    assert abs(np.mean([one.correlation for one in found])) < 0.05
    assert abs(np.mean([one.shared for one in found]) - 2.5) < 0.3
    for level in (0.05, 0.5):
        assert np.mean([one.probability <= level for one in found]) < level + 0.08
    assert min(one.probability for one in found if one.shared == 0) == pytest.approx(1)


def test_rankings_leave_out_what_was_not_measured(hearsay):
    effect = torch.full((2, 5, 8), torch.nan)
    effect[:, 1] = torch.arange(8.0)
    found = compare_rankings(torch.arange(40.0).view(5, 8), record(hearsay, effect), 2)
    assert (found.heads, found.shared, found.expected) == (8, 2, 0.5)
    assert found.probability == pytest.approx(1 / 28)
    with pytest.raises(WorkbenchError, match="first 9 of 8 heads"):
        compare_rankings(torch.rand(5, 8), record(hearsay, effect), 9)
    with pytest.raises(WorkbenchError, match="not all of them equal"):
        compare_rankings(torch.ones(5, 8), record(hearsay, effect), 2)
    with pytest.raises(WorkbenchError, match=r"\(4, 8\)"):
        compare_rankings(torch.ones(4, 8), record(hearsay, effect), 2)


def test_a_record_has_intervals_and_names(hearsay):
    effect = torch.randn(20, 5, 8, generator=torch.Generator().manual_seed(1))
    effect[:, 3, 4] -= 3
    effects = record(hearsay, effect)
    own = effects.interval((3, 4))
    assert own.low < own.mean < own.high < -2
    assert own.mean == pytest.approx(float(effects.mean[3, 4]), abs=1e-5)
    assert effects.top(1) == ((3, 4),)
    assert len(effects.table()) == 40
    dataset = effects.to_xarray()
    assert dataset["effect"].dims == ("question", "layer", "head")
    assert dataset.attrs["kind"] == "zero"
    assert "40 heads of hearsay" in repr(effects)
    with pytest.raises(WorkbenchError, match="kind 'zero'"):
        _ = effects.recovered
    with pytest.raises(WorkbenchError, match=r"\(5, 0\)"):
        effects.interval((5, 0))
    patched = record(hearsay, effect, clean=torch.ones(20))
    assert torch.allclose(patched.recovered, effect.mean(dim=0), atol=1e-6)
    assert "clean" in patched.to_xarray()


def test_what_does_not_fit_is_refused(planted):
    layers = shape_of(planted).layers
    for heads in ([], [(layers, 0)], [(0, 0), (0, 0)]):
        with pytest.raises(WorkbenchError, match="the heads"):
            knock_out_heads(planted, QUESTIONS, heads=heads)
    with pytest.raises(WorkbenchError, match="batch_size=0"):
        knock_out_heads(planted, QUESTIONS, batch_size=0)
    with pytest.raises(WorkbenchError, match="at least two"):
        knock_out_heads(planted, QUESTIONS.choose([0]), kind="resample")
    with pytest.raises(WorkbenchError, match="2 pairs"):
        patch_heads(planted, [PAIRS[0], PAIRS[0]])
    with pytest.raises(WorkbenchError, match="chat format"):
        patch_heads(planted, PAIRS, style="chat")
