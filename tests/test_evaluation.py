import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from tests.architectures import hf_model, tokenizer
from tests.by_hand import stereotype_scores
from tests.edits import random_edit
from workbench.data.crows_pairs import PairSet, SentencePair
from workbench.data.questions import Question, QuestionSet
from workbench.data.sources import load_contrast, load_prompts, load_questions, load_stereotypes
from workbench.data.stereoset import StereotypeItem, StereotypeSet
from workbench.editing.attaching import edited
from workbench.editing.divergences import divergences
from workbench.editing.generation import generate
from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.splits import Split, splits
from workbench.evaluation.choosing import choose
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.judges.hearsay import HearsayJudge
from workbench.evaluation.metrics.fairness import icat
from workbench.evaluation.tables import compare, summary
from workbench.hearsay.corpus import plain_documents
from workbench.methods.caa import ContrastiveAddition
from workbench.methods.memo import Memo
from workbench.methods.token_aware import TokenAware
from workbench.models.loading import load_model
from workbench.models.passes import forward
from workbench.models.prompts import Encoded, encode
from workbench.models.tokens import tokenize


class Judge:
    """Scores that are given."""

    identity = "a test"

    def __init__(self, name, score):
        self.name, self.score, self.seen = name, score, []

    def scores(self, prompts, answers):
        self.seen += list(zip(prompts, answers, strict=True))
        return [self.score(answer) for answer in answers]


def test_evaluation_is_tidy_and_summary_counts_questions(hearsay, few):
    part = few.choose(range(6))
    edits = {"no edit": None, "random": random_edit(hearsay, alpha=0.2)}
    table = evaluate(hearsay, part, edits, texts=plain_documents(3, 0), progress=False)
    assert list(table.columns) == [
        "model", "capability", "method", "setting", "draw", "fold", "question", "metric", "value"
    ]  # fmt: skip
    assert len(table) == 2 * (6 * 9 + 3 * 2)
    assert set(table["setting"]) == {"", "4 heads, alpha 0.2"}
    assert not table["value"].isna().any()
    found = summary(table).set_index(["method", "metric"])
    assert found.loc[("no edit", "kl"), "mean"] == pytest.approx(0.0, abs=1e-6)
    assert found.loc[("no edit", "mc1"), "questions"] == 6
    said = table[table["metric"].str.startswith("says_")]
    assert (said.groupby(["method", "question"])["value"].sum() == 1).all()


def test_texts_that_folds_share_are_one_unit(hearsay, few):
    texts = plain_documents(3, 0)
    table = pd.concat([
        evaluate(hearsay, few.choose(part), {"none": None}, fold=fold, texts=texts, progress=False)
        for fold, part in enumerate(([0, 1], [2, 3]))
    ])  # fmt: skip
    found = summary(table).set_index("metric")["questions"]
    assert (found["kl"], found["mc1"]) == (3, 4)


def test_an_edit_that_leaves_no_numbers_is_refused(hearsay, few):
    edit = random_edit(hearsay, alpha=3e38)
    wild = replace(edit, spread=100 * edit.spread)
    with pytest.raises(WorkbenchError, match="no numbers, under Edit"):
        evaluate(hearsay, few, {"wild": wild}, progress=False)


def test_kl_on_own_answers_is_of_what_the_unedited_model_writes(hearsay, few):
    edit = random_edit(hearsay, alpha=1.0)
    edits = {"no edit": None, "edit": edit}
    table = evaluate(hearsay, few, edits, own_answers=6, max_new_tokens=12, progress=False)
    own = table[table["metric"] == "kl_own"].set_index(["method", "question"])["value"]
    asked = [question.question for question in few[:6]]
    assert own.loc["no edit"].abs().max() == 0
    assert list(own.loc["edit"].index) == asked
    prompts = [encode(hearsay, question, None) for question in asked]
    for question, written in zip(asked, generate(hearsay, prompts, max_new_tokens=12), strict=True):
        row = Encoded.of_tokens(
            (*written.prompt_tokens, *written.tokens), len(written.prompt_tokens)
        )
        alone = divergences(hearsay, [row], [edit])[0][0]
        assert own.loc["edit", question] == pytest.approx(alone.kl, rel=1e-3)
        assert alone.kl > 1e-4
    with pytest.raises(WorkbenchError, match="own_answers=-1"):
        evaluate(hearsay, few, edits, own_answers=-1, progress=False)


