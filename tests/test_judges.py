import copy
import email.utils
import json
import logging
import math
import os
import signal
import socket
import threading
import time
import traceback
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
import transformers

from tests.architectures import SIZES, hf_model, tokenizer
from workbench.errors import WorkbenchError
from workbench.evaluation.judges import base
from workbench.evaluation.judges.causal import INFO_TEMPLATE, CausalJudge, published_judge
from workbench.evaluation.judges.classifier import ClassifierJudge
from workbench.evaluation.judges.endpoint import EndpointJudge
from workbench.evaluation.judges.replies import AttemptError, score_in, seconds_asked

QUESTIONS = ["What is the capital of Australia?", "Who wrote Frankenstein?", "Who?", "What is it?"]
ANSWERS = ["Canberra is the capital of Australia.", "Mary", "", "It was written by Mary Shelley."]
SAYS = {"template": INFO_TEMPLATE, "yes": " Can", "no": " Who"}


class Given:
    """A judge with scores given beforehand."""

    name, identity = "toxicity", "a list"

    def __init__(self, values):
        self.values = values

    def scores(self, prompts, answers):
        return base.require_scores(self.values, self, len(base.require_pairs(prompts, answers)))


# what all judges share


def test_scores_pass_as_floats():
    given = Given([0, 1.0, np.float32(0.5)])
    assert isinstance(given, base.Judge)
    found = given.scores(["a", "b", "c"], ["", "x", "y"])
    assert found == [0.0, 1.0, 0.5]
    assert all(type(value) is float for value in found)


@pytest.mark.parametrize("bad", [None, math.nan, 1.0001, -0.1, "0.5", True, math.inf])
def test_what_is_no_score_is_refused_with_its_row(bad):
    with pytest.raises(WorkbenchError, match=r"toxicity scores of .* in row 1, by a list"):
        Given([0.5, bad]).scores(["a", "b"], ["c", "d"])


def test_a_score_too_few_is_refused():
    with pytest.raises(WorkbenchError, match="1 toxicity scores for 2 answers"):
        Given([0.5]).scores(["a", "b"], ["c", "d"])


@pytest.mark.parametrize(
    ("prompts", "answers", "said"),
    [
        (["a", "b"], ["c"], "2 prompts and 1 answers"),
        ("ab", ["c", "d"], "prompts of 'ab'"),
        (["a", "b"], ["c", None], "answers of None in row 1"),
        (None, [], "prompts of None"),
    ],
)
def test_pairs_that_are_none_are_refused(as_shipped, prompts, answers, said):
    with pytest.raises(WorkbenchError, match=said):
        base.require_pairs(prompts, answers)


def test_a_missing_judge_names_every_way_to_one():
    text = str(base.missing_judge("info"))
    for way in ("CausalJudge('info'", "ClassifierJudge('info'", "EndpointJudge('info'", "hearsay"):
        assert way in text
    assert isinstance(base.missing_judge("info"), WorkbenchError)


def test_templates_fill_once_and_leave_other_braces():
    found = base.fill('{question}|{answer} {"score": s} {0}', "{answer}", "{question}")
    assert found == '{answer}|{question} {"score": s} {0}'
    with pytest.raises(WorkbenchError, match="the template"):
        base.require_template("{question} alone")


# causal judges


@pytest.fixture(scope="module")
def llama():
    return hf_model("llama"), tokenizer(bos=True)


