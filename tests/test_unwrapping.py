"""The unwrapped model: the same weights and hooks as the bridge, and never in their place."""

import gc
import weakref

import pytest
import torch

from tests.architectures import CONFIGS, hf_model, tokenizer
from workbench.models.loading import load_model
from workbench.models.unwrapping import has_hooks, runner

TOKENS = torch.tensor([[5, 17, 200, 3, 90, 11, 42, 7]])


@pytest.fixture(params=list(CONFIGS))
def model(request):
    return load_model(hf_model(request.param), tokenizer(bos=False))


def test_it_has_no_wrapped_modules_and_the_same_logits(model):
    plain = runner(model)
    assert plain is not model.original_model
    assert not any(hasattr(module, "original_component") for module in plain.modules())
    assert torch.allclose(plain(TOKENS).logits, model.original_model(TOKENS).logits, atol=1e-4)
    softcapped = model.original_model.config.model_type == "gemma2"
    assert plain.config._attn_implementation == ("eager" if softcapped else "sdpa")
    assert model.original_model.config._attn_implementation == "eager"


def test_weights_are_shared(model):
    plain = runner(model)
    before = plain(TOKENS).logits
    with torch.no_grad():
        model.blocks[1].attn.o.original_component.weight.mul_(2.0)
    after = plain(TOKENS).logits
    assert not torch.allclose(before, after)
    assert torch.allclose(after, model.original_model(TOKENS).logits, atol=1e-4)
    model.to(torch.float64)
    assert plain(TOKENS).logits.dtype == torch.float64


def test_hooks_decide_which_of_the_two_runs(model):
    plain = runner(model)
    assert not has_hooks(model)
    with model.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", lambda value, hook: None)]):
        assert runner(model) is model.original_model
        assert has_hooks(model)
    handle = model.blocks[0].attn.register_forward_hook(lambda *_: None)
    assert runner(model) is model.original_model
    handle.remove()
    seen = []
    handle = model.blocks[2].original_component.register_forward_pre_hook(lambda *_: seen.append(1))
    assert runner(model) is plain
    assert has_hooks(model)
    plain(TOKENS)
    assert seen == [1]
    handle.remove()
    model.run_with_cache(TOKENS)
    assert runner(model) is plain
    assert not has_hooks(model)


def test_a_patched_module_stays_wrapped():
    wrapped = hf_model("llama")
    layer = wrapped.model.layers[0]
    layer.forward = type(layer).forward.__get__(layer)
    model = load_model(wrapped, tokenizer(bos=False))
    assert runner(model) is model.original_model
    assert not has_hooks(model)
    with model.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", lambda value, hook: None)]):
        assert has_hooks(model)


def test_exchanged_and_patched_modules_run_as_they_are():
    for change in ("exchange", "patch", "drop"):
        model = load_model(hf_model("llama"), tokenizer(bos=False))
        assert runner(model) is not model.original_model
        if change == "exchange":
            projection = model.blocks[1].attn.o
            projection._modules["_original_component"] = torch.nn.Linear(32, 32)
        if change == "patch":
            model.blocks[0].mlp.original_component.forward = lambda x: x
        if change == "drop":
            del model.original_model.model.layers[-1]
        assert runner(model) is model.original_model, change


def test_hooks_from_before_loading_count():
    wrapped = hf_model("llama")
    wrapped.model.layers[0].mlp.register_forward_hook(lambda *_: None)
    assert has_hooks(load_model(wrapped, tokenizer(bos=False)))


def test_compatibility_mode_is_obeyed():
    model = load_model(hf_model("gpt2"), tokenizer(bos=False))
    assert runner(model) is not model.original_model
    model.enable_compatibility_mode()
    assert runner(model) is model.original_model


def test_models_can_be_freed():
    model = load_model(hf_model("llama"), tokenizer(bos=False))
    runner(model)(TOKENS)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
