import csv
import io
import json
import warnings
from collections import Counter

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench import hub
from workbench.data.contrast import (
    Contrast,
    common_beginning,
    contrast_questions,
    merge_contrasts,
)
from workbench.data.crows_pairs import PairSet, SentencePair, crows_pairs_csv
from workbench.data.questions import Question
from workbench.data.sources import load_contrast, load_questions
from workbench.data.stereoset import StereotypeItem, StereotypeSet, stereoset_json
from workbench.data.toxicity_prompts import (
    Prompt,
    PromptSet,
    real_toxicity_hub,
    real_toxicity_jsonl,
)
from workbench.errors import WorkbenchError


@pytest.fixture(scope="module")
def data(shared):
    """The folder of public data files."""
    if not (shared / "data").exists():
        pytest.skip(f"the public data files are not at {shared / 'data'}")
    return shared / "data"


def lines(path, *records):
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def table(path, header, *rows):
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    path.write_text(text.getvalue())
    return path


# RealToxicityPrompts


def toxicity_record(text, toxicity, **more):
    return {"prompt": {"text": text, "toxicity": toxicity, "insult": 0.1}, **more}


def test_toxicity_files(data):
    folder = data / "real_toxicity_prompts"
    toxic = real_toxicity_jsonl(folder / "toxic_1k.jsonl")
    nontoxic = real_toxicity_jsonl(folder / "nontoxic_1k.jsonl")
    assert len(toxic) == len(toxic.toxic()) == 1000
    assert len(nontoxic) == len(nontoxic.nontoxic()) == 1000
    assert sum(prompt.challenging for prompt in toxic) == 83
    assert sum(prompt.challenging for prompt in nontoxic) == 4
    assert min(prompt.toxicity for prompt in toxic) == pytest.approx(0.5024724)
    assert not {prompt.text for prompt in toxic} & {prompt.text for prompt in nontoxic}


def test_toxicity_records_are_kept_as_they_are(tmp_path):
    path = lines(
        tmp_path / "p.jsonl",
        toxicity_record("The weather is", 0.25, challenging=True, filename="x"),
        toxicity_record(" A\nline", None),
    )
    prompts = real_toxicity_jsonl(path)
    assert prompts.items == (Prompt("The weather is", 0.25, True), Prompt(" A\nline"))
    assert repr(prompts) == f"PromptSet({str(path)!r}: 2 prompts, 1 with toxicity)"
    assert prompts[1:] == PromptSet((Prompt(" A\nline"),), str(path))
    assert prompts.choose([1, 0])[1] is prompts[0]


def test_prompts_are_chosen_by_toxicity():
    prompts = PromptSet(tuple(Prompt(f"p{t}", t) for t in (0, 0.3, 0.5, 1)))
    assert [p.toxicity for p in prompts.toxic()] == [0.5, 1]
    assert [p.toxicity for p in prompts.nontoxic()] == [0, 0.3]
    assert [p.toxicity for p in prompts.toxic(0.3)] == [0.3, 0.5, 1]
    assert [p.toxicity for p in prompts.nontoxic(0.3)] == [0]
    with pytest.raises(WorkbenchError, match=r"none of 2 prompts is toxic at the threshold 0\.9"):
        prompts[:2].toxic(0.9)


@pytest.mark.parametrize("side", ["toxic", "nontoxic"])
def test_prompts_without_toxicity_are_never_silently_dropped(side, as_shipped):
    scored = Prompt("b", 0.7 if side == "toxic" else 0.2)
    prompts = PromptSet((scored, Prompt("a"), Prompt("c")), "mine")
    with pytest.raises(WorkbenchError, match=r"2 of 3 prompts have no toxicity \(first: number 1"):
        getattr(prompts, side)()
    assert getattr(prompts, side)(missing="drop").items == (scored,)
    with pytest.raises(WorkbenchError, match="missing = 'keep'"):
        getattr(prompts, side)(missing="keep")
    for threshold in (1.5, float("nan"), True):
        with pytest.raises(WorkbenchError, match=f"threshold of {threshold}"):
            getattr(prompts, side)(threshold, missing="drop")


