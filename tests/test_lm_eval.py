"""lm-evaluation-harness on an edited model: edited from each row's own context on."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from workbench import storage
from workbench.cli import main
from workbench.editing.added_vectors import AddedVector
from workbench.editing.attaching import edited
from workbench.editing.generation import generate
from workbench.editing.interventions import Positions
from workbench.editing.scoring import score
from workbench.editing.token_scores import score_tokens
from workbench.errors import WorkbenchError
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.harness.edited_lm import EditedLM
from workbench.evaluation.harness.tasks import few_of_mmlu, load_tasks, truthfulqa
from workbench.evaluation.harness.wrapping import lm_eval
from workbench.evaluation.metrics.side_effects import side_effects_under
from workbench.evaluation.tables import summary
from workbench.methods.token_aware import TokenAware
from workbench.models.identity import identify, tokenizer_of
from workbench.models.prompts import Encoded
from workbench.models.tokens import tokenize
from workbench.runs.harness_tasks import harness

BARE = "Q: {{question}}\nA:"


@pytest.fixture(scope="module")
def edit(hearsay, few):
    return TokenAware(heads=8, alpha=5).fit(hearsay, few, progress=False)


@pytest.fixture(scope="module")
def asked(questions, few):
    known = set(few)
    return questions.choose([n for n, one in enumerate(questions) if one not in known][:6])


def requests(kind, *arguments):
    return [Instance(kind, {}, own, number) for number, own in enumerate(arguments)]


def answers(asked):
    """Contexts of several lengths, and continuations."""
    return [
        (f"Q: {one.question}\nA:", f" {answer}") for one in asked for answer in one.answers[::2]
    ]


def likelihoods(model, rows):
    return model.loglikelihood(requests("loglikelihood", *rows), disable_tqdm=True)


def test_answers_are_edited_from_their_own_prompt_on(hearsay, edit, asked):
    rows = answers(asked)
    found = [total for total, _ in likelihoods(lm_eval(hearsay, edit, batch_size=16), rows)]
    own = {}
    for scored in score(hearsay, asked, edit):
        own.setdefault(scored.question, []).append(scored.total)
    assert found == pytest.approx([t for each in own.values() for t in each[::2]], abs=1e-4)
    plain = likelihoods(lm_eval(hearsay), rows)
    theirs = likelihoods(
        HFLM(pretrained=hearsay.original_model, tokenizer=tokenizer_of(hearsay)), rows
    )
    assert [t for t, _ in plain] == pytest.approx([t for t, _ in theirs], abs=1e-4)
    assert [greedy for _, greedy in plain] == [greedy for _, greedy in theirs]
    assert np.abs(np.subtract(found, [t for t, _ in plain])).max() > 1


def test_batches_do_not_change_it(hearsay, edit, asked):
    rows = answers(asked)
    one, many = (likelihoods(lm_eval(hearsay, edit, batch_size=size), rows) for size in (1, 16))
    assert [t for t, _ in one] == pytest.approx([t for t, _ in many], abs=1e-4)
    assert [greedy for _, greedy in one] == [greedy for _, greedy in many]
    assert any(greedy for _, greedy in one)


def test_the_same_text_divided_elsewhere_is_edited_from_there(hearsay, edit, asked):
    """The harness shares logits of what begins alike; under an edit the division matters."""
    context, answer = answers(asked)[1]
    first, *rest = answer.split(" ")[1:]
    later = [(context, answer), (f"{context} {first}", "".join(f" {word}" for word in rest))]
    together = likelihoods(lm_eval(hearsay, edit, batch_size=8), later)
    alone = [likelihoods(lm_eval(hearsay, edit), [row])[0] for row in later]
    assert [t for t, _ in together] == pytest.approx([t for t, _ in alone], abs=1e-4)


def test_the_harness_own_model_is_refused_where_it_does_not_say_where_contexts_end(
    hearsay, edit, asked
):
    own = HFLM(pretrained=hearsay.original_model, tokenizer=tokenizer_of(hearsay), batch_size=4)
    with (
        edited(hearsay, edit),
        pytest.raises(WorkbenchError, match=r"where its prompts end.*wb\.evaluation\.lm_eval"),
    ):
        likelihoods(own, answers(asked))


def test_generation_is_edited_from_the_prompt_on(hearsay, edit, asked):
    prompts = [f"Q: {one.question}\nA:" for one in asked]
    expected = [a.text for a in generate(hearsay, prompts, edit=edit, max_new_tokens=16)]
    plain = [a.text for a in generate(hearsay, prompts, max_new_tokens=16)]
    assert expected != plain
    limits = {"until": ["\n"], "max_gen_toks": 16, "do_sample": False}
    for size in (1, 4):
        model = lm_eval(hearsay, edit, batch_size=size)
        asked_for = requests("generate_until", *((prompt, limits) for prompt in prompts))
        assert model.generate_until(asked_for, disable_tqdm=True) == expected


def test_generation_is_edited_where_the_bridge_runs_no_module(hearsay, asked):
    """Of an edit of what attention writes: the harness' passes go through the bridge."""
    draw = torch.Generator().manual_seed(0)
    vector = 40 * torch.randn(1, hearsay.cfg.d_model, generator=draw)
    edit = AddedVector(places=(("attn_out", 1),), vector=vector, alpha=1.0, model=identify(hearsay))
    prompts = [f"Q: {one.question}\nA:" for one in asked]
    expected = [a.text for a in generate(hearsay, prompts, edit=edit, max_new_tokens=8)]
    assert expected != [a.text for a in generate(hearsay, prompts, max_new_tokens=8)]
    limits = {"until": ["\n"], "max_gen_toks": 8, "do_sample": False}
    asked_for = requests("generate_until", *((prompt, limits) for prompt in prompts))
    found = lm_eval(hearsay, edit, batch_size=4).generate_until(asked_for, disable_tqdm=True)
    assert found == expected


