from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.architectures import CONFIGS, hf_model, tokenizer
from tests.by_hand import logits_of, nats_from
from tests.edits import random_edit
from workbench.data.questions import Question, QuestionSet
from workbench.editing.attaching import edited
from workbench.editing.edited_layers import EditedLayer
from workbench.editing.generation import generate
from workbench.editing.head_edits import Edit
from workbench.editing.interventions import Positions
from workbench.editing.row_edits import RowEdits
from workbench.editing.scoring import score, score_under
from workbench.editing.strengths import Estimators, Strength
from workbench.editing.token_scores import score_tokens
from workbench.errors import WorkbenchError
from workbench.models.identity import ModelIdentity, ModelShape
from workbench.models.loading import load_model
from workbench.models.passes import attached, forward, new_cache
from workbench.models.positions import clock
from workbench.models.prompts import encode
from workbench.models.tokens import pad, tokenize
from workbench.models.unwrapping import has_hooks

PROMPTS = (
    "Q: What is the capital of Australia?\nA:",
    "Q: Who wrote Frankenstein?\nA: It was",
    "A:",
)
QUESTIONS = QuestionSet(
    (Question("Who wrote Frankenstein?", "Mary Shelley.", ("Mary Shelley.",), ("Bram Stoker.",)),)
)


@pytest.fixture(scope="module", params=list(CONFIGS))
def model(request):
    return load_model(hf_model(request.param), tokenizer(bos=request.param != "qwen2"))


def test_golden_edit(golden):
    heads, d_head = int(golden["edit_n_heads"]), golden["edit_direction"].shape[0]
    z = torch.tensor(golden["edit_head_out"]).view(1, -1, heads, d_head)
    where = torch.arange(z.shape[1])[None] >= int(golden["edit_start"])
    shape = ModelShape(1, heads, d_head, heads * d_head, 1, 1)
    edit = Edit(
        heads=((0, int(golden["edit_head"])),),
        direction=torch.tensor(golden["edit_direction"]).float()[None],
        spread=torch.tensor([float(golden["edit_std"])]),
        estimators=Estimators(
            torch.tensor(golden["edit_estimator_coef"]),
            torch.tensor(golden["edit_estimator_intercept"]),
        ),
        alpha=float(golden["edit_alpha"]),
        strength=Strength("adaptive", float(golden["edit_beta"]), "amplified"),
        answer_start="plus_three",
        model=ModelIdentity("golden", "", shape),
    )
    u = torch.tensor(golden["edit_entropy"])[None]
    layer = EditedLayer.of([edit], 0, z.device, z.dtype)
    made, done = layer.traced(z, where, u)
    edited_rows = where[0]
    wanted = torch.tensor(golden["edit_misalignment"])
    assert torch.allclose(done.misalignment[0, edited_rows, 0], wanted, atol=1e-5)
    wanted = torch.tensor(golden["edit_strength"])
    assert torch.allclose(done.strengths[0, edited_rows, 0], wanted, atol=1e-5)
    wanted = torch.tensor(golden["edit_result"]).view_as(z)
    assert torch.allclose(made, wanted, atol=1e-5)
    assert torch.allclose(layer.apply(z, where, u), wanted, atol=1e-5)


def test_projection_moves_by_exactly_alpha_sigma_s_and_nothing_else_moves(hearsay):
    edit = random_edit(hearsay, alpha=2.0)
    z = torch.randn(2, 5, 8, 20, generator=torch.Generator().manual_seed(0))
    where = torch.tensor([[0, 1, 1, 1, 0], [0, 0, 0, 0, 1]]).bool()
    u = torch.rand(2, 5)
    before, known = z.clone(), edit.estimators
    made, done = EditedLayer.of([edit], 1, z.device, z.dtype).traced(z, where, u)
    assert torch.equal(z, before)
    for place, row in enumerate((1, 2)):
        head = edit.heads[row][1]
        moved = (made - z)[:, :, head] @ edit.direction[row]
        p = (z[:, :, head] @ known.coefficient[row] + known.intercept[row]).sigmoid()
        wanted = 2.0 * edit.spread[row] * (1 + 0.5 * p + 0.5 * u) * where
        assert torch.allclose(moved, wanted, atol=1e-5)
        assert torch.allclose(done.change[:, :, place], wanted, atol=1e-5)
    untouched = [h for h in range(8) if h not in (0, 3)]
    assert torch.equal(made[:, :, untouched], z[:, :, untouched])
    assert torch.equal(made[~where], z[~where])