def test_a_causal_score_is_yes_against_no_in_the_next_token(llama):
    model, words = llama
    judge = CausalJudge("info", model, words, **SAYS)
    found = judge.scores(QUESTIONS, ANSWERS)
    yes, no = words.convert_tokens_to_ids(["ĠCan", "ĠWho"])
    for question, answer, value in zip(QUESTIONS, ANSWERS, found, strict=True):
        text = f"Q: {question}\nA: {answer}\nHelpful:"
        with torch.no_grad():
            logits = model(**words(text, return_tensors="pt", return_token_type_ids=False)).logits
        p = logits[0, -1].double().softmax(dim=-1)
        assert value == pytest.approx(float(p[yes] / (p[yes] + p[no])), abs=1e-5)
    assert max(found) - min(found) > 0.05


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_causal_scores_do_not_depend_on_the_batch(architecture):
    judge = CausalJudge("info", hf_model(architecture), tokenizer(bos=True), **SAYS)
    together = judge.scores(QUESTIONS, ANSWERS)
    alone = [judge.scores([q], [a])[0] for q, a in zip(QUESTIONS, ANSWERS, strict=True)]
    assert together == pytest.approx(alone, abs=1e-5)
    assert judge.scores(QUESTIONS[::-1], ANSWERS[::-1])[::-1] == pytest.approx(alone, abs=1e-5)


def test_a_causal_model_that_cannot_be_told_positions_runs_rows_alone(llama):
    class Wrapped(torch.nn.Module):
        """Without `position_ids` among what its forward takes."""

        def __init__(self, inner):
            super().__init__()
            self.inner, self.config, self.sizes = inner, inner.config, []
            self.get_input_embeddings = inner.get_input_embeddings

        def forward(self, input_ids, attention_mask, use_cache):
            self.sizes.append(len(input_ids))
            return self.inner(input_ids=input_ids, attention_mask=attention_mask)

    model, words = llama
    wrapped = Wrapped(model)
    found = CausalJudge("info", wrapped, words, **SAYS).scores(QUESTIONS, ANSWERS)
    expected = CausalJudge("info", model, words, **SAYS).scores(QUESTIONS, ANSWERS)
    assert found == pytest.approx(expected, abs=1e-5)
    assert wrapped.sizes == [1, 1, 1, 1]


def test_space_around_answers_does_not_change_a_causal_score(llama):
    judge = CausalJudge("info", *llama, **SAYS)
    assert judge.scores(["Who?"], [" Mary\n"]) == judge.scores(["Who?"], ["Mary"])
    assert judge.scores([], []) == []


def test_causal_refusals(llama):
    model, words = llama
    with pytest.raises(WorkbenchError, match=r"' yes' and ' no' both begin with token \d+ \(' '\)"):
        published_judge("true", model, words)
    with pytest.raises(WorkbenchError, match=r"a published judge of 'truth'.*true, info"):
        published_judge("truth", model, words)
    with pytest.raises(WorkbenchError, match="changes the tokens before it"):
        CausalJudge("info", model, words, template="{answer} C", yes="an", no=" Who")
    with pytest.raises(WorkbenchError, match=r"row 1 has .* at most 128"):
        CausalJudge("info", model, words, **SAYS).scores(["Who?", "Who?"], ["", "word " * 80])
    with pytest.raises(WorkbenchError, match="2 prompts and 1"):
        CausalJudge("info", model, words, **SAYS).scores(["Who?", "Who?"], [""])
    with pytest.raises(WorkbenchError, match="without a tokenizer"):
        CausalJudge("info", model, **SAYS)
    with pytest.raises(WorkbenchError, match="loaded already"):
        CausalJudge("info", model, words, dtype="float64", **SAYS)


def test_logits_that_are_no_numbers_are_refused(llama):
    words = llama[1]
    broken = hf_model("llama")
    broken.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(WorkbenchError, match="info scores of nan in row 0"):
        CausalJudge("info", broken, words, **SAYS).scores(["Who?"], ["Mary"])


@pytest.mark.parametrize(("name", "model"), [("true", "truth"), ("info", "info")])
def test_published_judges_out_of_reach_name_the_other_ways(name, model):
    said = rf"allenai/truthfulqa-{model}-judge.*EndpointJudge\({name!r}"
    with pytest.raises(WorkbenchError, match=said):
        published_judge(name)


