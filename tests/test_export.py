"""Exported folders do without the workbench what the attached edit does, or are not written."""

import importlib.util
import json
from dataclasses import replace
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
import torch
import transformers

from tests.architectures import ALL, hf_model, tokenizer
from tests.edits import drawn_edit, random_edit
from workbench import storage
from workbench.editing.attaching import edited
from workbench.editing.combining import combine
from workbench.editing.exports.exporting import export
from workbench.editing.generation import generate
from workbench.editing.interventions import Positions
from workbench.errors import WorkbenchError
from workbench.methods.caa import AddedVector
from workbench.methods.sea import SpectralEditing
from workbench.methods.token_aware import TokenAware
from workbench.models.identity import identify, shape_of
from workbench.models.loading import load_model
from workbench.models.passes import forward

REFUSED = {"mistral", "mixtral", "phi3", "stablelm", "falcon", "gptj", "mpt"}
"""Architectures whose output projection can have no bias, or none alone."""
TOKENS = torch.arange(2, 26)[None] * 7 % 399


def bridge(name, **changes):
    return load_model(hf_model(name, **changes), tokenizer(bos=True))


def loaded(folder, **how):
    found = transformers.AutoModelForCausalLM.from_pretrained(folder, **how).eval()
    assert not isinstance(found, type(None))
    return found


def logits_of(plain, tokens=TOKENS):
    with torch.no_grad():
        return plain(input_ids=tokens).logits


def edited_logits(model, edit, tokens=TOKENS):
    with edited(model, edit, start=0, record=False):
        return forward(model, tokens, torch.ones_like(tokens))[0]


@pytest.mark.parametrize("name", sorted({*ALL} - REFUSED))
def test_a_constant_edit_is_the_weights_of_a_plain_model(name, tmp_path):
    model = bridge(name)
    edit = random_edit(model, strength="constant")
    plain = forward(model, TOKENS, torch.ones_like(TOKENS))[0]
    expected = edited_logits(model, edit)
    assert (expected - plain).abs().max() > 1e-2
    folder = export(edit, tmp_path / "out", model)
    torch.testing.assert_close(logits_of(loaded(folder)), expected, atol=1e-4, rtol=0)
    told = (folder / "README.md").read_text()
    assert "Prompts are edited" in told


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_an_architecture_without_a_bias_there_is_refused_with_the_reason(name, tmp_path):
    model = bridge(name)
    with pytest.raises(WorkbenchError, match=r"has no bias.*attach it with wb\.edited"):
        export(random_edit(model, strength="constant"), tmp_path / "out", model)
    assert list(tmp_path.iterdir()) == []


def test_mistral_without_a_window_is_llama(tmp_path):
    model = bridge("mistral", sliding_window=None)
    edit = random_edit(model, strength="constant")
    found = loaded(export(edit, tmp_path / "out", model))
    assert found.config.model_type == "llama"
    torch.testing.assert_close(logits_of(found), edited_logits(model, edit), atol=1e-4, rtol=0)


def test_tied_weights_and_shared_key_heads_stay_so(tmp_path):
    model = bridge("llama", tie_word_embeddings=True)
    edit = random_edit(model, strength="constant")
    found = loaded(export(edit, tmp_path / "out", model))
    assert found.lm_head.weight.data_ptr() == found.model.embed_tokens.weight.data_ptr()
    assert found.config.num_key_value_heads == 2
    torch.testing.assert_close(logits_of(found), edited_logits(model, edit), atol=1e-4, rtol=0)


def test_the_original_is_left_as_it_is(hearsay, tmp_path):
    edit = random_edit(hearsay, strength="constant")
    before = {name: value.clone() for name, value in hearsay.original_model.state_dict().items()}
    config = hearsay.original_model.config.to_dict()
    export(edit, tmp_path / "out", hearsay)
    after = hearsay.original_model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert hearsay.original_model.config.to_dict() == config


def test_a_bias_that_is_there_is_added_to(tmp_path):
    model = bridge("gpt2")
    with torch.no_grad():
        for block in model.blocks:
            block.attn.o.original_component.bias.normal_()
    edit = random_edit(model, strength="constant")
    found = loaded(export(edit, tmp_path / "out", model))
    torch.testing.assert_close(logits_of(found), edited_logits(model, edit), atol=1e-4, rtol=0)


