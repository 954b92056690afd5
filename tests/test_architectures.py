"""Every architecture from loading to scoring, against Hugging Face and against itself."""

import pytest
import torch
import transformers

from tests.architectures import ALL, FALCON, GPT2, SIZES, hf_model, tokenizer
from tests.by_hand import nats_from
from tests.test_every_method import QUICK
from tests.test_sharing import assert_shared_scores_are_plain
from workbench.data.questions import Question, QuestionSet
from workbench.editing.attaching import edited
from workbench.editing.generation import generate
from workbench.editing.scoring import score, score_under
from workbench.errors import WorkbenchError
from workbench.methods.iti import inference_time
from workbench.methods.making import make_method
from workbench.methods.registry import METHODS
from workbench.methods.token_aware import TokenAware
from workbench.models.identity import shape_of
from workbench.models.linear_modules import linear_modules, low_rank, sizes_of
from workbench.models.loading import load_model
from workbench.models.logit_lens import vocabulary_logits
from workbench.models.passes import NAMES, attached, forward
from workbench.models.prefixes import can_branch, can_pad
from workbench.models.prompts import encode
from workbench.models.tokens import pad, tokenize
from workbench.models.unwrapping import runner

PROMPTS = (
    "Q: What is the capital of Australia?\nA:",
    "Q: Who wrote Frankenstein?\nA: It was",
    "A:",
)
QUESTIONS = QuestionSet(
    tuple(
        Question(text, right[0], right, wrong)
        for text, right, wrong in (
            ("Who wrote Frankenstein?", ("Mary Shelley.", "Mary did."), ("A: is.", "No.")),
            ("What is the capital?", ("Canberra.", "It is."), ("Sydney is.", "Sydney")),
            ("Who is Mary Shelley?", ("A writer.",), ("A capital.", "Who?")),
            ("Is it written?", ("It was.", "It is written"), ("No",)),
        )
    )
)
ANSWERS = (("Mary Shelley.", "It is Canberra."), ("A: is Sydney.", "No."))
SIDES = QuestionSet(
    tuple(
        Question(f"{text} {what}?", ANSWERS[n % 2][0], ANSWERS[n % 2], ANSWERS[1 - n % 2])
        for text in ("Who is", "Is it", "Who wrote")
        for n, what in enumerate(("Mary", "Canberra", "Frankenstein", "a capital"))
    )
)
"""Half of which have the true answers that are the others' wrong ones."""
SMALL = {
    "prompt": {"instruction": "Is it?", "shots": 1},
    "natural_gradient": {"layers": (1,)},
    "affine": {"layers": (1,)},
}
TOKEN_AWARE = TokenAware(heads=4, alpha=3.0)


@pytest.fixture(scope="module", params=list(ALL))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def plain(name):
    return hf_model(name)


@pytest.fixture(scope="module")
def model(name):
    return load_model(hf_model(name), tokenizer(bos=True))


@pytest.fixture(scope="module")
def edit(model):
    activations = TOKEN_AWARE.capture(model, QUESTIONS, progress=False)
    return TOKEN_AWARE.fit(model, QUESTIONS, activations=activations, progress=False)


def ones(tokens):
    return torch.ones_like(tokens)


def assert_same(first, second):
    for one, two in zip(first, second, strict=True):
        assert one.tokens == two.tokens
        assert torch.allclose(one.log_probabilities, two.log_probabilities, atol=1e-4)


def test_edited_generation_is_one_thing_on_every_path(model, edit):
    """Cached, uncached, alone, in a padded batch, and at either site."""
    settings = {"edit": edit, "max_new_tokens": 4, "stop": ()}
    together = generate(model, PROMPTS, **settings)
    assert_same(together, generate(model, PROMPTS, use_cache=False, **settings))
    assert_same(together, generate(model, PROMPTS, site="hook_point", **settings))
    assert_same(together[:1], generate(model, PROMPTS[0], **settings))
    unedited = generate(model, PROMPTS, max_new_tokens=4, stop=())
    moved = together[0].log_probabilities[0] - unedited[0].log_probabilities[0]
    assert abs(float(moved)) > 1e-3


