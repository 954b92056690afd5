"""Sizes at the edges: huge files, many layers, one of everything, long answers, full contexts."""

import itertools
import json
import os
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.architectures import hf_model, tokenizer
from tests.edits import random_edit
from workbench import storage
from workbench.data.questions import Question, QuestionSet
from workbench.editing.generation import generate
from workbench.editing.scoring import score
from workbench.errors import WorkbenchError
from workbench.evaluation.statistics import bootstrap_interval
from workbench.methods.token_aware import TokenAware
from workbench.models.loading import load_model
from workbench.stages.aggregation import aggregate
from workbench.stages.capture import capture
from workbench.stages.directions import fit_directions
from workbench.stages.mutual_information import mutual_information
from workbench.stages.probes import fit_probes
from workbench.stages.shards import Shards
from workbench.stages.token_graph import token_graph
from workbench.stages.uncertainty import normalised_entropy


def sparse(path, rows, width):
    """A safetensors file of float32 zeros that takes no room, the last row all ones."""
    size = rows * width * 4
    told = {"z": {"dtype": "F32", "shape": [rows, 1, 1, width], "data_offsets": [0, size]}}
    header = json.dumps(told).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + size)
        file.seek(-width * 4, os.SEEK_END)
        file.write(struct.pack(f"<{width}f", *([1.0] * width)))
    return path


@pytest.mark.parametrize("entries", [2**24 + 64, 2**31 + 64], ids=["2^24", "2^31"])
def test_rows_of_huge_files_are_those_asked_for(entries, tmp_path):
    width = 64
    rows = entries // width
    kept = Shards([sparse(tmp_path / f"{n}.safetensors", rows, width) for n in range(2)], "z")
    assert len(kept) == 2 * rows
    assert kept.shape == (2 * rows, 1, 1, width)
    for last, before in ((rows - 1, rows - 2), (2 * rows - 1, rows)):
        assert kept[torch.tensor([last])].sum() == width
        assert kept[torch.tensor([before])].sum() == 0
    some = kept.select(torch.tensor([2 * rows - 1, 0, rows - 1]))
    assert some[:].sum(dim=(1, 2, 3)).tolist() == [width, 0, width]


def questions_of(count, answers=2, words=1):
    """Different questions with so many answers a side, each of so many words."""
    return QuestionSet(
        tuple(
            Question(
                f"Which is number {n}?", right[0], right,
                tuple(f"b{n} {k}" + " wrong" * (words - 1) for k in range(answers)),
            )
            for n in range(count)
            for right in [tuple(f"a{n} {k}" + " right" * (words - 1) for k in range(answers))]
        ),
        "made",
    )  # fmt: skip


