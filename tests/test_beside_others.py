"""Edits beside what others do to a model and a process: right, or refused; never unedited."""

import gc
import threading
import weakref
from contextlib import contextmanager, nullcontext
from functools import partial

import pytest
import torch
import transformers

from tests.architectures import hf_model
from tests.architectures import tokenizer as small_tokenizer
from tests.edits import random_edit
from workbench.editing.attaching import edited
from workbench.editing.generation import generate
from workbench.editing.scoring import score, score_under
from workbench.errors import WorkbenchError
from workbench.models.loading import load_model
from workbench.models.shipped import SHIPPED
from workbench.models.unwrapping import has_hooks
from workbench.stages.capture import capture

PROMPT = "Q: What is the capital of Australia?\nA:"
NEW = 6


@pytest.fixture(scope="module")
def edit(hearsay):
    """Strong enough that no answer stays."""
    return random_edit(hearsay, alpha=12.0)


@pytest.fixture(scope="module")
def wanted(hearsay, edit):
    """The tokens that an edited model writes."""
    (found,) = generate(hearsay, PROMPT, edit=edit, max_new_tokens=NEW, stop=())
    (plain,) = generate(hearsay, PROMPT, max_new_tokens=NEW, stop=())
    assert found.tokens != plain.tokens
    return found


def own(model, **settings):
    """Transformers' own generation; the new tokens."""
    tokens = model.tokenizer(PROMPT, return_tensors="pt").input_ids
    given = {"do_sample": False, "max_new_tokens": NEW, "pad_token_id": 0, **settings}
    return model.original_model.generate(tokens, **given)[0, tokens.shape[1] :].tolist()


def test_a_pipeline_writes_under_the_edit(hearsay, edit, wanted):
    pipe = transformers.pipeline(
        "text-generation", model=hearsay.original_model, tokenizer=hearsay.tokenizer
    )
    with edited(hearsay, edit):
        (said,) = pipe(PROMPT, do_sample=False, max_new_tokens=NEW, return_full_text=False)
    assert said["generated_text"].startswith(wanted.text[:20])


@pytest.mark.parametrize("block", ["no_grad", "inference_mode", "enable_grad", "training"])
def test_modes_of_autograd_change_nothing(hearsay, edit, wanted, block):
    modes = {name: getattr(torch, name)() for name in ("no_grad", "inference_mode", "enable_grad")}
    mode = modes.get(block, nullcontext())
    hearsay.original_model.train(block == "training")  # hearsay has no dropout
    try:
        with mode, edited(hearsay, edit):
            assert tuple(own(hearsay)) == wanted.tokens[:NEW]
        with mode:
            (said,) = generate(hearsay, PROMPT, edit=edit, max_new_tokens=NEW, stop=())
    finally:
        hearsay.original_model.eval()
    assert said.tokens == wanted.tokens


def test_gradients_go_through_an_edit(hearsay, edit):
    tokens = hearsay.tokenizer(PROMPT, return_tensors="pt").input_ids
    weight = hearsay.original_model.get_input_embeddings().weight.requires_grad_()
    with torch.enable_grad(), edited(hearsay, edit, start="last"):
        hearsay.original_model(tokens).logits[0, -1].max().backward()
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0
    weight.grad = None
    weight.requires_grad_(False)


def test_autocast_is_edited_within_its_rounding(hearsay, edit, few):
    asked = few.choose(range(4))
    plain = [one.total for one in score(hearsay, asked, edit)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = [one.total for one in score(hearsay, asked, edit)]
    unedited = [one.total for one in score(hearsay, asked)]
    apart = torch.tensor(half) - torch.tensor(plain)
    assert apart.abs().mean() < 0.1 * (torch.tensor(plain) - torch.tensor(unedited)).abs().mean()


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "setting",
    [
        partial(default_dtype, torch.float64), partial(default_dtype, torch.bfloat16),
        deterministic, partial(threads, 2), torch.inference_mode, partial(torch.device, "cpu"),
    ],
    ids=["float64", "bfloat16", "deterministic", "two threads", "inference mode", "device"],
)  # fmt: skip
def test_settings_of_the_process_change_nothing(setting, hearsay, few, edit, wanted):
    asked = few.choose(range(3))
    acts = capture(hearsay, asked, uncertainty="logit_lens", progress=False)
    nats = [one.total for one in score(hearsay, asked, edit)]
    with setting():
        (said,) = generate(hearsay, PROMPT, edit=edit, max_new_tokens=NEW, stop=())
        others = capture(hearsay, asked, uncertainty="logit_lens", progress=False)
        again = [one.total for one in score(hearsay, asked, edit)]
    assert said.tokens == wanted.tokens
    assert others.z[0].dtype == acts.z[0].dtype
    assert torch.allclose(others[0].z.clone(), acts[0].z, atol=1e-4)
    assert torch.allclose(others[0].uncertainty.clone(), acts[0].uncertainty, atol=1e-4)
    assert again == pytest.approx(nats, abs=1e-3)