def test_inference_time_intervention_runs_on_the_same_paths(model):
    method = inference_time(heads=2, alpha=3.0)
    edit = method.fit(model, QUESTIONS, progress=False)
    written = generate(model, PROMPTS, edit=edit, max_new_tokens=3, stop=())
    begin = len(written[1].prompt_tokens)
    with edited(model, edit, start=begin - 1):
        seen = nats_from(model, written[1].prompt_tokens + written[1].tokens, begin)
    assert torch.allclose(seen, written[1].log_probabilities, atol=1e-4)


def test_unedited_generation_is_hugging_face_s(model, plain):
    row = torch.tensor([tokenize(model, PROMPTS[0])[0]])
    theirs = plain.generate(
        row, attention_mask=ones(row), max_new_tokens=6, do_sample=False, pad_token_id=1
    )
    (ours,) = generate(model, PROMPTS[0], max_new_tokens=6, stop=())
    assert tuple(theirs[0, row.shape[1] :].tolist()) == ours.tokens


def test_scores_are_those_of_hugging_face_s_logits(model, plain):
    """Alone and in batches, whose answers share prefixes and trees where the model allows it."""
    scores = [score(model, QUESTIONS, batch_size=size) for size in (1, 3, 100)]
    asked = [(q, a) for q in QUESTIONS for a in q.answers]
    for (question, answer), *found in zip(asked, *scores, strict=True):
        encoded = encode(model, question.question, answer)
        tokens = torch.tensor([encoded.tokens])
        with torch.no_grad():
            nats = plain(tokens).logits[0].log_softmax(dim=-1)
        begin = encoded.start
        wanted = nats[begin - 1 : -1].gather(1, tokens[0, begin:, None])[:, 0]
        for one in found:
            assert torch.allclose(one.tokens, wanted, atol=1e-4)
            assert one.total == pytest.approx(float(wanted.sum()), abs=1e-3)


def test_scores_under_an_edit_are_those_of_single_runs(model, edit):
    assert_shared_scores_are_plain(model, edit, atol=1e-4)


@pytest.mark.parametrize("site", ["hook_point", "module"])
def test_an_edit_moves_the_projection_by_alpha_sigma_s(model, edit, site):
    """At the first edited layer, in the input of the output projection itself."""
    layer = min(layer for layer, _ in edit.heads)
    tokens = torch.tensor([tokenize(model, PROMPTS[0])[0]])
    start, seen = 4, []
    projection = model.blocks[layer].attn.o.original_component
    shape = shape_of(model)

    def run():
        handle = projection.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
        try:
            forward(model, tokens, ones(tokens))
        finally:
            handle.remove()
        return seen.pop()[0].unflatten(-1, (shape.heads, shape.d_head))

    before = run()
    with edited(model, edit, start=start, site=site) as trace:
        after = run()
    assert torch.allclose(after[:start], before[:start], atol=1e-5)
    for row, (own, head) in enumerate(edit.heads):
        if own == layer:
            moved = (after - before)[start:, head]
            step = edit.alpha * edit.spread[row] * trace.strengths[:, layer, head]
            scale = float(before.abs().max())
            assert torch.allclose(moved @ edit.direction[row], step, atol=1e-5 * max(1, scale))
            assert torch.allclose(moved, step[:, None] * edit.direction[row], atol=1e-4)
            assert float(step.min()) > 0
    others = [h for h in range(shape.heads) if (layer, h) not in edit.heads]
    assert torch.allclose(after[:, others], before[:, others], atol=1e-5)


@pytest.mark.parametrize("passes", ["unwrapped", "hooked before", "hooked within", "direct"])
def test_hooks_see_and_change_the_same_at_both_sites(model, passes):
    """At every point, whether passes run unwrapped or go through the bridge's own modules."""
    tokens = torch.arange(5, 29).view(2, 12)
    before = {("resid_post", 0): lambda _: None} if passes == "hooked before" else {}
    within = {("z", 0): lambda _: None} if passes == "hooked within" else {}

    def run():
        if passes == "direct":
            return model.original_model(tokens, attention_mask=ones(tokens)).logits
        return forward(model, tokens, ones(tokens))[0]

    plain = run()
    last = shape_of(model).layers - 1
    places = [(point, layer) for point in NAMES for layer in (0, last)]
    for place in places[:-2] + places[-1:]:  # the final norm is the last layer's
        seen, logits = [], []

        def hook(state, seen=seen):
            seen.append(state.clone())
            return state + (torch.arange(state.shape[-1]) % 3 - 1) * 0.3

        for site in ("hook_point", "module"):
            with attached(model, before), attached(model, {place: hook}, site), \
                    attached(model, within):  # fmt: skip
                logits.append(run())
        assert len(seen) == 2, place
        assert all(state.shape[:2] == tokens.shape for state in seen), place
        assert torch.allclose(*seen, atol=1e-4), place
        assert torch.allclose(*logits, atol=1e-3), place
        assert not torch.allclose(logits[0], plain, atol=1e-3), place


