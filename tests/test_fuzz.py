"""Every file that is read, damaged: it is read, or ends in `WorkbenchError` and nothing else.

`make fuzz` runs the same with thousands of examples each (`WORKBENCH_EXAMPLES`).
"""

import json
import os
import resource
import tempfile
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.damage import PIECES, damaged, other_values
from tests.edits import random_edit
from tests.gguf_writing import write_gguf
from tests.test_gguf import random_model
from tests.test_sources import stereoset_record
from workbench import storage
from workbench.data.sources import (
    load_contrast,
    load_pairs,
    load_prompts,
    load_questions,
    load_stereotypes,
)
from workbench.errors import WorkbenchError
from workbench.methods.saved import load_edit
from workbench.models.gguf_header import read_header
from workbench.runs.ablation import read_study
from workbench.runs.description import read_config
from workbench.runs.identity import require_same_run
from workbench.stages.keeping import require_same_capture

EXAMPLES = int(os.environ.get("WORKBENCH_EXAMPLES", "15"))
LONGEST = 10_000 if EXAMPLES > 500 else None
"""Milliseconds that an example may take; only where nothing else runs."""
MOST = 1 << 30
"""Bytes by which a trial's examples may raise the most that this process has held."""
CAMPAIGN = settings(
    max_examples=EXAMPLES, deadline=LONGEST,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip


@pytest.fixture(autouse=True)
def bounded_memory():
    """The files are of kilobytes, or would be of gigabytes when they are read."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < MOST


def rows(*records):
    return "".join(json.dumps(record) + "\n" for record in records).encode()


OWN = {"question": "Who?", "correct_answers": ["He.", "They."], "incorrect_answers": ["Nobody."],
       "best_answer": "He.", "category": "people"}  # fmt: skip
TRUTHFULQA = (
    "Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source\n"
    'A,B,"What, really?",He.,He.; "They" did.,Nobody.; Never.,x\n'
    "A,B,Why?,So.,So.; Thus.,No.; Nay.,x\n"
)
MC = [{"question": "What?", "mc1_targets": {"He.": 1, "No.": 0},
            "mc2_targets": {"He.": 1, "So.": 1, "No.": 0}}]  # fmt: skip
PROMPT = {"prompt": {"text": "So then", "toxicity": 0.1}, "continuation": {"text": " x"},
          "challenging": False}  # fmt: skip
PAIRS = (
    "sent_more,sent_less,stereo_antistereo,bias_type\n"
    "Norvians are quiet.,Brellans are quiet.,stereo,nationality\n"
)
CONTRAST = {"positive": "Thank you.", "negative": "Go away.", "prompt": "The miller said:"}
STEREOSET = {"version": "1", "data": {"intrasentence": [stereoset_record(1), stereoset_record(2)],
                                      "intersentence": []}}  # fmt: skip
RUN = """folds = 3
seed = 1
data = { truthfulness = "questions.jsonl" }
[methods."no edit"]
kind = "none"
[methods.ITI]
kind = "iti"
heads = 4
alpha = [1.0, 2.0]
[evaluation.truthfulness]
max_new_tokens = 12
"""
STUDY = 'kind = "tae"\nfolds = 2\n[axes]\ndepth = [0, "last"]\nheads = [2, 4]\n[base]\nbeta = 0.5\n'

FILES = {
    "questions.csv": (load_questions, TRUTHFULQA.encode()),
    "own.csv": (
        load_questions, b"question,correct_answers,incorrect_answers\nWho?,He.; She.,No.; Not I.\n",
    ),
    "questions.jsonl": (load_questions, rows(OWN, {**OWN, "question": "Why?"})),
    "mc_task.json": (load_questions, json.dumps(MC).encode()),
    "prompts.jsonl": (load_prompts, rows(PROMPT, {"prompt": {"text": "And", "toxicity": None}})),
    "stereoset.json": (load_stereotypes, json.dumps(STEREOSET).encode()),
    "pairs.csv": (load_pairs, PAIRS.encode()),
    "contrast.jsonl": (load_contrast, rows(CONTRAST)),
    "run.toml": (read_config, RUN.encode()),
    "study.toml": (read_study, STUDY.encode()),
    "tensors.safetensors": (storage.read_tensors, None),
    "table.parquet": (storage.read_table, None),
    "model.gguf": (read_header, None),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Whole files by name."""
    import pandas as pd
    import torch

    folder = tmp_path_factory.mktemp("whole")
    storage.write_tensors(folder / "tensors.safetensors", {"a": torch.arange(6.0).view(2, 3)})
    storage.write_table(folder / "table.parquet", pd.DataFrame({"a": [1, 2], "b": ["x", None]}))
    write_gguf(folder / "model.gguf", random_model("llama"))
    for name, (_, content) in FILES.items():
        if content is not None:
            (folder / name).write_bytes(content)
    return folder


def survives(read, *given):
    """Reading works, or ends in a `WorkbenchError`."""
    with warnings.catch_warnings(), suppress(WorkbenchError):
        warnings.simplefilter("ignore")
        read(*given)


@pytest.mark.parametrize("name", FILES)
def test_whole_files_are_read(name, whole):
    assert FILES[name][0](str(whole / name)) is not None


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_are_read_or_refused(name, whole, as_shipped):
    content = (whole / name).read_bytes()

    @CAMPAIGN
    @given(damaged(content))
    @example(b"")
    def trial(other):
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / name
            place.write_bytes(other)
            survives(FILES[name][0], str(place))

    trial()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("piece", PIECES, ids=range(len(PIECES)))
def test_every_piece_alone_and_in_the_middle(name, piece, whole, tmp_path, as_shipped):
    content = (whole / name).read_bytes()
    middle = len(content) // 2
    for other in (piece, piece + content, content[:middle] + piece + content[middle:]):
        place = tmp_path / name
        place.write_bytes(other)
        survives(FILES[name][0], str(place))


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith((".json", ".jsonl"))])
def test_values_of_other_kinds_are_read_or_refused(name, whole, as_shipped):
    text = (whole / name).read_text()
    lines = name.endswith(".jsonl")
    document = [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)

    @CAMPAIGN
    @given(other_values(document))
    def trial(other):
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / name
            place.write_bytes(rows(*other) if lines and isinstance(other, list) else rows(other))
            survives(FILES[name][0], str(place))

    trial()