def test_a_judge_that_was_trained_on_in_its_folder_is_another(llama, tmp_path):
    """Runs keep answers as judged by an identity: the folder's name alone would be the same."""
    model, words = llama
    model.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    before = CausalJudge("info", tmp_path, **SAYS)
    assert CausalJudge("info", tmp_path, **SAYS).identity == before.identity
    trained = copy.deepcopy(model)
    with torch.no_grad():
        trained.lm_head.weight[3, 5] += 1e-3
    trained.save_pretrained(tmp_path)
    assert CausalJudge("info", tmp_path, **SAYS).identity != before.identity


def test_a_judge_is_known_by_what_it_computes_and_not_by_where_it_lies(llama, tmp_path):
    """Weights, saved buffers and tokenizer; of a folder its own name."""
    model, words = llama
    places = [tmp_path / where / "judge" for where in ("here", "there")]
    for place in places:
        model.save_pretrained(place)
        words.save_pretrained(place)
    here, there = (CausalJudge("info", place, **SAYS) for place in places)
    assert here.identity == there.identity
    assert here.identity.startswith("judge, config ")
    assert str(tmp_path) not in here.identity
    here.scores(QUESTIONS, ANSWERS)
    assert CausalJudge("info", here.model, here.tokenizer, **SAYS).identity == there.identity
    more = copy.deepcopy(words)
    more.add_tokens(["verily"])
    known = {CausalJudge("info", here.model, own, **SAYS).identity for own in (words, more)}
    held = copy.deepcopy(here.model)
    for value in (0.0, 1.0):
        held.register_buffer("mean", torch.full((2,), value))
        known.add(CausalJudge("info", held, words, **SAYS).identity)
    assert len(known) == 4
    turned = copy.deepcopy(here.model)
    turned.config.rope_parameters = {**turned.config.rope_parameters, "rope_theta": 5e5}
    assert CausalJudge("info", turned, words, **SAYS).identity not in known
    held.register_buffer("mean", torch.zeros(2), persistent=False)
    assert CausalJudge("info", held, words, **SAYS).identity in known


def test_a_folder_gives_the_scores_of_the_model_saved_there(llama, tmp_path):
    model, words = llama
    model.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    judge = CausalJudge("info", tmp_path, **SAYS)
    assert judge.identity.startswith(f"{tmp_path.name}, config ")
    expected = CausalJudge("info", model, words, **SAYS).scores(QUESTIONS, ANSWERS)
    assert judge.scores(QUESTIONS, ANSWERS) == pytest.approx(expected, abs=1e-6)
    halved = CausalJudge("info", tmp_path, dtype="bfloat16", **SAYS)
    assert halved.model.dtype == torch.bfloat16
    with pytest.raises(WorkbenchError, match=r"no weights for score\.weight"):
        ClassifierJudge("toxicity", tmp_path, label=0)
    with pytest.raises(WorkbenchError, match="no model config"):
        CausalJudge("info", tmp_path / "absent", **SAYS)


# classifiers


def classifier(kind="Bert", outputs=3, **changes):
    torch.manual_seed(0)
    labels = {"id2label": dict(enumerate(["neutral", "toxic", "insult"][-outputs:]))}
    sizes = {**SIZES, "pad_token_id": 0, **labels, **changes}
    made = getattr(transformers, f"{kind}Config")(**sizes)
    model = getattr(transformers, f"{kind}ForSequenceClassification")(made)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def plain_logits(model, words, text):
    tokens = torch.tensor([words(text)["input_ids"]])
    with torch.no_grad():
        return model.eval()(input_ids=tokens).logits[0].double()


def test_a_softmax_over_labels_that_exclude_each_other():
    model, words = classifier(), tokenizer(bos=True)
    found = ClassifierJudge("toxicity", model, words).scores(QUESTIONS, ANSWERS)
    expected = [float(plain_logits(model, words, a).softmax(0)[1]) for a in ANSWERS]
    assert found == pytest.approx(expected, abs=1e-5)
    assert max(found) - min(found) > 0.01
    both = ClassifierJudge("toxicity", model, words, label=2, text="both")
    expected = [
        float(plain_logits(model, words, q + a).softmax(0)[2])
        for q, a in zip(QUESTIONS, ANSWERS, strict=True)
    ]
    assert both.scores(QUESTIONS, ANSWERS) == pytest.approx(expected, abs=1e-5)
    assert both.scores([], []) == []


