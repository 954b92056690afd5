"""Every stage of TAE in plain passes: how often transformers reads the same answers meanwhile.

The unit is a pass of the plain transformers model over some questions' answers, each with its
prompt, longest together with longest, in batches of 64, with logits of the last position alone. On
SmolLM2 where its weights are at hand, and on random weights of Llama-3.2-1B's shape, two layers.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import transformers

from benchmarks.case import Result, gemm_rate, in_turn, report
from benchmarks.material import first_questions, real_model_is_here
from workbench.analysis.causal import knock_out_heads
from workbench.data.questions import QuestionSet
from workbench.data.sources import load_questions
from workbench.editing.scoring import score_under
from workbench.methods.iti import inference_time
from workbench.methods.memo import Memo
from workbench.methods.token_aware import TokenAware
from workbench.models.fetching import fetched
from workbench.models.gguf_files import load_gguf
from workbench.models.identity import Model, shape_of, tokenizer_of
from workbench.models.loading import load_model
from workbench.models.prompts import encode
from workbench.models.tokens import pad
from workbench.pages.explorer import explore
from workbench.stages.aggregation import aggregate
from workbench.stages.capture import capture
from workbench.stages.directions import fit_directions
from workbench.stages.misalignment import fit_estimators
from workbench.stages.shortlist_fitting import fit_shortlists

QUESTIONS, FITTED, BATCH, REPEATS, EXPLORED = 4, 40, 64, 5, 1
"""How many questions are timed, and how many more the edit is fitted on: lists of words need 18."""
MOST = {"capture without u": 1.3, "capture with u at the edited layers": 2.5}
"""Plain passes over the same tokens that a stage may cost. A capture runs unlabelled prompts too,
which are no part of the pass; `real_capture` counts them."""


class Plain:
    """Plain passes over rows of tokens, longest together with longest.

    Args:
        plain: the transformers model.
        model: the bridge, for its tokenizer.
        rows: of tokens.
        keep: logits of so many last positions; 0 for all.
    """

    def __init__(
        self, plain: Any, model: Model, rows: Sequence[Sequence[int]], keep: int = 1
    ) -> None:
        rows = sorted(rows, key=len, reverse=True)
        self.model, self.keep = plain, keep
        self.tokens = sum(map(len, rows))
        self.batches = [
            pad(model, rows[first : first + BATCH]) for first in range(0, len(rows), BATCH)
        ]

    def __call__(self) -> None:
        """One pass."""
        for tokens, mask in self.batches:
            with torch.no_grad():
                self.model(
                    input_ids=tokens, attention_mask=mask, use_cache=False, logits_to_keep=self.keep
                )

    def operations(self) -> float:
        """Of a pass: two a weight of the layers and a token."""
        weights: int = sum(own.numel() for own in self.model.model.layers.parameters())
        return 2.0 * weights * self.tokens


def answers_of(model: Model, questions: QuestionSet) -> list[tuple[int, ...]]:
    """Every answer's tokens, with its prompt."""
    return [
        encode(model, question.question, answer).tokens
        for question in questions
        for answer in question.answers
    ]


def stages(plain: Any, model: Model, whole: QuestionSet, what: str) -> list[Result]:
    """Every stage in turn with the plain pass."""
    questions, train = whole.choose(range(QUESTIONS)), whole.choose(range(QUESTIONS, len(whole)))
    one = Plain(plain, model, answers_of(model, questions))
    shape = shape_of(model)
    acts = capture(model, questions, progress=False)
    features = aggregate(acts, depth=1)
    method = TokenAware(heads=min(24, shape.layers * shape.heads), alpha=8.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of few questions for shortlists
        quick = TokenAware(heads=method.heads, alpha=8.0, tolerance=0.005)
        edit = quick.fit(model, train, progress=False)
    few = questions.choose(range(EXPLORED))
    alphas = (4.0, 8.0, 12.0, 16.0)
    runs: dict[str, Callable[[], object]] = {
        "capture without u": partial(capture, model, questions, progress=False),
        "capture with u at the edited layers": partial(
            capture,
            model,
            questions,
            uncertainty="logit_lens",
            uncertainty_layers=edit.layers,
            progress=False,
        ),
        "graphs and aggregation": partial(aggregate, acts, depth=1),
        "directions": partial(fit_directions, features, questions),
        "estimators": partial(fit_estimators, acts),
        f"lists of words at {len(edit.layers)} layers": partial(
            lists_of, model, questions, edit.layers
        ),
        "ITI's whole fit": partial(
            inference_time(heads=method.heads).fit, model, questions, memo=Memo(), progress=False
        ),
        "scoring without an edit": partial(score_under, model, questions, [None]),
        "scoring under TAE": partial(score_under, model, questions, [edit]),
        "scoring under TAE at four α": partial(
            score_under, model, questions, [edit.scaled(alpha) for alpha in alphas]
        ),
        f"knocking out {shape.heads} heads, {EXPLORED} questions": partial(
            knock_out_heads, model, few, heads=[(shape.layers // 2, h) for h in range(shape.heads)]
        ),
        f"the explorer's record of {EXPLORED} questions": partial(
            explore, model, edit, few, each=None, progress=False
        ),
    }
    rare = [name for name in runs if name.startswith(("lists", "ITI", "knocking", "the explorer"))]
    times = in_turn({"plain": one, **runs}, REPEATS, rare)
    rate = gemm_rate()
    attainable = one.operations() / rate
    size = f"{sum(map(len, (q.answers for q in questions)))} answers, {one.tokens:,} tokens"
    print(f"{what}: {size}; a plain pass {times['plain']:.2f} s, {attainable:.2f} s of it products")
    return [
        Result(
            f"{name} ({what}, {size})", "one plain transformers pass over the same answers",
            times["plain"], times[name], f"a pass is {one.operations() / 1e9:.0f} GFLOP",
            attainable if "capture" in name or "scoring" in name else float("nan"), "-",
            MOST.get(name), "plain passes", costs=True,
        )
        for name in runs
    ]  # fmt: skip


def lists_of(model: Model, questions: QuestionSet, layers: tuple[int, ...]) -> None:
    """Shortlists, of however few questions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        fit_shortlists(model, questions, layers)


def smollm2() -> list[Result]:
    """The real model."""
    model = load_model("smollm2", device="cpu")
    plain = load_gguf(fetched("smollm2"), torch.float32, device="cpu")[0]
    return stages(plain, model, first_questions(QUESTIONS + FITTED), "SmolLM2-135M")


def llama() -> list[Result]:
    """Llama-3.2-1B's shape with two layers instead of 16, and hearsay's tokens."""
    config = transformers.LlamaConfig(
        vocab_size=128_256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=2,
        num_attention_heads=32, num_key_value_heads=8, head_dim=64, max_position_embeddings=512,
        tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    plain: Any = transformers.LlamaForCausalLM(config)
    plain.eval()
    model = load_model(plain, tokenizer_of(load_model("hearsay", device="cpu")))
    questions = load_questions("hearsay").choose(range(QUESTIONS + FITTED // 4))
    return stages(plain, model, questions, "random weights of Llama-3.2-1B's shape, 2 layers")


def main() -> None:
    """Each as soon as it is measured; `smollm2` or `llama` alone if it is named."""
    named = sys.argv[1:]
    if "llama" not in named and real_model_is_here():
        report(*smollm2())
    if "smollm2" not in named:
        report(*llama())


if __name__ == "__main__":
    main()
