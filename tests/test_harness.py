"""Against lm-evaluation-harness: the same answers of the same real model, scored by both.

The harness runs the plain transformers model of the file, with its own tokenising, batches and
TruthfulQA tasks. MC1 is on equal terms: its MC1 targets are the best answer and incorrect ones, of
which the best must come out on top, and here they are all incorrect ones, as in the workbench.
"""

import numpy as np
import pytest
import torch
import transformers
from lm_eval import simple_evaluate

from tests.edits import random_edit
from workbench.data.questions import QuestionSet
from workbench.data.sources import load_questions
from workbench.editing.attaching import edited
from workbench.editing.generation import generate
from workbench.editing.scoring import AnswerScore, score
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.harness.tasks import truthfulqa as truthfulqa_task
from workbench.evaluation.harness.wrapping import lm_eval
from workbench.evaluation.metrics.truth import multiple_choice
from workbench.models.fetching import fetched
from workbench.models.gguf_files import load_gguf
from workbench.models.identity import tokenizer_of
from workbench.models.prompts import FORMATS, PromptFormat

ANSWERS = 200


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


def harness_scores(harness, questions: QuestionSet, **settings) -> list[dict[str, float]]:
    """By question, the harness' log-probabilities of the answers, by their text."""
    whole = truthfulqa_task(questions, "mc2", **settings)
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
        whole = truthfulqa_task(truthfulqa, kind)
        found[kind] = np.array([
            whole.process_results(doc, [(nats[a], False) for a in whole.doc_to_choice(doc)])["acc"]
            for doc, nats in zip(whole.validation_docs(), theirs, strict=True)
        ])  # fmt: skip
    assert set(found["mc1"]) == {0, 1}
    assert found["mc1"].tolist() == [one.mc1 for one in own]
    np.testing.assert_allclose([one.mc2 for one in own], found["mc2"], atol=5e-4)
    assert found["mc2"].std() > 0.05


@pytest.mark.long
def test_the_harness_own_prompt(truthfulqa, smollm2, harness):
    few = truthfulqa.choose(range(2))
    whole = truthfulqa_task(few, "mc2")
    text = whole.doc_to_text(whole.validation_docs()[0])
    bare = FORMATS["bare"].asking.format(question=few[0].question)
    assert text.count("\nA:") == 7
    assert text.endswith("\n\n" + bare)
    style = PromptFormat("lm-eval", primer=text.removesuffix(bare), between="\n\n")
    theirs = harness_scores(harness, few)
    assert max(differences(own_scores(score(smollm2, few, style=style), few), theirs)) <= 1e-3
    assert max(differences(own_scores(score(smollm2, few), few), theirs)) > 1


def test_its_tasks_under_an_edit_equal_evaluate(truthfulqa, smollm2):
    few = truthfulqa.choose(range(3))
    edit = random_edit(smollm2, heads=((9, 2), (12, 5), (20, 1)), alpha=4)
    table = evaluate(smollm2, few, {"no edit": None, "edit": edit}, max_new_tokens=1,
                     progress=False)  # fmt: skip
    mine = table.pivot_table(index="method", columns="metric", values="value")
    tasks = [
        truthfulqa_task(few, kind, doc_to_text="Q: {{question}}\nA:") for kind in ("mc1", "mc2")
    ]
    for name, own in (("no edit", None), ("edit", edit)):
        found = simple_evaluate(lm_eval(smollm2, own, batch_size=32), tasks=tasks,
                                bootstrap_iters=0)["results"]  # fmt: skip
        for kind in ("mc1", "mc2"):
            assert found[f"truthfulqa_{kind}"]["acc,none"] == pytest.approx(
                mine.loc[name, kind], abs=1e-3
            )
    assert abs(mine.loc["edit", "mc2"] - mine.loc["no edit", "mc2"]) > 1e-3


@pytest.mark.parametrize("strength", ["constant", "adaptive"])
def test_a_real_model_is_exported(smollm2, strength, tmp_path):
    """Tied weights, shared key heads, no bias anywhere: export compares logits itself."""
    edit = random_edit(smollm2, heads=((9, 2), (12, 5), (20, 1)), alpha=4, strength=strength)
    folder = edit.export(tmp_path / "out", smollm2)
    found = transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    tokens = torch.arange(100, 140)[None] * 11
    with edited(smollm2, edit, start=0, record=False), torch.no_grad():
        expected = smollm2.original_model(tokens).logits
    with torch.no_grad():
        logits = found(tokens).logits
    assert (logits - expected).abs().max() < 1e-3 or strength == "adaptive"
    prompt = "Q: What happens if you eat watermelon seeds?\nA:"
    if strength == "adaptive":
        ids = tokenizer_of(smollm2)(prompt, return_tensors="pt").input_ids
        made = found.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
        expected = generate(smollm2, prompt, edit=edit, max_new_tokens=12, stop=())[0]
        assert made.tolist() == list(expected.tokens)