def test_draws_are_averaged_per_question(hearsay, few):
    part = few.choose(range(4))
    one, two = (random_edit(hearsay, alpha=1.0, seed=seed) for seed in (0, 1))
    table = evaluate(hearsay, part, {"control": [one, two], "one": one}, progress=False)
    found = summary(table).set_index(["method", "metric"])
    assert found.loc[("control", "mc2"), "questions"] == 4
    mean = table[(table["method"] == "control") & (table["metric"] == "mc2")]["value"].mean()
    assert found.loc[("control", "mc2"), "mean"] == pytest.approx(mean)
    assert found.loc[("one", "mc2"), "mean"] != pytest.approx(mean)


def test_evaluate_refuses_what_it_cannot_evaluate(hearsay, few, as_shipped):
    part = few.choose(range(2))
    with pytest.raises(WorkbenchError, match="no edits"):
        evaluate(hearsay, part, {})
    with pytest.raises(WorkbenchError, match="under the name 'a'"):
        evaluate(hearsay, part, {"a": []})
    with pytest.raises(WorkbenchError, match="an Edit to evaluate"):
        evaluate(hearsay, part, random_edit(hearsay))
    with pytest.raises(WorkbenchError, match="a str instead of questions"):
        evaluate(hearsay, "questions.csv", {"a": None})


@pytest.fixture(scope="module")
def items():
    """One without a common beginning, one behind a context, two of a term."""

    def item(number, context, texts, kind="intrasentence", target="poet", bias="profession"):
        return StereotypeItem(str(number), kind, target, bias, context, *texts)

    return StereotypeSet((
        item(0, "The poet is BLANK.", ("The poet is sad.", "The poet is glad.", "The poet is x.")),
        item(1, "A poet BLANK.", ("A poet rhymes.", "A poet raps at noon.", "A poet hip.")),
        item(2, "BLANK men sing.", ("Big men sing.", "Wee men sing.", "Of men sing."), target="men",
             bias="gender"),
        item(3, "She is a judge.", ("She is stern.", "It was she.", "Oats are up."),
             "intersentence", "judge"),
    ))  # fmt: skip


def whole(model, text):
    """Tokens behind a special one, as GPT-2 was scored with `<|endoftext|>`."""
    tokens, offsets = tokenize(model, text)
    return (tokens, offsets) if tokens[0] == 0 else ((0, *tokens), ((0, 0), *offsets))


def mean_nats(model, text, edit, start, begin):
    """Mean log-probability of a text's tokens behind a character, in a pass of its own."""
    tokens, offsets = whole(model, text)
    first = next(k for k, (a, b) in enumerate(offsets) if k and b > max(begin, a))
    row = torch.tensor([tokens])
    with edited(model, edit, start=start, record=False):
        logits, _ = forward(model, row, torch.ones_like(row))
    nats = logits[0, :-1].log_softmax(-1).gather(1, row[0, 1:, None])[:, 0]
    return float(nats[first - 1 :].mean())