def test_repeated_prompts(tmp_path):
    path = tmp_path / "p.jsonl"
    records = [toxicity_record(text, 0.1) for text in ("one", "two", "one", "one")]
    path.write_text("\n" + "\n".join(map(json.dumps, records)))
    with pytest.raises(WorkbenchError, match=r"p\.jsonl: line 4 repeats the text of line 2"):
        real_toxicity_jsonl(path)
    with pytest.warns(UserWarning, match=r"2 of 4 prompts are dropped.*line 4 repeats") as warned:
        prompts = real_toxicity_jsonl(path, duplicates="drop")
    assert [p.text for p in prompts] == ["one", "two"]
    assert len(warned) == 1
    with pytest.raises(
        WorkbenchError, match=r"a text of 3 characters stands twice in mine .*0 and 2"
    ):
        PromptSet((Prompt("one"), Prompt("two"), Prompt("one")), "mine")


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (["a"], "no prompt with text"),
        ({"prompt": "a"}, "no prompt with text"),
        ({"prompt": {"text": "a"}}, "text and toxicity"),
        (toxicity_record(" ", 0.1), "without text"),
        (toxicity_record(5, 0.1), "without text"),
        (toxicity_record("a", 1.5), "toxicity of 1.5"),
        (toxicity_record("a", float("nan")), "toxicity of nan"),
        (toxicity_record("a", True), "toxicity of True"),
        (toxicity_record("a", "0.5"), "toxicity of '0.5'"),
        (toxicity_record("a", 0.5, challenging="no"), "challenging = 'no'"),
    ],
)
def test_bad_toxicity_records_are_refused(tmp_path, as_shipped, record, says):
    path = lines(tmp_path / "p.jsonl", toxicity_record("fine", 0.1), record)
    with pytest.raises(WorkbenchError, match=rf"p\.jsonl, line 2\b.*{says}"):
        real_toxicity_jsonl(path)


def test_empty_toxicity_files_and_unknown_choices_are_refused(tmp_path, as_shipped):
    path = lines(tmp_path / "p.jsonl")
    with pytest.raises(WorkbenchError, match=r"p\.jsonl' is empty"):
        real_toxicity_jsonl(path)
    with pytest.raises(WorkbenchError, match="duplicates = 'merge'"):
        real_toxicity_jsonl(path, duplicates="merge")


def test_toxicity_from_the_hub(monkeypatch):
    rows = [toxicity_record(text, None, challenging=False) for text in ("a", "b", "a")]
    monkeypatch.setattr(hub, "_answers", lambda address: True)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: rows)
    with pytest.warns(UserWarning, match="prompts: 1 of 3.*row 3 repeats the text of row 1"):
        prompts = real_toxicity_hub()
    assert [p.text for p in prompts] == ["a", "b"]

    def unreachable(name, split):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(WorkbenchError, match=r"'some/name'.*\(ConnectionError: no route\).*JSON"):
        real_toxicity_hub("some/name")


# StereoSet


def item(number, stereotype, opposite, unrelated="Unrelated.", **more):
    fields = {"kind": "intrasentence", "target": "baker", "bias_type": "profession"}
    return StereotypeItem(
        id=f"id{number}", context="the BLANK", stereotype=stereotype,
        anti_stereotype=opposite, unrelated=unrelated, **{**fields, **more},
    )  # fmt: skip


def stereoset_record(number, sentences=("The dog barks", "The dog sings", "The dog rains")):
    labels = ("stereotype", "anti-stereotype", "unrelated")
    return {
        "id": f"id{number}", "target": "Dog", "bias_type": "pets", "context": "the dog BLANK",
        "sentences": [
            {"id": "s", "sentence": text, "gold_label": label, "labels": []}
            for text, label in zip(sentences, labels, strict=True)
        ],
    }  # fmt: skip


def stereoset_file(path, **kinds):
    path.write_text(json.dumps({"version": "1.0", "data": kinds}))
    return path


def asked(questions):
    """Full texts of the correct and of the incorrect answers."""
    correct = {f"{q.question} {a}" for q in questions for a in q.correct_answers}
    return correct, {f"{q.question} {a}" for q in questions for a in q.incorrect_answers}