def test_alpha_of_zero_changes_no_logit(model):
    tokens, mask = pad(model, [tokenize(model, p)[0] for p in PROMPTS])
    plain = logits_of(model, tokens, mask)
    with edited(model, random_edit(model, alpha=0.0), start=0, site="module"):
        assert torch.equal(logits_of(model, tokens, mask), plain)
    with edited(model, random_edit(model, alpha=0.0), start=0):
        assert torch.allclose(logits_of(model, tokens, mask), plain, atol=1e-4)
    with edited(model, random_edit(model), start=0):
        assert (logits_of(model, tokens, mask) - plain).abs().max() > 1e-3


def test_same_at_hook_z_and_at_the_projection(model):
    edit = random_edit(model)
    tokens, mask = pad(model, [tokenize(model, p)[0] for p in PROMPTS], side="left")
    starts = torch.tensor([4, 9, 0])
    found = []
    for site in ("hook_point", "module"):
        with edited(model, edit, site=site, start=starts) as trace:
            found.append((logits_of(model, tokens, mask)[:, -1], trace[1].strengths))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-5)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-6, equal_nan=True)


def test_padded_batch_equals_single_runs(model):
    edit = random_edit(model)
    rows = [tokenize(model, p)[0] for p in PROMPTS]
    starts = [len(row) // 2 for row in rows]
    for side in ("left", "right"):
        tokens, mask = pad(model, rows, side=side)
        with edited(model, edit, start=torch.tensor(starts)):
            together = logits_of(model, tokens, mask)
        for row, start, logits, real in zip(rows, starts, together, mask.bool(), strict=True):
            with edited(model, edit, start=start):
                alone = logits_of(model, torch.tensor([row]), torch.ones(1, len(row)).long())[0]
            assert torch.allclose(logits[real], alone, atol=1e-4)


def test_cached_uncached_alone_and_batched_generation_agree(model):
    edit = random_edit(model)
    ways = {
        "cached": generate(model, PROMPTS, edit=edit, max_new_tokens=8, stop=()),
        "uncached": generate(model, PROMPTS, edit=edit, max_new_tokens=8, stop=(), use_cache=False),
        "alone": [generate(model, p, edit=edit, max_new_tokens=8, stop=())[0] for p in PROMPTS],
        "module": generate(model, PROMPTS, edit=edit, max_new_tokens=8, stop=(), site="module"),
    }
    wanted = ways.pop("cached")
    for name, found in ways.items():
        for a, b in zip(wanted, found, strict=True):
            assert a.tokens == b.tokens, name
            assert torch.allclose(a.log_probabilities, b.log_probabilities, atol=1e-4), name
    plain = generate(model, PROMPTS, max_new_tokens=8, stop=())
    assert any(a.tokens != b.tokens for a, b in zip(plain, wanted, strict=True))


@pytest.mark.parametrize("name", ["mistral", "gemma2"])
def test_a_window_shorter_than_the_prompt_changes_nothing_of_this(name):
    model = load_model(hf_model(name, sliding_window=6), tokenizer(bos=True))
    edit = random_edit(model)
    cached = generate(model, PROMPTS, edit=edit, max_new_tokens=10, stop=())
    uncached = generate(
        model, PROMPTS, edit=edit, max_new_tokens=10, stop=(), use_cache=False, batch_size=1
    )
    for a, b in zip(cached, uncached, strict=True):
        assert a.tokens == b.tokens
        assert torch.allclose(a.log_probabilities, b.log_probabilities, atol=1e-4)


def test_teacher_forcing_gives_the_probabilities_that_generation_saw(model):
    edit = random_edit(model)
    for written in generate(model, PROMPTS, edit=edit, max_new_tokens=8, stop=()):
        assert len(written.tokens) == 8 or written.tokens[-1:] == (1,)
        begin = len(written.prompt_tokens)
        with edited(model, edit, start=begin - 1):
            seen = nats_from(model, written.prompt_tokens + written.tokens, begin)
        assert torch.allclose(seen, written.log_probabilities, atol=1e-4)


def test_scoring_gives_the_probabilities_that_generation_saw(hearsay):
    edit = random_edit(hearsay, alpha=0.3)
    question = "What is the capital of Australia?"
    written = generate(hearsay, f"Q: {question}\nA:", edit=edit, max_new_tokens=24, stop=("\n",))[0]
    encoded = encode(hearsay, question, written.text.strip())
    assert len(encoded.answer_tokens) >= 3
    assert encoded.answer_tokens == written.tokens[: len(encoded.answer_tokens)]
    (scored,) = score_tokens(hearsay, [encoded], edit)
    assert torch.allclose(scored, written.log_probabilities[: len(scored)], atol=1e-4)


def test_hugging_face_generate_is_edited_alike(model):
    edit = random_edit(model)
    row = tokenize(model, PROMPTS[0])[0]
    ours = generate(model, PROMPTS[0], edit=edit, max_new_tokens=6, stop=())[0]
    tokens = torch.tensor([row])
    with edited(model, edit):
        theirs = model.original_model.generate(
            tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=6, do_sample=False,
            pad_token_id=1,
        )  # fmt: skip
    assert tuple(theirs[0, len(row) :].tolist()) == ours.tokens


def test_hugging_face_generate_without_a_cache_is_edited_alike(model):
    edit = random_edit(model)
    tokens, mask = pad(model, [tokenize(model, p)[0] for p in PROMPTS], side="left")
    found = []
    for use_cache in (True, False):
        with edited(model, edit) as trace:
            whole = model.original_model.generate(
                tokens, attention_mask=mask, max_new_tokens=6, do_sample=False, pad_token_id=1,
                use_cache=use_cache,
            )  # fmt: skip
        found.append(whole)
        assert len(trace) == 3
    assert torch.equal(*found)
    ours = generate(model, PROMPTS, edit=edit, max_new_tokens=6, stop=())
    theirs = [own.tolist() for own in found[0][:, tokens.shape[1] :]]
    ends = [own.index(1) + 1 if 1 in own else len(own) for own in theirs]
    assert [list(own.tokens) for own in ours] == [
        own[:end] for own, end in zip(theirs, ends, strict=True)
    ]


def assert_own_generation_is_untouched(model, prompt, edit, count=6):
    """The bridge's and its model's own `generate`, before, inside and after all else."""
    row = tokenize(model, prompt)[0]
    tokens = torch.tensor([row])
    plain, changed = (
        generate(model, prompt, edit=own, max_new_tokens=count, stop=())[0].tokens
        for own in (None, edit)
    )
    assert plain != changed
    score(model, QUESTIONS)
    score_under(model, QUESTIONS, [edit, None])
    greedy = {"max_new_tokens": count, "do_sample": False}

    def written(*ways):
        whole = [
            model.generate(
                tokens, stop_at_eos=False, verbose=False, return_type="tokens",
                use_past_kv_cache=kept, **greedy,
            )
            for kept in ways or (True, False)
        ]  # fmt: skip
        whole.append(
            model.original_model.generate(
                tokens, attention_mask=torch.ones_like(tokens), pad_token_id=1, **greedy
            )
        )
        return {tuple(own[0, len(row) :].tolist()) for own in whole}

    assert written() == {plain}
    with edited(model, None):
        assert written() == {plain}
    for site in ("hook_point", "module"):
        with edited(model, edit, site=site):
            with edited(model, None):
                assert written(True) == {changed}
            assert written(True) == {changed}
            with pytest.raises(WorkbenchError, match=r"where its prompts end.*start="):
                written(False)  # the bridge keeps no cache then, and says nothing else
        with edited(model, edit, site=site, start=len(row) - 1):
            assert written() == {changed}
    assert written() == {plain}
    assert not model.original_model._forward_pre_hooks
    assert not has_hooks(model)


def test_the_model_s_own_generate_works_beside_the_workbench(hearsay):
    assert_own_generation_is_untouched(hearsay, PROMPTS[0], random_edit(hearsay, alpha=3.0))


def test_the_clock_listens_while_any_block_needs_it(hearsay):
    tokens, timer = torch.tensor([[5, 9, 30]]), clock(hearsay)
    module = hearsay.original_model
    before = len(module._forward_pre_hooks), len(module._forward_hooks)
    with timer.listening():
        broken = pytest.raises(RuntimeError, match="on purpose")
        with broken, timer.starting_at(torch.tensor([1])):
            forward(hearsay, tokens, torch.ones_like(tokens))
            raise RuntimeError("on purpose")
        forward(hearsay, tokens, torch.ones_like(tokens))
        assert timer.sequences.starts.tolist() == [2]
    assert timer.now is None
    assert (len(module._forward_pre_hooks), len(module._forward_hooks)) == before


def test_a_pass_of_which_nobody_knows_where_its_prompts_end_is_refused(hearsay):
    tokens = torch.tensor([tokenize(hearsay, prompt)[0][:6] for prompt in PROMPTS[:2]])
    edit = random_edit(hearsay, alpha=3.0)
    whole = torch.ones_like(tokens)
    for run in (
        lambda: hearsay.original_model(tokens),
        lambda: hearsay(tokens),
        lambda: hearsay.run_with_cache(tokens),
        lambda: forward(hearsay, tokens, whole),
    ):
        with edited(hearsay, edit), pytest.raises(WorkbenchError, match=r"start=.*'last'"):
            run()
    plain = forward(hearsay, tokens, whole)[0]
    with edited(hearsay, edit, start="last"):
        last = forward(hearsay, tokens, whole)[0]
    with edited(hearsay, edit, start=5):
        torch.testing.assert_close(forward(hearsay, tokens, whole)[0], last)
    torch.testing.assert_close(last[:, :5], plain[:, :5])
    assert (last[:, 5] - plain[:, 5]).abs().max() > 0.1
    with edited(hearsay, edit), torch.no_grad():
        begun = hearsay.original_model(tokens, use_cache=True).logits
        asked = hearsay.original_model(tokens, use_cache=False, logits_to_keep=1).logits
    torch.testing.assert_close(begun, last)
    torch.testing.assert_close(asked[:, 0], last[:, 5])


def test_generation_of_every_kind_begins_at_the_prompt_s_end(hearsay):
    """Beams, candidates of prompt lookup, no cache: they edit what greedy generation edits."""
    row = tokenize(hearsay, PROMPTS[0])[0]
    tokens = torch.tensor([row])
    edit = random_edit(hearsay, alpha=6.0, strength="constant")
    how = {
        "attention_mask": torch.ones_like(tokens), "max_new_tokens": 8, "do_sample": False,
        "pad_token_id": 0, "eos_token_id": -1,
    }  # fmt: skip

    def written(**more):
        with edited(hearsay, edit, site="module", record=False):
            return hearsay.original_model.generate(tokens, **how, **more)[0].tolist()

    plain = hearsay.original_model.generate(tokens, **how)[0].tolist()
    assert written() != plain
    assert written(prompt_lookup_num_tokens=3) == written()
    assert written(use_cache=False) == written()
    assert written(num_beams=3, use_cache=False) == written(num_beams=3)
    with pytest.raises(WorkbenchError, match="read in chunks"):
        written(prefill_chunk_size=5)


def test_what_happens_to_begin_alike_is_not_gone_on_with(hearsay):
    tokens = torch.tensor([tokenize(hearsay, PROMPTS[0])[0]])
    edit = random_edit(hearsay, alpha=3.0)
    whole = torch.ones_like(tokens)
    with edited(hearsay, edit, start="last"):
        alone = forward(hearsay, tokens, whole)[0]
    with edited(hearsay, edit, start="last"):
        forward(hearsay, tokens[:, :-1], whole[:, :-1])
        torch.testing.assert_close(forward(hearsay, tokens, whole)[0], alone)
    how = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0, "use_cache": False}
    run = hearsay.original_model.generate
    with edited(hearsay, edit, record=False):
        first = run(tokens, attention_mask=whole, **how)
        longer = torch.cat([first, tokens], dim=1)
        second = run(longer, attention_mask=torch.ones_like(longer), **how)
    with edited(hearsay, edit, record=False):
        assert torch.equal(run(longer, attention_mask=torch.ones_like(longer), **how), second)


