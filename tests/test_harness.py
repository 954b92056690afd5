"""Against lm-evaluation-harness: the same answers of the same real model, scored by both.

The harness runs the plain transformers model of the file, with its own tokenising, batches and
TruthfulQA tasks. MC1 is on equal terms: its MC1 targets are the best answer and incorrect ones, of
which the best must come out on top, and here they are all incorrect ones, as in the workbench.
"""

from importlib import resources

import numpy as np
import pytest
import torch
from datasets import Dataset

from workbench.data.questions import QuestionSet
from workbench.data.sources import load_questions
from workbench.editing.scoring import AnswerScore, score
from workbench.evaluation.metrics.truth import multiple_choice
from workbench.models.fetching import fetched
from workbench.models.gguf_files import load_gguf
from workbench.models.prompts import FORMATS, PromptFormat

ANSWERS = 300


@pytest.fixture(scope="module")
def truthfulqa(shared) -> QuestionSet:
    """Every 19th question of TruthfulQA, as many as have so many answers together."""
    with pytest.warns(UserWarning, match="correct and as incorrect"):
        whole = load_questions(shared / "data" / "truthfulqa" / "TruthfulQA.csv")
    spread = whole.choose(range(0, len(whole), 19))
    count = np.cumsum([len(question.answers) for question in spread])
    return spread.choose(range(int(np.searchsorted(count, ANSWERS)) + 1))


@pytest.fixture(scope="module")
def harness(smollm2):
    """The harness' model: transformers', as it reads the file, without the bridge."""
    from lm_eval.models.huggingface import HFLM

    plain, tokenizer, _ = load_gguf(fetched("smollm2"), torch.float32, device="cpu")
    return HFLM(pretrained=plain, tokenizer=tokenizer, batch_size=4)


def task(kind: str, questions: QuestionSet, **settings):
    """The harness' own task, as it ships it, on these questions instead of the hub's."""
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    place = resources.files("lm_eval") / "tasks" / "truthfulqa" / f"truthfulqa_{kind}.yaml"
    targets = {
        "mc1": [(q.best_answer, *q.incorrect_answers) for q in questions],
        "mc2": [q.answers for q in questions],
    }[kind]
    rows = [
        {"choices": list(own), "labels": [int(a in q.correct_answers) for a in own]}
        for q, own in zip(questions, targets, strict=True)
    ]
    asked = [q.question for q in questions]
    documents = Dataset.from_dict({"question": asked, f"{kind}_targets": rows})
    config = load_yaml(place, resolve_func=True) | settings
    config["custom_dataset"] = lambda **_: {"validation": documents}
    return ConfigurableTask(config=config)


def harness_scores(harness, questions: QuestionSet, **settings) -> list[dict[str, float]]:
    """By question, the harness' log-probabilities of the answers, by their text."""
    whole = task("mc2", questions, **settings)
    whole.build_all_requests()
    found = harness.loglikelihood(whole.instances, disable_tqdm=True)
    nats: list[dict[str, float]] = [{} for _ in questions]
    for one, (total, _) in zip(whole.instances, found, strict=True):
        nats[one.doc_id][one.args[1].removeprefix(" ")] = total
    return nats


def own_scores(found: list[AnswerScore], questions: QuestionSet) -> list[dict[str, float]]:
    """The workbench's in the same shape."""
    totals = iter([one.total for one in found])
    return [{answer: next(totals) for answer in q.answers} for q in questions]


def differences(first: list[dict[str, float]], second: list[dict[str, float]]) -> list[float]:
    """Absolute differences, by answer."""
    return [
        abs(nats - other[answer])
        for own, other in zip(first, second, strict=True)
        for answer, nats in own.items()
    ]


@pytest.fixture(scope="module")
def both(truthfulqa, smollm2, harness):
    """The bare prompt's numbers, by the workbench and by the harness."""
    mine = own_scores(score(smollm2, truthfulqa), truthfulqa)
    return mine, harness_scores(harness, truthfulqa, doc_to_text="Q: {{question}}\nA:")


def test_log_probabilities_equal_the_harness(both):
    apart = differences(*both)
    assert len(apart) >= ANSWERS
    assert max(apart) <= 1e-3


def test_multiple_choice_equals_the_harness(both, truthfulqa):
    mine, theirs = both
    own = [
        multiple_choice(
            [nats[answer] for answer in q.correct_answers],
            [nats[answer] for answer in q.incorrect_answers],
            q.correct_answers.index(q.best_answer),
        )
        for q, nats in zip(truthfulqa, mine, strict=True)
    ]
    found = {}
    for kind in ("mc1", "mc2"):
        whole = task(kind, truthfulqa)
        found[kind] = np.array([
            whole.process_results(doc, [(nats[a], False) for a in whole.doc_to_choice(doc)])["acc"]
            for doc, nats in zip(whole.validation_docs(), theirs, strict=True)
        ])  # fmt: skip
    assert set(found["mc1"]) == {0, 1}
    assert found["mc1"].tolist() == [one.mc1 for one in own]
    np.testing.assert_allclose([one.mc2 for one in own], found["mc2"], atol=5e-4)
    assert found["mc2"].std() > 0.05


def test_the_harness_own_prompt(truthfulqa, smollm2, harness):
    few = truthfulqa.choose(range(2))
    whole = task("mc2", few)
    text = whole.doc_to_text(whole.validation_docs()[0])
    bare = FORMATS["bare"].asking.format(question=few[0].question)
    assert text.count("\nA:") == 7
    assert text.endswith("\n\n" + bare)
    style = PromptFormat("lm-eval", primer=text.removesuffix(bare), between="\n\n")
    theirs = harness_scores(harness, few)
    assert max(differences(own_scores(score(smollm2, few, style=style), few), theirs)) <= 1e-3
    assert max(differences(own_scores(score(smollm2, few), few), theirs)) > 1