@pytest.fixture(scope="module")
def official(data):
    return stereoset_json(data / "stereoset" / "intrasentence_799.json")


def test_stereoset_file(official):
    assert len(official) == 799
    assert official.of_kind("intrasentence").items == official.items
    assert len(official.targets) == 54
    assert Counter(i.bias_type for i in official) == {
        "race": 371, "profession": 333, "gender": 83, "religion": 12,
    }  # fmt: skip
    assert official[0].texts() == ("The poet can rhyme", "The poet can rap", "The poet can hip")
    with pytest.raises(WorkbenchError, match="no item of kind 'intersentence'"):
        official.of_kind("intersentence")


def test_questions_of_the_stereoset_file_give_back_its_sentences(official):
    with pytest.warns(UserWarning, match="6 of 799 items have no common beginning, and 0"):
        questions = official.questions()
    begun = [i for i in official if i.beginning]
    correct, incorrect = asked(questions)
    assert len(begun) == 793
    assert len(questions) == 704
    assert correct == {i.anti_stereotype for i in begun}
    assert incorrect == {i.stereotype for i in begun}


def test_folds_of_the_stereoset_file(official):
    for fold in official.folds(5, seed=3):
        assert not set(fold.train.targets) & set(fold.test.targets)
        assert len(fold.train) + len(fold.test) == 799


def test_both_kinds_are_read_and_scored(tmp_path):
    path = stereoset_file(
        tmp_path / "s.json",
        intersentence=[stereoset_record(2, ("It barks", "It sings", "It rains"))],
        intrasentence=[stereoset_record(1)],
    )
    found = stereoset_json(path)
    inside, after = found
    assert (inside.kind, after.kind) == ("intrasentence", "intersentence")
    assert inside.texts() == ("The dog barks", "The dog sings", "The dog rains")
    assert after.texts()[:2] == ("the dog BLANK It barks", "the dog BLANK It sings")
    assert after.beginning == "the dog BLANK"
    assert found.of_kind("intersentence").items == (after,)
    assert found.choose([1, 0]).items == (after, inside)
    assert found[:1].items == (inside,)
    assert repr(found).endswith("2 items, 1 targets)")
    assert list(found.questions()) == [
        Question("The dog", "sings", ("sings",), ("barks",), "pets"),
        Question("the dog BLANK", "It sings", ("It sings",), ("It barks",), "pets"),
    ]


def test_merging_by_hand():
    items = StereotypeSet(
        (
            item(0, "The baker is fat", "The baker is thin"),
            item(1, "He bakes bread", "She bakes bread"),
            item(2, "The baker is fat", "The baker is slim"),
            item(3, "The baker is old now", "The baker is young now", bias_type="age"),
            item(4, "The baker was loud", "The baker was kind"),
            item(5, "The baker was kind", "The baker was rude"),
            item(6, "The baker sings", "The baker dances"),
        ),
        "mine",
    )
    says = "mine: 1 of 7 items have no common beginning, and 2 have a text that is both"
    with pytest.warns(UserWarning, match=says) as warned:
        questions = items.questions()
    assert len(warned) == 1
    assert list(questions) == [
        Question(
            "The baker is",
            "thin",
            ("thin", "slim", "young now"),
            ("fat", "old now"),
            "profession, age",
        ),
        Question("The baker", "dances", ("dances",), ("sings",), "profession"),
    ]
    with pytest.raises(WorkbenchError, match="1 of 1 items have no common beginning"):
        items[1:2].questions()
    with pytest.raises(WorkbenchError, match="and 2 have a text that is both"):
        items[4:6].questions()


words = st.lists(st.sampled_from(["a", "b", "The", "", "é\t"]), min_size=1, max_size=5)
sentences = words.map(" ".join).filter(str.strip)


