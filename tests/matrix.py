"""The quick tests under several versions of Python and of what the workbench needs: `make matrix`.

For every Python that is named, or found, an environment is built twice: with the lowest versions
that `pyproject.toml` allows and with the newest that the index has. torch is pinned in both to a
version of `constraints.txt` unless `--torch` says otherwise, since an unpinned one may be the build
for CUDA, gigabytes large. What came out is one line each in `docs/matrix.md`.

    python -m tests.matrix [--python python3.12 ...] [--which lowest newest pinned] [--tests ...]
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "docs" / "matrix.md"
PYTHONS = ("python3.11", "python3.12", "python3.13", "python3.14")
CORE = ("architectures", "models", "editing", "scoring", "sharing", "activations", "directions",
        "token_graphs", "probes", "misalignment", "uncertainty", "token_aware", "every_method",
        "statistics", "fronts", "runs", "storage", "questions", "sources", "gguf",
        "records")  # fmt: skip
"""Tests of what depends on other packages; without extras."""
HEAD = """# Versions

`make matrix` builds an environment for each row and runs the core of the quick tests in it.
"Lowest" is the least minor version that `pyproject.toml` allows of everything it names, "newest"
the newest that the index has, but for torch, whose unpinned build may be gigabytes large. What
failed is bounded there, or told here. Deprecation warnings are errors in the tests, and none here.

| when | Python | versions | torch | transformers | transformer-lens | numpy | result |
|---|---|---|---|---|---|---|---|
"""


def lowest() -> list[str]:
    """The least minor version of every direct dependency, as constraints."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [*told["dependencies"], *told["optional-dependencies"]["dev"]]
    found = []
    for line in named:
        match = re.match(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?>=([0-9.]+)", line)
        if match and match[1] != "torch":
            least = match[2] if "." in match[2] else f"{match[2]}.0"
            found.append(f"{match[1]}=={least}.*")
    return found


def pinned() -> list[str]:
    """The constraints of the repository."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def row(python: str, which: str, torch: str, tests: list[str]) -> str:
    """Build an environment, run the tests, and tell what came out."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        limits = {"lowest": lowest, "pinned": pinned, "newest": list}[which]()
        limits = [line for line in limits if not line.startswith("torch==")] + [f"torch=={torch}"]
        (place / "limits.txt").write_text("\n".join(limits) + "\n")
        subprocess.run([python, "-m", "venv", str(place / "venv")], check=True)
        own = str(place / "venv" / "bin" / "python")
        pip = [own, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        steps = [
            [*pip, "-c", str(place / "limits.txt"), f"torch=={torch}", "setuptools"],
            [*pip, "-c", str(place / "limits.txt"), f"{copied(place)}[dev]"],
        ]
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True)
            if done.returncode:
                sys.stdout.write(done.stdout + done.stderr)
                reason = done.stderr.strip().splitlines()[-1:] or ["no reason"]
                return told(python, which, own, f"not installed: {reason[0]:.200}")
        for name in ("tests", "figures"):  # whose descriptions of runs are read
            shutil.copytree(ROOT / name, place / name)
        shutil.copy(ROOT / "pyproject.toml", place)  # pytest's settings
        files = [f"tests/test_{name}.py" for name in tests]
        command = [
            own, "-m", "pytest", "-p", "no:cacheprovider", "-n", "auto", "--dist", "loadfile",
            "-m", "not slow and not long", "-W", "default::DeprecationWarning",
            "-W", "default::FutureWarning", *files,
        ]  # fmt: skip
        done = subprocess.run(command, cwd=place, capture_output=True, text=True)
        sys.stdout.write((done.stdout + done.stderr)[-6000:])
        last = re.findall(r"\d+ (?:passed|failed|errors?)[^\n]*", done.stdout)
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
        result = "passed" if not done.returncode else f"failed: {', '.join(failed)[:300]}"
        return told(python, which, own, f"{result} {last[-1] if last else ''}")


def copied(place: Path) -> Path:
    """What is installed, apart from the repository, in which it would leave its build."""
    source = place / "source"
    shutil.copytree(ROOT / "workbench", source / "workbench")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    return source


def told(python: str, which: str, own: str, result: str) -> str:
    """A line of the report."""
    names = ("torch", "transformers", "transformer-lens", "numpy")
    code = (
        "import sys\nfrom importlib.metadata import version, PackageNotFoundError\n"
        "def of(name):\n    try: return version(name)\n"
        "    except PackageNotFoundError: return '-'\n"
        f"print(sys.version.split()[0], *map(of, {names}))"
    )
    done = subprocess.run([own, "-c", code], capture_output=True, text=True)
    found = done.stdout.split() or [python, *"----"]
    plain = [name.split("+")[0] for name in found]
    when = f"{datetime.now(UTC):%Y-%m-%d}"
    return f"| {when} | {plain[0]} | {which} | {' | '.join(plain[1:])} | {result.strip()} |"


def works(python: str) -> bool:
    """Whether there is such a Python: on the path may be a shim of one that is not there."""
    found = shutil.which(python)
    return found is not None and not subprocess.run([found, "-c", ""], check=False).returncode


def main() -> None:
    """All rows, each written as it is done; fails where one does."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix")
    parser.add_argument("--python", nargs="+", help="by default those of PYTHONS that are here")
    parser.add_argument("--which", nargs="+", default=["lowest", "newest"],
                        choices=["lowest", "newest", "pinned"])  # fmt: skip
    parser.add_argument("--torch", help="instead of the version in constraints.txt")
    parser.add_argument("--tests", nargs="+", default=list(CORE))
    given = parser.parse_args()
    torch = given.torch or next(line[7:] for line in pinned() if line.startswith("torch=="))
    if not REPORT.exists():
        REPORT.write_text(HEAD)
    failed = 0
    for python in given.python or list(filter(works, PYTHONS)):
        for which in given.which:
            line = row(python, which, torch, given.tests)
            failed += "| passed" not in line
            print(line, flush=True)
            with REPORT.open("a") as file:
                file.write(f"{line}\n")
    if failed:
        raise SystemExit(f"{failed} of these did not pass")


if __name__ == "__main__":
    main()
