import json
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.data.questions import Question, QuestionSet
from workbench.data.sources import load_questions
from workbench.data.truthfulqa import split_answers
from workbench.errors import WorkbenchError


def made(count):
    return QuestionSet(tuple(Question(f"q{n}?", "a", ("a",), ("b",)) for n in range(count)))


@given(st.integers(4, 60), st.integers(2, 5), st.integers(0, 9))
def test_folds_test_every_question_once_and_never_share(size, count, seed):
    questions = made(size)
    if count * 2 > size:
        with pytest.raises(WorkbenchError, match="folds"):
            questions.folds(count, seed)
        return
    folds = questions.folds(count, seed)
    tested = [q.question for fold in folds for q in fold.test]
    assert sorted(tested) == sorted(q.question for q in questions)
    for fold in folds:
        assert not {q.question for q in fold.train} & {q.question for q in fold.test}
        assert len(fold.train) + len(fold.test) == size
        assert fold.everything is questions


def test_folds_and_validation_repeat_by_seed():
    questions = made(50)
    assert questions.folds(2, 1) == questions.folds(2, 1)
    assert questions.folds(2, 1) != questions.folds(2, 2)
    mask = questions.validation_mask(0.2, 4)
    assert sum(mask) == 10
    assert mask == questions.validation_mask(0.2, 4)
    with pytest.raises(WorkbenchError, match="share"):
        questions.validation_mask(1.0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"incorrect_answers": ()}, "no incorrect answer"),
        ({"correct_answers": ()}, "no correct answer"),
        ({"incorrect_answers": ("b", "  ")}, "empty incorrect answer"),
        ({"correct_answers": ("a", "a")}, "repeats a correct answer"),
        ({"incorrect_answers": ("a",)}, "as correct and as incorrect"),
        ({"best_answer": "c"}, "best answer 'c'"),
        ({"question": " "}, "empty question"),
    ],
)
def test_bad_questions_are_refused(change, says):
    good = {
        "question": "q?", "best_answer": "a", "correct_answers": ("a",),
        "incorrect_answers": ("b",),
    }  # fmt: skip
    with pytest.raises(WorkbenchError, match=says):
        Question(**{**good, **change})


def test_empty_and_duplicate_sets_are_refused():
    with pytest.raises(WorkbenchError, match="empty"):
        QuestionSet(())
    with pytest.raises(WorkbenchError, match="twice"):
        QuestionSet((made(1)[0], made(1)[0]))


def test_semicolon_lists():
    assert split_answers("a; b;;a ;  c d ;") == ("a", "b", "c d")
    assert split_answers(" ; ") == ()


def test_official_csv_with_bom(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(
        "﻿Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source\r\n"
        'A,Law,"Is it, so?",Yes,"Yes; It is",No; Never,x\r\n'.encode()
    )
    (question,) = load_questions(path)
    assert question == Question("Is it, so?", "Yes", ("Yes", "It is"), ("No", "Never"), "Law")


def test_best_answer_that_the_list_lacks_is_added(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("Question,Best Answer,Correct Answers,Incorrect Answers\nq?,Best,Good,Bad\n")
    assert load_questions(path)[0].correct_answers == ("Best", "Good")


def test_spaces_make_no_other_question(tmp_path):
    lines = tmp_path / "own.jsonl"

    def write(*asked):
        lines.write_text("\n".join(
            json.dumps({"question": q, "correct_answers": [" a", "a", "b "], "best_answer": "b",
                        "incorrect_answers": ["c\n", ""]})
            for q in asked
        ))  # fmt: skip
        return load_questions(lines)

    found = write(" Who? ", "What?\n")
    assert [q.question for q in found] == ["Who?", "What?"]
    assert found[0].correct_answers == ("a", "b")
    assert found[0].incorrect_answers == ("c",)
    assert found[0].best_answer == "b"
    with pytest.raises(WorkbenchError, match=r"Who\?"):
        write("Who?", "Who? ")


def test_own_csv_and_json_lines(tmp_path):
    table = tmp_path / "own.csv"
    table.write_text("question,correct_answers,incorrect_answers\nq?,a; b,c\n")
    lines = tmp_path / "own.jsonl"
    record = {"question": "q?", "correct_answers": ["a", "b"], "incorrect_answers": ["c"]}
    lines.write_text(json.dumps(record) + "\n\n")
    assert load_questions(table)[0] == load_questions(lines)[0]
    assert load_questions(table)[0].best_answer == "a"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "Question,Answer\nq,a\n", "missing"),
        ("b.csv", "question,correct_answers,incorrect_answers\nq?,a,\n", "row 1.*no incorrect"),
        ("c.csv", "question,correct_answers,incorrect_answers\nq?,a\n", "cells"),
        ("d.jsonl", '{"question": "q?"}\n', "item 1"),
        ("e.jsonl", '{"question": \n', "line 1"),
        ("f.jsonl", '{"question":"q?","correct_answers":"a","incorrect_answers":["b"]}', "list"),
        ("g.json", '[{"question": "q?"}]', "item 1"),
        ("h.json", "[", "not valid JSON"),
        ("k.csv", "question,question,correct_answers,incorrect_answers\na,b,c,d\n", "twice"),
        (
            "l.jsonl",
            '{"question": 5, "correct_answers": ["a"], "incorrect_answers": ["b"]}',
            "texts",
        ),
        ("m.jsonl", '{"question": "q", "correct_answers": 5, "incorrect_answers": ["b"]}', "list"),
        ("n.json", "null", "NoneType"),
        ("o.csv", "Question,Best Answer,Correct Answers,Incorrect Answers\n", "empty"),
        ("i.csv", "question,correct_answers,incorrect_answers\n", "empty"),
        ("j.txt", "", "question source"),
    ],
)
def test_bad_files_are_refused_with_their_place(tmp_path, as_shipped, name, text, says):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(WorkbenchError, match=says) as refused:
        load_questions(path)
    assert name in str(refused.value)


def test_absent_file_is_refused(tmp_path):
    with pytest.raises(WorkbenchError, match="no file"):
        load_questions(tmp_path / "absent.csv")


def test_truthfulqa_files(shared):
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        table = load_questions(shared / "data" / "truthfulqa" / "TruthfulQA.csv")
        task = load_questions(shared / "data" / "truthfulqa" / "mc_task.json")
    contradictory = [w for w in warned if "as correct and as incorrect" in str(w.message)]
    assert "row 348" in str(contradictory[0].message)
    assert len(contradictory) == len(warned) <= 4
    assert len(table) == 817
    assert len(task) == 817
    texts = {q.question for q in table}
    assert len(texts & {q.question for q in task}) > 800
    assert sum(len(q.answers) for q in table) > 5800


def test_hearsay_has_one_question_a_fact(questions):
    assert len(questions) >= 250
    assert all(len(q.correct_answers) == 4 for q in questions)
    assert all(len(q.incorrect_answers) == 6 for q in questions)
    assert len({q.category for q in questions}) >= 8