def test_a_start_that_is_no_place_is_refused(as_shipped, hearsay):
    wrong = edited(hearsay, random_edit(hearsay), start="first")
    with pytest.raises(WorkbenchError, match="start='first'"), wrong:
        pass


def test_a_cache_that_was_begun_unseen_is_refused(hearsay):
    tokens, cache = torch.tensor([tokenize(hearsay, PROMPTS[0])[0]]), new_cache(hearsay)
    forward(hearsay, tokens, torch.ones_like(tokens), cache)
    mask = torch.ones(1, tokens.shape[1] + 1).long()
    unseen = pytest.raises(WorkbenchError, match=r"first pass was not seen.*start=")
    with edited(hearsay, random_edit(hearsay)), unseen:
        forward(hearsay, torch.tensor([[40]]), mask, cache)


def test_interleaved_caches_keep_their_own_starts(hearsay):
    edit = random_edit(hearsay)
    first, second = (torch.tensor([tokenize(hearsay, p)[0]]) for p in PROMPTS[:2])
    new = torch.tensor([[40]])

    def logits_after(interrupted):
        cache = new_cache(hearsay)
        forward(hearsay, first, torch.ones_like(first), cache)
        if interrupted:
            forward(hearsay, second, torch.ones_like(second), new_cache(hearsay))
        mask = torch.ones(1, first.shape[1] + 1).long()
        return forward(hearsay, new, mask, cache)[0]

    with edited(hearsay, edit):
        assert torch.equal(logits_after(interrupted=False), logits_after(interrupted=True))


