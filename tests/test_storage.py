from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch

from tests.processes import ended, forked
from workbench import storage
from workbench.errors import WorkbenchError


def test_error_says_what_came_what_was_expected_and_how_to_mend_it():
    import pickle

    error = WorkbenchError("K = 0", "1 to 40", "Choose fewer heads.")
    assert str(error) == "K = 0. Expected 1 to 40. Choose fewer heads."
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_failing_writer_leaves_the_old_file_and_no_other(tmp_path):
    path = storage.write_text(tmp_path / "a.txt", "old")
    broken = storage.replacing(path)
    with pytest.raises(TypeError), broken as temporary:
        temporary.write_text("half" + 1)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_numbers_that_json_lacks_are_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        storage.write_json(tmp_path / "a.json", {"value": float("nan")})
    assert not list(tmp_path.iterdir())


def test_tensors_round_trip(tmp_path):
    tensors = {"a": torch.randn(3, 2).T, "b": torch.arange(3)}
    path = storage.write_tensors(tmp_path / "t.safetensors", tensors)
    found = storage.read_tensors(path)
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_text_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "latin.csv"
    path.write_bytes("question\ncaf\xe9".encode("latin-1"))
    with pytest.raises(WorkbenchError, match="not UTF-8"):
        storage.read_text(path)


def test_quoted_cells_may_hold_line_breaks_and_commas(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a,b\n"x,\ny\u2028z",2\n')
    assert storage.read_csv(path, ("a", "b")) == [{"a": "x,\ny\u2028z", "b": "2"}]


def test_of_many_that_create_a_file_one_alone_succeeds(tmp_path):
    """The file is whole whenever it is seen, and holds what the one wrote who was told so."""
    file = tmp_path / "mine.json"
    with ThreadPoolExecutor(8) as pool:
        wrote = list(pool.map(lambda n: storage.create_json(file, [n] * 1000), range(64)))
    assert sum(wrote) == 1
    assert storage.read_json(file) == [wrote.index(True)] * 1000
    assert list(tmp_path.iterdir()) == [file]


def test_paths_may_name_environment_variables(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("here")
    monkeypatch.setenv("WORKBENCH_TEST_DATA", str(tmp_path))
    assert storage.read_text("${WORKBENCH_TEST_DATA}/a.txt") == "here"
    assert storage.expanded("./${WORKBENCH_TEST_DATA}") == f"./{tmp_path}"
    monkeypatch.delenv("WORKBENCH_TEST_DATA")
    with pytest.raises(WorkbenchError, match="Set the environment variable WORKBENCH_TEST_DATA"):
        storage.read_text("${WORKBENCH_TEST_DATA}/a.txt")


def test_room_for_a_folder_is_looked_for_without_making_one(tmp_path):
    storage.require_writable(tmp_path / "new" / "folder")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("mine")
    for taken in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(WorkbenchError, match="is a file"):
            storage.require_writable(taken)


def test_repeated_keys_are_refused(tmp_path):
    place = tmp_path / "a.json"
    place.write_text('{"alpha": 99.0, "alpha": 1.5}')
    with pytest.raises(WorkbenchError, match="the key 'alpha' twice"):
        storage.read_json(place)
    place.write_text('{"a": {"b": 1}, "c": {"b": 2}}')
    assert storage.read_json(place)["c"]["b"] == 2


def test_a_missing_description_is_no_bad_one(tmp_path):
    with pytest.raises(WorkbenchError, match=r"^no file at"):
        storage.read_toml(tmp_path / "nowhere.toml")


def test_a_disk_without_room_is_told_as_such(tmp_path):
    """A limit of the process, which the libraries that write in their own way meet too."""
    import resource

    big = {"a": torch.zeros(100_000)}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited():
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
        for write in (
            lambda: storage.write_tensors(tmp_path / "t.safetensors", big),
            lambda: storage.write_table(
                tmp_path / "t.parquet", pd.DataFrame({"a": np.random.default_rng(0).random(9999)})
            ),
            lambda: storage.write_text(tmp_path / "t.txt", "x" * 9999),
        ):
            try:
                write()
            except OSError:
                continue
            return 9
        return 0

    assert ended(forked(limited)) == 0
    assert list(tmp_path.iterdir()) == []


def test_paths_fill_in_no_secrets_and_are_told_as_typed(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_JUDGE_KEY", "sk-supersecret")
    monkeypatch.setenv("PLACE_OF_DATA", str(tmp_path))
    for typed in ("$WORKBENCH_JUDGE_KEY.json", "a/${HF_TOKEN}/b", "$DB_PASSWORD"):
        with pytest.raises(WorkbenchError) as error:
            storage.existing(typed)
        assert "sk-super" not in str(error.value)
        with pytest.raises(WorkbenchError, match="in a path"):
            storage.expanded(typed)
    with pytest.raises(WorkbenchError, match=r"no file at \$PLACE_OF_DATA/x"):
        storage.existing("$PLACE_OF_DATA/x")


@pytest.mark.parametrize(
    "name", ["..", ".", "../out", "/abs", "a/b", "a\\b", "C:x", "a\nb", "a\x00"]
)
def test_names_of_folders_are_no_paths(name):
    with pytest.raises(WorkbenchError, match="not a path"):
        storage.require_plain_name(name, "a run")


def test_plain_names_are_names():
    for name in ("", "a", "a b", "depth 0, heads 2", "…"):
        storage.require_plain_name(name, "a run")
