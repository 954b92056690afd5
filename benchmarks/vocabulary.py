"""Uncertainty over 128,256 tokens: exactly, and through a screen of an eighth of the rank.

The unembedding is random, of Llama-3's vocabulary and a quarter of Llama-3-8B's width; its cost
does not depend on the values. How far a screen is off is told on hearsay, whose unembedding is
trained.
"""

from __future__ import annotations

import torch
import transformers

from benchmarks.case import Result, report, seconds
from workbench.data.sources import load_questions
from workbench.models.identity import tokenizer_of
from workbench.models.loading import load_model
from workbench.models.logit_lens import unembedding
from workbench.stages.uncertainty import entropy_reader
from workbench.stages.vocabulary_screen import VocabularyScreen, fit_vocabulary_screen

VOCABULARY, WIDTH = 128_256, 1024


def main() -> None:
    """A generation step of eight rows."""
    hearsay = load_model("hearsay", device="cpu")
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=8, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    model = load_model(transformers.LlamaForCausalLM(config), tokenizer_of(hearsay))
    basis = torch.linalg.qr(torch.randn(WIDTH, WIDTH // 8))[0]
    nothing = torch.empty(0)
    screen = VocabularyScreen(basis.T.contiguous(), basis, 256, nothing, nothing, 0.95)
    rows = torch.randn(8, WIDTH)
    exact = seconds(lambda: entropy_reader(model, "logit_lens")(rows), 15)
    fast = seconds(lambda: screen.uncertainty(model, rows), 15)
    lens = seconds(lambda: torch.nn.functional.linear(rows, unembedding(model)[0]), 15)
    train = load_questions("hearsay").folds(2)[0].train
    bounds = {
        rank: float(fit_vocabulary_screen(hearsay, train, rank, 64).mean_bound.max())
        for rank in (20, 40, 80)
    }
    said = ", ".join(f"{bound:.2f} at rank {rank}" for rank, bound in bounds.items())
    report(
        Result(
            "u of 8 rows over 128,256 tokens, d_model 1,024, rank 128, 256 exact logits",
            "all logits",
            exact, fast, f"{VOCABULARY * WIDTH * 4 / 1e6:.0f} MB of weights read, or an eighth",
            lens / 8,
            f"95 % bound on a question's mean error of u on hearsay (d_model 160): {said}",
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
