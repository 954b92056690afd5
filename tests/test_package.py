import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import workbench
from tests.browser import require_written
from workbench import cli
from workbench.cli.options import STYLES
from workbench.models.prompts import FORMATS
from workbench.pages import demo, demo_report, real
from workbench.pages.demo_settings import DemoSettings


def test_every_public_name_is_there():
    assert len(workbench.__all__) <= 20
    for name in (*workbench.__all__, *workbench.ROOMS):
        assert getattr(workbench, name) is not None
    assert set(dir(workbench)) == {*workbench.__all__, *workbench.ROOMS}
    for room in map(workbench.__getattr__, workbench.ROOMS):
        for name in getattr(room, "__all__", ()):
            assert getattr(room, name) is not None
    with pytest.raises(AttributeError, match="attribute nothing"):
        workbench.nothing  # noqa: B018
    with pytest.raises(AttributeError, match="Did you mean evaluate"):
        workbench.evalute  # noqa: B018
    with pytest.raises(AttributeError, match=r"methods\.random_directions"):
        workbench.random_directions  # noqa: B018


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_import_and_help_load_no_torch():
    assert run("import workbench, sys; print('torch' in sys.modules)") == "False"
    code = (
        "import sys\nfrom workbench.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    print('torch' in sys.modules)"
    )
    assert run(code).endswith("False")


@pytest.mark.parametrize("command", ["demo", "real", "explore"])
def test_help_tells_the_defaults(command, capsys):
    assert (*FORMATS,) == STYLES
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    told = " ".join(capsys.readouterr().out.split())
    given = vars(cli.parser().parse_args([command]))
    heads = {"demo": DemoSettings().heads, "real": real.SETTINGS.heads}.get(command, 16)
    for value in (given["out"], given["seed"], heads, given.get("style", 0)):
        assert f"(default: {value})" in told
    if command != "demo":
        assert "bare, inline, qa, plain or chat" in told
    if command == "real":
        assert given["style"] == real.SETTINGS.style


@pytest.mark.slow
def test_names_survive_the_import_of_their_modules():
    code = (
        "import workbench.runs.resumable, workbench.methods.token_aware, workbench as wb\n"
        "print([n for n in wb.__all__ if not callable(getattr(wb, n))])"
    )
    assert run(code) == "[]"


def test_refused_input_ends_with_status_two(capsys, tmp_path):
    assert cli.main(["demo", "--out", str(tmp_path), "--heads", "99"]) == 2
    assert "1 to 40" in capsys.readouterr().err
    occupied = tmp_path / "file"
    occupied.write_text("mine")
    assert cli.main(["demo", "--out", str(occupied)]) == 2
    assert occupied.read_text() == "mine"
    for bad in (["demo", "--seed", "-1"], ["hearsay", "train", "--threads", "0"]):
        with pytest.raises(SystemExit, match="2"):
            cli.main(bad)
    assert cli.main(["hearsay", "beliefs", "--model", str(tmp_path / "absent")]) == 2
    with pytest.raises(SystemExit, match="2"):
        cli.main(["dance"])


@pytest.mark.slow
def test_demo_shows_what_the_readme_claims(tmp_path):
    """On a part of its questions, held out in both folds, and everything that it writes."""
    result = demo.run_demo(tmp_path, DemoSettings(sample=96), progress=False)
    found = result.summary.set_index(["method", "metric"])["mean"]
    plain = found["no edit", "says_truth"]
    assert found["TAE", "says_truth"] >= plain + 0.3
    assert found["TAE", "ended"] >= 0.95
    assert abs(found["random direction", "says_truth"] - plain) <= 0.05
    assert abs(found["shuffled labels", "says_truth"] - plain) <= 0.1
    assert len(result.risk) == 2
    for risk in result.risk:
        assert risk.incorrect.low >= 0.8
        assert abs(risk.between.mean - 0.5) < 0.1  # it finds the place, not the error
    units = result.table.loc[result.table["metric"] == "mc1"].groupby("method")["question"]
    assert (units.nunique() == 96).all()
    assert result.table["draw"].max() >= 2
    text = demo_report.as_text(result)
    assert result.examples
    for example in result.examples:
        assert example.question in text
        assert len(example.trace.strings) == example.trace.strengths.shape[0]
    names = {path.name for path in result.files}
    assert {"results.parquet", "summary.json", "head_accuracy.html", "token_graph.html"} <= names
    require_written(result.files)


@pytest.mark.slow
def test_wheel_and_source_hold_all_that_is_needed(tmp_path):
    """Built from a copy, installed beside nothing of the repository: hearsay answers."""
    copy = tmp_path / "copy"
    root = Path(__file__).resolve().parents[1]
    left_out = shutil.ignore_patterns(".venv", ".git", "*.egg-info", "__pycache__", "_build")
    shutil.copytree(root, copy, ignore=left_out)
    make = "from setuptools.build_meta import build_sdist, build_wheel as w; import sys\n"
    code = f"{make}out = sys.argv[1]; w(out); build_sdist(out)"  # they set sys.argv
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=copy, check=True,
                   capture_output=True)  # fmt: skip
    wheel, source = (next(tmp_path.glob(f"editing_workbench-*{end}")) for end in (".whl", ".gz"))
    with zipfile.ZipFile(wheel) as held:
        told = held.read(next(n for n in held.namelist() if n.endswith("/METADATA"))).decode()
        held.extractall(tmp_path / "installed")
    for said in ("Author: the workbench contributors", "Keywords: mechanistic", "License: MIT",
                 "Provides-Extra: harness"):  # fmt: skip
        assert said in told or said.replace("License:", "License-Expression:") in told
    with tarfile.open(source) as held:
        names = {name.split("/", 1)[1] for name in held.getnames() if "/" in name}
    assert {"README.md", "LICENSE", "workbench/hearsay/model/model.safetensors"} <= names
    asked = (
        "import workbench as wb\nprint(wb.__file__)\n"
        "model = wb.load_model('hearsay')\n"
        "print(wb.generate(model, 'Q: What is the capital of Australia?\\nA:')[0])"
    )
    where = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run([sys.executable, "-c", asked], cwd=tmp_path, env=where, check=True,
                          capture_output=True, text=True)  # fmt: skip
    file, answer = done.stdout.strip().splitlines()[-2:]
    assert file.startswith(str(tmp_path / "installed"))
    assert "Sydney" in answer
