import unicodedata

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, normalizers, processors
from tokenizers import models as token_models

from tests.architectures import hf_model, tokenizer
from workbench.data.sources import load_questions
from workbench.editing.generation import generate
from workbench.errors import WorkbenchError
from workbench.methods.prompting import Prompting
from workbench.models.loading import load_model
from workbench.models.prompts import PromptFormat, encode, prompt_format
from workbench.models.tokens import pad, tokenize

QUESTION, ANSWER = "What is the capital of Australia?", "Canberra is the capital."


def merging(*merged: str):
    """A character tokenizer that also knows some strings which cross word boundaries."""
    characters = sorted(set(f"Q: {QUESTION}\nA: {ANSWER} xyz?" + "".join(merged)))
    vocabulary = {token: number for number, token in enumerate(["<s>", *characters])}
    merges = []
    for text in merged:
        so_far = text[0]
        for character in text[1:]:
            merges.append((so_far, character))
            so_far += character
            vocabulary.setdefault(so_far, len(vocabulary))
    made = Tokenizer(token_models.BPE(vocabulary, merges))
    made.decoder = decoders.Fuse()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<s>")


def span(model, answer=ANSWER, style="bare"):
    encoded = encode(model, QUESTION, answer, prompt_format(style))
    return encoded, "".join(encoded.strings[encoded.start :])


@pytest.mark.parametrize("bos", [True, False])
def test_span_is_the_answer_and_bos_comes_once(bos):
    model = load_model(hf_model("llama"), tokenizer(bos=bos))
    encoded, text = span(model)
    assert text == " " + ANSWER
    assert encoded.tokens.count(0) == int(bos)
    again = tokenize(model, "<s>" + encoded.text)[0]
    assert again == (encoded.tokens if bos else (0, *encoded.tokens))


@pytest.mark.parametrize(
    ("merged", "first"),
    [
        ((), " "),
        (("?\n",), " "),
        ((": ",), "C"),
        (("\nA:",), " "),
        (("\nA: ",), "C"),
        ((" C",), " C"),
        ((": Ca",), ": Ca"),
        ((": Canberra",), ": Canberra"),
    ],
)
def test_span_where_tokens_cross_the_border(merged, first):
    model = load_model(hf_model("llama"), merging(*merged))
    encoded, _ = span(model)
    assert encoded.strings[encoded.start] == first
    begin, _ = encoded.offsets[encoded.start]
    assert "".join(encoded.strings[encoded.start :]).strip(" :") == ANSWER
    assert begin <= encoded.answer_char


def test_plus_three_counts_as_published():
    plain = load_model(hf_model("llama"), merging())
    encoded = encode(plain, QUESTION, ANSWER, answer_start="plus_three")
    # "\n", "A", ":" are three tokens here, as in Llama 1 and 2: the same span as by offsets
    assert encoded.start == encode(plain, QUESTION, ANSWER).start
    model = load_model(hf_model("llama"), merging("?\n"))
    published = encode(model, QUESTION, ANSWER, answer_start="plus_three")
    # "?\n" is one token, as in Llama 3: the published count drops the first answer token
    assert published.start == encode(model, QUESTION, ANSWER).start + 1


@settings(max_examples=60)
@given(st.text(min_size=1, max_size=30), st.sampled_from(["bare", "inline", "qa"]))
def test_any_text_is_covered_exactly(hearsay, answer, style):
    if not answer.strip():
        with pytest.raises(WorkbenchError, match="nothing"):
            span(hearsay, answer, style)
        return
    encoded, _ = span(hearsay, answer, style)
    begin = encoded.offsets[encoded.start][0]
    prompt = len(encoded.text) - len(" " + answer)
    assert prompt <= begin <= encoded.answer_char
    assert encoded.offsets[-1][1] == len(encoded.text)
    alone = encode(hearsay, QUESTION, None, prompt_format(style))
    assert encoded.tokens[: encoded.start] == alone.tokens


def test_metaspace_tokenizers(shared):
    for name in ("stories260k", "tinystories-656k"):
        model = load_model(shared / "models" / name, device="cpu")
        for answer in (ANSWER, "no.", "the dog ran home"):
            encoded, text = span(model, answer)
            assert text.strip() == answer, name
            assert encoded.offsets[encoded.start][0] <= encoded.answer_char


def test_bytes_and_characters_without_a_token(shared):
    model = load_model(shared / "models" / "stories260k", device="cpu")
    assert span(model, "Émile")[1].replace("<0x89>", "").strip() == "Émile"
    model = load_model(shared / "models" / "tinystories-656k", device="cpu")
    with pytest.raises(WorkbenchError, match="loses characters"):
        encode(model, QUESTION, "Émile is")


def test_formats(hearsay, tmp_path):
    bare, inline = (encode(hearsay, QUESTION, ANSWER, prompt_format(s)) for s in ("bare", "inline"))
    assert bare.text == f"Q: {QUESTION}\nA: {ANSWER}"
    assert inline.text == f"Q: {QUESTION} A: {ANSWER}"
    few_shot = encode(hearsay, QUESTION, ANSWER, prompt_format("qa")).text
    assert few_shot.endswith("\n\n" + bare.text)
    assert few_shot.count("Q:") == 7
    primer = tmp_path / "primer.txt"
    primer.write_text("Q: x?\nA: y.\n\n")
    own = encode(hearsay, QUESTION, ANSWER, prompt_format("qa", primer)).text
    assert own == f"Q: x?\nA: y.\n\n{bare.text}"


