"""A real model: what holds on small ones holds on SmolLM2-135M-Instruct, as it was fetched."""

import signal
import warnings
from dataclasses import replace

import pandas as pd
import pytest
import torch

from tests.conftest import SHARED
from tests.edits import random_edit
from tests.processes import die_writing, ended, forked
from tests.questions import write_questions
from tests.test_editing import assert_own_generation_is_untouched
from workbench.cli import main
from workbench.data.sources import load_questions
from workbench.editing.generation import generate
from workbench.editing.scoring import score
from workbench.methods.iti import inference_time
from workbench.methods.saved import load_edit
from workbench.models.identity import identify, tokenizer_of
from workbench.models.passes import attached, forward
from workbench.models.prompts import encode, prompt_format
from workbench.runs.ablation import read_study
from workbench.runs.description import read_config
from workbench.runs.resumable import run
from workbench.stages.capture import capture


@pytest.fixture(scope="module")
def asked():
    """Eight real questions with few answers each."""
    table = SHARED / "data" / "truthfulqa" / "TruthfulQA.csv"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two of its answers are listed as correct and incorrect
        whole = load_questions(table if table.exists() else "hearsay")
    short = [n for n, q in enumerate(whole) if max(map(len, q.answers)) < 60][:8]
    return type(whole)(tuple(with_few_answers(whole[n]) for n in short))


def with_few_answers(question):
    correct = tuple(dict.fromkeys((question.best_answer, *question.correct_answers)))
    few = question.incorrect_answers[:2]
    return replace(question, correct_answers=correct[:2], incorrect_answers=few)


@pytest.fixture(scope="module")
def activations(smollm2, asked):
    return capture(smollm2, asked, progress=False)


@pytest.fixture(scope="module")
def edit(smollm2, asked, activations):
    return inference_time(heads=8, alpha=8.0).fit(
        smollm2, asked, activations=activations, progress=False
    )


def test_it_is_named_with_its_quantisation_and_licence(smollm2):
    own = identify(smollm2)
    assert (own.name, own.quantisation, own.licence) == ("smollm2", "Q4_1", "Apache-2.0")
    assert own.label == "smollm2 (Q4_1, Apache-2.0)"
    sizes = own.shape
    assert (sizes.layers, sizes.heads, sizes.d_head, sizes.d_model) == (30, 9, 64, 576)
    assert sizes.vocabulary == 49152
    assert "quantization_config" not in smollm2.original_model.config.to_dict()


def test_its_tokenizer_has_no_beginning_and_splits_numbers(smollm2):
    own = tokenizer_of(smollm2)
    assert own.convert_ids_to_tokens(own("In 1998").input_ids) == ["In", "Ġ", *"1998"]


def test_it_knows_the_capital_of_australia(smollm2):
    prompt = encode(smollm2, "What is the capital of Australia?", style=prompt_format("chat"))
    (answer,) = generate(smollm2, prompt, max_new_tokens=12)
    assert "Canberra" in answer.text


def test_an_answer_is_captured_as_if_alone_and_with_u_as_without(smollm2, asked, activations):
    few = asked.choose([0])
    with_u = capture(
        smollm2, few, uncertainty="logit_lens", uncertainty_layers=(12,), unlabelled=False,
        progress=False,
    )  # fmt: skip
    near = {"atol": 2e-3, "rtol": 1e-3}
    assert torch.allclose(with_u.z, activations.z[: len(with_u.z)], **near)
    assert bool(((with_u.uncertainty[:, 12] > 0) & (with_u.uncertainty[:, 12] < 1)).all())
    assert activations.entropies is None
    answer = activations[len(activations) - 1]
    encoded = encode(smollm2, answer.question, answer.answer)
    tokens, seen = torch.tensor([encoded.tokens]), {}
    hooks = {("z", n): lambda z, n=n: seen.update({n: z[0].clone()}) for n in (0, 15, 29)}
    with attached(smollm2, hooks):
        forward(smollm2, tokens, torch.ones_like(tokens))
    for layer, z in seen.items():
        assert torch.allclose(answer.z[:, layer], z[encoded.start - 1 :], **near)


