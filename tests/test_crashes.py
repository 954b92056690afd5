"""Death, or a full disk, at every change of a folder: what is left is read, and ends in the same.

A layer over what Python asks of the system counts the files it opens to write, renames, links and
removes; the n-th kills the process or says that the disk is full, for every n. Bytes that libraries
write in their own way are not counted: they go to temporary files that are renamed.
"""

import builtins
import errno
import io
import os
import signal
import time
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.edits import random_edit
from tests.processes import ended, forked, kill_self
from tests.questions import write_questions
from workbench import storage
from workbench.data.sources import load_questions
from workbench.errors import WorkbenchError
from workbench.methods.saved import load_edit
from workbench.runs.ablation import Study, run_study
from workbench.runs.harness_tasks import harness
from workbench.runs.resumable import run
from workbench.runs.run_config import RunConfig
from workbench.runs.work import Work
from workbench.stages.capture import capture
from workbench.storage import remove_folder

STRIDE = int(os.environ.get("WORKBENCH_STRIDE", "16"))
"""Only every so many-th write is tried; `make crashes` tries them all, which takes half an hour."""
CHANGING = ("replace", "rename", "link", "unlink", "remove", "mkdir", "rmdir", "truncate", "chmod")


def at_write(number, act, folder, trees=True):
    """From now on `act` happens in this process at its n-th change of a folder, before it is made.

    Args:
        number: n, or several.
        act: is called without arguments.
        folder: changes within others are not counted.
        trees: count what is done within an open folder, whichever it is.

    Returns:
        How often such a change was made or asked for, as a list of one number.
    """
    count = [0]
    numbers = [number] if isinstance(number, int) else number

    def relevant(path, dir_fd=None, **_):
        inside = trees and dir_fd is not None  # as of what a tree is removed by
        return inside or (not isinstance(path, int) and str(folder) in os.fspath(path))

    def counted(original, changes):
        def call(*given, **named):
            if given and relevant(given[0], **named) and changes(*given, **named):
                count[0] += 1
                if count[0] in numbers:
                    act()
            return original(*given, **named)

        return call

    def always(*_, **__):
        return True

    def opens(path, flags, *_, **__):
        return bool(flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR))

    def writes(path, mode="r", *_, **__):
        return any(sign in mode for sign in "wax+")

    for name in CHANGING:
        setattr(os, name, counted(getattr(os, name), always))
    os.open = counted(os.open, opens)
    builtins.open = io.open = counted(io.open, writes)
    return count


def dies_at(number, folder, work, *given):
    """Whether a process that does the work died at its n-th write; else it ended well."""

    def child():
        at_write(number, kill_self, folder)
        work(*given)

    status = ended(forked(child))
    assert status in (0, -signal.SIGKILL), status
    return status != 0


def read_only(folder, work, *given):
    """What a process says that does the work where nothing can be changed."""

    def child():
        def refuse():
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        at_write(range(1, 1_000_000), refuse, folder, trees=False)
        try:
            work(*given)
        except WorkbenchError as error:
            return 7 if "(Read-only file system)" in str(error) else 8
        return 0

    return ended(forked(child))


def full():
    raise OSError(errno.ENOSPC, "No space left on device")


def fails_at(number, folder, work, *given):
    """Whether a process that does the work met a full disk at its n-th write."""

    def child():
        count = at_write(number, full, folder)
        try:
            work(*given)
        except (OSError, WorkbenchError):
            return 7
        return 7 if count[0] >= number else 0

    status = ended(forked(child))
    assert status in (0, 7), status
    return status == 7


@pytest.fixture(scope="module")
def asked():
    return load_questions("hearsay").choose(range(0, 320, 40))