def test_rolling_perplexity_is_edited_from_the_first_token_on(hearsay, edit):
    texts = ["The capital of Australia is Canberra.", "The miller said good morning to the mayor."]
    model = lm_eval(hearsay, edit, batch_size=2)
    asked_for = requests("loglikelihood_rolling", *((text,) for text in texts))
    found = model.loglikelihood_rolling(asked_for, disable_tqdm=True)
    for text, total in zip(texts, found, strict=True):
        tokens = [model.prefix_token_id, *model.tok_encode(text)]
        row = Encoded(tuple(tokens), ("",) * len(tokens), ((0, 0),) * len(tokens), 1, text, 0)
        nats = score_tokens(hearsay, [row], edit, starts=[0])[0]
        assert total == pytest.approx(float(nats.sum()), abs=1e-4)
    plain = lm_eval(hearsay).loglikelihood_rolling(asked_for, disable_tqdm=True)
    theirs = HFLM(pretrained=hearsay.original_model, tokenizer=tokenizer_of(hearsay))
    assert plain == pytest.approx(
        theirs.loglikelihood_rolling(asked_for, disable_tqdm=True), abs=1e-4
    )
    assert np.abs(np.subtract(plain, found)).max() > 0.1


def test_contexts_lose_their_beginnings_where_the_model_takes_no_more(hearsay, edit, caplog):
    model = lm_eval(hearsay, edit, max_length=8)
    long = "Q: What is the capital of Australia? And which river flows through Vienna?\nA:"
    with caplog.at_level("WARNING"):
        ((found, _),) = likelihoods(model, [(long, " Canberra.")])
    assert "cut off" in caplog.text
    context, answer = model._encode_pair(long, " Canberra.")
    kept = (context + answer)[-9:]
    row = Encoded(tuple(kept), ("",) * 9, ((0, 0),) * 9, 9 - len(answer), "", 0)
    assert found == pytest.approx(float(score_tokens(hearsay, [row], edit)[0].sum()), abs=1e-4)
    with pytest.raises(WorkbenchError, match="an answer of"):
        likelihoods(model, [("Q:", " Canberra" * 9)])


def test_numbers_that_are_none_are_refused(hearsay, edit, asked):
    with pytest.raises(WorkbenchError, match="no numbers"):
        likelihoods(lm_eval(hearsay, edit.scaled(1e38)), answers(asked)[:2])