@pytest.fixture(scope="module")
def deep():
    """128 layers of one head."""
    plain = hf_model(
        "llama", num_hidden_layers=128, num_attention_heads=1, num_key_value_heads=1,
        hidden_size=16, intermediate_size=16, head_dim=16,
    )  # fmt: skip
    return load_model(plain, tokenizer(bos=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_many_layers_of_one_head_go_all_the_way(deep):
    asked = questions_of(6)
    method = TokenAware(heads=100, alpha=1.0)
    edit = method.fit(deep, asked, progress=False)
    assert len(edit.layers) == 100
    (said,) = generate(deep, "Q: Which?\nA:", edit=edit, max_new_tokens=3)
    assert said.tokens
    alone = [one.total for one in score(deep, asked.choose([0]), edit, batch_size=1)]
    assert alone == pytest.approx(
        [one.total for one in score(deep, asked.choose([0]), edit)], abs=1e-3
    )


def test_one_question_is_refused_with_the_reason(hearsay, as_shipped):
    with pytest.raises(WorkbenchError, match=r"validation|question"):
        TokenAware(heads=2).fit(hearsay, questions_of(1), progress=False)


def test_answers_of_one_token_have_a_graph_of_one(hearsay):
    asked = QuestionSet((Question("Who?", "he", ("he",), ("she",)),) * 1, "one")
    acts = capture(hearsay, asked, unlabelled=False, progress=False)
    assert acts[0].own.shape[0] == 1
    graph = token_graph(acts[0], layer=0)
    assert graph.similarity.shape == (1, 1)
    assert graph.similarity.isfinite().all()
    features = aggregate(acts)
    assert torch.allclose(features.values[0], acts[0].own[0].float(), atol=1e-5)


@pytest.fixture(scope="module")
def wide():
    """A model of one small layer with room for 4,096 tokens."""
    plain = hf_model(
        "llama", num_hidden_layers=1, hidden_size=32, intermediate_size=16,
        num_attention_heads=4, num_key_value_heads=4, head_dim=8, max_position_embeddings=4096,
    )  # fmt: skip
    return load_model(plain, tokenizer(bos=True))


@pytest.mark.slow
@pytest.mark.long
def test_an_answer_of_two_thousand_tokens_is_captured_graphed_and_scored(wide):
    asked = questions_of(1, answers=1, words=500)
    acts = capture(wide, asked, unlabelled=False, progress=False)
    count = len(acts[0].own)
    assert count >= 2000
    graph = token_graph(acts[0], layer=0)
    assert graph.similarity.shape == (count, count)
    assert torch.allclose(graph.similarity, graph.similarity.mT)
    some = torch.tensor([0, 1, count // 2, count - 1])
    channels = acts[0].own.flatten(start_dim=2)[:, 0][some]
    alone = mutual_information(channels[None])[0]
    assert torch.allclose(graph.similarity[some][:, some], alone, atol=1e-4)
    edit = random_edit(wide, heads=((0, 1),))
    right, wrong = score(wide, asked, edit)
    assert right.tokens.shape[0] >= 2000
    assert right.total != wrong.total


def test_contexts_are_used_to_their_last_token_and_not_beyond(hearsay, as_shipped):
    context = hearsay.cfg.n_ctx
    prompt = " the" * 600
    tokens = hearsay.tokenizer(prompt).input_ids[: context - 4]
    text = hearsay.tokenizer.decode(tokens, skip_special_tokens=True)
    room = context - len(hearsay.tokenizer(text).input_ids)
    edit = random_edit(hearsay)
    (said,) = generate(hearsay, text, edit=edit, max_new_tokens=room, stop=())
    assert len(said.tokens) == room or said.tokens[-1] == hearsay.tokenizer.eos_token_id
    with pytest.raises(WorkbenchError, match=f"{context} tokens"):
        generate(hearsay, text, edit=edit, max_new_tokens=room + 1)


def test_ten_thousand_questions_are_folded_sampled_and_averaged():
    many = questions_of(10_000, answers=1)
    folds = many.folds(5, seed=3)
    assert sorted(len(fold.test) for fold in folds) == [2000] * 5
    seen = [question.question for fold in folds for question in fold.test]
    assert len(set(seen)) == 10_000
    assert not {q.question for q in folds[0].test} & {q.question for q in folds[0].train}
    assert len(many.sample(10, seed=1)) == 10
    values = (torch.arange(10_000).double().numpy() % 7)[:, None]
    found = bootstrap_interval(np.mean, values, np.arange(10_000), draws=100)
    assert found.low < values.mean() < found.high
    assert found.high - found.low < 0.1
    assert found.count == 10_000


KERNEL_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.mark.parametrize(
    ("dtype", "threads"), list(itertools.product(KERNEL_DTYPES, (1, 2, 5))), ids=str
)
def test_kernels_agree_for_every_dtype_and_count_of_threads(dtype, threads):
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 9, 64, generator=draw).to(dtype)
    logits = torch.randn(50, 300, generator=draw).to(dtype)
    features = torch.randn(80, 2, 3, 8, generator=draw)
    label = (features[:, 0, 0, 0] + 0.3 * torch.randn(80, generator=draw) > 0).long()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        bits = mutual_information(tokens)
        entropy = normalised_entropy(logits)
        probes = fit_probes(features, label)
    finally:
        torch.set_num_threads(before)
    exact_bits = mutual_information(tokens.double())
    exact_entropy = normalised_entropy(logits.double())
    exact = fit_probes(features, label)
    assert torch.allclose(bits.double(), exact_bits.double(), atol=1e-4)
    assert torch.allclose(entropy.double(), exact_entropy.double(), atol=2e-3)
    assert torch.allclose(probes.coefficient, exact.coefficient, atol=1e-3)


def test_directions_of_huge_and_tiny_activations_are_those_of_plain_ones(means_of_few, few):
    plain = fit_directions(means_of_few, few)
    for factor in (1e-6, 1e6):
        scaled = replace(
            means_of_few, values=means_of_few.values * factor,
            unlabelled=means_of_few.unlabelled[:] * factor,
        )  # fmt: skip
        found = fit_directions(scaled, few)
        assert torch.allclose(found.vector, plain.vector, atol=1e-3)
        assert torch.allclose(found.spread / factor, plain.spread, rtol=1e-3)


def test_a_table_of_too_many_values_is_refused_before_it_fills_memory(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet

    chunk = pa.table({name: pa.array([0] * 1_000_000, pa.int8()) for name in "abcd"})
    path = tmp_path / "bomb.parquet"
    with pyarrow.parquet.ParquetWriter(path, chunk.schema) as writer:
        for _ in range(60):
            writer.write_table(chunk)
    assert path.stat().st_size < 2**20
    with pytest.raises(WorkbenchError, match=r"a table of at most"):
        storage.read_table(path)
