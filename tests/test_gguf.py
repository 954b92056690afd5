"""GGUF files: what is loaded is what was written, and no damaged file gets past its header."""

import contextlib
import copy
import struct
import sys
import tracemalloc
from dataclasses import asdict

import gguf
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.architectures import hf_model, tokenizer
from tests.edits import random_edit
from tests.gguf_writing import Kind, write_gguf
from workbench import storage
from workbench.data.questions import Question, QuestionSet
from workbench.editing.generation import generate
from workbench.errors import WorkbenchError
from workbench.evaluation.evaluate import evaluate
from workbench.methods.saved import load_edit
from workbench.models.gguf_header import read_header
from workbench.models.identity import identify, identity_from, tokenizer_of
from workbench.models.loading import load_model
from workbench.models.passes import forward
from workbench.models.tokens import pad

ROWS = [(5, 9, 30, 7, 8), (11, 12), (40, 3, 2, 9)]
QUESTION = Question("Who wrote Frankenstein?", "Mary Shelley.", ("Mary Shelley.",), ("Bram.",))
MODELS = {
    "llama": {},
    "one head of keys": {"num_key_value_heads": 1},
    "tied": {"tie_word_embeddings": True},
    "qwen2": {},
    "qwen3": {"head_dim": 128},
}


def random_model(name, **changes):
    """A model all of whose weights are random, norms and biases too."""
    torch.manual_seed(1)
    model = hf_model(name, intermediate_size=64, **changes)
    for own, parameter in model.named_parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=1.0 if "norm" in own else 0.0, std=0.3)
    return model


def logits_of(model):
    tokens, mask = pad(model, ROWS)
    return forward(model, tokens, mask)[0][mask.bool()]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A llama and its file."""
    plain = random_model("llama")
    return plain, write_gguf(tmp_path_factory.mktemp("gguf") / "llama.gguf", plain)


@pytest.fixture(scope="module")
def quantised(tmp_path_factory):
    plain = random_model("llama")
    path = write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.Q8_0.gguf", plain, Kind.Q8_0)
    return plain, load_model(path, device="cpu")


@pytest.mark.parametrize("case", list(MODELS))
def test_logits_are_the_original_s(case, tmp_path):
    name = case if case.startswith("qwen") else "llama"
    plain = random_model(name, **MODELS[case])
    tied = case == "tied"
    path = write_gguf(tmp_path / "m.gguf", plain, without=("output.weight",) if tied else ())
    model = load_model(str(path), device="cpu")
    assert model.original_model.config.tie_word_embeddings is tied
    wanted = logits_of(load_model(plain, tokenizer(bos=False)))
    assert float(wanted.abs().max()) > 1
    assert torch.allclose(logits_of(model), wanted, atol=1e-4)
    for text in ("Q: Who wrote Frankenstein?\nA: Mary é 1998", "<s>It</s>"):
        assert tokenizer_of(model)(text).input_ids == tokenizer(bos=False)(text).input_ids


def test_positions_whose_scaling_is_not_read_are_refused(tmp_path):
    """They would be computed as if they were not scaled."""
    plain = random_model("llama")
    scaled = {
        "llama.rope.scaling.type": ("linear", gguf.GGUFValueType.STRING),
        "llama.rope.scaling.factor": (8.0, gguf.GGUFValueType.FLOAT32),
    }
    path = write_gguf(tmp_path / "scaled.gguf", plain, changes=scaled)
    assert read_header(path).scales_positions
    with pytest.raises(WorkbenchError, match="scales rotary positions"):
        load_model(str(path), device="cpu")
    none = {**scaled, "llama.rope.scaling.type": ("none", gguf.GGUFValueType.STRING)}
    assert not read_header(write_gguf(tmp_path / "n.gguf", plain, changes=none)).scales_positions
    listed = text(b"rope_freqs.weight") + struct.pack("<IQIQ", 1, 32, 0, 0)
    (tmp_path / "t.gguf").write_bytes(
        header(ARCHITECTURE, tensor_count=1, tensors=listed + bytes(256))
    )
    assert read_header(tmp_path / "t.gguf").scales_positions


def test_the_order_of_queries_is_tested_by_this(tmp_path, monkeypatch):
    """Negative control: without the converter's order of queries and keys logits are others."""
    monkeypatch.setattr("tests.gguf_writing.permuted", lambda weight, heads: weight)
    plain = random_model("llama")
    model = load_model(write_gguf(tmp_path / "m.gguf", plain), device="cpu")
    wanted = logits_of(load_model(plain, tokenizer(bos=False)))
    assert not torch.allclose(logits_of(model), wanted, atol=1e-2)