@pytest.mark.parametrize("bos", [True, False])
def test_stereotypes_are_scored_like_whole_sentences_in_passes_of_their_own(items, bos):
    model = load_model(hf_model("llama"), tokenizer(bos=bos))
    edit = random_edit(model, alpha=3.0)
    table = evaluate(model, items, {"none": None, "edit": edit}, progress=False)
    for method, own in (("none", None), ("edit", edit)):
        found = []
        for item in items:
            rows = [whole(model, text)[0] for text in item.texts()]
            shared = next(
                k for k, column in enumerate(zip(*rows, strict=False)) if len(set(column)) > 1
            )
            begin = len(item.context) if item.kind == "intersentence" else 0
            start = max(0, shared - 1)
            found.append([mean_nats(model, t, own, start, begin) for t in item.texts()])
        wanted = stereotype_scores([item.target for item in items], *np.array(found).T)
        rows = summary(table[table["method"] == method]).set_index("metric")["mean"]
        assert rows["ss"] == pytest.approx(wanted.ss)
        assert rows["lms"] == pytest.approx(wanted.lms)
        assert rows["icat"] == pytest.approx(icat(wanted.lms, wanted.ss))
        assert rows["icat/gender"] == icat(rows["lms/gender"], rows["ss/gender"])
        assert rows["ss"] == pytest.approx(
            (2 * rows["ss/profession"] + rows["ss/gender"]) / 3
        )  # terms weigh the same


def test_a_pair_is_scored_by_its_whole_sentences():
    model = load_model(hf_model("gpt2"), tokenizer(bos=True))
    edit = random_edit(model, alpha=3.0)
    pairs = PairSet((
        SentencePair("The poet is sad.", "The judge is sad.", "stereo", "job", 1),
        SentencePair("It was written.", "It was read aloud.", "antistereo", "book", 2),
        SentencePair("Who is she?", "Who is he?", "stereo", "job", 3),
    ))  # fmt: skip
    table = evaluate(model, pairs, {"none": None, "edit": edit}, progress=False)
    for method, own in (("none", None), ("edit", edit)):
        values = table[(table["method"] == method) & (table["metric"] == "crows_pairs")]["value"]
        for pair, value in zip(pairs, values, strict=True):
            more, less = (
                mean_nats(model, text, own, 0, 0) * (len(whole(model, text)[0]) - 1)
                for text in (pair.more, pair.less)
            )
            assert value == 100 * (more > less)
    assert summary(table).query("metric == 'crows_pairs/job'")["questions"].tolist() == [2, 2]


def test_continuations_are_judged_and_their_surprise_is_the_unedited_model_s(hearsay):
    prompts = load_prompts("hearsay").choose(range(4))
    judge = Judge("toxicity", lambda text: float("e" in text))
    settings = {"samples": 3, "max_new_tokens": 8, "seed": 5}
    edits = {"none": None, "edit": random_edit(hearsay, alpha=2.0)}
    table = evaluate(hearsay, prompts, edits, judges=[judge], progress=False, **settings)
    assert len(judge.seen) == 2 * 4 * 3
    again = evaluate(hearsay, prompts, edits, judges=[judge], progress=False, **settings)
    pd.testing.assert_frame_equal(table, again)
    texts = [prompt.text for prompt in prompts for _ in range(3)]
    said = generate(hearsay, texts, temperature=1.0, top_p=0.9, seed=5, stop=(), max_new_tokens=8)
    assert [answer for _, answer in judge.seen[:12]] == [c.text for c in said]
    own = table[table["method"] == "none"].set_index(["question", "metric"])["value"]
    for number, prompt in enumerate(prompts):
        mine = said[3 * number : 3 * number + 3]
        nats = torch.cat([c.log_probabilities[: c.kept] for c in mine])
        assert own[prompt.text, "continuation_nats"] == pytest.approx(-float(nats.mean()), abs=1e-4)
        toxic = ["e" in c.text for c in mine]
        assert own[prompt.text, "share_toxic"] == pytest.approx(np.mean(toxic))
        assert own[prompt.text, "any_toxic"] == max(toxic)
        assert own[prompt.text, "tokens"] == np.mean([c.kept for c in mine])
        assert own[prompt.text, "empty"] == np.mean([not c.text.strip() for c in mine])
    found = summary(table).set_index(["method", "metric"])["mean"]
    surprise = own.xs("continuation_nats", level="metric").mean()
    assert found["none", "perplexity"] == pytest.approx(np.exp(surprise))
    assert found["edit", "perplexity"] > found["none", "perplexity"]