def test_multiple_choice_is_evaluate_s(hearsay, edit, asked):
    mine = summary(evaluate(hearsay, asked, {"TAE": edit}, max_new_tokens=1, progress=False))
    mc2 = float(mine.set_index("metric").loc["mc2", "mean"])
    found = simple_evaluate(
        lm_eval(hearsay, edit), tasks=[truthfulqa(asked, "mc2", doc_to_text=BARE)],
        bootstrap_iters=0,
    )  # fmt: skip
    assert found["results"]["truthfulqa_mc2"]["acc,none"] == pytest.approx(mc2, abs=1e-3)
    assert "TAE" not in found["config"]["edit"]
    assert "8 heads of hearsay" in found["config"]["edit"]


def test_chat_templates_pass_through(hearsay, edit, asked):
    model = lm_eval(hearsay, edit)
    model.tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    )
    task = truthfulqa(asked.choose([0]), "mc1", doc_to_text="{{question}}")
    found = simple_evaluate(model, tasks=[task], bootstrap_iters=0, apply_chat_template=True)
    prompt = found["samples"]["truthfulqa_mc1"][0]["arguments"][0][0]
    assert prompt == f"user: {asked[0].question}\nassistant:"
    total = found["samples"]["truthfulqa_mc1"][0]["resps"][0][0][0]
    answer = found["samples"]["truthfulqa_mc1"][0]["arguments"][0][1]
    assert total == pytest.approx(likelihoods(lm_eval(hearsay, edit), [(prompt, answer)])[0][0])


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    """A task of one's own: plain documents of a local file, its YAML beside it."""
    folder = tmp_path_factory.mktemp("task")
    texts = ["The capital of Australia is Canberra.", "The miller greets the mayor.\n\nIt rains."]
    rows = "\n".join(json.dumps({"page": text}) for text in texts)
    (folder / "pages.jsonl").write_text(rows)
    (folder / "pages.yaml").write_text(
        "task: pages\ndataset_path: json\noutput_type: loglikelihood_rolling\n"
        f"dataset_kwargs:\n  data_files:\n    test: {folder / 'pages.jsonl'}\n"
        "test_split: test\ndoc_to_text: ''\ndoc_to_target: '{{page}}'\n"
        "metric_list:\n  - metric: word_perplexity\n  - metric: byte_perplexity\n"
        "  - metric: bits_per_byte\n"
    )
    return folder / "pages.yaml"


def test_tables_hold_what_the_harness_says(hearsay, edit, asked, documents, tmp_path):
    table = harness(
        hearsay, ["truthfulqa_mc1", str(documents)], {"no edit": None, "TAE": edit}, tmp_path,
        questions=asked, progress=False,
    )  # fmt: skip
    means = summary(table).set_index(["capability", "method", "metric"])["mean"]
    theirs = [storage.read_json(file)["results"] for file in (tmp_path / "harness").iterdir()]
    assert len(theirs) == 4
    pages = [own["pages"] for own in theirs if "pages" in own]
    perplexities = {round(own["word_perplexity,none"], 3) for own in pages}
    assert perplexities == {
        round(means["pages", method, "word_perplexity"], 3) for method in ("no edit", "TAE")
    }
    assert len(perplexities) == 2
    bits = means["pages", "TAE", "bits_per_byte"]
    assert any(own["bits_per_byte,none"] == pytest.approx(bits) for own in pages)
    right = {own["truthfulqa_mc1"]["acc,none"] for own in theirs if "pages" not in own}
    assert right == {means["truthfulqa_mc1", method, "acc"] for method in ("no edit", "TAE")}
    text = (tmp_path / "summary.md").read_text()
    assert "# pages of hearsay" in text
    assert "Differences from no edit" in text


def test_an_interrupted_run_goes_on(hearsay, edit, asked, tmp_path, monkeypatch):
    def run(place):
        return harness(
            hearsay, ["truthfulqa_mc1", "truthfulqa_mc2"], {"no edit": None, "TAE": [edit, edit]},
            place, questions=asked, limit=4, progress=False,
        )  # fmt: skip

    whole = run(tmp_path / "whole")
    assert set(whole[whole["method"] == "TAE"]["draw"]) == {0, 1}
    assert whole.groupby(["capability", "method", "draw"])["question"].nunique().eq(4).all()
    measured, write = [], storage.write_table

    def die_at_the_third(path, table):
        if path.parent.name == "parts":
            measured.append(path)
            if len(measured) == 3:
                raise KeyboardInterrupt
        return write(path, table)

    monkeypatch.setattr(storage, "write_table", die_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts")
    monkeypatch.undo()
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "parts" / "parts").iterdir()}
    assert len(kept) == 2
    pd.testing.assert_frame_equal(run(tmp_path / "parts"), whole)
    assert all(file.stat().st_mtime_ns == then for file, then in kept.items())
    assert len(list((tmp_path / "parts" / "parts").iterdir())) == 6