def test_edits_within_edits_add_up_and_end_in_their_order(hearsay, edit):
    other = random_edit(hearsay, heads=((0, 0), (3, 2)), alpha=9.0, seed=3)
    tokens = hearsay.tokenizer(PROMPT, return_tensors="pt").input_ids

    def last():
        return hearsay(tokens)[0, -1].clone()

    plain = last()
    with edited(hearsay, edit, start="last"):
        one = last()
        with edited(hearsay, other, start="last"):
            both = last()
        assert torch.equal(last(), one)
        with edited(hearsay, edit, start="last"):  # the same once more is twice the edit
            twice = last()
    assert torch.equal(last(), plain)
    with edited(hearsay, other, start="last"), edited(hearsay, edit, start="last"):
        assert torch.allclose(last(), both, atol=1e-4)
    assert len({round(float(x.sum()), 2) for x in (plain, one, both, twice)}) == 4


def test_an_exception_within_a_hook_leaves_nothing_behind(hearsay, edit, wanted):
    layer = hearsay.original_model.get_submodule("model.layers.2")

    def fails(*_):
        raise ValueError("mine")

    handle = layer.register_forward_hook(fails)
    with pytest.raises(ValueError, match="mine"), edited(hearsay, edit):
        own(hearsay)
    handle.remove()
    (said,) = generate(hearsay, PROMPT, edit=edit, max_new_tokens=NEW, stop=())
    assert said.tokens == wanted.tokens
    (plain,) = generate(hearsay, PROMPT, max_new_tokens=NEW, stop=())
    assert plain.tokens != wanted.tokens


def test_an_exception_within_the_block_takes_the_edit_away(hearsay, edit, wanted):
    with pytest.raises(KeyError), edited(hearsay, edit):
        raise KeyError
    assert tuple(own(hearsay)) != wanted.tokens[:NEW]


def in_threads(*work):
    """Run functions at once; what they return or raise."""
    found = [None] * len(work)

    def run(number):
        try:
            found[number] = work[number]()
        except Exception as error:
            found[number] = error

    every = [threading.Thread(target=run, args=(number,)) for number in range(len(work))]
    for one in every:
        one.start()
    for one in every:
        one.join()
    return found


def test_two_models_in_two_threads_keep_to_their_own(hearsay, edit, few):
    other = load_model("hearsay", device="cpu")
    third = random_edit(hearsay, heads=((3, 3),), alpha=20.0, seed=5)
    asked = few.choose(range(6))
    wanted = [
        [one.total for one in score(hearsay, asked, edit)],
        [one.total for one in score(other, asked, third)],
    ]
    for _ in range(3):
        found = in_threads(
            lambda: [one.total for one in score(hearsay, asked, edit)],
            lambda: [one.total for one in score(other, asked, third)],
        )
        for mine, theirs in zip(found, wanted, strict=True):
            assert mine == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize("what", ["generate", "score", "capture", "edited"])
def test_one_model_in_two_threads_is_refused(hearsay, few, edit, wanted, what):
    """The other thread's passes would be edited, or this one's be not."""
    asked = few.choose(range(1))

    def enters():
        with edited(hearsay, None):
            return

    does = {
        "generate": lambda: generate(hearsay, PROMPT, max_new_tokens=NEW, stop=()),
        "score": lambda: score(hearsay, asked),
        "capture": lambda: capture(hearsay, asked, progress=False),
        "edited": enters,
    }
    inside, leave = threading.Event(), threading.Event()

    def holds():
        with edited(hearsay, edit):
            inside.set()
            leave.wait(30)
            return tuple(own(hearsay))

    def comes():
        inside.wait(30)
        try:
            return does[what]()
        finally:
            leave.set()

    first, second = in_threads(holds, comes)
    assert first == wanted.tokens[:NEW]
    assert isinstance(second, WorkbenchError)
    assert "two threads" in str(second)
    (again,) = generate(hearsay, PROMPT, edit=edit, max_new_tokens=NEW, stop=())
    assert again.tokens == wanted.tokens