@pytest.fixture(scope="module")
def saved(hearsay, tmp_path_factory):
    """A saved edit."""
    edit = random_edit(hearsay, threshold=None, settings={"seed": 3, "style": "bare"})
    return edit.save(tmp_path_factory.mktemp("edits") / "edit")


@pytest.mark.parametrize("part", ["edit.json", "edit.safetensors"])
def test_damaged_edits_are_read_or_refused(part, saved, as_shipped):
    content = (saved / part).read_bytes()

    @CAMPAIGN
    @given(damaged(content))
    def trial(other):
        with copied(saved) as folder:
            (folder / part).write_bytes(other)
            survives(load_edit, folder)

    trial()


def test_edits_of_other_values_are_read_or_refused(saved, hearsay, as_shipped):
    document = json.loads((saved / "edit.json").read_text())

    @CAMPAIGN
    @given(other_values(document))
    def trial(other):
        with copied(saved) as folder:
            (folder / "edit.json").write_text(json.dumps(other), encoding="utf-8", errors="replace")
            survives(load_edit, folder, hearsay)

    trial()


@contextmanager
def copied(folder):
    """A folder that is copied for one trial."""
    with tempfile.TemporaryDirectory() as place:
        for file in folder.iterdir():
            (Path(place) / file.name).write_bytes(file.read_bytes())
        yield Path(place)


IDENTITY = {"seed": 1, "model": "hearsay", "data": {"truthfulness": "ab"}}
PLAN = [["piece one", "piece two"], ["piece three"]]


@CAMPAIGN
@given(other_values({**IDENTITY, "plan": PLAN}) | st.none())
def test_another_run_s_identity_is_read_or_refused(other):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "run.json").write_text(json.dumps(other), "utf-8", "replace")
        found = []
        survives(lambda: found.append(require_same_run(Path(folder), IDENTITY, PLAN)))
        assert found in ([], [PLAN]) or all(isinstance(key, str) for g in found[0] for key in g)


@CAMPAIGN
@given(other_values({"version": 1, "weights": "ab", "questions": "cd"}) | st.lists(st.integers()))
def test_another_capture_is_read_or_refused(other):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "capture.json").write_text(json.dumps(other), "utf-8", "replace")
        manifest = {"version": 1, "weights": "ab", "questions": "cd"}
        survives(require_same_capture, Path(folder), manifest)