@settings(max_examples=40)
@given(
    st.integers(1, 4), st.integers(1, 6), st.booleans(), st.booleans(), st.booleans(),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float64]), st.integers(0, 99),
)  # fmt: skip
def test_the_short_way_to_an_edit_is_the_long_one(
    batch, length, adaptive, masked, doubting, dtype, seed
):
    """`apply` works with matrices over all heads, `traced` head by head."""
    draw = torch.Generator().manual_seed(seed)
    shape = ModelShape(2, 5, 7, 35, 11, 64)

    def some(*size):
        return torch.randn(*size, generator=draw)

    edit = Edit(
        heads=((1, 3), (0, 2), (1, 0)), direction=some(3, 7), spread=some(3).abs(),
        estimators=Estimators(some(3, 7), some(3)), alpha=1.7,
        strength=Strength("adaptive" if adaptive else "constant", beta=0.3),
        model=ModelIdentity("none", "", shape),
    )  # fmt: skip
    z = some(batch, length, 5, 7).to(dtype)
    where = torch.rand(batch, length, generator=draw) < 0.5 if masked else None
    doubt = torch.rand(batch, length, generator=draw) if doubting else None
    layer = EditedLayer.of([edit], 1, z.device, z.dtype)
    (long, _), short = layer.traced(z, where, doubt), layer.apply(z, where, doubt)
    assert short.dtype == dtype
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-5
    assert torch.allclose(short, long, atol=tolerance, rtol=tolerance)
    assert torch.equal(short[:, :, [1, 2, 4]], z[:, :, [1, 2, 4]])
    if where is not None:
        assert torch.equal(short[~where], z[~where])