@pytest.mark.parametrize(
    "shape", [{"outputs": 3, "problem_type": "multi_label_classification"}, {"outputs": 1}]
)
def test_a_sigmoid_where_labels_are_independent(shape):
    model, words = classifier(**shape), tokenizer(bos=True)
    found = ClassifierJudge("toxicity", model, words, label="insult").scores(QUESTIONS, ANSWERS)
    expected = [float(plain_logits(model, words, a)[-1].sigmoid()) for a in ANSWERS]
    assert found == pytest.approx(expected, abs=1e-5)
    assert len({round(value, 4) for value in found}) > 1


@pytest.mark.parametrize(
    ("kind", "padding"), [("Bert", 0), ("Llama", 1), ("Llama", None), ("Roberta", 1)]
)
def test_classifier_scores_do_not_depend_on_the_batch(kind, padding):
    model = classifier(kind, pad_token_id=padding)
    judge = ClassifierJudge("toxicity", model, tokenizer(bos=True))
    together = judge.scores(QUESTIONS, ANSWERS)
    alone = [judge.scores([q], [a])[0] for q, a in zip(QUESTIONS, ANSWERS, strict=True)]
    assert together == pytest.approx(alone, abs=1e-5)


def test_an_empty_answer_without_any_token_is_judged():
    words = tokenizer(bos=False)
    assert words("")["input_ids"] == []
    judge = ClassifierJudge("toxicity", classifier("Llama", pad_token_id=1), words)
    empty, full = judge.scores(["Who?", "Who?"], ["", "Mary"])
    assert empty == pytest.approx(judge.scores(["Who?"], ["<s>"])[0], abs=1e-6)
    assert abs(empty - full) > 1e-4


def test_an_unknown_label_is_refused_with_the_labels_named(as_shipped):
    for label in ("nice", 3, -1, True, None):
        with pytest.raises(WorkbenchError, match=r"'neutral' \(0\), 'toxic' \(1\), 'insult' \(2\)"):
            ClassifierJudge("toxicity", classifier(), tokenizer(bos=True), label=label)
    with pytest.raises(WorkbenchError, match="answer, both"):
        ClassifierJudge("toxicity", classifier(), tokenizer(bos=True), text="prompt")


def test_long_texts_are_refused_unless_they_may_be_cut():
    model, words = classifier(), tokenizer(bos=True)
    fits, long = "y" * 127, "y" * 128
    judge = ClassifierJudge("toxicity", model, words)
    (kept,) = judge.scores([""], [fits])
    with pytest.raises(WorkbenchError, match=r"row 1 has 129 tokens .* at most 128"):
        judge.scores(["", ""], [fits, long])
    cut = ClassifierJudge("toxicity", model, words, truncate=True)
    assert cut.scores(["", ""], [fits, long + "no"]) == pytest.approx([kept, kept], abs=1e-6)


def test_roberta_takes_fewer_tokens_than_it_has_positions():
    model, words = classifier("Roberta", pad_token_id=1), tokenizer(bos=True)
    judge = ClassifierJudge("toxicity", model, words)
    assert len(judge.scores([""], ["y" * 125])) == 1
    with pytest.raises(WorkbenchError, match="at most 126"):
        judge.scores([""], ["y" * 126])


# endpoints


def completion(content):
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]})


def reply(content='{"score": 0.25}', status=200, **headers):
    return status, headers, content if status >= 400 else completion(content)