@given(st.lists(st.tuples(sentences, sentences), min_size=1, max_size=8))
def test_questions_give_back_every_kept_sentence(pairs):
    items = StereotypeSet(tuple(item(n, *pair) for n, pair in enumerate(pairs)))
    both = {s for s, a in pairs if common_beginning(s, a)}
    both &= {a for s, a in pairs if common_beginning(s, a)}
    kept = [(s, a) for s, a in pairs if common_beginning(s, a) and not both & {s, a}]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        if not kept:
            with pytest.raises(WorkbenchError, match="an item to ask about"):
                items.questions()
            return
        correct, incorrect = asked(items.questions())
    assert correct == {a for _, a in kept}
    assert incorrect == {s for s, _ in kept}
    assert len(warned) == (len(kept) < len(pairs))


@given(
    st.lists(st.sampled_from("abcdeABC"), min_size=1, max_size=40),
    st.integers(1, 5),
    st.integers(0, 9),
)
def test_stereotype_folds_share_no_target_and_test_each_item_once(targets, count, seed):
    items = StereotypeSet(
        tuple(item(n, f"The {n} b", f"The {n} c", target=t) for n, t in enumerate(targets))
    )
    if count < 2 or count > len({t.lower() for t in targets}):
        with pytest.raises(WorkbenchError, match=f"{count} folds of"):
            items.folds(count, seed)
        return
    folds = items.folds(count, seed)
    assert folds == items.folds(count, seed)
    assert [fold.number for fold in folds] == list(range(count))
    assert sorted(i.id for fold in folds for i in fold.test) == sorted(i.id for i in items)
    for fold in folds:
        in_train = {i.target.lower() for i in fold.train}
        assert not in_train & {i.target.lower() for i in fold.test}
        assert len(fold.train) + len(fold.test) == len(items)


def test_stereotype_folds_depend_on_the_seed():
    items = StereotypeSet(tuple(item(n, "A b", "A c", target=f"t{n}") for n in range(30)))
    assert items.folds(2, 1) != items.folds(2, 2)


def labelled(*labels):
    record = stereoset_record(7)
    for sentence, label in zip(record["sentences"], labels, strict=True):
        sentence["gold_label"] = label
    return record["sentences"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sentences": None}, "no list of sentences"),
        ({"sentences": stereoset_record(7)["sentences"][:2]}, "has 2 sentences"),
        ({"sentences": stereoset_record(7)["sentences"] * 2}, "has 6 sentences"),
        ({"sentences": [{"sentence": "The dog barks"}] * 3}, "gold_label None"),
        ({"sentences": ["a", "b", "c"]}, "gold_label None"),
        ({"sentences": labelled("stereotype", "related", "unrelated")}, "gold_label 'related'"),
        ({"sentences": labelled("unrelated", "stereotype", "unrelated")}, "two .*led unrelated"),
        (stereoset_record(7, ("The dog barks", " ", "The dog rains")), "anti_stereotype = ' '"),
        ({"target": 3}, "target = 3"),
        ({"context": None}, "context = None"),
        ({"id": None}, "id = None"),
    ],
)
def test_bad_stereoset_items_are_refused(tmp_path, as_shipped, change, says):
    record = {**stereoset_record(7), **change}
    path = stereoset_file(tmp_path / "s.json", intersentence=[stereoset_record(1), record])
    place = rf"s\.json, intersentence item 2 \(id {record['id']!r}\)"
    with pytest.raises(WorkbenchError, match=f"{place}.*{says}"):
        stereoset_json(path)


def test_stereoset_items_that_are_no_objects_are_refused(tmp_path):
    path = stereoset_file(tmp_path / "s.json", intrasentence=["text"])
    with pytest.raises(WorkbenchError, match=r"s\.json, intrasentence item 1 is 'text'"):
        stereoset_json(path)


@pytest.mark.parametrize("text", ["[]", "{}", '{"data": []}', '{"data": {"intrasentence": 3}}'])
def test_other_shapes_are_no_stereoset(tmp_path, text):
    path = tmp_path / "s.json"
    path.write_text(text)
    with pytest.raises(WorkbenchError, match=r"s\.json has no list data\.intrasentence"):
        stereoset_json(path)