@pytest.fixture(scope="module")
def config(tmp_path_factory, asked):
    file = write_questions(tmp_path_factory.mktemp("data") / "questions.jsonl", asked)
    return RunConfig(
        data={"truthfulness": str(file)}, texts=1, together=2,
        evaluation={"truthfulness": {"max_new_tokens": 2}},
        methods={"no edit": {"kind": "none"}, "ITI": {"kind": "iti", "heads": 2, "alpha": [1, 2]}},
    )  # fmt: skip


def of_run(config, model):
    """A run, and how it is begun and read."""

    def begin(folder):
        return run(config, folder, model=model, progress=False)

    return begin


def of_study(config, model):
    given = {"data": config.data, "texts": 1, "evaluation": config.evaluation}
    study = Study({"heads": [1, 2]}, kind="iti", run=given)

    def begin(folder):
        return run_study(study, folder, model=model, progress=False)

    return begin


def of_capture(asked, model):
    def begin(folder):
        acts = capture(
            model, asked.choose(range(3)), folder=folder, memory=60_000, progress=False,
            uncertainty="logit_lens",
        )  # fmt: skip
        flat = torch.cat([acts[number].z.flatten() for number in range(len(acts))])
        return pd.DataFrame({"z": flat.double().numpy()})

    return begin


def of_harness(model):
    edits = {"no edit": None, "ITI": random_edit(model)}

    def begin(folder):
        found = harness(
            model, ["truthfulqa_mc1"], edits, folder, questions=load_questions("hearsay").sample(3),
            progress=False,
        )  # fmt: skip
        return found.drop(columns=[name for name in found if "second" in name])

    return begin


@pytest.fixture(scope="module")
def works(config, asked, hearsay):
    return {
        "run": of_run(config, hearsay), "study": of_study(config, hearsay),
        "capture": of_capture(asked, hearsay), "harness": of_harness(hearsay),
    }  # fmt: skip


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("breaks", [dies_at, fails_at], ids=["death", "full disk"])
@pytest.mark.parametrize("name", ["run", "study", "capture", "harness"])
def test_broken_off_at_any_write_it_ends_in_the_same(name, breaks, works, tmp_path):
    begin = works[name]
    whole = begin(tmp_path / "whole")
    names = files_of(tmp_path / "whole")
    number = 1
    while breaks(number, place := tmp_path / f"at {number}", begin, place):
        found = begin(place)
        pd.testing.assert_frame_equal(found, whole)
        assert files_of(place) == names, f"at write {number}"
        remove_folder(place)
        number += STRIDE
    assert number > 8


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["run", "study", "capture", "harness"])
def test_of_a_read_only_folder_it_says_so(name, works, tmp_path):
    (tmp_path / "there").mkdir()
    assert read_only(tmp_path, works[name], tmp_path / "there") == 7
    assert read_only(tmp_path, works[name], tmp_path / "new") == 7
    assert not list((tmp_path / "there").iterdir())


def test_of_a_read_only_folder_edits_and_files_say_so(hearsay, tmp_path):
    edit = random_edit(hearsay)
    for work in (
        edit.save, partial(edit.export, model=hearsay), partial(storage.write_json, value=1),
        partial(storage.write_table, table=pd.DataFrame({"a": [1]})),
    ):  # fmt: skip
        target = tmp_path / "file.json"
        assert read_only(tmp_path, work, target) == 7, work
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore")
def test_a_clock_that_jumps_changes_nothing(works, tmp_path):
    whole = works["run"](tmp_path / "whole")

    def child():
        moment = [1.7e9]

        def jumps():
            moment[0] += -8e8 if moment[0] > 2e9 else 7e8
            return moment[0]

        time.time = jumps
        found = works["run"](tmp_path / "jumping")
        pd.testing.assert_frame_equal(found, whole)

    assert ended(forked(child)) == 0