def test_hooks_at_modules_are_hook_points_of_a_folded_model():
    """Whose gated feed-forward layers are no modules that run."""
    model = load_model(hf_model("llama"), tokenizer(bos=True))
    model.enable_compatibility_mode(disable_warnings=True)
    tokens, seen = torch.arange(5, 17)[None], []
    with attached(
        model, {(point, 1): seen.append for point in NAMES if point != "final_norm"}, "module"
    ):
        forward(model, tokens, ones(tokens))
    assert len(seen) == len(NAMES) - 1


def test_hooks_at_modules_leave_passes_unwrapped(model):
    """Also at the final norm, which the bridge's own passes leave out of some architectures."""
    unwrapped, last = runner(model), shape_of(model).layers - 1
    places = [("z", 0), ("resid_pre", 0), ("resid_post", last), ("final_norm", last)]
    with attached(model, dict.fromkeys(places, lambda _: None), "module"):
        assert runner(model) is unwrapped
    assert runner(model) is unwrapped


def test_a_low_rank_change_is_other_weights_on_every_path(name, model):
    """Of fused modules, too, which the bridge's own passes run in parts."""
    tokens = torch.arange(5, 29).view(2, 12)
    known, own, draw = linear_modules(model), hf_model(name), torch.Generator().manual_seed(0)
    assert known
    changes = {}
    for key, module in known.items():
        down, up = (torch.randn(2, size, generator=draw) / 5 for size in sizes_of(module))
        changes[key] = down, up.T
        weight = own.get_submodule(key).weight.data
        weight += (up.T @ down).T if "Conv1D" in type(module).__name__ else up.T @ down
    wanted = own(tokens, attention_mask=ones(tokens)).logits
    unwrapped = runner(model) is not model.original_model
    with low_rank(model, changes):
        assert (runner(model) is not model.original_model) == unwrapped
        found, _ = forward(model, tokens, ones(tokens))
        with attached(model, {("z", 0): lambda _: None}):
            again, _ = forward(model, tokens, ones(tokens))
    assert torch.allclose(found, wanted, atol=1e-3)
    assert torch.allclose(again, wanted, atol=1e-3)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.filterwarnings("ignore:at α = 1 left-out questions cost")
@pytest.mark.parametrize("kind", METHODS)
def test_every_method_acts_alike_on_every_path(model, kind):
    """Fitted on eight questions; unwrapped, through hook points, and beside a hook."""
    settings = QUICK.get(kind, {}) | SMALL.get(kind, {})
    edit = make_method(kind, settings).fit(model, SIDES.choose(range(8)), progress=False)
    asked = SIDES.choose(range(8, 12))
    plain, nothing, moved = (
        torch.cat([answer.tokens for answer in own])
        for own in score_under(model, asked, [None, edit.scaled(0.0), edit], progress=False)
    )
    assert torch.allclose(plain, nothing, atol=1e-3)
    if kind != "cast":  # whose condition may be met by none of the four
        assert not torch.equal(plain, moved)
    with attached(model, {("resid_post", 0): lambda _: None}):
        (beside,) = score_under(model, asked, [edit], progress=False)
    assert torch.allclose(torch.cat([own.tokens for own in beside]), moved, atol=2e-3)
    if kind == "prompt":  # which is no edit within a pass
        return
    with edited(model, edit):
        inside = generate(model, PROMPTS[:2], max_new_tokens=4, stop=())
    assert_same(inside, generate(model, PROMPTS[:2], edit=edit, max_new_tokens=4, stop=()))


