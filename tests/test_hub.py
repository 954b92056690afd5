"""Edits on the hub: pushed with a card, pinned, loaded; no code; quick and clear without it."""

import json
import shutil
import time
from dataclasses import asdict, replace
from types import SimpleNamespace

import huggingface_hub.constants
import huggingface_hub.hf_api
import pytest
import torch
import yaml

from tests.edits import random_edit
from tests.hub import TOKEN, Hub
from workbench import storage
from workbench.editing.scoring import score
from workbench.errors import WorkbenchError
from workbench.methods.saved import load_edit
from workbench.models.loading import load_model
from workbench.runs.publishing import edit_card, push_to_hub
from workbench.runs.resumable import run
from workbench.runs.run_config import RunConfig


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The stand-in, with an empty cache and the owner's token."""
    found = Hub()
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", found.address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE",
        found.address + "/{repo_id}/resolve/{revision}/{filename}",
    )  # fmt: skip
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN.removeprefix("Bearer "))
    yield found
    found.close()


@pytest.fixture
def edit(hearsay):
    return random_edit(hearsay, settings={"seed": 3, "style": "bare"})


def test_an_edit_comes_back_as_it_was_pushed(hub, hearsay, few, edit):
    commit = push_to_hub(edit, "owner/truth")
    found = load_edit("owner/truth", hearsay)
    assert found.settings == {"seed": 3, "style": "bare", "hub": f"owner/truth@{commit}"}
    for name, value in edit.tensors().items():
        assert torch.equal(found.tensors()[name], value)
    one, other = (score(hearsay, few.choose([0]), own) for own in (edit, found))
    assert [a.total for a in one] == [a.total for a in other]
    files = hub.commits["owner/truth"][-1][1]
    assert set(files) == {"edit.json", "edit.safetensors", "README.md"}


def test_a_commit_is_pinned(hub, hearsay, edit):
    first = push_to_hub(edit, "owner/truth")
    second = push_to_hub(edit.scaled(9.0), "owner/truth")
    assert first != second
    assert load_edit("owner/truth", hearsay).alpha == 9.0
    pinned = load_edit("owner/truth", hearsay, revision=first)
    assert pinned.alpha == edit.alpha
    assert pinned.settings["hub"].endswith(first)
    with pytest.raises(WorkbenchError, match=r"'owner/truth' at 'v9' could not be had"):
        load_edit("owner/truth", hearsay, revision="v9")


def test_files_of_code_are_not_even_asked_for(hub, hearsay, edit):
    push_to_hub(edit, "owner/truth")
    commit, files = hub.commits["owner/truth"][-1]
    hub.commits["owner/truth"][-1] = (commit, {**files, "edit.py": b"boom()", "edit.pkl": b"\x80"})
    hub.asked.clear()
    load_edit("owner/truth", hearsay)
    assert {path.rsplit("/", 1)[1] for path in hub.asked if "resolve" in path} == {
        "edit.json", "edit.safetensors"
    }  # fmt: skip


def test_what_the_cache_has_needs_no_hub_and_no_patience(hub, hearsay, edit, monkeypatch):
    push_to_hub(edit, "owner/truth")
    load_edit("owner/truth", hearsay)
    hub.close()
    patient = SimpleNamespace(**{name: getattr(time, name) for name in dir(time)})
    patient.sleep = lambda _: pytest.fail("it waits for a hub that does not answer")
    monkeypatch.setattr("huggingface_hub.utils._http.time", patient)
    assert load_edit("owner/truth", hearsay).alpha == edit.alpha
    with pytest.raises(WorkbenchError, match=r"'owner/lies' could not be had from the hub"):
        load_edit("owner/lies", hearsay)
    with pytest.raises(WorkbenchError, match="'owner/model' could not be loaded"):
        load_model("owner/model")
    with pytest.raises(WorkbenchError, match="'owner/new' could not be had"):
        push_to_hub(edit, "owner/new")


def test_a_damaged_file_is_refused(hub, hearsay, edit):
    push_to_hub(edit, "owner/truth")
    commit, files = hub.commits["owner/truth"][-1]
    other = random_edit(hearsay, seed=5)
    with storage.scratch() as folder:
        other.save(folder)
        wrong = (folder / "edit.safetensors").read_bytes()
    hub.commits["owner/truth"][-1] = (commit, {**files, "edit.safetensors": wrong})
    with pytest.raises(WorkbenchError, match="is not the file that"):
        load_edit("owner/truth", hearsay)
    shutil.rmtree(huggingface_hub.constants.HF_HUB_CACHE)
    hub.commits["owner/truth"][-1] = (commit, {"README.md": b"nothing"})
    with pytest.raises(WorkbenchError, match="could not be had"):
        load_edit("owner/truth", hearsay)


