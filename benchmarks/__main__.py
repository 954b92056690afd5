"""Run all benchmarks, each in a process of its own, and write the table that the README quotes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.case import Result, machine, spell

CASES = (
    "mutual_information", "probes", "estimators", "fitting", "scoring", "generation", "capture",
    "real_capture", "real_editing",
)  # fmt: skip
"""All but `plain_passes`, `whole_run` and `beside_load`, which are run by themselves."""
TABLE = Path(__file__).parent / "RESULTS.md"


def run(case: str) -> list[dict[str, object]]:
    """A benchmark's results; its output is shown as it comes."""
    lines, begin = [], time.perf_counter()
    command = [sys.executable, "-u", "-m", f"benchmarks.{case}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            if line.startswith("JSON "):
                lines.append(json.loads(line[5:]))
            else:
                print(line, end="", flush=True)
    if process.returncode:
        raise SystemExit(f"the benchmark {case} failed")
    print(f"{case}: {time.perf_counter() - begin:.0f} s\n", flush=True)
    return lines


def row(found: dict[str, object]) -> str:
    """A line of the table."""
    peak = found.pop("peak")
    result = Result(**found)  # type: ignore[arg-type]
    share = f"{result.share:.0%}" if result.limit == result.limit else "-"
    before, after = spell(result.before, result.unit), spell(result.after, result.unit)
    return (
        f"| {result.what} | {result.baseline} | {before} | {after} | **{result.ratio:.3g}** "
        f"{result.ratio_of} | {result.aim or '-'} | {result.work} | {share} | {result.agreement} | "
        f"{peak:.0f} MB |"
    )


def main() -> None:
    """All benchmarks, or those that are named."""
    begin = time.perf_counter()
    chosen = sys.argv[1:] or CASES
    if not set(chosen) <= set(CASES):
        raise SystemExit(
            "usage: python -m benchmarks [CASE ...]; all without one, which writes RESULTS.md\n"
            f"cases: {' '.join(CASES)}"
        )
    rows = [row(found) for case in chosen for found in run(case)]
    taken = time.perf_counter() - begin
    print(f"{taken:.0f} s in all")
    if chosen is not CASES:
        return
    TABLE.write_text(
        "\n".join(
            [
                "# Benchmarks",
                "",
                f"`make bench` on {datetime.now(UTC):%Y-%m-%d}, {machine()}; {taken:.0f} s in all.",
                "Baselines are written for these benchmarks and run on the same inputs in the same "
                "run. The share is that of the attainable: the time of the work's unavoidable "
                "kernels, measured alone in the same run, over the time taken. CUDA was not "
                "measured.",
                "",
                "| what | baseline | baseline takes | workbench takes | ratio | target | work "
                "| share | agreement | peak memory |",
                "|---|---|---|---|---|---|---|---|---|---|",
                *rows,
                "",
            ]
        ),
        encoding="utf-8",
    )
    print(f"written to {TABLE}")


if __name__ == "__main__":
    main()