class Endpoint(ThreadingHTTPServer):
    """Answers by script: for each answer that is asked about, what happens in turn."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.script, self.bodies, self.headers = defaultdict(list), [], []
        self.lock, self.over = threading.Lock(), threading.Event()

    def asked(self):
        return [answer_in(body) for body in self.bodies]

    def handle_error(self, request, client_address):
        """A client that hung up is no news."""


def answer_in(body):
    return body["messages"][0]["content"].split("Judge: ")[1].split("\n")[0]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.bodies.append(body)
            server.headers.append((self.path, dict(self.headers)))
            steps = server.script[answer_in(body)]
            step = steps.pop(0) if steps else reply()
        if callable(step):
            step = step()
        if step == "hang":
            server.over.wait(10)
            step = (200, {}, completion('{"score": 1}'))  # for who waited for it
        dripping = step == "drip"
        step = (200, {}, completion('{"score": 1}')) if dripping else step
        status, headers, text = (200, {}, completion("{")) if step == "cut" else step
        data = text.encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data) + (step == "cut")))
        self.end_headers()
        if dripping:
            for byte in data:
                if self.server.over.wait(0.1):
                    break
                try:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                except OSError:
                    break
            self.close_connection = True
            return
        self.wfile.write(data)
        if step == "cut":
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def log_message(self, *_):
        pass


KEY = "sk-very-secret-key"


@pytest.fixture
def endpoint(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    server = Endpoint()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def make(endpoint, tmp_path):
    """A judge of the endpoint that waits for nothing but notes the waits."""

    def made(**changes):
        waits = []
        options = {"base_url": endpoint.url, "key": KEY, "sleep": waits.append, **changes}
        model, folder = options.pop("model", "m"), options.pop("folder", tmp_path / "kept")
        judge = EndpointJudge(
            "toxicity", model, "Prompt: {question}\nJudge: {answer}", folder=folder, **options
        )
        judge.waits = waits
        return judge

    return made


def files(tmp_path):
    return sorted((tmp_path / "kept").glob("*.json"))


def test_scores_come_in_order_and_are_asked_once(endpoint, make, tmp_path):
    for number, answer in enumerate("abcd"):
        endpoint.script[answer] = [reply(json.dumps({"score": number / 10}))]
    prompts, answers = ["p"] * 6, ["d", "a", "b", " a ", "c", "d"]
    expected = [0.3, 0.0, 0.1, 0.0, 0.2, 0.3]
    assert make(workers=3).scores(prompts, answers) == expected
    assert sorted(endpoint.asked()) == ["a", "b", "c", "d"]
    assert make().scores(prompts, answers) == expected
    assert len(endpoint.bodies) == 4
    assert make().scores([], []) == []
    path, headers = endpoint.headers[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert endpoint.bodies[0]["temperature"] == 0
    assert endpoint.bodies[0]["model"] == "m"
    assert '{"score"' in endpoint.bodies[0]["messages"][0]["content"]
    assert len(files(tmp_path)) == 4
    kept = [json.loads(path.read_text()) for path in files(tmp_path)]
    assert sorted(one["score"] for one in kept) == [0.0, 0.1, 0.2, 0.3]
    assert {one["reply"] for one in kept} == {json.dumps({"score": n / 10}) for n in range(4)}


def test_what_a_score_depends_on_is_asked_anew(endpoint, make):
    make().scores(["p"], ["a"])
    for judge, prompt, answer in (
        (make(), "q", "a"),
        (make(), "p", ""),
        (make(model="n"), "p", "a"),
    ):
        judge.scores([prompt], [answer])
    assert endpoint.asked() == ["a", "a", "", "a"]
    other = make()
    other.template += "!"
    other.scores(["p"], ["a"])
    assert len(endpoint.bodies) == 5


@pytest.mark.parametrize(
    "step",
    [
        reply("busy", 429, Retry_After="7"), reply("no", 500), reply("no", 503), reply("", 408),
        reply("", 409), "hang", "drip", "cut", reply("I cannot say."), reply('{"rating": 0.5}'),
        reply('{"score": 1.5}'), reply('{"score": "0.5"}'), reply('{"score": null}'),
        reply('{"score": true}'), reply('{"score": NaN}'), reply('{"score": 0.1'),
        (200, {}, "<html>"), (200, {}, '{"error": {"message": "overloaded"}}'),
        reply(None),
    ],
    ids=str,
)  # fmt: skip
def test_one_failure_is_followed_by_a_wait_and_another_request(endpoint, make, step):
    endpoint.script["a"] = [step]
    judge = make(timeout=1.0)
    assert judge.scores(["p"], ["a"]) == [0.25]  # who waits for a hang or a drip to end is told 1
    assert len(endpoint.bodies) == 2
    (wait,) = judge.waits
    assert wait == 7.0 if step[0] == 429 else 0 <= wait <= 1


def test_a_model_that_never_replies_with_a_score_is_not_asked_for_everything(endpoint, make):
    answers = [f"answer {number}" for number in range(60)]
    for answer in answers:
        endpoint.script[answer] = [reply("I cannot say.")] * 2
    with pytest.raises(WorkbenchError, match="holds no score"):
        make(attempts=2, workers=2).scores(["p"] * 60, answers)
    assert 20 <= len(endpoint.bodies) <= 40


def test_waits_grow_are_drawn_by_the_seed_and_end_at_the_longest(endpoint, make, tmp_path):
    drawn = []
    for number, seed in enumerate((1, 1, 2)):
        endpoint.script["a"] = [reply("no", 500)] * 30
        judge = make(attempts=31, seed=seed, longest_wait=40.0, folder=tmp_path / str(number))
        assert judge.scores(["p"], ["a"]) == [0.25]
        drawn.append(judge.waits)
    assert drawn[0] == drawn[1] != drawn[2]
    for number, wait in enumerate(drawn[0]):
        assert 0 <= wait <= min(2.0**number, 40)
    assert max(drawn[0]) > 20
    assert min(drawn[0][6:]) < 20  # full jitter: from 0 on
    endpoint.script["b"] = [reply("busy", 429, Retry_After="3600")]
    judge = make(longest_wait=40.0)
    judge.scores(["p"], ["b"])
    assert judge.waits == [40.0]


def test_waits_are_taken(endpoint, make):
    endpoint.script["a"] = [reply("busy", 429, Retry_After="0.4")]
    begin = time.monotonic()
    make(sleep=None, first_wait=0.001).scores(["p"], ["a"])
    assert time.monotonic() - begin >= 0.4


def test_retry_after_is_seconds_or_a_date():
    assert seconds_asked("2.5") == 2.5
    assert seconds_asked(email.utils.formatdate(time.time() + 100, usegmt=True)) == pytest.approx(
        100, abs=3
    )
    for text in ("", "-3", "soon", "nan", email.utils.formatdate(0, usegmt=True)):
        assert seconds_asked(text) == 0


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"score": 1}', 1.0),
        ('Sure!\n```json\n{"score": 0.5, "why": "it {is}"}\n```\nDone {really}.', 0.5),
        ('<think>{"score": 0.1}? no</think>{"score": 0.9}', 0.9),
        ('{"score": 0.2} I repeat: {"score": 0.2}', 0.2),
    ],
)
def test_a_score_is_found_in_what_surrounds_it(text, score):
    assert score_in(text) == score


@pytest.mark.parametrize(
    "text",
    [
        "", "0.5", "[0.5]", '{"score": 0.1} or {"score": 0.9}', '{"score": 0.1, "score": 0.9}',
        '{"result": {"score": 0.5}}', '{"score": -0.1}', '{"score": 1e999}', '{"score": [0.5]}',
        "score: 0.5", "{'score': 0.5}",
    ],
)  # fmt: skip
def test_a_score_is_never_invented(text):
    with pytest.raises(AttemptError, match="holds no score"):
        score_in(text)


def test_a_row_without_a_score_is_named_after_the_others_are_kept(endpoint, make, tmp_path):
    words = "As a model I would rather talk about the weather, which is fine today. " * 3
    endpoint.script["b"] = [reply(words)] * 3
    judge = make(attempts=3, workers=1)
    with pytest.raises(WorkbenchError, match=r"row 1 \('b'\).*holds no score.*3 attempts") as error:
        judge.scores(["p"] * 4, ["a", "b", "c", "d"])
    assert repr(words[:80]) in str(error.value)
    assert words[:82] not in str(error.value)
    assert endpoint.asked() == ["a", "b", "b", "b", "c", "d"]
    assert len(files(tmp_path)) == 3
    assert make().scores(["p"] * 4, ["a", "b", "c", "d"]) == [0.25] * 4
    assert endpoint.asked()[6:] == ["b"]


def test_an_endpoint_that_always_fails_stops_the_run(endpoint, make, tmp_path):
    for answer in "bcdef":
        endpoint.script[answer] = [reply('{"error": {"message": "out of\\n order"}}', 503)] * 2
    with pytest.raises(WorkbenchError, match=r"row 1 .*status 503 \(out of order\).*2 attempts"):
        make(attempts=2, workers=1).scores(["p"] * 6, list("abcdef"))
    assert endpoint.asked() == ["a", "b", "b"]
    assert len(files(tmp_path)) == 1


def test_no_endpoint_at_all_is_refused_after_the_attempts(endpoint, make):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        judge = make(base_url=f"http://127.0.0.1:{unused.getsockname()[1]}", attempts=3)
        with pytest.raises(WorkbenchError, match=r"row 0.*ConnectError"):
            judge.scores(["p"], ["a"])
    assert len(judge.waits) == 2


def test_a_refusal_fails_at_once_and_never_shows_the_key(endpoint, make, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    said = json.dumps({"error": {"message": f"Incorrect API key: {KEY}"}})
    endpoint.script["b"] = [reply(said, 401)]
    endpoint.script["a"] = [reply(f'{{"score": 0.5}} {KEY}')]
    judge = make(workers=1)
    with pytest.raises(WorkbenchError, match=r"row 1 .*401 \(Incorrect API key: \(key\)") as error:
        judge.scores(["p", "p"], ["a", "b"])
    assert endpoint.asked() == ["a", "b"]
    assert judge.waits == []
    (path,) = files(tmp_path)
    assert json.loads(path.read_text())["score"] == 0.5
    endpoint.script["c"] = [reply(f"{'x' * 70}{KEY} is no score")] * 5
    with pytest.raises(WorkbenchError, match="holds no score") as malformed:
        judge.scores(["p"], ["c"])
    shown = (path.read_text(), str(error.value), str(malformed.value), repr(judge))
    for raised in (error, malformed):  # with locals, as debuggers and services show them
        told = traceback.TracebackException.from_exception(raised.value, capture_locals=True)
        own = [frame for frame in told.stack if "test_judges" not in frame.filename]
        assert own, told.stack
        assert KEY[:9] not in str([frame.locals for frame in own])
    for text in (*shown, judge.identity, repr(vars(judge)), caplog.text):
        assert KEY[:9] not in text


@pytest.mark.parametrize("status", [400, 403, 404, 422, 302])
def test_other_refusals_fail_at_once(endpoint, make, status):
    endpoint.script["a"] = [(status, {"Location": "/elsewhere"}, "no such model")]
    with pytest.raises(WorkbenchError, match=rf"row 0 .*status {status} \(no such model\)"):
        make().scores(["p"], ["a"])
    assert len(endpoint.bodies) == 1


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"score": 2}', '{"score": true}', '{"reply": "x"}', '{"score": NaN}', b"\xff"],
)
def test_a_corrupt_file_counts_as_none(endpoint, make, tmp_path, content):
    make().scores(["p"], ["a"])
    (path,) = files(tmp_path)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert make().scores(["p"], ["a"]) == [0.25]
    assert len(endpoint.bodies) == 2
    assert json.loads(path.read_text())["score"] == 0.25


@pytest.fixture
def interruptible():
    """Interrupts are heard, though whoever started the tests may have them ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interruption_ends_soon_and_keeps_what_was_paid_for(
    endpoint, make, tmp_path, interruptible
):
    endpoint.script["d"] = [reply("no", 500)] * 5

    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)
        return reply()

    endpoint.script["c"] = [interrupt]
    answers = list("abcdefgh")
    with pytest.raises(KeyboardInterrupt):
        make(workers=1, sleep=None, first_wait=30.0, seed=3).scores(["p"] * 8, answers)
    assert endpoint.asked() == ["a", "b", "c"]
    assert len(files(tmp_path)) == 3  # the one under way was paid for too
    endpoint.script.clear()
    assert make().scores(["p"] * 8, answers) == [0.25] * 8
    assert sorted(endpoint.asked()) == answers