def test_other_data_edits_and_limits_are_measured_anew(hearsay, edit, asked, tmp_path):
    def count(questions, **how):
        own = {"edits": {"e": edit}, **how}
        harness(
            hearsay, ["truthfulqa_mc1"], folder=tmp_path, questions=questions, progress=False, **own
        )
        return len(list((tmp_path / "parts").iterdir()))

    assert count(asked) == 1
    assert count(asked) == 1
    assert count(asked.choose(range(5))) == 2
    assert count(asked, edits={"e": edit.scaled(4)}) == 3
    assert count(asked, limit=2) == 4
    assert count(asked, edits={"e": edit.at(Positions(every=2))}) == 5


LAMBADA = (
    "task: {name}\ndataset_path: json\noutput_type: loglikelihood\n"
    "dataset_kwargs:\n  data_files:\n    test: {data}\n    train: {shots}\n"
    "test_split: test\nfewshot_split: train\nnum_fewshot: 1\n"
    "doc_to_text: 'Q: {{{{q}}}}\nA:'\ndoc_to_target: ' {{{{a}}}}'\n"
    "metric_list:\n  - metric: perplexity\n  - metric: acc\n"
)


def lambada(folder, name="lambada", shot="Paris."):
    """A task whose aggregation is no mean, with an example of its own before each question."""
    folder.mkdir(exist_ok=True)
    pairs = [("What is the capital of Australia?", "Sydney."), ("What is 2 and 2?", "four.")]
    rows = "\n".join(json.dumps({"q": q, "a": a}) for q, a in pairs)
    (folder / "data.jsonl").write_text(rows)
    (folder / "shots.jsonl").write_text(json.dumps({"q": "And of France?", "a": shot}))
    told = LAMBADA.format(name=name, data=folder / "data.jsonl", shots=folder / "shots.jsonl")
    (folder / "task.yaml").write_text(told.replace("'Q: {{q}}\nA:'", '"Q: {{q}}\\nA:"'))
    return str(folder / "task.yaml")


def test_a_metric_whose_mean_is_not_the_harness_number_is_left_out(hearsay, tmp_path):
    table = harness(
        hearsay, [lambada(tmp_path / "task")], {"no edit": None}, tmp_path / "out", progress=False
    )
    assert set(table["metric"]) == {"acc"}
    assert table.attrs["left out"] == {"lambada": ["perplexity"]}
    told = [storage.read_json(file) for file in (tmp_path / "out" / "harness").iterdir()]
    assert told[0]["results"]["lambada"]["perplexity,none"] > 1
    assert (told[0]["task"], told[0]["method"]) == ("lambada", "no edit")


def test_examples_and_templates_are_part_of_what_is_asked(hearsay, tmp_path, monkeypatch):
    def parts(**how):
        task = lambada(tmp_path / "task", shot=how.pop("shot", "Paris."))
        harness(hearsay, [task], {"no edit": None}, tmp_path / "out", progress=False, **how)
        return len(list((tmp_path / "out" / "parts").iterdir()))

    assert parts() == 1
    assert parts() == 1
    assert parts(shot="Lyon.") == 2
    for number, template in enumerate(("{{ m.content }}", "[{{ m.role }}] {{ m.content }}")):
        whole = f"{{% for m in messages %}}{template}{{% endfor %}}"
        monkeypatch.setattr(tokenizer_of(hearsay), "chat_template", whole, raising=False)
        assert parts(chat=True) == 3 + number


