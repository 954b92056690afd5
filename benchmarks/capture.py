"""Capture to disk: resident memory while the data grow tenfold.

A random Llama with many heads makes 32 KB a position. Each size runs in a process of its own, whose
peak memory is read from the system.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers

from benchmarks.case import Result, once, peak_memory, report, require
from workbench.data.sources import load_questions
from workbench.models.identity import Model, tokenizer_of
from workbench.models.loading import load_model
from workbench.stages.capture import capture

BUDGET = 8 << 20


def wide_model() -> Model:
    """A random model with hearsay's tokenizer and 8 layers x 16 heads x 64 channels."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=2048, hidden_size=64, intermediate_size=64, num_hidden_layers=8,
        num_attention_heads=16, head_dim=64, max_position_embeddings=512,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    return load_model(model, tokenizer_of(load_model("hearsay", device="cpu")))


def alone(count: int) -> None:
    """Capture so many questions and print bytes, seconds and peak memory."""
    model = wide_model()
    questions = load_questions("hearsay").choose(range(count))
    with tempfile.TemporaryDirectory() as folder:
        taken = once(
            lambda: capture(
                model, questions, folder=folder, memory=BUDGET, unlabelled=False, progress=False
            )
        )
        size = sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))
    print(size, taken, peak_memory())


def measured(count: int) -> tuple[float, float, float]:
    """The same in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.capture", str(count)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    size, taken, peak = map(float, done.stdout.split()[-3:])
    return size / 1e6, taken, peak


def main() -> None:
    """Thirty-two questions and ten times as many."""
    small, large = measured(32), measured(320)
    growth = large[2] - small[2]
    require(growth < 0.1 * (large[0] - small[0]), f"memory grew by {growth:.0f} MB")
    report(
        Result(
            f"capture to disk of {large[0]:.0f} MB with a budget of {BUDGET >> 20} MB",
            f"capture of {small[0]:.0f} MB in {small[1]:.1f} s: its peak memory, {small[2]:.0f} MB",
            small[2], large[2], f"{large[0] / large[1]:.0f} MB a second with the model's passes",
            float("nan"),
            f"peak memory {large[2]:.0f} MB: {growth:.0f} MB more for {large[0] - small[0]:.0f} MB",
            ratio_of="small peak over large peak (1 is flat)", unit="MB",
        )
    )  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) > 1:
        alone(int(sys.argv[1]))
    else:
        main()
