"""Edited generation on hearsay, batch 8, against plain Hugging Face `generate` with sdpa."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.case import Result, in_turn, report, require
from workbench import storage
from workbench.data.sources import load_questions
from workbench.editing.generation import generate
from workbench.methods.iti import inference_time
from workbench.methods.token_aware import TokenAware
from workbench.models.loading import load_model

NEW = 48


def main() -> None:
    """Greedy continuations of eight prompts, all of the same length, by everyone in turn."""
    folder = storage.package_path("hearsay", "model")
    plain: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    plain.generation_config.eos_token_id = None
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = load_model("hearsay", device="cpu")
    model.original_model.generation_config.eos_token_id = [-1]  # nobody ends early
    fold = load_questions("hearsay").folds(2)[0]
    train = fold.train.choose(range(40))
    tae = TokenAware(heads=16).fit(model, train, progress=False)
    iti = inference_time(heads=16).fit(model, train, progress=False)
    prompts = [f"Q: {question.question}\nA:" for question in fold.test.choose(range(8))]
    inputs = tokenizer(prompts, return_tensors="pt", padding=True)

    def hugging_face() -> torch.Tensor:
        with torch.no_grad():
            written: torch.Tensor = plain.generate(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"],
                max_new_tokens=NEW, do_sample=False, pad_token_id=0,
            )  # fmt: skip
        return written[:, inputs["input_ids"].shape[1] :]

    ours = partial(generate, model, prompts, max_new_tokens=NEW, stop=())
    mine = torch.tensor([c.tokens for c in ours()])
    require(torch.equal(mine, hugging_face()), "unedited greedy tokens")
    times = in_turn(
        {
            "hf": hugging_face,
            "none": ours,
            "iti": partial(ours, edit=iti),
            "without u": partial(ours, edit=replace(tae, strength=replace(tae.strength, beta=1.0))),
            "tae": partial(ours, edit=tae),
        },
        repeats=9,
    )
    tokens = 8 * NEW
    layers = len(tae.layers)
    print(f"tokens a second: { ({name: round(tokens / t) for name, t in times.items()}) }")
    names = {
        "none": ("no edit", 0.9),
        "iti": ("ITI, 16 heads", 0.9),
        "without u": (f"TAE without uncertainty, 16 heads in {layers} layers", 0.9),
        "tae": (f"TAE with uncertainty at {layers} layers", 0.6),
    }
    report(
        *(
            Result(
                f"generation, batch 8, {NEW} new tokens (hearsay): {what}",
                "plain Hugging Face generate, sdpa, no edit", times["hf"], times[name],
                f"{tokens / times[name]:.0f} tokens a second", times["hf"],
                "unedited greedy tokens are identical", target,
                "of its tokens a second",
            )
            for name, (what, target) in names.items()
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