class Late:
    """An executor whose files are seen when somebody has waited: those of another machine."""

    def __init__(self, work, folder, monkeypatch):
        self.work, self.folder, self.hidden, self.waits = work, folder, {}, 0
        monkeypatch.setattr(time, "sleep", self.seen)

    def submit(self, _, job):
        made = Future()
        made.set_result(self.work.do(job))
        names = [f"edits/{fit.key}" for fit in job.fits]
        for name in names + [f"parts/{piece.file}" for piece in job.pieces]:
            hidden = self.folder / f".late {len(self.hidden)} {self.waits}"
            (self.folder / name).rename(hidden)
            self.hidden[hidden] = self.folder / name
        return made

    def seen(self, _):
        self.waits += 1
        if not self.waits % 3:
            for hidden, place in self.hidden.items():
                hidden.rename(place)
            self.hidden.clear()


def test_what_another_machine_wrote_is_waited_for(config, hearsay, works, tmp_path, monkeypatch):
    whole = works["run"](tmp_path / "whole")
    late = Late(Work(config, hearsay, progress=False), tmp_path / "late", monkeypatch)
    found = run(config, tmp_path / "late", model=hearsay, executor=late, progress=False)
    pd.testing.assert_frame_equal(found, whole)
    assert late.waits > 3


def test_what_never_appears_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("workbench.storage.folders.LATE", 0.0)
    with pytest.raises(WorkbenchError, match="no file at"):
        storage.read_json(storage.awaited(tmp_path / "never.json"))


def files_of(folder):
    """The files that are no remains."""
    files = [file.relative_to(folder) for file in folder.rglob("*") if file.is_file()]
    return {str(file) for file in files if not any(part[0] == "." for part in file.parts)}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["run", "capture"])
def test_broken_off_again_and_again_it_ends_in_the_same(name, works, tmp_path):
    begin, place = works[name], tmp_path / "again"
    whole = begin(tmp_path / "whole")
    deaths = 0
    while dies_at(9 + 3 * deaths, place, begin, place):
        deaths += 1
        assert deaths < 100, "it never ends"
    pd.testing.assert_frame_equal(begin(place), whole)
    assert deaths > 1


@pytest.mark.parametrize("breaks", [dies_at, fails_at], ids=["death", "full disk"])
def test_an_edit_is_the_old_or_the_new_one_after_any_write(breaks, hearsay, tmp_path):
    old, new = random_edit(hearsay, alpha=1.0), random_edit(hearsay, alpha=2.0, seed=4)
    number = 1
    while True:
        place = tmp_path / f"at {number}"
        old.save(place)
        if not breaks(number, place, partial(new.save, overwrite=True), place):
            break
        try:
            found = load_edit(place, hearsay)
        except WorkbenchError as error:  # told, not half of both
            told = str(error)
        else:
            told = "no file"
            known = {1.0: old, 2.0: new}[found.alpha]
            assert torch.equal(found.direction, known.direction)
        assert "two files of one save" in told or "no file" in told
        new.save(place, overwrite=True)
        assert load_edit(place, hearsay).alpha == 2.0
        number += 1
    assert number > 3


def test_a_kept_file_is_the_old_or_the_new_one_after_any_write(tmp_path):
    writers = {
        "text": (storage.write_text, Path.read_text, "old", "new"),
        "json": (storage.write_json, storage.read_json, {"a": 1}, {"b": [2]}),
    }
    for name, (write, read, old, new) in writers.items():
        for breaks in (dies_at, fails_at):
            number = 1
            while True:
                place = tmp_path / f"{breaks.__name__} {number}" / name
                write(place, old)
                if not breaks(number, place.parent, write, place, new):
                    break
                assert read(place) in (old, new)
                number += 1
            assert number > 3


def test_the_layer_counts_and_breaks_off(tmp_path):
    """A control: without it nothing dies, and the n-th write is not made."""

    def three():
        for number in range(3):
            storage.write_text(tmp_path / f"{number}.txt", "x")

    assert dies_at(1, tmp_path, three)
    assert not list(tmp_path.glob("*.txt"))
    assert not dies_at(1000, tmp_path, three)
    assert len(list(tmp_path.glob("*.txt"))) == 3
