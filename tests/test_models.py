import json
from types import SimpleNamespace

import pytest
import torch
import transformers
from transformer_lens.model_bridge import TransformerBridge

from tests.architectures import ALL, hf_model, tokenizer
from tests.edits import random_edit
from workbench.data.questions import Question, QuestionSet
from workbench.editing.added_vectors import AddedVector
from workbench.editing.attaching import edited
from workbench.editing.generation import generate
from workbench.errors import WorkbenchError
from workbench.models.identity import identify, shape_of, tokenizer_of
from workbench.models.loading import load_model
from workbench.models.passes import attached, cache_in, forward, new_cache
from workbench.models.positions import clock
from workbench.models.tokens import pad
from workbench.models.unwrapping import foreign_hook, runner
from workbench.stages.capture import capture

ROWS = [(5, 9, 30, 7, 8), (11, 12), (40, 3, 2, 9)]
NO_CONTEXT = {"bloom", "mpt"}
"""Whose configs here name no context length; TransformerLens or Hugging Face have a default."""
QUESTIONS = QuestionSet(
    (
        Question("Who wrote Frankenstein?", "Mary Shelley.", ("Mary Shelley.",), ("A: is.", "No.")),
        Question("What is the capital?", "Canberra.", ("Canberra.", "It is."), ("Sydney is.",)),
    )
)


@pytest.fixture(scope="module", params=list(ALL))
def name(request):
    return request.param


def test_same_logits_as_hugging_face_with_either_padding(name):
    plain = hf_model(name)
    model = load_model(hf_model(name), tokenizer(bos=True))
    for side in ("right", "left"):
        tokens, mask = pad(model, ROWS, side=side)
        found, _ = forward(model, tokens, mask)
        for row, logits, real in zip(ROWS, found, mask.bool(), strict=True):
            with torch.no_grad():
                wanted = plain(torch.tensor([row])).logits[0]
            assert torch.allclose(logits[real], wanted, atol=1e-4)


def test_shapes_and_capture(name):
    model = load_model(hf_model(name), tokenizer(bos=True))
    sizes = ALL[name][1]
    shape = shape_of(model)
    assert (shape.layers, shape.heads, shape.d_model, shape.context) == (
        3,
        4,
        32,
        2048 if name in NO_CONTEXT else 128,
    )
    assert shape.d_head == sizes.get("head_dim", 8)
    found = capture(model, QUESTIONS, uncertainty="logit_lens", progress=False, batch_size=2)
    again = capture(model, QUESTIONS, uncertainty="logit_lens", progress=False, batch_size=64)
    assert found.z.shape[1:] == (3, 4, shape.d_head)
    assert torch.allclose(found.z, again.z, atol=1e-5)
    assert torch.allclose(found.uncertainty, again.uncertainty, atol=1e-5)
    assert torch.allclose(found.unlabelled, again.unlabelled, atol=1e-5)


def test_captured_z_is_the_input_of_the_projection(name):
    model = load_model(hf_model(name), tokenizer(bos=True))
    tokens = torch.tensor([ROWS[0]])
    kept = {}

    def keep(where):
        return {("z", n): lambda z, n=n: kept.update({(where, n): z.clone()}) for n in range(3)}

    mask = torch.ones_like(tokens)
    with (
        attached(model, keep("hook_point")),
        attached(model, keep("module"), site="module"),
    ):
        forward(model, tokens, mask)
    with attached(model, keep("unwrapped"), site="module"):
        forward(model, tokens, mask)
    for layer in range(3):
        assert torch.equal(kept["hook_point", layer], kept["module", layer])
        assert torch.allclose(kept["hook_point", layer], kept["unwrapped", layer], atol=1e-5)