def test_the_model_computes_with_what_quantisation_left_and_tells_it(quantised):
    plain, model = quantised
    found = logits_of(model)
    exact, rounded = copy.deepcopy(plain), copy.deepcopy(plain)
    for parameter in rounded.parameters():
        if parameter.ndim == 2:
            coarse = gguf.quants.quantize(parameter.detach().numpy(), Kind.Q8_0)
            parameter.data = torch.tensor(gguf.quants.dequantize(coarse, Kind.Q8_0))
    assert torch.allclose(found, logits_of(load_model(rounded, tokenizer(bos=False))), atol=1e-4)
    assert not torch.allclose(found, logits_of(load_model(exact, tokenizer(bos=False))), atol=1e-2)
    own = identify(model)
    assert (own.quantisation, own.licence) == ("Q8_0", "apache-2.0")
    assert own.label == f"{own.name} (Q8_0, apache-2.0)"
    assert own.name.endswith("tiny.Q8_0.gguf")
    data = QuestionSet((QUESTION,))
    table = evaluate(model, data, {"none": None}, max_new_tokens=2, progress=False)
    assert set(table["model"]) == {own.label}


def test_edits_remember_quantisation_and_old_records_load(quantised, tmp_path):
    plain, model = quantised
    edit = random_edit(model)
    edit.save(tmp_path / "edit")
    found = load_edit(tmp_path / "edit", model)
    assert found.model == identify(model)
    assert found.model.quantisation == "Q8_0"
    other = load_model(copy.deepcopy(plain), tokenizer(bos=False))
    with pytest.warns(UserWarning, match=r"Q8_0.*quantisation differs"):
        load_edit(tmp_path / "edit", other)
    record = asdict(identify(model))
    del record["quantisation"], record["licence"]
    assert (identity_from(record).quantisation, identity_from(record).licence) == ("", "")
    (file,) = (f for f in (tmp_path / "edit").glob("*.json") if "quantisation" in f.read_text())
    before = storage.read_json(file)

    def without(value):
        if isinstance(value, dict):
            gone = ("quantisation", "licence")
            return {key: without(own) for key, own in value.items() if key not in gone}
        return value

    storage.write_json(file, without(before))
    old = load_edit(tmp_path / "edit")
    assert old.model.quantisation == ""
    assert torch.equal(old.direction, edit.direction)


def test_other_precisions(tmp_path):
    plain = random_model("llama")
    path = write_gguf(tmp_path / "half.GGUF", plain, Kind.F16, licence="")
    model = load_model(path, dtype="bfloat16", device="cpu")
    assert next(model.original_model.parameters()).dtype == torch.bfloat16
    assert identify(model).label == f"{path} (F16)"
    assert len(generate(model, "Q: Who?\nA:", max_new_tokens=2)) == 1
    whole = load_model(path, device_map={"": "cpu"})
    wanted = logits_of(load_model(plain, tokenizer(bos=False)))
    assert float((logits_of(whole) - wanted).abs().max()) < 1e-2 * float(wanted.std())


