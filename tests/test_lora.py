"""LoRA: what is attached is W + α·B·A, and it reaches what no single offset can."""

from dataclasses import replace

import pytest
import torch

from tests.architectures import hf_model, tokenizer
from tests.planted import planted_model, questions
from tests.test_clas import share_right
from workbench.editing.attaching import edited
from workbench.editing.generation import generate
from workbench.editing.scoring import score
from workbench.editing.whole_edits import LowRank
from workbench.errors import WorkbenchError
from workbench.evaluation.metrics.side_effects import side_effects_under
from workbench.methods.lora import LoRA
from workbench.models.identity import identify
from workbench.models.linear_modules import linear_modules, low_rank, sizes_of
from workbench.models.loading import load_model
from workbench.models.unwrapping import has_hooks


def random_change(model, rank=3, alpha=0.5):
    known = linear_modules(model)
    sizes = tuple(sizes_of(module) for module in known.values())
    draw = torch.Generator().manual_seed(0)
    return LowRank(
        modules=tuple(known), sizes=sizes, rank=rank, alpha=alpha, model=identify(model),
        down=torch.randn(rank * sum(a for a, _ in sizes), generator=draw) / 5,
        up=torch.randn(rank * sum(b for _, b in sizes), generator=draw) / 5,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_it_is_the_model_with_other_weights(name):
    model = load_model(hf_model(name), tokenizer(bos=True))
    own = hf_model(name)
    change = random_change(model)
    modules = dict(own.named_modules())
    for key, (down, up) in change.parts_of_modules.items():
        delta = up @ down
        weight = modules[key].weight.data
        weight += delta if weight.shape == delta.shape and name != "gpt2" else delta.T
    asked = questions()[1]
    changed = load_model(own, tokenizer(bos=True))
    wanted = score(changed, asked)
    found = score(model, asked, change)
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one.tokens, other.tokens, atol=1e-3)
    prompt = "Q: What is the a?\nA:"
    written = generate(model, prompt, edit=change, max_new_tokens=6, stop=())[0].tokens
    assert written == generate(changed, prompt, max_new_tokens=6, stop=())[0].tokens
    with edited(model, change):
        again = generate(model, prompt, max_new_tokens=6, stop=())[0].tokens
    assert again == written
    texts = ["the of the of", "of my some the"]
    kl = side_effects_under(model, texts, [change])[0]
    assert all(own.kl > 1e-3 for own in kl)
    names = {key.rpartition(".")[2] for key in change.modules}
    assert "lm_head" not in names


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_as_peft_does_it():
    peft = pytest.importorskip("peft")
    model, own = planted_model(), hf_model("llama")
    change = random_change(model, rank=2)
    config = peft.LoraConfig(r=2, lora_alpha=2, target_modules=list(change.modules))
    adapted = peft.get_peft_model(own, config)
    parts = change.parts_of_modules
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            for key, (down, up) in parts.items():
                if f".{key}.lora_A" in name:
                    parameter.copy_(down)
                if f".{key}.lora_B" in name:
                    parameter.copy_(up)
    tokens = torch.tensor([[0, 279, 278, 300, 5]])
    with edited(model, change), torch.no_grad():
        found = model.original_model(tokens).logits
    assert torch.allclose(found, adapted(tokens).logits, atol=1e-4)


@pytest.mark.parametrize("objective", ["preference", "likelihood", "truth_per_nat"])
def test_what_the_question_decides_is_learned(objective):
    model = planted_model()
    train, held = questions(swapped=("my", "some"))
    method = LoRA(rank=2, epochs=20, rate=0.01, objective=objective)
    edit = method.fit(model, train, progress=False)
    assert share_right(model, held, None) < 0.8
    assert share_right(model, held, edit) > 0.9


def test_with_shuffled_labels_it_is_not():
    model = planted_model()
    train, held = questions(swapped=("my", "some"))
    shares = []
    for seed in range(2):
        method = LoRA(rank=2, epochs=20, rate=0.01, shuffle_labels=True, seed=seed)
        shares.append(share_right(model, held, method.fit(model, train, progress=False)))
    assert sum(shares) / 2 < 0.75


def test_the_weights_stay_and_a_seed_repeats(hearsay, few):
    before = {name: p.clone() for name, p in hearsay.original_model.named_parameters()}
    method = LoRA(rank=2, pairs=1, epochs=1, modules=("q_proj", "down_proj"))
    train = few.choose(range(8))
    one, two = (method.fit(hearsay, train, progress=False) for _ in range(2))
    assert torch.equal(one.up, two.up)
    assert {name.rpartition(".")[2] for name in one.modules} == {"q_proj", "down_proj"}
    other = replace(method, seed=1).fit(hearsay, train, progress=False)
    assert not torch.equal(one.up, other.up)
    after = dict(hearsay.original_model.named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(p.requires_grad or p.grad is not None for p in after.values())


def test_what_does_not_fit_is_refused(hearsay, few, as_shipped):
    for wrong in ({"rank": 0}, {"objective": "both"}, {"pairs": 0}, {"beta": 0.0}):
        with pytest.raises(WorkbenchError):
            LoRA(**wrong)
    with pytest.raises(WorkbenchError, match=r"some of .*q_proj"):
        LoRA(modules=("query",)).fit(hearsay, few.choose(range(4)), progress=False)
    change = random_change(hearsay)
    with pytest.raises(WorkbenchError, match="shape"):
        replace(change, down=change.down[:-1])
    with pytest.raises(WorkbenchError, match="a linear module"):
        score(hearsay, few.choose([0]), replace(change, modules=("x", *change.modules[1:])))


def fused(name="gpt2", change=lambda weight: None):
    """A model with fused queries, keys and values, whose first fused weight was changed before."""
    own = hf_model(name)
    change(next(w for n, w in own.named_parameters() if n.endswith("c_attn.weight")).data)
    return load_model(own, tokenizer(bos=True))


def test_what_a_split_module_s_parts_cannot_tell_is_refused(as_shipped):
    """Equal rows in two parts, weights that were folded, and what reads weights by itself."""
    asked = questions()[1].choose(range(2))

    def ablated(weight):
        weight[:, :8] = weight[:, 32:40] = 0  # rows of queries and of keys, as Conv1D has them

    model = fused(change=ablated)
    with pytest.raises(WorkbenchError, match=r"c_attn.*equal"):
        score(model, asked, random_change(model))
    one = fused(change=lambda weight: weight[:, :8].zero_())
    score(one, asked, random_change(one))  # equal rows of one part are in their order
    model = fused()
    change = random_change(model)
    model.set_use_split_qkv_input(True)
    with pytest.raises(WorkbenchError, match="use_split_qkv_input"):
        score(model, asked, change)
    model.set_use_split_qkv_input(False)
    score(model, asked, change)
    model.enable_compatibility_mode(no_processing=True)
    score(model, asked, change)
    model = fused()
    model.enable_compatibility_mode()
    with pytest.raises(WorkbenchError, match="folded"):
        score(model, asked, change)


def test_a_change_of_other_sizes_is_refused_and_leaves_nothing():
    model = fused()
    name = next(iter(linear_modules(model)))
    with (
        pytest.raises(WorkbenchError, match="from 8 to 96"),
        low_rank(model, {name: (torch.ones(2, 8), torch.ones(96, 2))}),
    ):
        pass
    assert not has_hooks(model)