def test_a_capture_is_not_another_thread_s(hearsay, few, edit):
    """Its hooks are on the model while it runs: nobody else's values may reach them."""
    layer = hearsay.original_model.get_submodule("model.layers.2")
    asked, others = few.choose(range(1)), few.choose(range(1, 4))
    wanted = capture(hearsay, asked, unlabelled=False, progress=False)
    within, leave = threading.Event(), threading.Event()

    def waits(*_):
        if threading.current_thread().name == "captures":
            within.set()
            leave.wait(30)

    handle = layer.register_forward_hook(waits)
    found = []
    thread = threading.Thread(
        target=lambda: found.append(capture(hearsay, asked, unlabelled=False, progress=False)),
        name="captures",
    )
    thread.start()
    within.wait(30)
    with pytest.raises(WorkbenchError, match="two threads"):
        score(hearsay, others)
    leave.set()
    thread.join()
    handle.remove()
    assert torch.allclose(found[0].z[:], wanted.z[:], atol=1e-4)


def test_a_pass_within_a_pass_leaves_the_outer_one_its_positions(hearsay, edit, wanted):
    layer = hearsay.original_model.get_submodule("model.layers.1")
    short = hearsay.tokenizer("The miller", return_tensors="pt").input_ids
    inside = []

    def runs(*_):
        if not inside:
            inside.append(True)
            hearsay.original_model(short, logits_to_keep=1)
            inside.clear()

    handle = layer.register_forward_hook(runs)
    try:
        with edited(hearsay, edit):
            assert tuple(own(hearsay)) == wanted.tokens[:NEW]
    finally:
        handle.remove()


def test_passes_that_overlap_are_refused(hearsay, edit):
    """A pass of another thread while one runs: its hooks would read the other's positions."""
    layer = hearsay.original_model.get_submodule("model.layers.0")
    within, leave = threading.Event(), threading.Event()

    def waits(*_):
        if threading.current_thread().name == "slow":
            within.set()
            leave.wait(30)

    handle = layer.register_forward_hook(waits)
    found = []
    with edited(hearsay, edit):
        slow = threading.Thread(target=lambda: found.append(own(hearsay)), name="slow")
        slow.start()
        within.wait(30)
        with pytest.raises(WorkbenchError, match="two threads"):
            own(hearsay)
        leave.set()
        slow.join()
    handle.remove()
    assert found


def test_a_thread_may_write_for_the_one_that_edits(hearsay, edit, wanted):
    """As streamers do."""
    tokens = hearsay.tokenizer(PROMPT, return_tensors="pt")
    streamer = transformers.TextIteratorStreamer(hearsay.tokenizer, skip_prompt=True)
    with edited(hearsay, edit):
        writer = threading.Thread(
            target=hearsay.original_model.generate,
            kwargs={**tokens, "do_sample": False, "max_new_tokens": NEW, "streamer": streamer},
        )
        writer.start()
        said = "".join(streamer)
        writer.join()
    assert said.startswith(wanted.text[:20])


def test_a_model_may_be_deleted_while_it_is_edited(few):
    model = load_model("hearsay", device="cpu")
    with edited(model, random_edit(model)):
        generate(model, PROMPT, max_new_tokens=2)
        left = weakref.ref(model.original_model)
        del model
    gc.collect()
    assert left() is None


def test_static_caches_are_refused(hearsay, edit):
    """Their masks do not tell positions."""
    with edited(hearsay, edit), pytest.raises(WorkbenchError, match="a dynamic cache"):
        own(hearsay, cache_implementation="static")


@pytest.mark.filterwarnings("ignore")
def test_quantised_caches_are_read_as_others_are(hearsay):
    """With optimum-quanto, which the extras do not hold."""
    pytest.importorskip("optimum.quanto")
    strong = random_edit(hearsay, alpha=6.0)
    quantised = {"backend": "quanto", "nbits": 4, "q_group_size": 20, "residual_length": 4}
    plain = own(hearsay)
    with edited(hearsay, strong) as trace:
        found = own(hearsay, cache_implementation="quantized", cache_config=quantised)
        dynamic = own(hearsay)
    assert found == dynamic != plain
    assert torch.equal(trace[0].position, trace[1].position)


def test_samples_are_edited(hearsay, edit, wanted):
    tokens = hearsay.tokenizer(PROMPT, return_tensors="pt").input_ids
    torch.manual_seed(0)
    with edited(hearsay, edit):
        several = hearsay.original_model.generate(
            tokens, do_sample=True, temperature=1e-4, num_return_sequences=3, max_new_tokens=NEW,
            pad_token_id=0,
        )  # fmt: skip
    assert [tuple(row) for row in several[:, tokens.shape[1] :].tolist()] == [wanted.tokens] * 3