def test_repeated_ids_and_empty_stereotype_sets_are_refused(tmp_path, as_shipped):
    records = [stereoset_record(n) for n in (1, 2, 1)]
    path = stereoset_file(tmp_path / "s.json", intrasentence=records)
    with pytest.raises(WorkbenchError, match=r"'id1' stands twice in .*s\.json \(numbers 0 and 2"):
        stereoset_json(path)
    with pytest.raises(WorkbenchError, match="empty"):
        stereoset_json(stereoset_file(path, intrasentence=[]))
    with pytest.raises(WorkbenchError, match="the kind 'sentence'"):
        item(0, "a b", "a c", kind="sentence")


# CrowS-Pairs

CROWS = ("", "sent_more", "sent_less", "stereo_antistereo", "bias_type", "annotations")


def test_crows_pairs_file(data):
    pairs = crows_pairs_csv(data / "crows_pairs" / "crows_pairs_anonymized.csv")
    assert [pair.number for pair in pairs] == list(range(1, 1509))
    assert Counter(pair.direction for pair in pairs) == {"stereo": 1290, "antistereo": 218}
    assert Counter(pair.bias_type for pair in pairs) == {
        "race-color": 516, "gender": 262, "socioeconomic": 172, "nationality": 159,
        "religion": 105, "age": 87, "sexual-orientation": 84, "physical-appearance": 63,
        "disability": 60,
    }  # fmt: skip
    assert len({(pair.more, pair.less) for pair in pairs}) == 1507


def test_crows_pairs_are_read(tmp_path):
    path = table(
        tmp_path / "c.csv", CROWS, ("0", "Cats, purr.", "Dogs purr.", "stereo", "pet", "x")
    )
    (pair,) = found = crows_pairs_csv(path)
    assert pair == SentencePair("Cats, purr.", "Dogs purr.", "stereo", "pet", 1)
    assert found[:1] == found == PairSet((pair,), str(path))
    assert repr(found) == f"PairSet({str(path)!r}: 1 pairs)"
    with pytest.raises(WorkbenchError, match="'mine' is empty"):
        PairSet((), "mine")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (("1", " ", "b", "stereo", "pet", ""), "more = ''"),
        (("1", "a", "", "stereo", "pet", ""), "less = ''"),
        (("1", "a", "b", "anti", "pet", ""), "direction 'anti'"),
        (("1", "a", "b", "stereo", "", ""), "bias_type = ''"),
        (("1", "a", "a ", "stereo", "pet", ""), "same sentence"),
    ],
)
def test_bad_crows_pairs_are_refused(tmp_path, as_shipped, row, says):
    path = table(tmp_path / "c.csv", CROWS, ("0", "a", "b", "antistereo", "pet", ""), row)
    with pytest.raises(WorkbenchError, match=rf"c\.csv, row 2: .*{says}"):
        crows_pairs_csv(path)


def test_crows_pairs_without_columns_or_rows_are_refused(tmp_path):
    with pytest.raises(WorkbenchError, match=r"c\.csv.*sent_less, bias_type missing"):
        crows_pairs_csv(table(tmp_path / "c.csv", ("sent_more", "stereo_antistereo")))
    with pytest.raises(WorkbenchError, match=r"c\.csv has a header and no rows"):
        crows_pairs_csv(table(tmp_path / "c.csv", CROWS))


# Contrast sets of one's own


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ("The soup is warm.", "The soup is cold.", "The soup is"),
        ("The soup is warm", "The soup is warmer", "The soup is"),
        ("The soup", "The soup is warm", "The"),
        ("Warm soup", "Cold soup", ""),
        ("Warm", "Warm", ""),
        ("a  b", "a  c", ""),
        ("x a  b", "x a  c", "x"),
        (" warm", " cold", ""),
        ("a ", "a ", ""),
        ("a\tb c", "a\tb d", "a\tb"),
        ("", "a", ""),
    ],
)
def test_common_beginnings(first, second, shared):
    assert common_beginning(first, second) == common_beginning(second, first) == shared


texts = st.text("ab \t", max_size=9)


@given(texts, texts, texts)
def test_common_beginning_is_the_longest_of_all(before, first, second):
    first, second = before + first, before + second
    joined = [
        first[:n]
        for n in range(1, len(first))
        if first[:n].strip() and not first[n - 1].isspace()
        and all(
            text.startswith(first[:n] + " ") and text[n + 1 :] == text[n + 1 :].lstrip() != ""
            for text in (first, second)
        )
    ]  # fmt: skip
    assert common_beginning(first, second) == max(joined, key=len, default="")


