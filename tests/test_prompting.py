"""Prompting: a foreword is the same text in front of prompts, wherever edits are taken."""

from dataclasses import replace

import pytest
import torch

from tests.architectures import hf_model, tokenizer
from workbench.editing.attaching import edited
from workbench.editing.generation import generate
from workbench.editing.scoring import score, score_under
from workbench.errors import WorkbenchError
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.metrics.side_effects import side_effects_under
from workbench.methods.iti import inference_time
from workbench.methods.prompting import Prompting
from workbench.models.loading import load_model
from workbench.models.passes import forward
from workbench.models.prompts import PromptFormat, prompt_format
from workbench.models.tokens import tokenize
from workbench.runs.run_config import RunConfig

TEMPLATE = (
    "{% if messages[0].role != 'system' %}<s>the of{{ eos_token }}{% endif %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture(scope="module")
def told(hearsay, few):
    return Prompting(shots=3).fit(hearsay, few.choose(range(20)), progress=False)


@pytest.mark.parametrize("style", ["bare", "inline", "qa", "plain"])
def test_scores_are_those_of_the_whole_text(hearsay, few, style):
    asked = few.choose(range(30, 34))
    method = Prompting(shots=2, style=style)
    edit = method.fit(hearsay, few.choose(range(20)), progress=False)
    own = prompt_format(style)
    spelled = replace(own, name="spelled out", primer=edit.text + own.primer)
    wanted = score(hearsay, asked, style=spelled)
    for found in (
        score(hearsay, asked, edit, style=style),
        score_under(hearsay, asked, [None, edit], style=style)[1],
    ):
        for one, other in zip(found, wanted, strict=True):
            assert torch.allclose(one.tokens, other.tokens, atol=1e-4)
    plain = score(hearsay, asked, style=style)
    assert max(abs(a.total - b.total) for a, b in zip(plain, wanted, strict=True)) > 0.1


def test_beside_other_edits_each_has_its_own(hearsay, few, told):
    train, asked = few.choose(range(20)), few.choose(range(30, 33))
    iti = inference_time(heads=3, alpha=3.0).fit(hearsay, train, progress=False)
    edits = [told, None, iti, told.scaled(0.0)]
    together = score_under(hearsay, asked, edits)
    for edit, found in zip(edits, together, strict=True):
        alone = score(hearsay, asked, edit)
        assert [a.total for a in found] == pytest.approx([b.total for b in alone], abs=1e-3)
    off, plain = together[3], together[1]
    assert [a.total for a in off] == pytest.approx([b.total for b in plain], abs=1e-4)


def test_answers_are_those_to_the_whole_text(hearsay, few, told):
    prompts = [f"Q: {question.question}\nA:" for question in few.choose(range(30, 34))]
    found = generate(hearsay, prompts, edit=told, max_new_tokens=8)
    wanted = generate(hearsay, [told.text + prompt for prompt in prompts], max_new_tokens=8)
    assert [own.tokens for own in found] == [own.tokens for own in wanted]
    assert [own.prompt for own in found] == prompts
    alone = generate(hearsay, prompts, edit=told, max_new_tokens=8, batch_size=1)
    assert [own.tokens for own in found] == [own.tokens for own in alone]


def test_side_effects_are_those_of_the_text_behind_it(hearsay, told):
    texts = ["The harbour was quiet.", "Bread is made of flour, water and salt."]
    found = side_effects_under(hearsay, texts, [told, None, told.scaled(0.0)])
    assert [own.kl for own in found[2]] == [own.kl for own in found[1]]
    for text, own in zip(texts, found[0], strict=True):
        tokens = tokenize(hearsay, text)[0]
        whole = told.read(tokens)
        lead = len(whole) - len(tokens)
        logs = []
        for row in (tokens, whole):
            ids = torch.tensor([row])
            logs.append(forward(hearsay, ids, torch.ones_like(ids))[0][0].log_softmax(dim=-1))
        plain, after = logs[0][:-1], logs[1][lead:-1]
        kl = (plain.exp() * (plain - after)).sum(dim=-1).mean()
        surprise = -after[range(len(tokens) - 1), tokens[1:]].mean()
        assert own.kl == pytest.approx(float(kl), abs=1e-4)
        assert own.cross_entropy == pytest.approx(float(surprise), abs=1e-4)
    together = side_effects_under(hearsay, texts, [told], batch_size=1)[0]
    assert [own.kl for own in together] == pytest.approx([own.kl for own in found[0]], abs=1e-4)


def test_examples_of_true_answers_make_answers_true(hearsay, few):
    """And incorrect ones do not: the control."""
    train, asked = few.choose(range(20)), few.choose(range(24, 40))
    edits = {"no edit": None}
    for shuffled in (False, True):
        method = Prompting(instruction="", shots=6, shuffle_labels=shuffled, seed=1)
        edits[str(shuffled)] = method.fit(hearsay, train, progress=False)
    table = evaluate(hearsay, asked, edits, progress=False)
    true = table[table["metric"] == "true"].groupby("method")["value"].mean()
    assert true["False"] > true["no edit"] + 0.2
    assert true["True"] < true["False"]
    assert edits["True"].text != edits["False"].text


def test_models_that_begin_with_a_token_and_those_with_a_chat_template(few):
    own = tokenizer(bos=True)
    own.chat_template = TEMPLATE
    model = load_model(hf_model("llama", max_position_embeddings=1024), own)
    train = few.choose(range(4))
    edit = Prompting(instruction="the of", shots=1).fit(model, train, progress=False)
    bos = own.bos_token_id
    assert edit.opening.tolist()[:1] == [bos]
    whole = edit.read(tokenize(model, "Q: the of\nA:")[0])
    assert whole == tokenize(model, edit.text + "Q: the of\nA:")[0]
    assert whole.count(bos) == 1
    assert edit.read(tokenize(model, "the of")[0]) == tokenize(model, edit.text + "the of")[0]
    chat = Prompting(instruction="of the", shots=2, style="chat").fit(model, train, progress=False)
    turns = [{"role": "system", "content": "of the"}]
    for number in (0, 1):
        question, answer = chat.text.split("[user]")[number + 1].split("[assistant]")
        turns += [
            {"role": "user", "content": question.removesuffix("</s>")},
            {"role": "assistant", "content": answer.removesuffix("</s>")},
        ]
    turns.append({"role": "user", "content": "the"})
    wanted = own.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    plain = own.apply_chat_template(turns[-1:], tokenize=False, add_generation_prompt=True)
    assert plain.startswith("<s>the of")
    found = chat.read(tokenize(model, plain, special=False)[0])
    assert found == tokenize(model, wanted, special=False)[0]


def test_what_leaves_no_room_is_refused(hearsay, few, told):
    train = few.choose(range(30))
    with pytest.raises(WorkbenchError, match="at most the context"):
        Prompting(shots=30, instruction="word " * 400).fit(hearsay, train, progress=False)
    room = told.model.shape.context - len(told.plain)
    each = len(tokenize(hearsay, "word " * 101)[0]) / 101
    long = "word " * int((room + 10) / each)
    with pytest.raises(WorkbenchError, match="context"):
        generate(hearsay, long, edit=told, max_new_tokens=4)
    with pytest.raises(WorkbenchError, match="fewer or shorter"):
        side_effects_under(hearsay, [long], [told])


def test_what_does_not_fit_is_refused(hearsay, few, told, as_shipped):
    for wrong in ({"shots": -1}, {"shots": 0, "instruction": " "}, {"instruction": 3}):
        with pytest.raises(WorkbenchError):
            Prompting(**wrong)
    with pytest.raises(WorkbenchError, match="shots=9 of 4"):
        Prompting(shots=9).fit(hearsay, few.choose(range(4)), progress=False)
    with pytest.raises(WorkbenchError, match="before what is read"), edited(hearsay, told):
        pass
    with pytest.raises(WorkbenchError, match="ids of tokens"):
        replace(told, plain=torch.tensor([-1]))
    hearsay_has_none = Prompting(style="chat")
    with pytest.raises(WorkbenchError, match="template"):
        hearsay_has_none.fit(hearsay, few.choose(range(6)), progress=False)
    assert PromptFormat("x").primer == ""


def test_a_sweep_measures_it_once():
    methods = {"prompt": {"kind": "prompt"}, "LoRA": {"kind": "lora"}, "no edit": {"kind": "none"}}
    plans = RunConfig(methods=methods, multiples=[0.5, 1, 2]).plans
    assert plans["prompt"].multiples == plans["no edit"].multiples == (1.0,)
    assert plans["LoRA"].multiples == (0.5, 1, 2)
