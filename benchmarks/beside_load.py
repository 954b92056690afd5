"""The same work on an idle machine and beside four busy processes: wall time and processor time.

Threads that wait for each other may spin or sleep. Where others want the processors, those that
spin stall everything; the command line therefore sets `OMP_WAIT_POLICY=PASSIVE`. Measured here on a
fit and an evaluation of hearsay, or on the whole demo: `python -m benchmarks.beside_load demo`.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.case import Result, report

BUSY, REPEATS, QUESTIONS = 4, 3, 100
WORK = f"""
import workbench as wb
model = wb.load_model("hearsay")
fold = wb.load_questions("hearsay").choose(range({QUESTIONS})).folds(2)[0]
edit = wb.TokenAware(alpha=2.0).fit(model, fold.train, progress=False)
for _ in range(2):
    wb.summary(wb.evaluate(model, fold.test, {{"no edit": None, "TAE": edit}}, progress=False))
"""


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Processes that do nothing but keep processors busy."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def taken(command: list[str], policy: str) -> tuple[float, float]:
    """Wall seconds and processor seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_WAIT_POLICY": policy},
    )  # fmt: skip
    wall = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measured(command: list[str], policy: str, others: int, repeats: int) -> tuple[float, float]:
    """Medians; the busy processes begin and end with every repetition."""
    found = []
    for _ in range(repeats):
        with busy(others):
            found.append(taken(command, policy))
    return statistics.median(w for w, _ in found), statistics.median(c for _, c in found)


def results(command: list[str], what: str, repeats: int) -> list[Result]:
    """Both policies against the idle machine, with the policy that the command line sets."""
    if repeats > 1:
        measured(command, "PASSIVE", 0, 1)  # to warm up
    idle = measured(command, "PASSIVE", 0, repeats)
    spinning = measured(command, "ACTIVE", 0, repeats)
    beside = {policy: measured(command, policy, BUSY, repeats) for policy in ("PASSIVE", "ACTIVE")}
    at_rest = "the same on an idle machine, waiting threads asleep"
    lines = [
        Result(
            f"{what}, waiting threads spinning: wall time", at_rest, idle[0], spinning[0], "-",
            float("nan"), "-", None, "times the idle wall time", costs=True,
        )
    ]  # fmt: skip
    for policy, (wall, processor) in beside.items():
        named = "asleep, as the command line has it" if policy == "PASSIVE" else "spinning"
        where = f"{what} beside {BUSY} busy processes, waiting threads {named}"
        wanted = (4.0, 1.3) if policy == "PASSIVE" else (None, None)
        lines += [
            Result(f"{where}: wall time", at_rest, idle[0], wall, "-", float("nan"), "-",
                   wanted[0], "times the idle wall time", costs=True),
            Result(f"{where}: processor time", at_rest, idle[1], processor, "-", float("nan"), "-",
                   wanted[1], "times the idle processor time", costs=True),
        ]  # fmt: skip
    return lines


def main() -> None:
    """A fit and an evaluation, or the demo."""
    if sys.argv[1:] == ["demo"]:
        command = [sys.executable, "-m", "benchmarks.beside_load", "run-demo"]
        report(*results(command, "the demo", 1))
    elif sys.argv[1:] == ["run-demo"]:
        with tempfile.TemporaryDirectory() as folder:  # so that nothing goes on from another run
            run = [sys.executable, "-m", "workbench.cli", "demo", "--out", folder]
            subprocess.run(run, check=True)
    else:
        command = [sys.executable, "-c", WORK]
        what = f"a fit of TAE and two evaluations, {QUESTIONS} questions (hearsay)"
        report(*results(command, what, REPEATS))


if __name__ == "__main__":
    main()
