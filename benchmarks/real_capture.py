"""Capture on a real model: its time against plain passes, its memory against what it keeps.

The plain transformers model, with sdpa attention, reads every answer's unlabelled prompt (which
begins with the answer) in batches; a capture runs what they begin with alike once. Memory is
measured in fresh processes, above what the loaded model takes. Without the weights nothing is
measured.
"""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.case import Result, in_turn, report, require
from benchmarks.material import NAME, first_questions, real_model_is_here
from benchmarks.plain_passes import Plain
from workbench.models import batched_passes
from workbench.models.fetching import fetched
from workbench.models.gguf_files import load_gguf
from workbench.models.loading import load_model
from workbench.models.prompts import prompt_format
from workbench.stages.activations import TokenActivations
from workbench.stages.capture import capture, unlabelled_runs

TIMED, KEPT = 8, 40
"""Questions for the time and for the memory."""


def difference(plain: Any, acts: TokenActivations) -> float:
    """Largest difference from what enters the plain model's last output projection, relative."""
    seen: list[torch.Tensor] = []
    projection = plain.model.layers[-1].self_attn.o_proj
    handle = projection.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        plain(input_ids=torch.tensor([acts.encoded[0].tokens]))
    handle.remove()
    own = acts[0].z[:, -1].flatten(start_dim=1)
    wanted = seen[0][0, acts.encoded[0].start - 1 :]
    return float((own - wanted).abs().max() / wanted.abs().max())


def timed() -> list[Result]:
    """A capture and plain passes in turn."""
    model = load_model("smollm2", device="cpu")
    plain = load_gguf(fetched("smollm2"), torch.float32, device="cpu")[0]
    some = first_questions(TIMED)
    acts = capture(model, some, progress=False)
    apart = difference(plain, acts)
    require(apart < 1e-4, f"z by {apart:.0e}")
    rows = [list(one.tokens) for one in unlabelled_runs(model, some, prompt_format("bare"), 0)]
    times = in_turn(
        {
            "last": Plain(plain, model, rows),
            "all": Plain(plain, model, rows, keep=0),
            "capture": partial(capture, model, some, progress=False),
        },
        repeats=3,
        rare=("all",),
    )
    tokens = sum(map(len, rows))
    taken = times["capture"]
    print(f"seconds: { {name: round(t, 2) for name, t in times.items()} }")
    return [
        Result(
            f"capture without u of {len(acts)} answers to {NAME} and their unlabelled "
            "prompts (SmolLM2-135M)",
            f"plain transformers passes over them all, sdpa, {logits}", times[name], taken,
            f"{tokens:,} tokens, {tokens / taken:.0f} a second; {len(acts.z):,} positions of "
            f"{acts.z[0].nbytes / 1024:.0f} KB kept", times["last"],
            f"z of the last layer: within {apart:.0e}", target, "of plain passes' tokens a second",
        )
        for name, logits, target in (
            ("last", "logits of the last position", 1 / 1.3), ("all", "logits of all", None),
        )
    ]  # fmt: skip


def highest() -> float:
    """This process's largest resident memory since `forget`, in MB."""
    found = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    return int(found.group(1)) / 1024 if found else float("nan")


def forget() -> None:
    """Begin to look for the largest resident memory anew."""
    Path("/proc/self/clear_refs").write_text("5")


def alone(what: str, count: int) -> None:
    """Print the MB kept by a capture and the peak above the loaded model's memory."""
    model = load_model("smollm2", device="cpu")
    some = first_questions(count)
    capture(model, some.choose([0, 1]), progress=False)
    if what == "batch":
        runs = unlabelled_runs(model, some, prompt_format("bare"), seed=0)
        forget()
        before = highest()
        next(batched_passes.run_passages(model, runs, 64, {}))
        print(0.0, highest() - before)
    else:
        forget()
        before = highest()
        acts = capture(model, some, progress=False)
        print((acts.z[:].nbytes + acts.unlabelled[:].nbytes) / 2**20, highest() - before)


def measured(what: str, count: int) -> tuple[float, float]:
    """The same in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.real_capture", what, str(count)],
        check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    kept, peak = map(float, done.stdout.split()[-2:])
    return kept, peak


def memory(count: int = KEPT) -> Result:
    """What a capture takes beside the model, against what it keeps and one batch."""
    _, batch = measured("batch", count)
    kept, peak = measured("capture", count)
    require(peak <= 2 * kept + batch, f"{peak:.0f} MB for {kept:.0f} MB kept and {batch:.0f} MB")
    return Result(
        f"memory of a capture in memory, {count} questions of {NAME} (SmolLM2-135M)",
        "twice what is kept, and a pass of its largest batch alone", 2 * kept + batch, peak,
        f"{kept:.0f} MB kept, {batch:.0f} MB for the pass", float("nan"),
        f"peak {peak / kept:.2f} times what is kept", 1.0, "times below it", "MB",
    )  # fmt: skip


def main() -> None:
    """Time, then memory where the system tells it."""
    if not real_model_is_here():
        return
    results = timed()
    if Path("/proc/self/clear_refs").exists():
        results.append(memory())
    report(*results)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        alone(sys.argv[1], int(sys.argv[2]))
    else:
        main()
