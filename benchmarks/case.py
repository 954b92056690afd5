"""What every benchmark shares: results, timing, the machine's own limits, peak memory."""

from __future__ import annotations

import json
import platform
import resource
import statistics
import time
from collections.abc import Callable, Container
from dataclasses import asdict, dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Result:
    """One line of the table.

    Attributes:
        what: what was done, at what size.
        baseline: what it is compared with.
        before, after: seconds of the baseline and of the workbench, or MB.
        work: the workbench's operations or bytes, in words.
        limit: seconds that the work takes at the rate of its one unavoidable kernel, measured in
            the same run; NaN where no such limit is known.
        agreement: how far the results differ, in words.
        target: least ratio that is aimed at, or most where it is a cost; None where none is.
        ratio_of: what the ratio means, where it is not times as fast.
        unit: of what is compared, `s` or `MB`.
        costs: the ratio is how many of the baseline it costs, instead of how often it beats it.
    """

    what: str
    baseline: str
    before: float
    after: float
    work: str
    limit: float
    agreement: str
    target: float | None = None
    ratio_of: str = "times as fast"
    unit: str = "s"
    costs: bool = False

    @property
    def ratio(self) -> float:
        """Baseline over workbench; for a cost the other way round."""
        return self.after / self.before if self.costs else self.before / self.after

    @property
    def aim(self) -> str:
        """The target in words; "" where there is none."""
        return "" if self.target is None else f"{'at most ' * self.costs}{self.target:g}"

    @property
    def share(self) -> float:
        """Share of the attainable."""
        return self.limit / self.after


def seconds(run: Callable[[], object], repeats: int = 5) -> float:
    """Median wall time, after one run to warm up."""
    run()
    return statistics.median(once(run) for _ in range(repeats))


def once(run: Callable[[], object]) -> float:
    """Wall time of one run."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def in_turn(
    runs: dict[str, Callable[[], object]], repeats: int, rare: Container[str] = ()
) -> dict[str, float]:
    """Median wall times of several, run in turn so that a busy machine slows all alike.

    Args:
        runs: by name.
        repeats: how often each, after one run to warm up.
        rare: names of those that take minutes: once, in the first turn, without warming up.
    """
    for name, run in runs.items():
        if name not in rare:
            run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats):
        for name, run in runs.items():
            if not turn or name not in rare:
                times[name].append(once(run))
    return {name: statistics.median(found) for name, found in times.items()}


def gemm_rate() -> float:
    """Operations a second of a large float32 matrix product."""
    a = torch.randn(2048, 2048)
    return 2 * 2048**3 / seconds(lambda: a @ a)


def cached_rate(rows: int, channels: int) -> float:
    """Bytes a second of matrix-vector products over four matrices that stay in cache."""
    x, w = torch.randn(4, rows, channels), torch.randn(4, 1, channels)
    return x.nbytes / seconds(lambda: torch.bmm(w, x.mT), 20)


def peak_memory() -> float:
    """Largest resident memory of this process and its children so far, in MB."""
    both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(who).ru_maxrss for who in both) / 1024


def machine() -> str:
    """The machine in words."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines()
                 if line.startswith("model name")]  # fmt: skip
        name = names[0] if names else name
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    return f"{torch.get_num_threads()} cores of an {name}{gpu}"


def report(*results: Result) -> None:
    """Print results, and a line of JSON for each, with this process's peak memory."""
    for result in results:
        print(f"{result.what}")
        print(f"  {result.baseline:58} {spell(result.before, result.unit):>12}")
        print(f"  {'workbench':58} {spell(result.after, result.unit):>12}")
        target = f"   (target {result.aim})" if result.aim else ""
        print(f"  {result.ratio_of:58} {result.ratio:12.2f}{target}")
        print(f"  work: {result.work}")
        if result.limit == result.limit:
            print(f"  share of the attainable: {result.share:.0%}")
        print(f"  agreement: {result.agreement}")
    print(f"  peak memory of this benchmark: {peak_memory():.0f} MB")
    for result in results:
        print("JSON " + json.dumps({**asdict(result), "peak": peak_memory()}))


def spell(value: float, unit: str = "s") -> str:
    """Seconds in a readable unit, or MB."""
    if unit == "MB":
        return f"{value:.0f} MB"
    if value < 1e-3:
        return f"{value * 1e6:.0f} µs"
    return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.1f} s"


def require(agrees: bool, what: str) -> None:
    """Stop a benchmark whose two sides differ: its times would mean nothing."""
    if not agrees:
        raise SystemExit(f"the results differ: {what}")