def test_contrasts_of_one_prompt_are_one_question():
    contrasts = [Contrast("p", "a", "b", "x"), Contrast("q", "a", "b"), Contrast("p", "c", "b")]
    assert merge_contrasts(contrasts) == (
        Question("p", "a", ("a", "c"), ("b",), "x"),
        Question("q", "a", ("a",), ("b",)),
    )


def test_pairs_become_questions(tmp_path):
    header = ("category", "prompt", "positive", "negative", "note")
    rows = [
        ("food", "The soup is", "warm.", "cold.", "x"),
        ("", "", "Thank you.", "Go away.", ""),
        ("", "", "The soup is fresh.", "The soup is stale.", ""),
        ("drink", " The soup is ", " warm. ", "salty.", ""),
    ]
    path = table(tmp_path / "own.csv", header, *rows)
    expected = [
        Question(
            "The soup is", "warm.", ("warm.", "fresh."), ("cold.", "stale.", "salty."),
            "food, drink",
        ),
        Question("Text 2:", "Thank you.", ("Thank you.",), ("Go away.",)),
    ]  # fmt: skip
    assert list(contrast_questions(path)) == expected
    records = [dict(zip(header, row, strict=True)) for row in rows]
    del records[1]["prompt"]
    records[2]["prompt"] = None
    found = contrast_questions(lines(tmp_path / "own.jsonl", *records))
    assert list(found) == expected
    assert found.name.endswith("own.jsonl")


def test_unpaired_texts_are_paired_in_order(tmp_path):
    rows = [("Ugh.", "0"), ("Hi.", "1"), ("Hello.", "Positive"), ("Bah.", "negative")]
    expected = [
        Question("Text 1:", "Hi.", ("Hi.",), ("Ugh.",)),
        Question("Text 2:", "Hello.", ("Hello.",), ("Bah.",)),
    ]
    assert list(contrast_questions(table(tmp_path / "u.csv", ("text", "label"), *rows))) == expected
    records = [{"text": text, "label": int(label) if len(label) == 1 else label}
               for text, label in rows]  # fmt: skip
    assert list(contrast_questions(lines(tmp_path / "u.jsonl", *records))) == expected
    records[0]["category"], records[1]["category"] = "down", "up"
    categories = [q.category for q in contrast_questions(lines(tmp_path / "u.jsonl", *records))]
    assert categories == ["up, down", ""]


def behaviour(question, matching=" (A)", other=" (B)", **more):
    return {
        "question": question, "answer_matching_behavior": matching,
        "answer_not_matching_behavior": other, **more,
    }  # fmt: skip


BEHAVIOURS = [
    behaviour("I am a poet. Is the moon alive?\n\nChoices:\n (A) Yes\n (B) No\n\nAnswer:"),
    behaviour("Or the sun?\n (A) Yes\n (B) No\n (C) So-so", " (B)", [" (A)", " (C)"], category="x"),
]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("read", [load_contrast, load_questions])
def test_behaviours_are_questions_whose_matching_answer_is_correct(tmp_path, read, suffix):
    path = lines(tmp_path / f"sycophancy{suffix}", *BEHAVIOURS)
    if suffix == ".json":
        path.write_text(json.dumps(BEHAVIOURS))
    first, second = (record["question"] for record in BEHAVIOURS)
    assert list(read(path)) == [
        Question(first, "(A)", ("(A)",), ("(B)",)),
        Question(second, "(B)", ("(B)",), ("(A)", "(C)"), "x"),
    ]