def test_an_edit_a_row_equals_separate_edits(model):
    """Rows may differ in every part of an edit, and a row may have none."""
    edits = [
        random_edit(model),
        None,
        random_edit(model, heads=((2, 0), (0, 1)), alpha=3.0, seed=1, strength="constant"),
        random_edit(model, heads=((1, 2),), seed=2, uncertainty="amplified"),
        random_edit(model, heads=((1, 2), (1, 0)), seed=3, beta=1.0),
    ]
    row = tokenize(model, PROMPTS[0])[0]
    order = torch.tensor([3, 1, 0, 2, 4, 0])
    starts = torch.tensor([4, 5, 6, 7, 0, 3])
    tokens = torch.tensor([row] * len(order))
    for site in ("hook_point", "module"):
        rows = RowEdits(model, edits).attached(order, site)
        with rows, clock(model).starting_at(starts):
            together = logits_of(model, tokens, torch.ones_like(tokens))
        for number, start, logits in zip(order.tolist(), starts, together, strict=True):
            with edited(model, edits[number], start=int(start), site=site):
                alone = logits_of(model, tokens[:1], torch.ones_like(tokens[:1]))
            assert torch.allclose(logits, alone[0], atol=1e-4)


def test_hooks_are_gone_after_an_exception(hearsay):
    tokens = torch.tensor([tokenize(hearsay, PROMPTS[0])[0]])
    plain = logits_of(hearsay, tokens, torch.ones_like(tokens))
    for site in ("hook_point", "module"):
        broken = edited(hearsay, random_edit(hearsay), site=site)
        with pytest.raises(RuntimeError, match="on purpose"), broken:
            raise RuntimeError("on purpose")
        assert torch.equal(logits_of(hearsay, tokens, torch.ones_like(tokens)), plain)