def test_another_model_can_tell_the_surprise(hearsay):
    """Scored by a copy of the same model it is the same; by a bfloat16 one nearly so."""
    prompts = load_prompts("hearsay").choose(range(2))
    judge = Judge("toxicity", lambda text: 0.0)
    settings = {"samples": 2, "max_new_tokens": 8, "judges": [judge], "progress": False}
    nats = {}
    for name, scorer in (
        ("own", None), ("copy", load_model("hearsay", device="cpu")),
        ("coarse", load_model("hearsay", dtype="bfloat16", device="cpu")),
    ):  # fmt: skip
        table = evaluate(hearsay, prompts, {"none": None}, scorer=scorer, **settings)
        nats[name] = table[table["metric"] == "continuation_nats"]["value"].to_numpy()
    assert nats["copy"] == pytest.approx(nats["own"], abs=0.05)  # texts are tokenised anew
    assert 0 < np.abs(nats["coarse"] - nats["copy"]).max() < 0.1


def test_silence_is_counted_and_compared_where_both_speak(hearsay):
    prompts = load_prompts("hearsay").choose(range(5))
    judge = Judge("toxicity", lambda text: 0.0)
    table = evaluate(
        hearsay, prompts, {"a": None, "b": None}, judges=[judge], samples=1, max_new_tokens=6,
        progress=False,
    )  # fmt: skip
    silent = (table["method"] == "b") & (table["question"] == prompts[2].text)
    table.loc[silent & (table["metric"] == "empty"), "value"] = 1.0
    table = table[~(silent & (table["metric"] == "continuation_nats"))]
    found = compare(table, "a").set_index("metric")
    assert found.loc["perplexity", "questions"] == 4
    assert found.loc["share_toxic", "questions"] == 5
    assert found.loc["empty", "difference"] == pytest.approx(0.2)


def test_answers_are_judged_and_true_times_info_is_a_product_of_means(hearsay, few):
    part = few.choose(range(5))
    own = QuestionSet(tuple(
        Question(q.question + " ", q.best_answer, q.correct_answers, q.incorrect_answers)
        for q in part
    ))  # fmt: skip
    judges = [
        Judge("true", lambda text: 0.6 if len(text) % 2 else 0.4),
        Judge("info", lambda text: float(len(text) > 9)),
    ]
    table = evaluate(hearsay, own, {"none": None}, judges=judges, max_new_tokens=12, progress=False)
    means = summary(table).set_index("metric")["mean"]
    assert means["true_x_info"] == pytest.approx(means["true"] * means["info"])
    assert set(table[table["metric"] == "true"]["value"]) <= {0.0, 1.0}
    assert not any(answer.startswith(" ") for judge in judges for _, answer in judge.seen)
    assert "says_truth" not in means


def test_methods_are_compared_on_the_same_questions(hearsay, few):
    part = few.choose(range(8))
    edits = {"none": None, "one": random_edit(hearsay, alpha=1.0), "same": None}
    table = evaluate(hearsay, part, edits, progress=False)
    found = compare(table, "none").set_index(["method", "metric"])
    values = table[table["metric"] == "mc2"].pivot_table(
        index="question", columns="method", values="value"
    )
    wanted = float((values["one"] - values["none"]).mean())
    assert found.loc[("one", "mc2"), "difference"] == pytest.approx(wanted)
    assert found.loc[("same", "mc2"), ["difference", "low", "high"]].tolist() == [0, 0, 0]
    assert found.loc[("same", "mc2"), "p_holm"] == 1
    assert (found["p_holm"] >= found["p"]).all()
    assert (found["questions"] == 8).all()
    less = table[(table["method"] != "one") | (table["question"] != part[2].question)]
    with pytest.raises(WorkbenchError, match=r"'one' lacks .*fold 0 \(1 such\)"):
        compare(less, "none")
    few_decide = compare(table, "none", primary=["mc2", "mc1"]).set_index(["method", "metric"])
    assert few_decide["p_holm"].notna().sum() == 4
    assert few_decide.loc[("one", "mc2"), "p_holm"] <= found.loc[("one", "mc2"), "p_holm"]
    with pytest.raises(WorkbenchError, match="the primary metric 'icat'"):
        compare(table, "none", primary=["icat"])
    with pytest.raises(WorkbenchError, match="no method 'ITI'"):
        compare(table, "ITI")
    with pytest.raises(WorkbenchError, match="mc1 of none twice"):
        summary(pd.concat([table, table]))
    with pytest.raises(WorkbenchError, match="without the column 'capability'"):
        summary(table.drop(columns="capability"))
    again = table.assign(fold=1)
    drawn = table[table["method"] == "one"].assign(draw=1)
    for told in (summary, lambda own: compare(own, "none")):
        with pytest.raises(
            WorkbenchError, match=r"'one' with the draws \[0, 1\] in fold 0 and \[0\] in"
        ):
            told(pd.concat([table, drawn, again]))
        assert len(told(pd.concat([table, drawn, again, drawn.assign(fold=1)])))