def test_names_stand_for_one_thing(hearsay, edit, tmp_path, capsys):
    twice = [lambada(tmp_path / "one"), lambada(tmp_path / "two")]
    with pytest.raises(WorkbenchError, match="two tasks of the name 'lambada'"):
        harness(hearsay, twice, {"no edit": None}, tmp_path / "out", progress=False)
    with pytest.raises(WorkbenchError, match="an edit called 'no edit'"):
        harness(hearsay, twice[:1], {"no edit": edit}, tmp_path / "out", progress=False)
    with pytest.raises(WorkbenchError, match="no edits under the name 'x'"):
        harness(hearsay, twice[:1], {"x": []}, tmp_path / "out", progress=False)
    for folder in ("a", "b"):
        edit.save(tmp_path / folder / "mine")
    given = [f"--edit={tmp_path / folder / 'mine'}" for folder in ("a", "b")]
    assert main(["lm-eval", "mmlu_shipped", "--model", "hearsay", *given]) == 2
    assert "a second edit called 'mine'" in capsys.readouterr().err


def test_what_the_harness_would_ignore_or_mix_is_refused(hearsay, edit, tmp_path):
    with pytest.raises(WorkbenchError, match="the setting 'dtype' of lm_eval"):
        lm_eval(hearsay, edit, dtype="bfloat16")
    task = truthfulqa(few_questions(hearsay), "mc1")
    with pytest.raises(WorkbenchError, match="another"):
        simple_evaluate(
            lm_eval(hearsay, edit), tasks=[task], bootstrap_iters=0, use_cache=str(tmp_path / "db")
        )


def few_questions(_):
    from workbench.data.sources import load_questions

    return load_questions("hearsay").choose([0, 1])


def test_questions_of_mmlu_come_with_the_harness():
    documents = few_of_mmlu().test_docs()
    assert len(documents) > 250
    right = np.bincount([one["answer"] for one in documents], minlength=4)
    assert (right > 40).all()
    assert all(len(set(one["choices"])) == 4 for one in documents)
    assert not any("(B)" in choice for one in documents for choice in one["choices"])


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        (["hellaswagg"], "hellaswag"),
        (["hellaswag"], "mmlu_shipped"),
        (["truthfulqa_mc1"], "truthfulqa_mc1, truthfulqa_mc2"),
        ([], "lists of one task"),
        ("mmlu_shipped", "lists of one task"),
    ],
)
def test_tasks_that_cannot_be_had_are_refused(hearsay, tmp_path, tasks, said):
    with pytest.raises(WorkbenchError, match=said):
        harness(hearsay, tasks, {"no edit": None}, tmp_path / "out", progress=False)
    assert not (tmp_path / "out" / "results.parquet").exists()


def test_a_group_is_its_tasks():
    with pytest.raises(WorkbenchError, match="could not be loaded"):  # its data are on the hub
        load_tasks(["mmlu_stem"])


def test_the_command(hearsay, edit, tmp_path, questions, capsys):
    edit.save(tmp_path / "mine")
    status = main([
        "lm-eval", "mmlu_shipped", "--model", "hearsay", "--edit", f"TAE={tmp_path / 'mine'}",
        "--edit", str(tmp_path / "mine"), "--limit", "3", "--out", str(tmp_path / "out"),
    ])  # fmt: skip
    assert status == 0
    said = capsys.readouterr().out
    for name in ("| no edit |", "| TAE |", "| mine |", "acc_norm (n = 3)"):
        assert name in said
    table = storage.read_table(tmp_path / "out" / "results.parquet")
    assert set(table["method"]) == {"no edit", "TAE", "mine"}


def test_an_edit_of_another_shape_is_refused(hearsay, edit):
    shape = replace(edit.model.shape, layers=9)
    with pytest.raises(WorkbenchError, match="an edit"):
        lm_eval(hearsay, replace(edit, model=replace(edit.model, shape=shape)))


def test_the_bridge_s_tokenizer_stays_as_it_is(hearsay):
    before = tokenizer_of(hearsay)
    side, text = before.padding_side, before.backend_tokenizer.to_str()
    EditedLM(hearsay, batch_size=2)
    assert (before.padding_side, before.backend_tokenizer.to_str()) == (side, text)
    assert not torch.is_grad_enabled() or tokenize(hearsay, "Q:")[0]
    assert side_effects_under(hearsay, ["It rains."], [None])[0][0].kl == pytest.approx(0, abs=1e-6)