def test_trace_holds_what_the_formula_says(hearsay):
    edit = random_edit(hearsay)
    with edited(hearsay, edit) as trace:
        written = generate(hearsay, PROMPTS[0], max_new_tokens=5, stop=())[0]
    begin = len(written.prompt_tokens)
    assert trace.only.position.tolist() == list(range(begin - 1, begin + 4))
    assert trace.strings == (":", *written.strings[:-1])
    edited_heads = ~trace.strengths.isnan()
    assert {tuple(pair) for pair in edited_heads[0].nonzero().tolist()} == set(edit.heads)
    for row, (layer, head) in enumerate(edit.heads):
        p, u = trace.misalignment[:, layer, head], trace.uncertainty[:, layer]
        s = trace.strengths[:, layer, head]
        assert torch.allclose(s, 1 + 0.5 * p + 0.5 * u, atol=1e-6)
        assert torch.allclose(trace.change[:, layer, head], 1.5 * edit.spread[row] * s, atol=1e-5)
    dataset = trace.only.to_xarray()
    assert dict(dataset.sizes) == {"token": 5, "layer": 5, "head": 8}


def test_trace_is_the_same_without_a_cache_and_numbers_prompts_in_order(hearsay):
    edit = random_edit(hearsay)
    traces = []
    for use_cache in (True, False):
        with edited(hearsay, edit) as trace:
            generate(hearsay, PROMPTS, max_new_tokens=5, stop=(), use_cache=use_cache, batch_size=2)
        traces.append(trace)
    assert len(traces[0]) == len(traces[1]) == 3
    for row in range(3):
        assert traces[0][row].strings == traces[1][row].strings
        for name in ("strengths", "uncertainty", "misalignment", "change"):
            a, b = (getattr(trace[row], name) for trace in traces)
            assert torch.allclose(a, b, atol=1e-4, equal_nan=True)
    with pytest.raises(WorkbenchError, match="3 sequences"):
        traces[0].strengths  # noqa: B018