def test_the_logit_lens_of_the_last_layer_is_the_model(model, plain):
    rows = [tokenize(model, prompt)[0] for prompt in PROMPTS]
    tokens, mask = pad(model, rows, side="left")
    kept = {}
    last = shape_of(model).layers - 1
    with attached(model, {("resid_post", last): lambda r: kept.update(r=r.clone())}):
        forward(model, tokens, mask)
    for row, residual, real in zip(rows, kept["r"], mask.bool(), strict=True):
        with torch.no_grad():
            wanted = plain(torch.tensor([row])).logits[0]
        assert torch.allclose(vocabulary_logits(model, residual[real]), wanted, atol=1e-4)


def test_passes_run_unwrapped(model):
    assert runner(model) is not model.original_model


@pytest.mark.parametrize("name", ["gemma3", "gpt_oss"])
def test_prompts_are_longer_than_the_windows(name):
    model = load_model(hf_model(name), tokenizer(bos=True))
    assert len(tokenize(model, PROMPTS[0])[0]) > model.original_model.config.sliding_window == 8


def test_padding_and_branching_are_tried():
    """MPT's attention goes by columns, BLOOM's by the mask, and neither is told positions."""
    found = {}
    for own in ("llama", "bloom", "mpt", "gemma3"):
        model = load_model(hf_model(own), tokenizer(bos=True))
        found[own] = can_pad(model), can_branch(model)
    assert found == {
        "llama": (True, True),
        "bloom": (True, False),
        "mpt": (False, False),
        "gemma3": (False, False),
    }


TINY = {**SIZES, "num_key_value_heads": 2}
MLA = {
    **SIZES, "num_key_value_heads": 4, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4, "v_head_dim": 8, "n_routed_experts": 4, "n_group": 1, "topk_group": 1,
    "num_experts_per_tok": 2, "moe_intermediate_size": 24,
}  # fmt: skip
STATES = {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 3}
REFUSED = {
    "falcon 40b": (
        "FalconConfig",
        {**FALCON, "num_kv_heads": 2, "new_decoder_architecture": True},
        "cannot wrap this FalconForCausalLM",
    ),
    "falcon alibi": (
        "FalconConfig", {**FALCON, "alibi": True, "multi_query": False},
        "FalconForCausalLM, whose logits .* bridge changes",
    ),
    "gpt": ("OpenAIGPTConfig", GPT2, "OpenAIGPTLMHeadModel, whose logits"),
    "deepseek": ("DeepseekV3Config", MLA, "DeepseekV3ForCausalLM, whose z in layer 0"),
    "mamba": ("MambaConfig", STATES, "MambaForCausalLM has no attention heads .* 3 of its 3"),
    "rwkv": ("RwkvConfig", STATES, "RwkvForCausalLM has no attention heads"),
    "lfm2": (
        "Lfm2Config", {**TINY, "layer_types": ["full_attention", "conv", "full_attention"]},
        "Lfm2ForCausalLM has no attention heads .* 1 of its 3 layers",
    ),
    "ctrl": (
        "CTRLConfig", {**GPT2, "dff": 48},
        "CTRLLMHeadModel, for which TransformerLens has no adapter",
    ),
    "biogpt": ("BioGptConfig", SIZES, "BioGptForCausalLM, for which TransformerLens has no"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused_by_name(case):
    kind, sizes, says = REFUSED[case]
    torch.manual_seed(0)
    config = getattr(transformers, kind)(**sizes, bos_token_id=0, eos_token_id=1, pad_token_id=1)
    own = transformers.AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(WorkbenchError, match=says):
        load_model(own, tokenizer(bos=True))


@pytest.mark.parametrize("case", ["ctrl", "deepseek", "mamba"])
def test_folders_are_refused_alike(case, tmp_path):
    kind, sizes, _ = REFUSED[case]
    config = getattr(transformers, kind)(**sizes, bos_token_id=0, eos_token_id=1, pad_token_id=1)
    own = transformers.AutoModelForCausalLM.from_config(config)
    own.save_pretrained(tmp_path)
    tokenizer(bos=True).save_pretrained(tmp_path)
    with pytest.raises(WorkbenchError, match=type(own).__name__):
        load_model(tmp_path, device="cpu")


def test_encoder_decoders_are_refused():
    sizes = {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1}
    t5 = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, num_heads=2))
    with pytest.raises(WorkbenchError, match=r"T5ForConditionalGeneration\. Expected a decoder"):
        load_model(t5, tokenizer(bos=True))
