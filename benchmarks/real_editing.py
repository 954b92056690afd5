"""Edited generation and scoring at real vocabularies, against plain transformers.

On SmolLM2's 49,152 words with a fitted edit, whose u is read off all words and off shortlists; and
on random weights with 262,144 words, where lists of 4,096 words are given (random weights' lens
spreads over all words, so that none could be fitted; what reading a list costs does not depend on
its words). Without SmolLM2's weights only the second is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import transformers

from benchmarks.case import Result, in_turn, report
from benchmarks.material import first_questions, real_model_is_here
from workbench.data.questions import QuestionSet
from workbench.data.sources import load_questions
from workbench.editing.generation import generate
from workbench.editing.head_edits import Edit
from workbench.editing.interventions import Intervention
from workbench.editing.scoring import AnswerScore, score
from workbench.editing.strengths import Estimators, Strength
from workbench.editing.writing import Continuation
from workbench.evaluation.metrics.truth import multiple_choice
from workbench.methods.natural import NaturalGradient
from workbench.methods.token_aware import TokenAware
from workbench.models.fetching import fetched
from workbench.models.gguf_files import load_gguf
from workbench.models.identity import Model, identify, shape_of, tokenizer_of
from workbench.models.loading import load_model
from workbench.models.tokens import pad, tokenize
from workbench.stages.shortlists import Shortlists

FITTED, ASKED, NEW, REPEATS = 40, 8, 16, 5
WORDS, WIDTH, LAYERS, HEADS, D_HEAD, LISTED = 262_144, 640, 18, 4, 256, 4_096
FEW_NEW = 8
"""Tokens written with 262,144 words."""
RARE = ("TAE, u off all words",)
"""Timed once: with 262,144 words it takes a minute."""
TARGETS = {"no edit": 0.9, "ITI": 0.95, "natural gradient": 0.9, "TAE, u off shortlists": 0.6}
Edits = dict[str, Intervention | None]


def plain_generation(plain: Any, model: Model, prompts: Sequence[str], new: int) -> torch.Tensor:
    """Greedy continuations by transformers, with left padding."""
    rows = [tokenize(model, prompt)[0] for prompt in prompts]
    tokens, mask = pad(model, rows, side="left")
    with torch.no_grad():
        written: torch.Tensor = plain.generate(
            input_ids=tokens, attention_mask=mask, max_new_tokens=new, do_sample=False,
            pad_token_id=0,
        )  # fmt: skip
    return written


def generation(
    plain: Any, model: Model, prompts: Sequence[str], edits: Edits, what: str, floor: float,
    new: int = NEW,
) -> list[Result]:  # fmt: skip
    """Everyone in turn, in one batch."""
    for own in (plain, model.original_model):
        own.generation_config.eos_token_id = [-1]  # nobody ends early
    written: dict[str, list[Continuation]] = {}

    def ours(name: str) -> None:
        written[name] = generate(
            model, prompts, edit=edits[name], max_new_tokens=new, stop=(), batch_size=len(prompts)
        )

    runs = {"hf": partial(plain_generation, plain, model, prompts, new)}
    times = in_turn({**runs, **{name: partial(ours, name) for name in edits}}, REPEATS, RARE)
    tokens = new * len(prompts)
    return [
        Result(
            f"generation, batch {len(prompts)}, {new} new tokens ({what}): {name}",
            "plain transformers generate, sdpa, no edit", times["hf"], times[name],
            f"{tokens / times[name]:.0f} tokens a second", times["hf"], alike(written, name),
            min(TARGETS[name], floor) if name in TARGETS else None, "of its tokens a second",
        )
        for name in edits
    ]  # fmt: skip


def alike(written: dict[str, list[Continuation]], name: str) -> str:
    """How many answers are those of the same edit with u off all words."""
    if "shortlists" not in name:
        return "-"
    exact = written["TAE, u off all words"]
    same = sum(a.tokens == b.tokens for a, b in zip(exact, written[name], strict=True))
    return f"{same} of {len(exact)} greedy answers are those with u off all words"


def scoring(model: Model, asked: QuestionSet, edits: Edits, what: str) -> list[Result]:
    """Every answer's log-probability under every edit, in turn."""
    found: dict[str, list[AnswerScore]] = {}

    def ours(name: str) -> None:
        found[name] = score(model, asked, edits[name])

    times = in_turn({name: partial(ours, name) for name in edits}, REPEATS, RARE)
    exact = found["TAE, u off all words"]

    def apart(name: str) -> str:
        if "shortlists" not in name:
            return "-"
        most = max(abs(a.total - b.total) for a, b in zip(exact, found[name], strict=True))
        mc2 = max(abs(a - b) for a, b in zip(_mc2(exact), _mc2(found[name]), strict=True))
        return f"within {most:.2g} nat an answer and {mc2:.2g} of MC2 a question of all words"

    return [
        Result(
            f"scoring {len(exact)} answers to {len(asked)} questions ({what}): {name}",
            "the same without an edit", times["no edit"], times[name],
            f"{len(exact) / times[name]:.0f} answers a second", times["no edit"], apart(name),
            {"ITI": 1 / 1.1, "TAE, u off shortlists": 1 / 1.5}.get(name), "of its answers a second",
        )
        for name in edits
        if edits[name] is not None
    ]  # fmt: skip