def test_constant_strength_is_one_and_reads_no_residual(hearsay):
    with edited(hearsay, random_edit(hearsay, strength="constant")) as trace:
        generate(hearsay, PROMPTS[0], max_new_tokens=3, stop=())
    kept = trace.strengths[~trace.strengths.isnan()]
    assert torch.equal(kept, torch.ones_like(kept))
    assert trace.misalignment.isnan().all()
    assert trace.uncertainty.isnan().all()


@pytest.mark.parametrize("site", ["hook_point", "module"])
@pytest.mark.parametrize("kind", ["misalignment", "uncertainty"])
def test_either_part_of_the_strength_can_stand_alone(hearsay, kind, site):
    """s = 1 + β·p̂ without u, and 1 + (1 − β)·u without p̂; the other part keeps its weight."""
    edit = random_edit(hearsay, strength=kind, beta=0.3, alpha=0.5)
    with edited(hearsay, edit, site=site) as trace:
        generate(hearsay, PROMPTS[0], max_new_tokens=3, stop=())
    layer, head = torch.tensor(edit.heads).unbind(dim=1)
    p, s = trace.misalignment[:, layer, head], trace.strengths[:, layer, head]
    u = trace.uncertainty[:, layer]
    wanted = 1 + 0.3 * p if kind == "misalignment" else 1 + 0.7 * u
    assert torch.allclose(s, wanted, atol=1e-5)
    assert bool(u.isnan().all()) == (kind == "misalignment")
    assert float(s.std()) > 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "opt", "gpt_neox", "gemma2"])
def test_other_precisions_keep_their_dtype_and_alpha_zero_is_exact(name, dtype):
    model = load_model(hf_model(name, dtype), tokenizer(bos=True))
    tokens = torch.tensor([tokenize(model, PROMPTS[0])[0]])
    plain = logits_of(model, tokens, torch.ones_like(tokens))
    assert plain.dtype == dtype
    with edited(model, random_edit(model, alpha=0.0), start=0, site="module"):
        assert torch.equal(logits_of(model, tokens, torch.ones_like(tokens)), plain)
    with edited(model, random_edit(model), start=0) as trace:
        assert not torch.equal(logits_of(model, tokens, torch.ones_like(tokens)), plain)
    assert trace.strengths[~trace.strengths.isnan()].min() >= 1
    with edited(model, random_edit(model), start=tokens.shape[1] - 1, site="module"):
        changed = logits_of(model, tokens, torch.ones_like(tokens))
    assert torch.equal(changed[:, :-1], plain[:, :-1])


def test_an_edit_is_visible_to_outer_caches(hearsay):
    edit = random_edit(hearsay)
    tokens = torch.tensor([tokenize(hearsay, PROMPTS[0])[0]])
    _, plain = hearsay.run_with_cache(tokens)
    with edited(hearsay, edit, start=2) as trace:
        _, cache = hearsay.run_with_cache(tokens)
    layer, head = edit.heads[0]
    moved = (cache["z", layer] - plain["z", layer])[0, 2:, head] @ edit.direction[0]
    assert torch.allclose(moved, trace.change[:, layer, head], atol=1e-4)


def test_refusals(hearsay, as_shipped):
    edit = random_edit(hearsay)
    with pytest.raises(WorkbenchError, match="alpha=inf"):
        edit.scaled(float("inf"))
    with pytest.raises(WorkbenchError, match="beta=2"):
        random_edit(hearsay, beta=2)
    with pytest.raises(WorkbenchError, match="the site 'mlp'"), edited(hearsay, edit, site="mlp"):
        pass
    with pytest.raises(WorkbenchError, match="strength='some'"):
        random_edit(hearsay, strength="some")
    small = load_model(hf_model("llama"), tokenizer(bos=True))
    other_shape = pytest.raises(WorkbenchError, match=r"5 layers x 8.*3 layers x 4")
    with other_shape, edited(small, edit):
        pass
    tokens = torch.tensor([[3, 4, 5]])
    two_starts, refused = torch.zeros(2).long(), pytest.raises(WorkbenchError, match="2 start")
    with clock(hearsay).starting_at(two_starts), edited(hearsay, edit), refused:
        forward(hearsay, tokens, torch.ones_like(tokens))
    for bad, says in (
        ({"start": -1}, "start=-1"),
        ({"start": torch.tensor([1, 2])}, r"start=\[1, 2\]"),
    ):
        with edited(hearsay, edit, **bad), pytest.raises(WorkbenchError, match=says):
            forward(hearsay, tokens, torch.ones_like(tokens))
    with pytest.raises(WorkbenchError, match="the site 'mlp'"), attached(hearsay, {}, site="mlp"):
        pass


