"""A whole comparison on SmolLM2, stage by stage, in plain passes over its questions' answers.

No edit, ITI and TAE, two folds: α chosen of four on training questions, fitted, the test halves
scored. `python -m benchmarks.whole_run 817` takes so many of the questions; 48 without a number.
"""

from __future__ import annotations

import functools
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from unittest.mock import patch

import torch

from benchmarks.case import Result, once, report
from benchmarks.material import first_questions, real_model_is_here
from benchmarks.plain_passes import Plain, answers_of
from workbench import storage
from workbench.data.questions import QuestionSet
from workbench.editing.interventions import Intervention
from workbench.evaluation.capabilities.splits import splits
from workbench.evaluation.choosing import choose
from workbench.evaluation.evaluate import evaluate
from workbench.methods.iti import inference_time
from workbench.methods.memo import Memo
from workbench.methods.token_aware import TokenAware
from workbench.models.fetching import fetched
from workbench.models.gguf_files import load_gguf
from workbench.models.identity import Model
from workbench.models.loading import load_model

QUESTIONS, MOST = 48, 6.0
"""How many, and the plain passes that both methods may cost together."""
METHODS: dict[str, list[TokenAware]] = {
    "ITI": [inference_time(heads=24, alpha=alpha) for alpha in (5.0, 10.0, 15.0, 20.0)],
    "TAE": [TokenAware(heads=24, alpha=alpha, tolerance=0.005) for alpha in (4.0, 8.0, 12.0, 16.0)],
}
Made = TypeVar("Made")


class Stages:
    """Seconds by stage, and those that were spent in the model's passes, hooks and all."""

    def __init__(self, model: Model) -> None:
        self.kind: Any = type(model.original_model)
        self.taken: defaultdict[str, float] = defaultdict(float)
        self.passes: defaultdict[str, float] = defaultdict(float)
        self.stage = ""

    def timed(self, stage: str, make: Callable[[], Made]) -> Made:
        """Make something on account of a stage."""
        self.stage, begin = stage, time.perf_counter()
        made = make()
        self.taken[stage] += time.perf_counter() - begin
        return made

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count the time of every pass; a hook on the model would stop what passes share."""
        original = self.kind.forward

        @functools.wraps(original)
        def noting(*given: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            output = original(*given, **named)
            self.passes[self.stage] += time.perf_counter() - begin
            return output

        with patch.object(self.kind, "forward", noting):
            yield


def compared(model: Model, questions: QuestionSet) -> Stages:
    """The comparison."""
    stages = Stages(model)
    with stages.watching(), storage.scratch() as folder:
        for split in splits("truthfulness", lambda: questions):
            memo = Memo(folder)
            edits: dict[str, Intervention | None] = {"no edit": None}
            for name, candidates in METHODS.items():
                method = stages.timed(
                    f"choosing α of {name}",
                    functools.partial(choose, model, candidates, split, memo=memo),
                )
                edits[name] = stages.timed(
                    f"fitting {name}",
                    functools.partial(method.fit, model, split.train, memo=memo, progress=False),
                )
            del memo  # the stages of the fit take much memory
            stages.timed(
                "scoring the test half three times",
                functools.partial(evaluate, model, split.test, edits, progress=False),
            )
    return stages


def main() -> None:
    """Time the comparison and a plain pass before and after it."""
    if not real_model_is_here():
        return
    questions = first_questions(int(sys.argv[1]) if sys.argv[1:] else QUESTIONS)
    model = load_model("smollm2", device="cpu")
    plain = load_gguf(fetched("smollm2"), torch.float32, device="cpu")[0]
    one = Plain(plain, model, answers_of(model, questions))
    before = once(one)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of few questions for shortlists
        stages = compared(model, questions)
    unit = (before + once(one)) / 2
    whole = sum(stages.taken.values())
    print(f"a plain pass over {one.tokens:,} tokens takes {unit:.1f} s")
    for stage, taken in stages.taken.items():
        share = stages.passes[stage] / taken
        print(f"  {stage:40} {taken:8.1f} s {taken / unit:6.2f} passes, {share:.0%} in the model")
    told = ", ".join(f"{name} {taken / unit:.2f}" for name, taken in stages.taken.items())
    report(
        Result(
            f"no edit, ITI and TAE on {len(questions)} questions, two folds, α of four (SmolLM2)",
            "one plain transformers pass over all answers with their prompts", unit, whole,
            f"{told}; {sum(stages.passes.values()) / whole:.0%} of the time in the model's passes",
            float("nan"), "-", MOST, "plain passes", costs=True,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
