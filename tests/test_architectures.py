"""Every architecture from loading to scoring, against Hugging Face and against itself."""

import pytest
import torch
import transformers

from tests.architectures import ALL, MORE, SIZES, hf_model, tokenizer
from tests.test_sharing import assert_shared_scores_are_plain
from workbench.capturing import capture
from workbench.data.questions import Question, QuestionSet
from workbench.editing import edited
from workbench.errors import WorkbenchError
from workbench.generation import generate
from workbench.logit_lens import vocabulary_logits
from workbench.methods.iti import inference_time
from workbench.methods.token_aware import TokenAware
from workbench.models import load_model, shape_of
from workbench.prefixes import can_pad
from workbench.prompts import encode, pad, tokenize
from workbench.running import attached, forward
from workbench.scoring import score
from workbench.unwrapping import runner

PROMPTS = (
    "Q: What is the capital of Australia?\nA:",
    "Q: Who wrote Frankenstein?\nA: It was",
    "A:",
)
QUESTIONS = QuestionSet(
    tuple(
        Question(text, right[0], right, wrong)
        for text, right, wrong in (
            ("Who wrote Frankenstein?", ("Mary Shelley.", "Mary did."), ("A: is.", "No.")),
            ("What is the capital?", ("Canberra.", "It is."), ("Sydney is.", "Sydney")),
            ("Who is Mary Shelley?", ("A writer.",), ("A capital.", "Who?")),
            ("Is it written?", ("It was.", "It is written"), ("No",)),
        )
    )
)
METHODS = {
    "token_aware": TokenAware(heads=4, alpha=3.0),
    "iti": inference_time(heads=4, alpha=3.0),
}


@pytest.fixture(scope="module", params=list(ALL))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def plain(name):
    return hf_model(name)


@pytest.fixture(scope="module")
def model(name):
    return load_model(hf_model(name), tokenizer(bos=True))


@pytest.fixture(scope="module")
def edits(model):
    return {kind: method.fit(model, QUESTIONS, progress=False) for kind, method in METHODS.items()}


def ones(tokens):
    return torch.ones_like(tokens)


@pytest.mark.parametrize("kind", METHODS)
def test_edited_generation_is_one_thing_on_every_path(model, edits, kind):
    """Cached, uncached, alone, in a padded batch, and at either site."""
    edit = edits[kind]
    settings = {"edit": edit, "max_new_tokens": 6, "stop": ()}
    together = generate(model, PROMPTS, **settings)
    unedited = generate(model, PROMPTS, max_new_tokens=6, stop=())
    assert [one.tokens for one in together] != [one.tokens for one in unedited]
    others = [
        generate(model, PROMPTS, use_cache=False, **settings),
        generate(model, PROMPTS, site="hook_point", **settings),
        [generate(model, prompt, **settings)[0] for prompt in PROMPTS],
    ]
    for other in others:
        for one, two in zip(together, other, strict=True):
            assert one.tokens == two.tokens
            assert torch.allclose(one.log_probabilities, two.log_probabilities, atol=1e-4)


def test_unedited_generation_is_hugging_face_s(model, plain):
    row = torch.tensor([tokenize(model, PROMPTS[0])[0]])
    theirs = plain.generate(
        row, attention_mask=ones(row), max_new_tokens=6, do_sample=False, pad_token_id=1
    )
    (ours,) = generate(model, PROMPTS[0], max_new_tokens=6, stop=())
    assert tuple(theirs[0, row.shape[1] :].tolist()) == ours.tokens


def test_scores_are_those_of_hugging_face_s_logits(model, plain):
    """Alone and in batches, whose answers share prefixes and trees where the model allows it."""
    scores = [score(model, QUESTIONS, batch_size=size) for size in (1, 3, 100)]
    asked = [(q, a) for q in QUESTIONS for a in q.answers]
    for (question, answer), *found in zip(asked, *scores, strict=True):
        encoded = encode(model, question.question, answer)
        tokens = torch.tensor([encoded.tokens])
        with torch.no_grad():
            nats = plain(tokens).logits[0].log_softmax(dim=-1)
        begin = encoded.start
        wanted = nats[begin - 1 : -1].gather(1, tokens[0, begin:, None])[:, 0]
        for one in found:
            assert torch.allclose(one.tokens, wanted, atol=1e-4)
            assert one.total == pytest.approx(float(wanted.sum()), abs=1e-3)


def test_scores_under_an_edit_are_those_of_single_runs(model, edits):
    for edit in edits.values():
        assert_shared_scores_are_plain(model, edit, atol=1e-4)


@pytest.mark.parametrize("site", ["hook_point", "module"])
def test_an_edit_moves_the_projection_by_alpha_sigma_s(model, edits, site):
    """At the first edited layer, in the input of the output projection itself."""
    edit = edits["token_aware"]
    layer = min(layer for layer, _ in edit.heads)
    tokens = torch.tensor([tokenize(model, PROMPTS[0])[0]])
    start, seen = 4, []
    projection = model.blocks[layer].attn.o.original_component
    shape = shape_of(model)

    def run():
        handle = projection.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
        try:
            forward(model, tokens, ones(tokens))
        finally:
            handle.remove()
        return seen.pop()[0].unflatten(-1, (shape.heads, shape.d_head))

    before = run()
    with edited(model, edit, start=start, site=site) as trace:
        after = run()
    assert torch.allclose(after[:start], before[:start], atol=1e-5)
    for row, (own, head) in enumerate(edit.heads):
        if own == layer:
            moved = (after - before)[start:, head]
            step = edit.alpha * edit.spread[row] * trace.strengths[:, layer, head]
            scale = float(before.abs().max())
            assert torch.allclose(moved @ edit.direction[row], step, atol=1e-5 * max(1, scale))
            assert torch.allclose(moved, step[:, None] * edit.direction[row], atol=1e-4)
            assert float(step.min()) > 0
    others = [h for h in range(shape.heads) if (layer, h) not in edit.heads]
    assert torch.allclose(after[:, others], before[:, others], atol=1e-5)


def test_the_logit_lens_of_the_last_layer_is_the_model(model, plain):
    rows = [tokenize(model, prompt)[0] for prompt in PROMPTS]
    tokens, mask = pad(model, rows, side="left")
    kept = {}
    last = shape_of(model).layers - 1
    with attached(model, {("resid_post", last): lambda r: kept.update(r=r.clone())}):
        forward(model, tokens, mask)
    for row, residual, real in zip(rows, kept["r"], mask.bool(), strict=True):
        with torch.no_grad():
            wanted = plain(torch.tensor([row])).logits[0]
        assert torch.allclose(vocabulary_logits(model, residual[real]), wanted, atol=1e-4)


def test_passes_run_unwrapped(model):
    assert runner(model) is not model.original_model


def test_capture_of_a_padded_batch_is_that_of_single_runs(model):
    one, many = (
        capture(model, QUESTIONS, uncertainty="logit_lens", progress=False, batch_size=size)
        for size in (1, 64)
    )
    assert torch.allclose(one.z, many.z, atol=1e-5)
    assert torch.allclose(one.uncertainty, many.uncertainty, atol=1e-5)