def test_a_capture_goes_on_in_its_folder(smollm2, asked, tmp_path):
    few = asked.choose(range(4))
    settings = {"folder": tmp_path, "memory": 2 << 20, "unlabelled": False, "progress": False}
    found = capture(smollm2, few, **settings)
    shards = sorted(tmp_path.glob("z-*.safetensors"))
    assert len(shards) >= 2
    z = found.z[:].clone()
    shards[-1].unlink()
    kept = shards[0].stat().st_mtime_ns
    again = capture(smollm2, few, **settings)
    assert shards[0].stat().st_mtime_ns == kept
    assert torch.equal(again.z[:], z)


def test_an_edit_is_fitted_saved_loaded_and_applied_alike(smollm2, asked, edit, tmp_path):
    assert len(edit.heads) == 8
    edit.save(tmp_path / "edit")
    loaded = load_edit(tmp_path / "edit", smollm2)
    assert loaded.model == identify(smollm2)
    assert loaded.model.quantisation == "Q4_1"
    few = asked.choose([0, 1])
    plain, own, again = (score(smollm2, few, one) for one in (None, edit, loaded))
    assert [s.total for s in own] == [s.total for s in again]
    assert max(abs(a.total - b.total) for a, b in zip(plain, own, strict=True)) > 0.1
    prompts = [f"Q: {question.question}\nA:" for question in few]
    settings = {"edit": edit, "max_new_tokens": 6, "stop": ()}
    together = generate(smollm2, prompts, **settings)
    uncached = generate(smollm2, prompts, use_cache=False, **settings)
    alone = [generate(smollm2, prompt, **settings)[0] for prompt in prompts]
    for one, other, third in zip(together, uncached, alone, strict=True):
        assert one.tokens == other.tokens == third.tokens


def test_its_own_generate_works_beside_the_workbench(smollm2):
    heads = ((0, 1), (10, 0), (20, 3))
    edit = random_edit(smollm2, heads=heads, alpha=20.0, strength="constant")
    assert_own_generation_is_untouched(smollm2, "Q: What is the capital of France?\nA:", edit, 3)


@pytest.mark.long
@pytest.mark.parametrize("command", ["ablate", "compare"])
def test_a_command_that_is_killed_goes_on_to_the_same_table(smollm2, asked, tmp_path, command):
    """It is a copy of this process, and loads the model by its name; so does the one after it."""
    write_questions(tmp_path / "questions.jsonl", asked.choose(range(4)))
    what = {
        "ablate": 'kind = "iti"\naxes = { heads = [2, 4] }\nbase = { alpha = 5.0 }\n',
        "compare": f"multiples = [0.5, 1.0, 2.0]\ntexts = 2\n{ITI_ALONE}",
    }[command]
    file, out = tmp_path / "file.toml", tmp_path / "killed"
    file.write_text(
        f'model = "smollm2"\ndevice = "cpu"\ntogether = 1\n{what}'
        f'[data]\ntruthfulness = "{tmp_path / "questions.jsonl"}"\n'
    )
    line = [command, str(file), "--out", str(out), "--threads", "1"]
    line += ["--against", "ITI"] if command == "compare" else []

    def dying():
        die_writing("write_table", 2, "before")
        main(line)

    assert ended(forked(dying)) == -signal.SIGKILL
    assert len(list((out / "parts").glob("[!.]*.parquet"))) == 1
    assert main(line) == 0
    config = read_study(file).config() if command == "ablate" else read_config(file)
    whole = run(config, tmp_path / "whole", model=smollm2, progress=False)
    found = pd.read_parquet(out / "results.parquet")
    assert set(found["model"]) == {"smollm2 (Q4_1, Apache-2.0)"}
    pd.testing.assert_frame_equal(found, whole)


ITI_ALONE = (
    'methods = { "no edit" = { kind = "none" }, ITI = { kind = "iti", heads = 4, alpha = 5.0 } }\n'
)