def test_without_a_token_nothing_is_pushed(hub, edit, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody")
    with pytest.raises(WorkbenchError, match="hf auth login"):
        push_to_hub(edit, "owner/truth")
    assert hub.commits == {}


def test_a_folder_of_that_name_is_meant_first(hub, hearsay, edit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    edit.scaled(7.0).save("owner/truth")
    push_to_hub(edit, "owner/truth")
    assert load_edit("owner/truth", hearsay).alpha == 7.0
    with pytest.raises(WorkbenchError, match="revision='main' of owner/truth"):
        load_edit("owner/truth", hearsay, revision="main")


@pytest.fixture(scope="module")
def measured(hearsay, few, tmp_path_factory):
    """A run that measured an edit beside its controls, and that edit."""
    place = tmp_path_factory.mktemp("run")
    file = tmp_path_factory.mktemp("data") / "few.jsonl"
    file.write_text("\n".join(json.dumps(asdict(one)) for one in few.choose(range(8))))
    config = RunConfig(
        data={"truthfulness": str(file)}, texts=2,
        evaluation={"truthfulness": {"max_new_tokens": 4}},
        methods={
            "no edit": {"kind": "none"}, "random": {"kind": "random", "draws": 2, "heads": 2},
            "ITI": {"kind": "iti", "heads": 2}, "CAA": {"kind": "caa", "layer": 1},
            "ITI, shuffled": {"kind": "iti", "control": "shuffled", "heads": 2},
            "CAA, random": {"kind": "caa", "layer": 1, "control": "random", "draws": 2},
        },
    )  # fmt: skip
    run(config, place, model=hearsay, progress=False)
    keys = json.loads((place / "manifest.json").read_text())["edits"]["ITI"]
    return place, load_edit(place / "edits" / keys[0], hearsay)


def test_the_card_tells_what_a_run_measured(measured):
    place, edit = measured
    text = edit_card(edit, "owner/truth", place, "ITI")
    front = yaml.safe_load(text.split("---")[1])
    assert front["library_name"] == "workbench"
    assert "activation-steering" in front["tags"]
    table = text[text.index("### truthfulness") :]
    for said in ("| no edit |", "| ITI |", "| random |", "| ITI, shuffled |", "mc2 (n = 8)",
                 "kl (n = ", "["):  # fmt: skip
        assert said in table
    for other in ("| CAA |", "| CAA, random |"):
        assert other not in table
    assert "bootstrap interval by question], which hold the fits fixed" in text
    for said in ("2 folds", "`seed`: 0", 'load_edit("owner/truth", model)'):
        assert said in text


def test_a_card_without_results_says_so(edit):
    assert "Nothing was measured" in edit_card(edit, "owner/truth")


def test_results_of_something_else_are_refused(measured, edit):
    place, own = measured
    with pytest.raises(WorkbenchError, match="method='TAE'"):
        edit_card(own, "owner/truth", place, "TAE")
    with pytest.raises(WorkbenchError, match="did not measure"):
        edit_card(own.scaled(3.0), "owner/truth", place, "ITI")
    with pytest.raises(WorkbenchError, match="did not measure as 'CAA'"):
        edit_card(own, "owner/truth", place, "CAA")
    with pytest.raises(WorkbenchError, match=r"owner/name"):
        push_to_hub(edit, "truth")


def test_what_an_edit_says_of_itself_is_text_on_its_card(edit):
    """Of a stranger's edit: no further keys of YAML, no headings, no tags."""
    evil = replace(
        edit,
        model=replace(edit.model, licence="mit\nevil: yes"),
        settings={"note": "one\n# two <img src=x>"},
    )
    text = edit_card(evil, "owner/truth")
    assert yaml.safe_load(text.split("---")[1])["license"] == "other"
    assert "\n# two" not in text
    assert "<img" not in text


@pytest.mark.parametrize("name", ["name", "licence", "fingerprint"])
def test_a_saved_identity_is_of_one_line(edit, name, tmp_path):
    edit.save(tmp_path / "edit")
    file = tmp_path / "edit" / "edit.json"
    record = json.loads(file.read_text())
    record["model"][name] = "a\n```\nimport os"
    file.write_text(json.dumps(record))
    with pytest.raises(WorkbenchError, match="a text of one line"):
        load_edit(tmp_path / "edit")