@pytest.mark.parametrize(
    ("records", "says"),
    [
        ([behaviour("Why?"), behaviour("Why?")], "item 2 repeats .*item 1"),
        ([behaviour("Why?"), behaviour("Why?", " (B)", " (A)")], r"item 2 has .* as positive, and"),
        ([behaviour("Why?", [])], "item 1 has an empty answer_matching_behavior"),
        ([behaviour("Why?", [" (A)", 3])], "item 1 has answer_matching_behavior = 3"),
        ([behaviour(" ")], "item 1 has an empty question"),
        ([behaviour("Why?"), {"question": "How?"}], "item 2 has answer_matching_behavior = None"),
        ([behaviour("Why?"), "How?"], "item 2 is 'How"),
        ({"question": "Why?"}, "holds a dict"),
    ],
)
def test_bad_behaviours_are_refused(tmp_path, as_shipped, records, says):
    (tmp_path / "own.json").write_text(json.dumps(records))
    with pytest.raises(WorkbenchError, match=rf"own\.json.*{says}"):
        load_contrast(tmp_path / "own.json")


PAIR = {"positive": "Good day.", "negative": "Bad day."}


@pytest.mark.parametrize(
    ("records", "says"),
    [
        ([PAIR, {"positive": "a"}], "item 2 is .*positive and negative"),
        ([PAIR, ["a"]], "item 2 is"),
        ([PAIR, {**PAIR, "positive": " "}], "item 2 has an empty positive"),
        ([PAIR, {**PAIR, "negative": 3}], "item 2 has negative = 3"),
        ([PAIR, {**PAIR, "category": 0}], "item 2 has category = 0"),
        ([PAIR, PAIR], "item 2 repeats .*item 1"),
        ([{**PAIR, "negative": "Good day."}], "item 1 has 'Good day.' as negative, and .*item 1"),
        ([PAIR, {"positive": "Hm.", "negative": "Good day."}], "item 2 has 'Good day.' as neg"),
        (
            [PAIR, {"prompt": "Good", "positive": "luck.", "negative": "day."}],
            "item 2 has 'Good day.' as negative, and .*item 1 as positive",
        ),
        ([{"text": "a", "label": 2}], "item 1 has the label '2'"),
        ([{"text": "a", "label": True}], "item 1 has label = True"),
        ([{"text": "a", "label": None}], "item 1 has label = None"),
        ([{"text": "a", "label": 1}, {"text": "", "label": 0}], "item 2 has an empty text"),
        ([{"text": "a", "label": 1}, {"text": "a", "label": 0}], "item 2 .*item 1 has as positive"),
        ([{"text": "a", "label": 1}, {"text": "a", "label": 1}], "item 2 .*item 1 has as positive"),
        ([{"text": "a", "label": 1, "prompt": "p"}], "item 1 is an unpaired text with a prompt"),
        ([{"text": t, "label": int(t < "d")} for t in "abcd"], "3 positive and 1 neg.*Take 2 of"),
        ([{"text": "a", "label": 1}], "1 positive and 0 negative texts"),
        ([{"positive": "a", "text": "b"}], "item 1, has the fields positive, text.*text and label"),
        ([{**PAIR, "text": "a", "label": 1}], "item 1, has the fields positive, negative, text"),
        ([5], r"item 1, has the fields \(none\)"),
        ([], "holds no rows"),
    ],
)  # fmt: skip
def test_bad_contrast_sets_are_refused(tmp_path, as_shipped, records, says):
    path = lines(tmp_path / "own.jsonl", *records)
    with pytest.raises(WorkbenchError, match=rf"own\.jsonl.*{says}"):
        contrast_questions(path)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "positive\na\n", "fields positive"),
        ("b.csv", "positive,negative\nc,b\na,\n", "row 2 has an empty negative"),
        ("c.csv", "positive,negative\n", "no rows"),
        ("d.csv", "", r"\(none\)"),
        ("e.csv", "text,label\na,yes\n", "row 1 has the label 'yes'"),
        ("f.csv", "positive,negative\na\n", "cells"),
        ("g.txt", "positive,negative\na,b\n", r"\.csv, \.json or \.jsonl"),
    ],
)
def test_bad_contrast_tables_are_refused(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(WorkbenchError, match=rf"{name}.*{says}"):
        contrast_questions(tmp_path / name)


def test_absent_files_are_refused(tmp_path):
    for read in (contrast_questions, crows_pairs_csv, stereoset_json, real_toxicity_jsonl):
        with pytest.raises(WorkbenchError, match=r"no file at .*absent\.csv"):
            read(tmp_path / "absent.csv")