def test_a_loaded_file_can_be_saved_in_hugging_face_format(written, tmp_path):
    plain, path = written
    model = load_model(path, device="cpu")
    wanted = logits_of(model)
    kind, config = type(plain), plain.config
    state = {key: value.clone() for key, value in plain.state_dict().items()}
    from transformers import AutoModelForCausalLM

    from workbench.models.gguf_files import load_gguf

    loaded, own, _ = load_gguf(path, torch.float32, "cpu")
    loaded.save_pretrained(tmp_path / "saved")
    own.save_pretrained(tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert type(again) is kind
    assert again.config.num_key_value_heads == config.num_key_value_heads
    for key, value in again.state_dict().items():
        assert torch.allclose(value, state[key], atol=1e-6)
    assert torch.allclose(
        logits_of(load_model(tmp_path / "saved", device="cpu")), wanted, atol=1e-4
    )


def test_a_file_of_the_same_name_in_the_working_folder_is_another(written, tmp_path, monkeypatch):
    """Transformers would take its weights."""
    plain, path = written
    torch.manual_seed(5)
    other = hf_model("llama", intermediate_size=64)
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    write_gguf(tmp_path / path.name, other)
    monkeypatch.chdir(tmp_path)
    wanted = logits_of(load_model(plain, tokenizer(bos=False)))
    assert torch.allclose(logits_of(load_model(path, device="cpu")), wanted, atol=1e-4)


def test_a_folder_may_be_called_like_a_file(tmp_path):
    hf_model("llama").save_pretrained(tmp_path / "saved.gguf")
    tokenizer(bos=False).save_pretrained(tmp_path / "saved.gguf")
    assert identify(load_model(tmp_path / "saved.gguf", device="cpu")).quantisation == ""
    with pytest.raises(WorkbenchError, match="cannot be read"):
        read_header(tmp_path / "saved.gguf")


def test_missing_weights_are_not_made_up(tmp_path):
    """Transformers would draw them at random."""
    plain = random_model("llama")
    path = write_gguf(tmp_path / "m.gguf", plain, without=("blk.1.ffn_up.weight",))
    with pytest.raises(WorkbenchError, match=r"without the weights .*layers\.1\.mlp\.up_proj"):
        load_model(path, device="cpu")


@pytest.mark.parametrize("more", [{"attention_bias": True}, {"mlp_bias": True}, {}])
def test_weights_that_transformers_leaves_unread_are_refused(more, tmp_path):
    """Without them another model would be computed."""
    plain = hf_model("llama", intermediate_size=64, **more)
    fewer = None if more else {"llama.block_count": (1, gguf.GGUFValueType.UINT32)}
    path = write_gguf(tmp_path / "m.gguf", plain, changes=fewer)
    with pytest.raises(WorkbenchError, match=r"weights, of which transformers reads [\d,]+ less"):
        load_model(path, device="cpu")


def test_what_cannot_be_loaded_is_refused(written, tmp_path):
    path = written[1]
    with pytest.raises(WorkbenchError, match="no model file at"):
        load_model(tmp_path / "absent.gguf")
    (tmp_path / "other.gguf").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(WorkbenchError, match=r"begins with b'PK\\x03\\x04'.*GGUF"):
        load_model(tmp_path / "other.gguf")
    (tmp_path / "empty.gguf").write_bytes(b"")
    with pytest.raises(WorkbenchError, match=r"0 bytes.*truncated"):
        load_model(tmp_path / "empty.gguf")
    strange = path.read_bytes().replace(b"llama", b"llamo")
    (tmp_path / "strange.gguf").write_bytes(strange)
    with pytest.raises(WorkbenchError, match=r"architecture 'llamo' .*reads: .*llama.*qwen2") as e:
        load_model(tmp_path / "strange.gguf", device="cpu")
    assert "general" not in e.value.expected.split(": ")[1].split(", ")
    if not torch.cuda.is_available():
        with pytest.raises(WorkbenchError, match="no CUDA device"):
            load_model(path, device="cuda")
    with pytest.raises(WorkbenchError, match="one of the two"):
        load_model(path, device="cpu", device_map="auto")


def test_truncated_files_are_refused_wherever_they_end(written, tmp_path):
    content = written[1].read_bytes()
    data = len(content) - sum(4 * p.numel() for p in written[0].state_dict().values())
    info = content.index(b"token_embd.weight")
    regions = {
        "magic": (0, 4), "counts": (4, 24), "pairs": (24, info), "tensors": (info, data - 32),
        "data": (data, len(content) - 32),
    }  # fmt: skip
    path = tmp_path / "cut.gguf"
    for begin, end in regions.values():
        for place in {begin, begin + 1, end - 1, *range(begin, end, max(1, (end - begin) // 9))}:
            path.write_bytes(content[:place])
            with pytest.raises(WorkbenchError, match="truncated"):
                read_header(path)
    path.write_bytes(content[: data + 99])
    with pytest.raises(WorkbenchError, match="truncated"):
        load_model(path)
    path.write_bytes(content)
    assert read_header(path).architecture == "llama"


def text(value):
    return struct.pack("<Q", len(value)) + value


def header(*pairs, count=None, tensors=b"", tensor_count=0, version=3):
    """A header of key-value pairs (key, type, bytes)."""
    start = struct.pack("<4sIQQ", b"GGUF", version, tensor_count, count or len(pairs))
    listed = b"".join(text(key) + struct.pack("<I", kind) + value for key, kind, value in pairs)
    return start + listed + tensors


ARCHITECTURE = (b"general.architecture", 8, text(b"llama"))
HUGE = struct.pack("<Q", 2**63)
NESTED = b"".join(struct.pack("<IQ", 9, 1) for _ in range(50)) + struct.pack("<IQ", 0, 1) + b"x"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (header(ARCHITECTURE, version=1), "version 1"),
        (header(ARCHITECTURE, version=99), "version 99"),
        (header(ARCHITECTURE, version=3 << 24), "version"),  # the other order of bytes
        (header(ARCHITECTURE, count=2**63), "truncated"),
        (header(ARCHITECTURE, tensor_count=2**63), "truncated"),
        (header((b"a", 8, HUGE)), "truncated"),
        (header()[:16] + struct.pack("<Q", 1) + HUGE + b"key", "truncated"),
        *((header((b"a", 9, struct.pack("<I", kind) + HUGE)), "truncated") for kind in range(8)),
        (header((b"a", 9, struct.pack("<I", 8) + HUGE)), "truncated"),
        (header((b"a", 9, struct.pack("<I", 9) + HUGE)), "truncated"),
        (header((b"a", 9, struct.pack("<I", 77) + HUGE)), "damaged"),
        (header((b"a", 9, NESTED)), "arrays within arrays"),
        (header((b"a", 77, b"")), "type 77"),
        (header((b"a", 4, struct.pack("<I", 1))), "without general.architecture"),
        (header((b"general.architecture", 4, bytes(4))), "without general.architecture"),
        (header(ARCHITECTURE, (b"general.alignment", 4, bytes(4))), "the alignment 0"),
        (header(ARCHITECTURE, (b"general.alignment", 8, text(b"x"))), "the alignment 'x'"),
        (header(ARCHITECTURE, (b"general.alignment", 9, struct.pack("<IQ", 4, 0))), "alignment"),
        (header(ARCHITECTURE, (b"general.alignment", 6, struct.pack("<f", float("nan")))), "align"),
        (header(ARCHITECTURE, (b"general.alignment", 10, HUGE), tensor_count=1,
                tensors=text(b"t") + struct.pack("<IQIQ", 1, 32, 0, 0) + bytes(128)), "truncated"),
        (header(ARCHITECTURE, tensor_count=1, tensors=text(b"t") + b"\xff" * 4 + bytes(9999)),
         "of 4294967295 sizes"),
        (header(ARCHITECTURE, tensor_count=1,
                tensors=text(b"t") + struct.pack("<IQIQ", 1, 32, 999, 0)), "of type 999"),
        (header(ARCHITECTURE, tensor_count=1,
                tensors=text(b"t") + struct.pack("<IQIQ", 1, 32, 0, 2**62)), "truncated"),
    ],
    ids=lambda own: own if isinstance(own, str) else "",
)  # fmt: skip
def test_headers_that_lie_are_refused_at_once(content, reason, tmp_path):
    path = tmp_path / "bomb.gguf"
    path.write_bytes(content)
    with little_memory(tmp_path), few_calls(), pytest.raises(WorkbenchError, match=reason):
        read_header(path)


@contextlib.contextmanager
def few_calls(most=20_000):
    """Fails once so many functions were called: work that follows the file's claims has no end."""
    calls = 0

    def count(_frame, event, _value):
        nonlocal calls
        calls += event in ("call", "c_call")
        assert calls < most, "more work than the file has bytes for"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(before)


@contextlib.contextmanager
def little_memory(folder):
    """A valid header is read before: what is imported is no memory that a damaged one asks for."""
    (folder / "valid.gguf").write_bytes(header(ARCHITECTURE))
    found = read_header(folder / "valid.gguf")
    assert (found.architecture, found.quantisation) == ("llama", "of unknown quantisation")
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_a_large_damaged_vocabulary_is_passed_over_in_little_memory(tmp_path):
    """Keys of four megabytes, none of them kept."""
    pairs = b"".join(text(b"%0200d" % n) + struct.pack("<IB", 0, 1) for n in range(20_000))
    path = tmp_path / "many.gguf"
    path.write_bytes(header(count=20_001) + pairs)
    with little_memory(tmp_path), pytest.raises(WorkbenchError, match="truncated"):
        read_header(path)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The bytes of a valid file, where its data begin, and where to write others."""
    folder = tmp_path_factory.mktemp("fuzz")
    plain = hf_model("llama", num_hidden_layers=1)
    content = write_gguf(folder / "small.gguf", plain).read_bytes()
    return content, content.index(b"token_embd.weight") + 2000, folder / "broken.gguf"


@settings(max_examples=300)
@given(st.data())
def test_nothing_but_refusals_comes_of_damaged_bytes(small, data):
    content, end, path = small
    broken = bytearray(content)
    near = st.integers(0, 300) | st.integers(end - 2000, end)  # where numbers are, not texts
    for _ in range(data.draw(st.integers(1, 6))):
        broken[data.draw(near | st.integers(0, end))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del broken[data.draw(st.integers(0, len(content))) :]
    path.write_bytes(broken)
    with contextlib.suppress(WorkbenchError):
        assert isinstance(read_header(path).architecture, str)