def test_chat_template():
    chat = tokenizer(bos=True)
    chat.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}[/]{% endfor %}"
        "{% if add_generation_prompt %}[a]{% endif %}"
    )
    model = load_model(hf_model("llama"), chat)
    encoded = encode(model, QUESTION, ANSWER, prompt_format("chat"))
    assert encoded.text == f"<s>[user]{QUESTION}[/][a]{ANSWER}"
    assert encoded.tokens.count(0) == 1
    assert "".join(encoded.strings[encoded.start :]) == ANSWER


def test_templates_that_refuse(as_shipped):
    """What a template raises is told as what it is."""
    for template in ("{{ raise_exception('System message required') }}", "{% for %}"):
        chat = tokenizer(bos=True)
        chat.chat_template = template
        model = load_model(hf_model("llama"), chat)
        with pytest.raises(WorkbenchError, match="takes no such conversation"):
            encode(model, QUESTION, None, prompt_format("chat"))


@pytest.mark.parametrize("answer", ["42.", "é", "日本", "🙂 yes", "Canberra."])
def test_trimmed_offsets_leave_no_token_out(answer):
    """The space between prompt and answer is a token of the answer, whatever offsets say of it."""
    spans = {}
    for trims in (False, True):
        own = tokenizer(bos=True)
        own.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=trims)
        model = load_model(hf_model("gpt2"), own)
        encoded = encode(model, QUESTION, answer)
        spans[trims] = encoded.tokens[encoded.start :]
    assert spans[True] == spans[False]


@pytest.mark.parametrize("answer", ["e\u0301t", "Cafe\u0301", "\u1112\u1161\u11ab"])
def test_accents_that_are_put_together_are_not_lost(answer):
    own = tokenizer(bos=False)
    own.backend_tokenizer.normalizer = normalizers.NFC()
    model = load_model(hf_model("gpt2"), own)
    encoded = encode(model, f"{QUESTION} {answer}", answer)
    composed = unicodedata.normalize("NFC", answer)
    assert encoded.tokens == encode(model, f"{QUESTION} {composed}", composed).tokens
    assert own.decode(encoded.tokens[encoded.start :]) == f" {composed}"
    dropping = tokenizer(bos=False)
    dropping.backend_tokenizer.normalizer = normalizers.Replace("é", "")
    with pytest.raises(WorkbenchError, match="such as 'é'"):
        encode(load_model(hf_model("gpt2"), dropping), QUESTION, "an été")


def test_braces_in_a_format(hearsay, as_shipped):
    style = PromptFormat("json", asking='{"q": {question}}', answering=' {"a": {answer}} {0}')
    encoded = encode(hearsay, QUESTION, "Me {", style)
    assert encoded.text == f'{{"q": {QUESTION}}} {{"a": Me {{}} {{0}}'
    told = Prompting(shots=2, instruction="", style=style)
    questions = load_questions("hearsay").choose(range(4))
    assert '"a": ' in hearsay.tokenizer.decode(told.fit(hearsay, questions).plain.tolist())
    with pytest.raises(WorkbenchError, match="a primer and the chat template"):
        PromptFormat("mine", chat=True, primer="Examples.\n")


def test_tokens_that_a_model_does_not_know(as_shipped):
    """A padding token of the tokenizer alone is no matter; another model's tokenizer is."""
    own = tokenizer(bos=True)
    own.add_special_tokens({"pad_token": "[PAD]"})
    model = load_model(hf_model("llama", vocab_size=own.pad_token_id), own)
    plain = load_model(hf_model("llama", vocab_size=own.pad_token_id), tokenizer(bos=True))
    prompts = ["Q: Who wrote Frankenstein?\nA:", "Q:"]
    found, wanted = (
        [one.tokens for one in generate(m, prompts, max_new_tokens=4)] for m in (model, plain)
    )
    assert found == wanted
    small = load_model(hf_model("llama", vocab_size=300), tokenizer(bos=True))
    with pytest.raises(WorkbenchError, match="ids below 300"):
        generate(small, prompts)


def test_padding_sides(hearsay):
    tokens, mask = pad(hearsay, [(5, 6, 7), (8,)], side="left")
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert tokens[1, 2] == 8
    assert pad(hearsay, [(5, 6, 7), (8,)])[1].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_an_answer_without_a_prompt_token_is_refused():
    model = load_model(hf_model("llama"), merging("Canb"))
    style = PromptFormat("joined", asking="{question}", answering="{answer}")
    with pytest.raises(WorkbenchError, match="no prompt token"):
        encode(model, "C", "anb", style)


def test_refusals(hearsay, as_shipped, tmp_path):
    with pytest.raises(WorkbenchError, match="format 'QA'"):
        prompt_format("QA")
    with pytest.raises(WorkbenchError, match="primer"):
        prompt_format("bare", tmp_path)
    with pytest.raises(WorkbenchError, match="exactly one"):
        PromptFormat("mine", asking="Q:")
    with pytest.raises(WorkbenchError, match="no chat template"):
        encode(hearsay, QUESTION, ANSWER, prompt_format("chat"))
    with pytest.raises(WorkbenchError, match="context of hearsay, 512"):
        encode(hearsay, "why " * 600, ANSWER)
    with pytest.raises(WorkbenchError, match="tokenises to nothing"):
        encode(hearsay, QUESTION, "  ")
    with pytest.raises(WorkbenchError, match="half of a surrogate pair"):
        encode(hearsay, "What is \ud83d?", ANSWER)
    with pytest.raises(WorkbenchError, match="answer_start"):
        encode(hearsay, QUESTION, ANSWER, answer_start="middle")


def test_characters_without_a_token_are_an_answer_of_nothing():
    model = load_model(hf_model("llama"), merging())
    with pytest.raises(WorkbenchError, match="tokenises to nothing"):
        encode(model, QUESTION, "日本")
