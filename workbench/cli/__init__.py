"""The command `workbench`. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from workbench.cli.demos import add_demo, add_real, run_demo, run_real
from workbench.cli.harness import add_harness, run_harness
from workbench.cli.models import add_fetch, add_hearsay, run_train
from workbench.cli.pages import add_explore, add_report
from workbench.cli.runs import add_ablate, add_compare, add_evaluate
from workbench.errors import WorkbenchError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 2 for refused input, 1 where a part failed."""
    given = parser().parse_args(arguments)
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # `module:name` finds a module beside a run file
    # Before torch is loaded: threads that spin while they wait slow all else on the machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "10")
    try:
        return given.run(given) or 0
    except WorkbenchError as error:
        sys.stderr.write(f"workbench: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"workbench: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"workbench: interrupted.{_kept(given)}\n")
        return 130


def _kept(given: argparse.Namespace) -> str:
    """What an interrupted command leaves to go on from, in words; "" where it is nothing."""
    if given.run in (run_demo, run_real):
        return " Finished folds are kept: the same command goes on there."
    if hasattr(given, "workers") or given.run in (run_train, run_harness):
        return " What is finished is kept: the same command goes on there."
    return ""


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(
        prog="workbench", description="A workbench for token-level representation editing."
    )
    top.add_argument(
        "--version", action="version", version=f"workbench {version('editing-workbench')}"
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for add in (add_demo, add_real, add_evaluate, add_ablate, add_compare, add_harness, add_report,
                add_explore, add_fetch, add_hearsay):  # fmt: skip
        add(commands)
    return top