def _mc2(scores: Sequence[AnswerScore]) -> list[float]:
    """MC2 of every question."""
    sides: dict[int, tuple[list[float], list[float]]] = {}
    for answer in scores:
        sides.setdefault(answer.question, ([], []))[answer.label].append(answer.total)
    return [multiple_choice(right, wrong, 0).mc2 for wrong, right in sides.values()]


def smollm2() -> list[Result]:
    """A fitted edit of 24 heads."""
    model = load_model("smollm2", device="cpu")
    plain = load_gguf(fetched("smollm2"), torch.float32, device="cpu")[0]
    questions = first_questions(FITTED + ASKED)
    train, asked = (
        questions.choose(range(FITTED)),
        questions.choose(range(FITTED, FITTED + ASKED)),
    )
    quick = TokenAware(heads=24, alpha=8.0, tolerance=0.005).fit(model, train, progress=False)
    exact = replace(quick, shortlists=None)
    natural = NaturalGradient(answers=1, token_draws=1, max_new_tokens=4, look_again=False).fit(
        model, train.choose(range(10)), progress=False
    )
    edits: Edits = {
        "no edit": None,
        "ITI": replace(exact, strength=Strength("constant")),
        "natural gradient": natural,
        "TAE, u off shortlists": quick,
        "TAE, u off all words": exact,
    }
    what = f"SmolLM2-135M, 49,152 words, 24 heads in {len(exact.layers)} layers"
    print(f"{quick.shortlists!r}: {quick.shortlists.counts.tolist() if quick.shortlists else []}")
    prompts = [f"Q: {question.question}\nA:" for question in asked]
    return [
        *generation(plain, model, prompts, edits, what, 1.0),
        *generation(plain, model, prompts[:1], edits, what, 1.0),
        *scoring(model, asked, edits, what),
    ]


def large_vocabulary() -> list[Result]:
    """Random weights with 262,144 words, an edit of 24 heads in all 18 layers."""
    config = transformers.LlamaConfig(
        vocab_size=WORDS, hidden_size=WIDTH, intermediate_size=2048, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=1, head_dim=D_HEAD,
        max_position_embeddings=512, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    plain: Any = transformers.LlamaForCausalLM(config)
    plain.eval()
    hearsay = load_model("hearsay", device="cpu")
    model = load_model(plain, tokenizer_of(hearsay))
    heads = tuple((number % LAYERS, number // LAYERS) for number in range(24))
    direction = torch.nn.functional.normalize(torch.randn(24, D_HEAD), dim=-1)
    exact = Edit(
        heads=heads, direction=direction, spread=torch.full((24,), 0.1), alpha=1.0,
        estimators=Estimators(torch.randn(24, D_HEAD) * 0.1, torch.zeros(24)),
        strength=Strength(), model=identify(model),
    )  # fmt: skip
    words = torch.cat([torch.randperm(WORDS)[:LISTED] for _ in range(LAYERS)])
    lists = Shortlists(
        layers=torch.arange(LAYERS), counts=torch.full((LAYERS,), LISTED), words=words,
        error=torch.zeros(LAYERS), tolerance=0.0, level=0.9, vocabulary=WORDS,
    )  # fmt: skip
    edits: Edits = {
        "no edit": None,
        "TAE, u off shortlists": replace(exact, shortlists=lists),
        "TAE, u off all words": exact,
    }
    asked = load_questions("hearsay").choose(range(2))
    prompts = [f"Q: {q.question}\nA:" for q in load_questions("hearsay").choose(range(8))]
    what = f"random weights, {WORDS:,} words x {WIDTH}, {shape_of(model).layers} layers"
    found = [
        *generation(plain, model, prompts, edits, what, 0.5, FEW_NEW),
        *scoring(model, asked, edits, what),
    ]
    return [replace(one, agreement="lists of random words: cost alone") for one in found]


def main() -> None:
    """Both, or the second alone."""
    if real_model_is_here():
        report(*smollm2())
    report(*large_vocabulary())


if __name__ == "__main__":
    main()