def test_folder_name_and_object_are_the_same_model(name, tmp_path):
    plain = hf_model(name)
    plain.save_pretrained(tmp_path)
    tokenizer(bos=name == "llama").save_pretrained(tmp_path)
    tokens = torch.tensor([ROWS[0]])
    by_folder = load_model(tmp_path, device="cpu")
    by_object = load_model(plain, tokenizer(bos=name == "llama"))
    mask = torch.ones_like(tokens)
    a, b = (forward(model, tokens, mask)[0] for model in (by_folder, by_object))
    assert torch.allclose(a, b, atol=1e-5)
    assert identify(by_folder).fingerprint == identify(by_object).fingerprint
    if name == "olmo2":
        with pytest.raises(WorkbenchError, match=r"Olmo2ForCausalLM.* in torch\.bfloat16"):
            load_model(str(tmp_path), dtype="bfloat16", device="cpu")
        return
    half = load_model(str(tmp_path), dtype="bfloat16", device="cpu")
    assert forward(half, tokens, mask)[0].dtype == torch.bfloat16


def test_tokenizer_stays_the_user_s_own(tmp_path):
    hf_model("llama").save_pretrained(tmp_path)
    tokenizer(bos=False).save_pretrained(tmp_path)
    model = load_model(tmp_path, device="cpu")
    assert tokenizer_of(model)("is")["input_ids"] == tokenizer(bos=False)("is")["input_ids"]


def test_device_map_is_passed_through(tmp_path):
    hf_model("llama").save_pretrained(tmp_path)
    tokenizer(bos=True).save_pretrained(tmp_path)
    model = load_model(tmp_path, device_map={"": "cpu"})
    assert len(generate(model, "Q: Who?\nA:", max_new_tokens=2)) == 1
    with pytest.raises(WorkbenchError, match="device_map"):
        load_model(tmp_path, device="cpu", device_map="auto")


def test_real_models(shared):
    for folder, layers in (("stories260k", 5), ("tinystories-656k", 2)):
        model = load_model(shared / "models" / folder, device="cpu")
        assert shape_of(model).layers == layers
        edit = random_edit(model, heads=((0, 1), (1, 2)), alpha=0.5)
        prompts = ["Once upon a time", "The dog"]
        cached = generate(model, prompts, edit=edit, max_new_tokens=10)
        uncached = generate(model, prompts, edit=edit, max_new_tokens=10, use_cache=False)
        assert [c.tokens for c in cached] == [c.tokens for c in uncached]
        story = generate(model, prompts[0], max_new_tokens=20)[0]
        assert float(story.log_probabilities.exp().mean()) > 0.2


@pytest.fixture
def own_bridge(tmp_path):
    """What makes bridges as a user of TransformerLens does."""

    def made(name="llama"):
        hf_model(name).save_pretrained(tmp_path / name)
        tokenizer(bos=False).save_pretrained(tmp_path / name)
        return TransformerBridge.boot_transformers(str(tmp_path / name), device="cpu")

    return made


@pytest.mark.parametrize("name", ALL)
def test_bridges_of_every_architecture_are_taken_as_transformerlens_makes_them(name, own_bridge):
    """Some come with hooks of TransformerLens' own on them."""
    assert foreign_hook(own_bridge(name)) is None


@pytest.mark.parametrize("name", ["llama", "gpt2", "falcon", "opt"])
def test_a_bridge_of_ones_own_is_as_one_loaded_here(name, own_bridge):
    """Its passes run unwrapped, and edits of what attention writes act in each of them."""
    bridge, loaded = own_bridge(name), load_model(hf_model(name), tokenizer(bos=True))
    with pytest.raises(WorkbenchError, match=r"load_model\(bridge\)"):
        generate(bridge, "is", max_new_tokens=2)
    assert load_model(bridge) is bridge
    assert load_model(bridge) is bridge
    assert not any(own.requires_grad for own in bridge.original_model.parameters())
    assert runner(bridge) is not bridge.original_model
    edit = AddedVector(
        model=identify(loaded), alpha=2.0, places=(("attn_out", 0), ("attn_out", 1)),
        vector=torch.randn(2, 32, generator=torch.Generator().manual_seed(0)),
    )  # fmt: skip
    written = []
    for model in (bridge, loaded):
        own = generate(model, "is a", edit=edit, max_new_tokens=6)[0].tokens
        model.blocks[0].hook_resid_post.add_hook(lambda value, hook: value)
        assert runner(model) is model.original_model
        written += [own, generate(model, "is a", edit=edit, max_new_tokens=6)[0].tokens]
    assert len(set(map(tuple, written))) == 1
    assert list(written[0]) != list(generate(loaded, "is a", max_new_tokens=6)[0].tokens)