def test_a_compiled_model_is_refused():
    plain = transformers.AutoModelForCausalLM.from_pretrained(SHIPPED["hearsay"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(SHIPPED["hearsay"])
    compiled = torch.compile(plain, backend="eager")
    with pytest.raises(WorkbenchError, match=r"compile"):
        load_model(compiled, tokenizer)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:Could not find a config file")
def test_adapters_of_peft_are_read_as_part_of_the_model(few):
    peft = pytest.importorskip("peft")
    settings = peft.LoraConfig(target_modules=["o_proj", "q_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(hf_model("llama"), settings)
    tokenizer = small_tokenizer(bos=True)
    with pytest.raises(WorkbenchError, match="merge_and_unload"):
        load_model(wrapped, tokenizer)
    inside = hf_model("llama")
    peft.inject_adapter_in_model(settings, inside)
    peft.set_peft_model_state_dict(inside, peft.get_peft_model_state_dict(wrapped))
    model, merged = (
        load_model(own, tokenizer) for own in (inside.eval(), wrapped.merge_and_unload())
    )
    plain = load_model(hf_model("llama"), tokenizer)
    edit = random_edit(merged, heads=((0, 0), (1, 1)), alpha=5.0)
    asked = few.choose(range(2))
    mine, theirs, none = (
        [one.total for one in score_under(own, asked, [edit])[0]] for own in (model, merged, plain)
    )
    assert mine == pytest.approx(theirs, abs=1e-3)
    assert mine != pytest.approx(none, abs=1e-1)


def logits_of(model, *given, **named):
    with torch.no_grad():
        return model.original_model(*given, **named).logits


def test_arguments_of_a_pass_may_come_by_their_places(hearsay, edit):
    """Without names a mask was not seen, and the shorter row was not edited."""
    rows = [hearsay.tokenizer(text).input_ids for text in (PROMPT, "Q: Who?\nA:")]
    tokens = torch.tensor([row + [0] * (len(rows[0]) - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (len(rows[0]) - len(row)) for row in rows])
    for start in (None, "last"):
        with edited(hearsay, edit, start=start):
            named = logits_of(hearsay, input_ids=tokens, attention_mask=mask, use_cache=True)
            placed = logits_of(hearsay, tokens, mask, use_cache=True)
        plain = logits_of(hearsay, tokens, mask)
        assert torch.equal(named, placed)
        last = len(rows[1]) - 1
        assert not torch.allclose(placed[1, last], plain[1, last], atol=1e-2)


def test_several_texts_in_one_row_are_refused(hearsay, edit):
    tokens = torch.tensor([hearsay.tokenizer(PROMPT).input_ids])
    counted = torch.arange(tokens.shape[1])[None]
    with edited(hearsay, edit, start="last"):
        logits_of(hearsay, tokens, position_ids=counted)
        with pytest.raises(WorkbenchError, match="position_ids that do not count"):
            logits_of(
                hearsay, torch.cat([tokens, tokens], 1),
                position_ids=torch.cat([counted, counted], 1),
            )  # fmt: skip
    padded = torch.cat([torch.zeros(1, 2, dtype=torch.long), tokens], dim=1)
    mask = (torch.arange(padded.shape[1]) >= 2).long()[None]
    usual = (mask.cumsum(1) - 1).masked_fill(mask == 0, 1)
    with edited(hearsay, edit, start="last"):
        found = logits_of(hearsay, padded, attention_mask=mask, position_ids=usual)
        alone = logits_of(hearsay, tokens)
    assert torch.allclose(found[:, -1], alone[:, -1], atol=1e-4)


@pytest.mark.parametrize("site", ["hook_point", "module"])
def test_hooks_that_are_reset_within_the_block_leave_the_edit(hearsay, edit, wanted, site):
    with edited(hearsay, edit, site=site) as trace:
        hearsay.reset_hooks()
        assert tuple(own(hearsay)) == wanted.tokens[:NEW]
        assert len(trace) == 1
    assert not has_hooks(hearsay)
    assert not any(point.fwd_hooks for point in hearsay.hook_dict.values())


def test_hooks_of_others_stay_when_the_block_ends(hearsay, edit):
    seen = []
    hearsay.add_hook("blocks.1.attn.hook_z", lambda value, hook: seen.append(hook.name))
    try:
        with edited(hearsay, edit):
            own(hearsay)
        count = len(seen)
        own(hearsay)
        assert len(seen) > count > 0
    finally:
        hearsay.reset_hooks()