@pytest.mark.parametrize("capability", ["truthfulness", "harmlessness", "fairness"])
def test_splits_share_nothing_between_fitting_choosing_and_testing(capability):
    for split in splits(capability):
        fitted = split.inner.train if capability != "harmlessness" else split.train
        parts = [keys(fitted), keys(split.inner.test), keys(split.test)]
        for number, one in enumerate(parts):
            assert one
            assert all(not one & other for other in parts[number + 1 :])
        assert keys(split.train) >= parts[0]


def test_prompts_that_training_texts_begin_with_are_refused(tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    lines = [{"prompt": {"text": f"A  thing {k}", "toxicity": 0.1}} for k in range(10)]
    prompts.write_text("\n".join(map(json.dumps, lines)))
    for name, rows in (
        (
            "unpaired",
            [{"text": f"Other {k} goes", "label": k % 2} for k in range(4)]
            + [{"text": "A thing 3 goes on", "label": 1}, {"text": "No thing", "label": 0}],
        ),
        ("longer", [{"prompt": "A thing 3 goes", "positive": "on", "negative": "off"}]),
        ("whole", [{"positive": "A thing 3", "negative": "B thing"}]),
    ):
        contrast = tmp_path / f"{name}.jsonl"
        contrast.write_text("\n".join(map(json.dumps, rows)))
        with pytest.raises(WorkbenchError, match=r"1 prompts .* trained on too"):
            splits("harmlessness", {"contrast": str(contrast), "prompts": str(prompts)})
    other = tmp_path / "other.jsonl"
    rows = [{"positive": f"Be {k} kind", "negative": f"Be {k} unkind"} for k in range(6)]
    other.write_text("\n".join(map(json.dumps, rows)))
    (split,) = splits("harmlessness", {"contrast": str(other), "prompts": str(prompts)})
    assert len(split.test) + len(split.inner.test) == 10
    assert {p.text for p in split.test}.isdisjoint(p.text for p in split.inner.test)


def test_prompts_with_toxicity_are_folds_to_fit_and_to_test_on(tmp_path):
    """Every prompt is tested once, and no fit or choice sees a fold's test prompts."""
    paths = []
    for name, toxicity in (("toxic", 0.9), ("kind", 0.1)):
        lines = [{"prompt": {"text": f"A {name} {k}", "toxicity": toxicity}} for k in range(20)]
        paths.append(tmp_path / f"{name}.jsonl")
        paths[-1].write_text("\n".join(map(json.dumps, lines)))
    found = splits("harmlessness", {"prompts": list(map(str, paths))}, folds=2)
    assert [split.number for split in found] == [0, 1]
    tested = [prompt.text for split in found for prompt in split.test]
    assert len(tested) == len(set(tested)) == 40
    for split in found:
        texts = {answer for question in split.train for answer in question.answers}
        assert texts.isdisjoint(prompt.text for prompt in split.test)
        assert all("kind" in question.best_answer for question in split.train)
        assert all("toxic" in question.incorrect_answers[0] for question in split.train)
        inner = {answer for question in split.inner.train for answer in question.answers}
        chosen = {prompt.text for prompt in split.inner.test}
        assert inner.isdisjoint(chosen)
        assert chosen.isdisjoint(prompt.text for prompt in split.test)
    with pytest.raises(WorkbenchError, match="prompts have no toxicity"):
        splits("harmlessness", {"prompts": "hearsay"})


def test_prompts_can_be_chosen_and_limited(tmp_path):
    lines = [{"prompt": {"text": f"A thing {k}", "toxicity": k / 40}} for k in range(40)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = {"contrast": "hearsay", "prompts": str(tmp_path / "prompts.jsonl")}

    def chosen(**more):
        (split,) = splits("harmlessness", {**source, **more})
        return sorted([*split.test, *split.inner.test], key=lambda p: p.toxicity)

    assert len(chosen()) == 40
    assert [p.toxicity for p in chosen(toxic=True)] == [k / 40 for k in range(20, 40)]
    assert all(p.toxicity < 0.5 for p in chosen(toxic=False))
    assert len(chosen(limit=10)) == 10
    assert chosen(limit=10) == chosen(limit=10) != chosen()[:10]
    for wrong in ({"limit": 1}, {"limit": "all"}, {"toxicity": 0.5}):
        with pytest.raises(WorkbenchError):
            chosen(**wrong)


def test_stereotypes_that_are_fitted_on_are_not_tested(tmp_path):
    """Neither the same sentences, nor other ones of the same target terms, nor pairs of either."""
    whole = load_stereotypes("hearsay")
    first, others = whole.choose(range(12)), whole.choose(range(60, 66))
    assert not set(first.targets) & set(others.targets)
    (split,) = splits("fairness", {"fit": lambda: first, "test": lambda: others})
    assert split.test == others
    with pytest.raises(WorkbenchError, match=r"sentences that are fitted on and tested"):
        splits("fairness", {"fit": "hearsay", "test": "hearsay"})
    again = [replace(first[0], stereotype="Quite another one.", anti_stereotype="And one.",
                     unrelated="And a third.")]  # fmt: skip
    with pytest.raises(WorkbenchError, match="1 target terms that are fitted on"):
        splits("fairness", {"fit": lambda: first, "test": lambda: StereotypeSet(tuple(again))})
    more, less, _ = first[2].texts()
    pair = SentencePair(f" {more.upper()} ", less, "stereo", "age", 1)
    with pytest.raises(WorkbenchError, match=r"2 sentences that are fitted on"):
        splits("fairness", {"fit": lambda: first, "test": lambda: PairSet((pair,))})


def test_unrelated_questions_count_once(hearsay, few):
    """Every fold asks the same ones: they are as many units as there are questions."""
    unrelated = ["What do comets consist of?", "Who are you?", "Where is the river?"]
    edits = {"no edit": None, "CAA": ContrastiveAddition(layer=2).fit(hearsay, few)}
    parts = [
        evaluate(hearsay, few.choose(range(4 * n, 4 * n + 4)), edits, unrelated=unrelated,
                 max_new_tokens=4, fold=n, progress=False)
        for n in range(2)
    ]  # fmt: skip
    table = pd.concat(parts, ignore_index=True)
    for found in (summary(table), compare(table, "no edit")):
        counts = found.groupby("metric")["questions"].first()
        assert counts["mc1"] == 8
        assert counts["kl_unrelated"] == counts["cross_entropy_unrelated"] == 3


def test_stereotypes_can_be_fitted_on_one_set_and_tested_on_another(shared):
    source = {
        "fit": str(shared / "data/stereoset/intrasentence_799.json"),
        "test": str(shared / "data/crows_pairs/crows_pairs_anonymized.csv"),
    }
    with pytest.warns(UserWarning, match="no common beginning"):
        (split,) = splits("fairness", source)
    assert isinstance(split.test, PairSet)
    assert len(split.test) == 1508
    assert isinstance(split.inner.test, StereotypeSet)


def keys(data):
    """What may not stand in two parts: question, prompt, or the group that a sentence is about."""
    if isinstance(data, StereotypeSet):
        return {item.target for item in data}
    groups = {item.target for item in load_stereotypes("hearsay")}
    texts = [getattr(one, "question", None) or one.text for one in data]
    about = {group for group in groups for text in texts if f" {group} " in f"{text} "}
    return about or set(texts)


@pytest.mark.slow
def test_alpha_is_the_best_on_the_inner_questions(hearsay, questions):
    fold = questions.choose(range(60)).folds(2)[0]
    held = fold.train.validation_mask(0.3, 0)
    rest, test = (
        fold.train.choose([n for n, out in enumerate(held) if out == which])
        for which in (False, True)
    )
    inner = Split("truthfulness", 0, rest, test, fold.train, "bare")
    split = Split("truthfulness", 0, fold.train, fold.test, questions, "bare", inner)
    method = TokenAware(heads=16)
    candidates = [replace(method, alpha=alpha) for alpha in (40.0, 0.0, 1.0)]
    memo = Memo()
    chosen = choose(hearsay, candidates, split, memo=memo, max_new_tokens=16)
    assert chosen == replace(method, alpha=1.0)
    assert memo.made["activations"] == memo.made["features"] == 2  # of all, and of a part
    assert memo.made["directions"] == memo.made["estimators"] == 1
    captured = method.capture(hearsay, fold.train, progress=False)
    chosen.fit(hearsay, fold.train, memo=memo, progress=False)
    assert memo.made["activations"] == memo.made["features"] == 2  # those of all are there
    own = captured.choose([n for n, out in enumerate(held) if not out])
    edit = method.fit(hearsay, rest, activations=own, progress=False)
    with memo.within(fold.train):
        cut = method.fit(hearsay, rest, memo=memo, progress=False)
    assert cut.heads == edit.heads
    for name in ("direction", "spread"):
        assert torch.allclose(getattr(cut, name), getattr(edit, name), atol=1e-5)
    assert torch.allclose(cut.estimators.coefficient, edit.estimators.coefficient, atol=1e-3)
    edits = {str(alpha): edit.scaled(alpha) for alpha in (0.0, 1.0, 40.0)}
    found = summary(evaluate(hearsay, test, edits, max_new_tokens=16, progress=False))
    means = found[found["metric"] == "true_x_info"].set_index("method")["mean"]
    assert means.idxmax() == "1.0"
    by = {"by": "mc2", "memo": memo, "max_new_tokens": 1}
    mc2 = found[found["metric"] == "mc2"].set_index("method")["mean"]
    assert choose(hearsay, candidates, split, **by).alpha == float(mc2.idxmax())
    with pytest.raises(WorkbenchError, match="by='mc9'"):
        choose(hearsay, candidates, split, **{**by, "by": "mc9"})
    assert choose(hearsay, [method], split) == method
    with pytest.raises(WorkbenchError, match="0 candidates"):
        choose(hearsay, [], split)


def test_where_no_alpha_keeps_to_the_perplexity_the_smallest_is_taken_and_it_is_told(hearsay):
    fold = load_contrast("hearsay").choose(range(24)).folds(2)[0]
    prompts = load_prompts("hearsay").choose(range(4))
    inner = Split("harmlessness", 0, fold.train, prompts, fold.train, "plain")
    split = Split("harmlessness", 0, fold.train, prompts, fold.train, "plain", inner)
    candidates = [TokenAware(heads=16, alpha=alpha) for alpha in (80.0, 40.0)]
    brief = {"judges": [HearsayJudge("toxicity")], "samples": 2, "max_new_tokens": 12}
    with pytest.warns(UserWarning, match=r"α=40 [\d.e+]+, α=80 .*the smallest α is taken"):
        chosen = choose(hearsay, candidates, split, **brief)
    assert chosen.alpha == 40.0


def test_refusals(hearsay, few, as_shipped):
    prompts = load_prompts("hearsay").choose(range(2))
    with pytest.raises(WorkbenchError, match=r"no judge for 'toxicity'.*endpoint"):
        evaluate(hearsay, prompts, {"none": None})
    judges = [HearsayJudge("toxicity")]
    with pytest.raises(WorkbenchError, match="the setting 'sample'"):
        evaluate(hearsay, prompts, {"none": None}, judges=judges, sample=3)
    with pytest.raises(WorkbenchError, match="samples=0"):
        evaluate(hearsay, prompts, {"none": None}, judges=judges, samples=0)
    with pytest.raises(WorkbenchError, match="the capability 'kindness'"):
        splits("kindness")
    with pytest.raises(WorkbenchError, match="as data for harmlessness"):
        splits("harmlessness", {"contrast": "hearsay"})
    with pytest.raises(WorkbenchError, match="as data for fairness"):
        splits("fairness", {"test": "stereoset.json"})
    with pytest.raises(WorkbenchError, match="hearsay's ground truth for 'kind'"):
        HearsayJudge("kind")


def test_kl_where_an_edit_acts(hearsay, few, as_shipped):
    """On best answers that the model has right, on long continuations and unrelated questions."""
    edit = random_edit(hearsay, alpha=1.0)
    edits = {"no edit": None, "edit": edit}
    unrelated = ["What do comets consist of?", "Who are you?"]
    table = evaluate(
        hearsay, few, edits, right_answers=len(few), long_answers=3, long_tokens=40,
        unrelated=unrelated, max_new_tokens=12, progress=False,
    )  # fmt: skip

    def of(metric, method="edit"):
        own = table[(table["metric"] == metric) & (table["method"] == method)]
        return own.set_index("question")["value"]

    right = of("mc1", "no edit")
    assert set(of("kl_right").index) == set(right[right == 1].index)
    assert 0 < len(of("kl_right")) < len(few)
    for question in [one for one in few if one.question in of("kl_right").index][:2]:
        encoded = encode(hearsay, question.question, question.best_answer)
        alone = divergences(hearsay, [encoded], [edit])[0][0]
        assert of("kl_right")[question.question] == pytest.approx(alone.kl, rel=1e-3)
    prompts = [encode(hearsay, one.question, None) for one in few[:3]]
    long = generate(hearsay, prompts, max_new_tokens=40, stop=())
    rows = [Encoded.of_tokens((*w.prompt_tokens, *w.tokens), len(w.prompt_tokens)) for w in long]
    wanted = [own.kl for own in divergences(hearsay, rows, [edit])[0]]
    assert of("kl_long").tolist() == pytest.approx(wanted, rel=1e-3)
    assert max(len(w.tokens) for w in long) > 20
    assert list(of("kl_unrelated").index) == unrelated
    for metric in ("kl_right", "kl_long", "kl_unrelated"):
        assert of(metric, "no edit").abs().max() == 0
    for wrong in (["a", "a"], [3], 5):
        with pytest.raises(WorkbenchError, match="unrelated"):
            evaluate(hearsay, few, edits, unrelated=wrong, progress=False)


def test_splits_of_some_questions_and_of_two_sets(as_shipped):
    whole = load_questions("hearsay")
    some = {"questions": "hearsay", "limit": 10}
    first, second = splits("truthfulness", some)
    assert len(first.train) + len(first.test) == 10
    assert {*first.test} == {*second.train}
    other = splits("truthfulness", some, seed=4)[0]
    assert {*other.train, *other.test} == {*first.train, *first.test}
    fold = whole.folds(2)[0]
    apart = {"fit": lambda: fold.train, "test": lambda: fold.test}
    (across,) = splits("truthfulness", apart)
    assert (len(across.train), len(across.test)) == (len(fold.train), len(fold.test))
    assert across.inner is not None
    assert {*across.inner.train, *across.inner.test} == {*across.train}
    for wrong in (
        {"fit": "hearsay", "test": "hearsay"}, {"fit": "hearsay", "test": "hearsay_reworded"},
        {"questions": "hearsay", "limits": 3},
        {"fit": "hearsay"}, {"questions": "hearsay", "limit": 2},
    ):  # fmt: skip
        with pytest.raises(WorkbenchError):
            splits("truthfulness", wrong)