def test_bridges_that_cannot_be_taken_are_refused(own_bridge):
    hooked = own_bridge()
    hooked.blocks[0].hook_resid_post.add_hook(lambda value, hook: value * 2)
    with pytest.raises(WorkbenchError, match=r"a hook of yours on it \(blocks.0"):
        load_model(hooked)
    hooked.reset_hooks()
    assert load_model(hooked) is hooked
    listened = own_bridge()
    handle = listened.blocks[1].register_forward_hook(lambda module, given, value: None)
    with pytest.raises(WorkbenchError, match=r"a hook of yours on it \(blocks.1\)"):
        load_model(listened)
    handle.remove()
    assert load_model(listened) is listened
    with pytest.raises(WorkbenchError, match="loaded already"):
        load_model(own_bridge(), dtype="float32")
    with pytest.raises(WorkbenchError, match="loaded already"):
        load_model(load_model(own_bridge()), device="cpu")
    bare = own_bridge()
    bare.tokenizer = None
    with pytest.raises(WorkbenchError, match="without a tokenizer"):
        load_model(bare)
    other = tokenizer(bos=True)
    assert tokenizer_of(load_model(bare, other)) is other
    renamed = tokenizer(bos=False)
    assert tokenizer_of(load_model(bare, renamed)) is renamed
    with pytest.raises(WorkbenchError, match="AutoTokenizer"):
        load_model(bare, "bare")
    slow = type("Slow", (), {"is_fast": False, "__call__": lambda self, text: None})()
    with pytest.raises(WorkbenchError, match="a slow one"):
        load_model(bare, slow)
    assert tokenizer_of(bare) is renamed