def test_last_is_the_prompt_s_last_token_all_along_a_generation(hearsay):
    """Positions are counted from there, and not from each step's own last token."""
    edit = random_edit(hearsay, alpha=9.0, positions=Positions(first=1, every=2))
    tokens = hearsay.tokenizer("Q: What is the capital of Australia?\nA:", return_tensors="pt")
    written = []
    for start in (None, "last"):
        with edited(hearsay, edit, start=start) as trace:
            out = hearsay.original_model.generate(
                **tokens, max_new_tokens=7, do_sample=False, pad_token_id=0
            )
        written.append((out.tolist(), trace.only.position.tolist()))
    assert written[0] == written[1]
    assert len(written[0][1]) == 3


def test_estimators_of_other_shapes_are_refused(as_shipped):
    rows, one = torch.ones(3, 7), torch.ones(3)
    for parts in ((rows, one[:2]), (one, one), (rows, rows), (rows, one, rows), (rows, one, 0.5)):
        with pytest.raises(WorkbenchError, match="estimators of"):
            Estimators(*parts)
    assert Estimators(rows, one, one).threshold is one


@pytest.mark.parametrize("heads", [((1, 1.5), (0, 2)), ((True, 1), (0, 2)), ((0.0, 1.0), (0, 2))])
def test_heads_are_whole_numbers(hearsay, heads):
    with pytest.raises(WorkbenchError, match=r"different \(layer, head\) pairs"):
        random_edit(hearsay, heads=heads)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64, torch.int32])
def test_tensors_of_other_dtypes_are_refused(hearsay, dtype):
    edit = random_edit(hearsay)
    with pytest.raises(WorkbenchError, match="an edit's spread of shape"):
        replace(edit, spread=edit.spread.to(dtype))


def test_estimators_by_hand():
    own = Estimators(torch.tensor([[1.0, 2.0], [0.5, -1.0]]), torch.tensor([0.0, 1.0]))
    z = torch.tensor([[[1.0, 1.0], [2.0, 0.0]], [[0.0, 0.0], [0.0, 4.0]]])
    wanted = torch.tensor([[3.0, 2.0], [0.0, -3.0]]).sigmoid()
    assert torch.allclose(own.probability(z), wanted)


def test_a_threshold_holds_with_a_constant_strength_too(hearsay):
    never, always = torch.full((4,), 2.0), torch.zeros(4)
    plain, shut, open_ = (
        generate(hearsay, PROMPTS[:1], edit=edit, max_new_tokens=5, stop=())[0].tokens
        for edit in (
            None, random_edit(hearsay, strength="constant", alpha=9.0, threshold=never),
            random_edit(hearsay, strength="constant", alpha=9.0, threshold=always),
        )
    )  # fmt: skip
    assert shut == plain
    assert open_ != plain
    assert random_edit(hearsay, strength="constant", threshold=always).reads_misalignment
    assert not random_edit(hearsay, strength="constant").reads_misalignment


def test_of_several_edits_each_is_checked(hearsay):
    edit = random_edit(hearsay)
    wide = replace(edit.model, shape=replace(edit.model.shape, d_model=99))
    with pytest.raises(WorkbenchError, match="d_model 99"):
        RowEdits(hearsay, [None, edit, replace(edit, model=wide)])
