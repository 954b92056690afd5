"""TruthfulQA's binary choice, and a classifier that never sees the question."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from workbench.data.questions import Question, QuestionSet
from workbench.data.truthfulqa import truthfulqa_csv
from workbench.editing.scoring import score
from workbench.errors import WorkbenchError
from workbench.evaluation.answers_alone import answers_alone
from workbench.evaluation.capabilities.binary_choice import binary_questions, binary_rows
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.tables import summary

ONE = Question("Who?", "Me.", ("I.", "Me."), ("You.", "They."))


def test_every_question_is_asked_in_both_orders():
    first, second = binary_questions(QuestionSet((ONE,), "some"))
    assert first.question == "Who?\n(A) Me.\n(B) You."
    assert (first.best_answer, first.incorrect_answers) == ("(A)", ("(B)",))
    assert second.question == "Who?\n(A) You.\n(B) Me."
    assert (second.best_answer, second.incorrect_answers) == ("(B)", ("(A)",))


def test_a_model_that_prefers_a_letter_has_a_half_and_one_that_knows_has_all(hearsay, few):
    asked = few.choose(range(4))
    scores = score(hearsay, binary_questions(asked))
    assert len(scores) == 2 * 2 * len(asked)

    def with_totals(total):
        return [replace(one, total=total(one)) for one in scores]

    # The first order's right letter is (A), the second's (B).
    is_a = [one.label == 1 - one.question % 2 for one in scores]
    first = [replace(one, total=-1.0 if a else -2.0) for one, a in zip(scores, is_a, strict=True)]
    assert [row.value for row in binary_rows(asked, first)] == [0.5] * 4
    knowing = with_totals(lambda one: -1.0 if one.label else -2.0)
    assert [row.value for row in binary_rows(asked, knowing)] == [1.0] * 4
    tied = with_totals(lambda _: -1.0)
    assert [row.value for row in binary_rows(asked, tied)] == [0.0] * 4


def test_it_is_measured_beside_multiple_choice(hearsay, few):
    asked = few.choose(range(6))
    given = {"progress": False, "max_new_tokens": 2}
    plain = evaluate(hearsay, asked, {"no edit": None}, **given)
    both = evaluate(hearsay, asked, {"no edit": None}, binary=True, **given)
    rest = both[both["metric"] != "binary"].reset_index(drop=True)
    pd.testing.assert_frame_equal(rest, plain)
    own = both[both["metric"] == "binary"]
    assert own["question"].tolist() == [one.question for one in asked]
    assert set(own["value"]) <= {0.0, 0.5, 1.0}


def test_only_true_or_false_is_a_choice(hearsay, few, as_shipped):
    with pytest.raises(WorkbenchError, match="binary="):
        evaluate(hearsay, few.choose(range(2)), {"no edit": None}, binary="no", progress=False)


def test_the_best_incorrect_answer_comes_first_where_the_file_tells_it(tmp_path):
    head = "Question,Best Answer,Correct Answers,Incorrect Answers"
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    old.write_text(f"{head}\nWho?,Me.,Me.,You.; They.\n")
    new.write_text(
        f"{head},Best Incorrect Answer\nWho?,Me.,Me.,You.; They.,They.\nWhen?,Now.,Now.,Never.,\n"
    )
    assert truthfulqa_csv(old)[0].incorrect_answers == ("You.", "They.")
    first, second = truthfulqa_csv(new)
    assert first.incorrect_answers == ("They.", "You.")
    assert second.incorrect_answers == ("Never.",)


def styled(count, right, wrong):
    """Questions whose right and wrong answers differ in their words alone."""
    return QuestionSet(
        tuple(
            Question(f"q{n}?", f"{right} {n}", (f"{right} {n}",), (f"{wrong} {n}", f"{wrong} {n}x"))
            for n in range(count)
        )
    )


def test_style_is_found_and_where_there_is_none_it_guesses(hearsay):
    own = styled(40, "It is not known whether", "Surely all")
    found = answers_alone(hearsay, own.choose(range(20)), own.choose(range(20, 40)))
    means = summary(found).set_index("metric")["mean"]
    assert means["mc1"] == means["binary"] == 1.0
    assert means["mc2"] > 0.6
    draw = np.random.default_rng(0)
    words = ["red", "blue", "green", "old", "new", "small", "large", "round"]

    def said():
        return " ".join(draw.choice(words, 6))

    mixed = QuestionSet(tuple(Question(f"q{n}?", a := said(), (a,), (said(),)) for n in range(200)))
    blind = answers_alone(hearsay, mixed.choose(range(100)), mixed.choose(range(100, 200)), fold=3)
    assert abs(summary(blind).set_index("metric").loc["binary", "mean"] - 0.5) < 0.15
    assert set(blind["fold"]) == {3}


def test_refusals(hearsay):
    own = styled(6, "a", "b")
    with pytest.raises(WorkbenchError, match="1 questions to fit on and to test on"):
        answers_alone(hearsay, own.choose(range(3)), own.choose(range(2, 5)))
    with pytest.raises(WorkbenchError, match="penalty"):
        answers_alone(hearsay, own.choose(range(3)), own.choose(range(3, 6)), penalty=0.0)