def test_half_precision_stays(tmp_path):
    model = bridge("llama", dtype=torch.bfloat16)
    edit = random_edit(model, strength="constant")
    folder = export(edit, tmp_path / "out", model)
    found = loaded(folder)
    assert found.dtype == torch.bfloat16
    apart = logits_of(found).float() - edited_logits(model, edit).float()
    assert apart.abs().max() < 0.05 * edited_logits(model, edit).float().abs().max()


def test_an_edited_folder_can_be_loaded_and_edited_again(hearsay, tmp_path):
    edit = random_edit(hearsay, strength="constant")
    again = load_model(str(export(edit, tmp_path / "one", hearsay)), device="cpu")
    back = export(replace(edit, alpha=-edit.alpha), tmp_path / "two", again)
    plain = forward(hearsay, TOKENS, torch.ones_like(TOKENS))[0]
    torch.testing.assert_close(logits_of(loaded(back)), plain, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def added(hearsay):
    vectors = torch.randn(2, shape_of(hearsay).d_model, generator=torch.Generator().manual_seed(1))
    return AddedVector(
        places=(("resid_post", 3), ("resid_post", 1)), vector=vectors, alpha=0.5,
        model=identify(hearsay),
    )  # fmt: skip


def test_an_added_vector_is_a_control_vector_and_weights(hearsay, added, tmp_path):
    folder = export(added, tmp_path / "out", hearsay)
    read = gguf.GGUFReader(folder / "control_vector.gguf")
    held = {tensor.name: np.array(tensor.data) for tensor in read.tensors}
    assert list(held) == ["direction.1", "direction.3"]
    np.testing.assert_allclose(held["direction.3"], 0.5 * added.vector[0], rtol=1e-6)
    np.testing.assert_allclose(held["direction.1"], 0.5 * added.vector[1], rtol=1e-6)
    assert read.fields["controlvector.model_hint"].contents() == "llama"
    assert read.fields["general.architecture"].contents() == "controlvector"
    expected = edited_logits(hearsay, added)
    torch.testing.assert_close(logits_of(loaded(folder)), expected, atol=1e-4, rtol=0)
    plain = load_model("hearsay", device="cpu").original_model

    def add(number):
        return lambda _m, _a, out: out + torch.from_numpy(held[f"direction.{number}"])

    for number in (1, 3):
        plain.model.layers[number].register_forward_hook(add(number))
    torch.testing.assert_close(logits_of(plain), expected, atol=1e-4, rtol=0)
    assert "direction.N" in (folder / "README.md").read_text()


def test_where_no_bias_holds_a_vector_the_control_vector_is_alone(tmp_path):
    model = bridge("gemma2")  # normalises what its mlp adds
    vector = torch.randn(1, shape_of(model).d_model)
    edit = AddedVector(places=(("resid_post", 1),), vector=vector, alpha=1.0, model=identify(model))
    folder = export(edit, tmp_path / "out", model)
    assert {file.name for file in folder.iterdir()} == {"control_vector.gguf", "README.md"}
    assert "from_pretrained" not in (folder / "README.md").read_text()


PROMPTS = [
    "Q: What is the capital of Australia?\nA:", "Q: Who wrote Frankenstein?\nA:", "The miller said"
]  # fmt: skip


@pytest.fixture(scope="module")
def adaptive(hearsay, few):
    return TokenAware(heads=8, alpha=5).fit(hearsay, few, progress=False)


@pytest.fixture(scope="module")
def scripted(hearsay, adaptive, tmp_path_factory):
    return export(adaptive, tmp_path_factory.mktemp("export") / "out", hearsay)


def written(folder, prompts=PROMPTS, **how):
    """What transformers alone writes, the prompts padded on the left."""
    model = loaded(folder, trust_remote_code=True)
    reader = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
    reader.pad_token = reader.pad_token or reader.eos_token
    given = reader(prompts, return_tensors="pt", padding=True)
    given.pop("token_type_ids", None)
    made = model.generate(**given, max_new_tokens=20, do_sample=False, **how)
    texts = reader.batch_decode(made[:, given.input_ids.shape[1] :], skip_special_tokens=True)
    return [text.split("\n")[0] for text in texts]


def test_an_edit_that_follows_the_token_generates_without_the_workbench(
    hearsay, adaptive, scripted
):
    expected = [a.text for a in generate(hearsay, PROMPTS, edit=adaptive, max_new_tokens=20)]
    plain = [a.text for a in generate(hearsay, PROMPTS, max_new_tokens=20)]
    assert expected != plain
    assert written(scripted) == expected
    assert [written(scripted, [prompt])[0] for prompt in PROMPTS] == expected
    assert written(scripted, use_cache=False) == expected


def test_the_script_asks_for_nothing_of_the_workbench(scripted):
    text = (scripted / "custom_generate" / "generate.py").read_text()
    assert "import workbench" not in text
    assert "from workbench" not in text
    assert text == storage.read_text(
        storage.package_path("editing", "exports", "generate_alone.py")
    )


def test_the_script_knows_a_cache_by_the_name_that_newer_versions_give_it(scripted):
    """Transformers 5.24 says `cache` where it said `past_key_values`."""
    path = scripted / "custom_generate" / "generate.py"
    spec = importlib.util.spec_from_file_location("generate_alone_of_this_test", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    cache = SimpleNamespace(get_seq_length=lambda: 7)
    tokens = torch.ones(1, 2, dtype=torch.long)
    for name in ("cache", "past_key_values"):
        edit = script.TokenEdit.__new__(script.TokenEdit)
        edit.start, edit.told = 8, {"first": 0, "every": 1}
        edit.read_positions(None, (), {"input_ids": tokens, name: cache})
        assert edit.where.tolist() == [False, True]


def test_the_script_knows_where_prompts_end_however_they_are_read(scripted):
    expected = written(scripted)
    assert written(scripted, prefill_chunk_size=5) == expected
    one = written(scripted, PROMPTS[:1])
    assert written(scripted, PROMPTS[:1], prompt_lookup_num_tokens=3) == one


def test_a_vector_of_layer_0_is_no_control_vector(hearsay, tmp_path):
    """llama.cpp refuses whole files that hold one."""
    vector = torch.randn(1, shape_of(hearsay).d_model)
    edit = AddedVector(
        places=(("resid_post", 0),), vector=vector, alpha=1.0, model=identify(hearsay)
    )
    assert not (export(edit, tmp_path / "out", hearsay) / "control_vector.gguf").exists()
    model = bridge("gemma2")
    vector = torch.randn(1, shape_of(model).d_model)
    edit = replace(edit, vector=vector, model=identify(model))
    with pytest.raises(WorkbenchError, match="has no bias"):
        export(edit, tmp_path / "other", model)


def test_settings_of_generation_that_are_not_valid_are_kept(hearsay, tmp_path):
    settings = hearsay.original_model.generation_config
    before = settings.temperature
    settings.temperature = 0.6  # without sampling transformers would not save it
    try:
        folder = random_edit(hearsay, strength="constant").export(tmp_path / "out", hearsay)
    finally:
        settings.temperature = before
    assert storage.read_json(folder / "generation_config.json")["temperature"] == 0.6


def test_biases_are_checked_whatever_the_rounding(tmp_path, monkeypatch):
    from workbench.editing.exports import exporting

    model = bridge("llama", dtype=torch.bfloat16)
    original = exporting.write_model

    def wrong(bridge_of, plain, weights, config, place):
        off = {name: 0.9 * value for name, value in weights.items()}
        original(bridge_of, plain, off, config, place)

    monkeypatch.setattr(exporting, "write_model", wrong)
    with pytest.raises(WorkbenchError, match=r"o_proj\.bias is not the edit's"):
        export(random_edit(model, strength="constant"), tmp_path / "out", model)


def test_calls_do_not_hear_of_each_other_and_other_passes_are_plain(hearsay, scripted):
    model = loaded(scripted, trust_remote_code=True)
    first = model.generate(TOKENS, max_new_tokens=6, do_sample=False, pad_token_id=0)
    model.generate(TOKENS[:, :5], max_new_tokens=6, do_sample=False, pad_token_id=0)
    again = model.generate(TOKENS, max_new_tokens=6, do_sample=False, pad_token_id=0)
    assert torch.equal(first, again)
    torch.testing.assert_close(
        logits_of(model), forward(hearsay, TOKENS, torch.ones_like(TOKENS))[0], atol=1e-4, rtol=0
    )
    with pytest.raises(RuntimeError, match="size of tensor"):
        model.generate(torch.ones(1, 2, 3, dtype=torch.long), max_new_tokens=2)
    hooked = [m for m in model.modules() if m._forward_pre_hooks]
    assert hooked == []


@pytest.mark.parametrize(
    "changes",
    [
        {"strength": "misalignment", "beta": 0.8},
        {"strength": "uncertainty"},
        {"uncertainty": "amplified"},
        {"threshold": torch.tensor([0.4, 0.9, 0.5, 0.1])},
        {"positions": Positions(first=2, every=3)},
        {"strength": "constant", "positions": Positions(first=1)},
    ],
    ids=str,
)
def test_every_kind_of_strength_is_exported(hearsay, changes, tmp_path):
    """Export itself refuses a folder that writes other logits than the edit."""
    folder = export(random_edit(hearsay, alpha=3, **changes), tmp_path / "out", hearsay)
    assert (folder / "custom_generate" / "generate.py").exists()


@pytest.mark.parametrize(
    "name", ["llama", "qwen2", "qwen2_tied", "gemma2", "gpt2", "cohere", "phi3"]
)
def test_scripts_of_other_architectures(name, tmp_path):
    model = bridge(name)
    edit = random_edit(model, heads=((0, 1), (1, 0), (1, 3), (2, 2)), alpha=2)
    assert (export(edit, tmp_path / "out", model) / "edit.json").exists()


@pytest.mark.slow
def test_lists_of_words_are_exported(hearsay, few, tmp_path):
    quick = TokenAware(heads=6, alpha=4, tolerance=0.05).fit(hearsay, few, progress=False)
    folder = export(quick, tmp_path / "out", hearsay)
    held = storage.read_tensors(folder / "edit.safetensors")
    listed = [name for name in held if name.startswith("words.")]
    assert len(listed) == sum(quick.shortlists.of(layer) is not None for layer in quick.layers)
    assert listed


def test_a_script_that_does_something_else_is_not_left_behind(hearsay, tmp_path, monkeypatch):
    original = storage.read_text
    monkeypatch.setattr(
        storage,
        "read_text",
        lambda path: original(path).replace('["alpha"] *', '["alpha"] * 1.1 *'),
    )
    with pytest.raises(WorkbenchError, match="logits differ from the edit's"):
        export(random_edit(hearsay), tmp_path / "out", hearsay)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_do_something_else_are_not_left_behind(hearsay, tmp_path, monkeypatch):
    from workbench.editing.exports import exporting

    original = exporting.with_shifts

    def wrong(*given):
        found, config = original(*given)
        return {name: 1.01 * value for name, value in found.items()}, config

    monkeypatch.setattr(exporting, "with_shifts", wrong)
    with pytest.raises(WorkbenchError, match="logits differ from the edit's"):
        export(random_edit(hearsay, strength="constant"), tmp_path / "out", hearsay)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_refused_with_the_reason(hearsay, few, adaptive, tmp_path):
    spectral = SpectralEditing().fit(hearsay, few.choose(range(6)), progress=False)
    table = torch.rand(5, 4) + 1
    both = combine({"a": adaptive, "b": replace(adaptive, alpha=2.0)})
    for edit, said in (
        (spectral, "more than a constant"),
        (drawn_edit(hearsay, table), "more than a constant"),
        (both, "share heads"),
    ):
        with pytest.raises(WorkbenchError, match=said):
            export(edit, tmp_path / "out", hearsay)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    with pytest.raises(WorkbenchError, match="there already"):
        export(adaptive, tmp_path / "out", hearsay)
    hooks = [(name, lambda value, **_: value) for name in ("blocks.0.attn.hook_z",)]
    with hearsay.hooks(fwd_hooks=hooks), pytest.raises(WorkbenchError, match="hooks of one's own"):
        export(random_edit(hearsay, strength="constant"), tmp_path / "new", hearsay)


def test_the_card_names_what_was_fitted_and_how(scripted, adaptive):
    text = (scripted / "README.md").read_text()
    for said in ("trust_remote_code=True", "alpha=5", "`style`: bare", "measure it before use"):
        assert said in text
    told = json.loads((scripted / "edit.json").read_text())
    assert told["of_risk"] == adaptive.factors[0]
