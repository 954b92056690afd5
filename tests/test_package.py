import subprocess
import sys
import time

import pytest

import workbench
from workbench import cli, demo


def test_every_public_name_is_there():
    assert len(workbench.__all__) <= 24
    for name in workbench.__all__:
        assert getattr(workbench, name) is not None
    assert set(dir(workbench)) == set(workbench.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        workbench.nothing  # noqa: B018


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


def test_names_survive_the_import_of_their_modules():
    code = (
        "import workbench.evaluation, workbench.methods.token_aware, workbench as wb\n"
        "print([n for n in wb.__all__ if n != 'plots' and not callable(getattr(wb, n))])"
    )
    assert run(code) == "[]"


def test_refused_input_ends_with_status_two(capsys, tmp_path):
    assert cli.main(["demo", "--out", str(tmp_path), "--heads", "99"]) == 2
    assert "1 to 40" in capsys.readouterr().err
    assert cli.main(["hearsay", "beliefs", "--model", str(tmp_path / "absent")]) == 2
    with pytest.raises(SystemExit, match="2"):
        cli.main(["dance"])


def test_small_demo_tells_the_truth(tmp_path, monkeypatch):
    """The demo on a fifth of the questions, with everything that it writes."""
    everything = demo.load_questions("hearsay")
    small = everything.choose(range(0, len(everything), 5))
    monkeypatch.setattr(demo, "load_questions", lambda _: small)
    begin = time.monotonic()
    result = demo.run_demo(tmp_path, progress=False)
    assert time.monotonic() - begin < 300
    found = result.summary.set_index(["method", "metric"])["mean"]
    assert found["no edit", "says_truth"] < found["TAE", "says_truth"]
    units = result.table.loc[result.table["metric"] == "mc1"].groupby("method")["unit"]
    assert (units.nunique() == len(small)).all()
    text = demo.as_text(result)
    for example in result.examples:
        assert example.question in text
        assert len(example.trace.strings) == example.trace.strengths.shape[0]
    names = {path.name for path in result.files}
    assert {"results.parquet", "summary.json", "head_accuracy.html", "token_graph.html"} <= names
    assert all(path.stat().st_size > 0 for path in result.files)
