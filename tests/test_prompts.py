import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders
from tokenizers import models as token_models

from tests.architectures import hf_model, tokenizer
from workbench.errors import WorkbenchError
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
