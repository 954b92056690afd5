import json

import pytest
import torch
from sklearn.metrics import roc_auc_score

from workbench.errors import WorkbenchError
from workbench.stages.misalignment import (
    fit_estimators,
    incorrect_answers,
    label_answers,
    strengths,
    token_labels,
)
from workbench.stages.probes import fit_probes


def test_golden_labels(shared):
    cases = json.loads((shared / "golden" / "reference_golden_token_labels.json").read_text())
    checked = 0
    for case in cases:
        correct = [answer.split() for answer in case["correct"]]
        incorrect = [answer.split() for answer in case["incorrect"]]
        for item in case["result"]:
            opposing = incorrect if item["answer"] in case["correct"] else correct
            labels = token_labels(item["answer"].split(), opposing)
            different = [place for place, label in enumerate(labels, start=1) if label]
            assert different == item["different_1based"]
            checked += 1
    assert checked >= 10


def test_labels_by_hand():
    correct = [("the", "capital", "is", "Canberra"), ("Canberra",)]
    assert token_labels(("Sydney", "is", "the", "capital"), correct) == (1, 0, 0, 0)
    assert token_labels(("no",), [("yes",), ("no", "way")]) == (0,)
    with pytest.raises(WorkbenchError, match="opposing"):
        token_labels(("no",), [])


def test_strength_by_hand():
    p = torch.tensor([[0.0, 1.0], [0.5, 0.25]])
    u = torch.tensor([0.0, 1.0])
    shared = u[:, None]
    found = strengths(p, shared, 0.5, 0.5)
    assert torch.allclose(found, torch.tensor([[1.0, 1.5], [1.75, 1.625]]))
    assert torch.equal(strengths(p, shared, 1.0, 0.0), 1 + p)
    assert torch.equal(strengths(p, shared, 0.0, 1.0), (1 + u)[:, None].expand(2, 2))
    assert torch.equal(strengths(p, None, 1.0, 1.0), 1 + p)
    by_row = torch.tensor([[1.0], [0.0]])
    assert strengths(p, shared, by_row, 1 - by_row).tolist() == [[1.0, 2.0], [2.0, 2.0]]


@pytest.fixture(scope="module")
def activations(activations_of_few):
    return activations_of_few


def test_labelled_rows_are_the_positions_before_each_token(activations):
    answers = incorrect_answers(activations, range(3))
    labelled = label_answers(activations, answers)
    for answer in answers:
        rows = labelled.answer == answer
        assert torch.equal(labelled.z[rows], activations[answer].z[:-1])
        assert int(rows.sum()) == len(activations[answer].tokens)


def test_correct_answers_are_labelled_against_incorrect_ones(activations):
    answer = next(k for k in range(len(activations)) if activations.label[k])
    question = int(activations.question[answer])
    others = [k for k in activations.of_questions([question]) if not activations.label[k]]
    said = {token for k in others for token in activations.encoded[k].answer_tokens}
    own = activations.encoded[answer].answer_tokens
    wanted = token_labels(own, [activations.encoded[k].answer_tokens for k in others])
    assert tuple(label_answers(activations, [answer]).label.tolist()) == wanted
    assert 0 < sum(wanted) == sum(token not in said for token in own)


def test_only_the_question_s_own_incorrect_answers(activations):
    answers = incorrect_answers(activations, [2, 5])
    assert {int(activations.question[k]) for k in answers} == {2, 5}
    assert not activations.label[answers].any()
    wanted = sum(len(activations.questions[q].incorrect_answers) for q in (2, 5))
    assert len(answers) == wanted


def test_published_grouping_takes_other_questions_answers(activations):
    published = incorrect_answers(activations, range(20), "published")
    taken = {int(activations.question[k]) for k in published}
    counts = [len(q.correct_answers) for q in activations.questions][:20]
    assert len(published) == sum(counts)
    assert (
        published
        == incorrect_answers(activations, range(len(activations.questions)))[: sum(counts)]
    )
    assert taken != set(range(20))


def test_estimators_tell_held_out_tokens_and_fail_on_shuffled_labels(activations):
    fitted = label_answers(activations, incorrect_answers(activations, range(20)))
    held = label_answers(activations, incorrect_answers(activations, range(20, 40)))
    label = held.label.numpy().astype(float)
    order = torch.randperm(len(fitted.label), generator=torch.Generator().manual_seed(0))
    found = {}
    for name, labels in (("true", fitted.label), ("shuffled", fitted.label[order])):
        p = fit_probes(fitted.z, labels).probability(held.z).mean(dim=(1, 2))
        found[name] = roc_auc_score(label, p.numpy())
    assert found["true"] > 0.75
    assert found["shuffled"] < 0.65
    same = fit_estimators(activations, incorrect_answers(activations, range(20)))
    assert torch.equal(same.coefficient, fit_probes(fitted.z, fitted.label).coefficient)