def test_an_encoders_bridge_is_refused_as_one(tmp_path):
    bert = transformers.BertConfig(
        vocab_size=400, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    transformers.BertForMaskedLM(bert).save_pretrained(tmp_path)
    tokenizer(bos=True).save_pretrained(tmp_path)
    bridge = TransformerBridge.boot_transformers(str(tmp_path), device="cpu")
    with pytest.raises(WorkbenchError, match="decoder-only"):
        load_model(bridge)


def test_a_bridge_that_was_refused_is_refused_again(own_bridge):
    broken = own_bridge()
    broken.ln_final.weight.data.fill_(float("nan"))
    for _ in range(2):
        with pytest.raises(WorkbenchError, match="not finite"):
            load_model(broken)


def test_refusals(tmp_path, as_shipped):
    bert = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    encoder = transformers.BertForMaskedLM(bert)
    with pytest.raises(WorkbenchError, match="decoder-only"):
        load_model(encoder, tokenizer(bos=True))
    encoder.save_pretrained(tmp_path / "bert")
    tokenizer(bos=True).save_pretrained(tmp_path / "bert")
    with pytest.raises(WorkbenchError, match="BertForMaskedLM"):
        load_model(tmp_path / "bert")
    with pytest.raises(WorkbenchError, match="no model folder"):
        load_model(tmp_path / "absent")
    with pytest.raises(WorkbenchError, match="loaded already"):
        load_model(hf_model("llama"), tokenizer(bos=True), dtype="float32")
    if not torch.cuda.is_available():
        with pytest.raises(WorkbenchError, match="no CUDA device"):
            load_model("hearsay", device="cuda")
    hf_model("qwen2").save_pretrained(tmp_path / "bare")
    with pytest.raises(WorkbenchError, match="tokenizer"):
        load_model(tmp_path / "bare", device="cpu")
    with pytest.raises(WorkbenchError, match="could not be loaded"):
        load_model("nobody/has-this-model")
    with pytest.raises(WorkbenchError, match="without its tokenizer"):
        load_model(hf_model("llama"))
    with pytest.raises(WorkbenchError, match="dtype 'int8'"):
        load_model("hearsay", dtype="int8")
    with pytest.raises(WorkbenchError, match="an int"):
        load_model(3)


def test_hooks_and_clock_survive_exceptions(hearsay):
    tokens = torch.tensor([ROWS[0]])
    before = forward(hearsay, tokens, torch.ones_like(tokens))[0]

    def fail(_z):
        raise RuntimeError("on purpose")

    broken = attached(hearsay, {("z", 2): fail})
    with pytest.raises(RuntimeError, match="on purpose"), broken:
        forward(hearsay, tokens, torch.ones_like(tokens))
    assert torch.equal(forward(hearsay, tokens, torch.ones_like(tokens))[0], before)
    with edited(hearsay, None):
        assert torch.equal(forward(hearsay, tokens, torch.ones_like(tokens))[0], before)


def test_logits_that_are_no_numbers_are_no_agreement(monkeypatch):
    """NaN is neither near nor far: a bridge that gives it is refused."""
    monkeypatch.setattr("workbench.models.bridge_checks.difference", lambda *_: float("nan"))
    with pytest.raises(WorkbenchError, match="logits TransformerLens' bridge changes by nan"):
        load_model(hf_model("llama"), tokenizer(bos=True))


def test_weights_that_are_no_numbers_are_told():
    plain = hf_model("llama")
    torch.nn.init.constant_(plain.model.layers[0].mlp.up_proj.weight, torch.nan)
    with pytest.raises(WorkbenchError, match="logits are not finite"):
        load_model(plain, tokenizer(bos=True))


@pytest.mark.parametrize(("name", "near"), [("smolm2", "smollm2"), ("hersay", "hearsay")])
def test_a_misspelt_name_is_told_before_any_network(name, near, monkeypatch):
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", None)  # the hub is not asked
    with pytest.raises(WorkbenchError, match=f"Did you mean {near}"):
        load_model(name)


def test_no_name_is_no_folder():
    with pytest.raises(WorkbenchError, match="without a name"):
        load_model("")


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_a_pass_s_cache_is_known_by_either_of_its_names(hearsay, name):
    """Transformers 5.24 renames it; an edit that saw none would act at other positions."""
    tokens = torch.tensor([[5, 6, 7]])
    cache = forward(hearsay, tokens, torch.ones_like(tokens), new_cache(hearsay))[1]
    following = clock(hearsay)
    with following.starting_at(torch.tensor([4])):
        following.tick(None, (), {"input_ids": tokens[:, :2], name: cache})
        assert following.now.positions.tolist() == [[3, 4]]
        following.tock(None, (), {name: cache}, SimpleNamespace(**{name: cache}))
    assert cache_in(SimpleNamespace(**{name: cache})) is cache


def test_code_of_a_folder_is_neither_run_nor_asked_for(tmp_path, monkeypatch):
    """Its config names a module beside it; transformers would ask at the terminal."""
    hf_model("llama").save_pretrained(tmp_path)
    tokenizer(bos=True).save_pretrained(tmp_path)
    told = json.loads((tmp_path / "config.json").read_text())
    told |= {"auto_map": {"AutoConfig": "evil.Evil"}, "model_type": "evil"}
    (tmp_path / "config.json").write_text(json.dumps(told))
    (tmp_path / "evil.py").write_text("import pathlib\npathlib.Path('pwned').touch()\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WorkbenchError, match="custom code"):
        load_model(str(tmp_path))
    assert not (tmp_path / "pwned").exists()