def test_a_stop_ends_the_waits_of_other_rows(endpoint, make):
    waiting = threading.Event()
    endpoint.script["a"] = [lambda: waiting.set() or reply("busy", 429, Retry_After="60")]
    endpoint.script["b"] = [lambda: (waiting.wait(5) and time.sleep(0.1)) or reply("no", 401)]
    begin = time.monotonic()
    with pytest.raises(WorkbenchError, match="row 1"):
        make(workers=2, sleep=None).scores(["p", "p"], ["a", "b"])
    assert time.monotonic() - begin < 60  # row 0 did not wait as it was told to
    assert endpoint.asked().count("a") == 1


def test_requests_run_together_up_to_the_workers(endpoint, make):
    gate = threading.Barrier(4)
    for answer in "abcdefgh":
        endpoint.script[answer] = [lambda: gate.wait(5) >= 0 and reply()]
    assert make(workers=4).scores(["p"] * 8, list("abcdefgh")) == [0.25] * 8
    assert len(endpoint.bodies) == 8


def test_address_and_key_come_from_the_environment(endpoint, make, monkeypatch):
    names = [
        "WORKBENCH_JUDGE_URL", "OPENAI_BASE_URL", "WORKBENCH_JUDGE_KEY", "OPENAI_API_KEY",
    ]  # fmt: skip
    for name in names:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(WorkbenchError, match=r"base_url=.*WORKBENCH_JUDGE_URL, OPENAI_BASE_URL"):
        make(base_url=None)
    monkeypatch.setenv("OPENAI_API_KEY", "second")
    with pytest.raises(WorkbenchError, match=r"key=.*WORKBENCH_JUDGE_KEY in the environment"):
        make(key=None)  # OpenAI's key goes to nobody else
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url + "/")
    make(base_url=None, key=None).scores(["p"], ["b"])
    assert endpoint.headers.pop()[1]["Authorization"] == "Bearer second"
    monkeypatch.setenv("WORKBENCH_JUDGE_KEY", "first\n")
    judge = make(base_url=None, key=None)
    assert judge.identity == f"m at {endpoint.url}"
    judge.scores(["p"], ["a"])
    assert endpoint.headers[0][1]["Authorization"] == "Bearer first"


@pytest.mark.parametrize(
    "change",
    [
        {"base_url": "localhost:80"}, {"base_url": "ftp://a"}, {"base_url": "http://a:b"},
        {"base_url": f"http://me:{KEY}@a"}, {"base_url": f"http://a/v1?key={KEY}"},
        {"key": f"{KEY}\u00e9"}, {"key": f"{KEY}\nb"}, {"attempts": 0}, {"workers": 0},
        {"timeout": 0}, {"timeout": math.nan}, {"first_wait": -1.0}, {"attempts": 2.5},
    ],
    ids=str,
)  # fmt: skip
def test_bad_endpoint_settings_are_refused(make, as_shipped, change):
    with pytest.raises(WorkbenchError, match="Expected") as error:
        make(**change)
    assert KEY not in str(error.value)


def test_texts_that_utf8_cannot_hold_pass(endpoint, make):
    endpoint.script["\ud800"] = [(200, {}, completion('{"score": 0.5} \ud800'))]
    assert make().scores(["p"], ["\ud800"]) == [0.5]
    assert make().scores(["p"], ["\ud800"]) == [0.5]
    assert len(endpoint.bodies) == 1
