"""Scoring behind shared prefixes and in token trees, against one plain run an answer."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPTNeoConfig, GPTNeoForCausalLM

from tests.architectures import CONFIGS, hf_model, tokenizer
from tests.by_hand import nats_from
from tests.edits import random_edit
from workbench.data.questions import Question, QuestionSet
from workbench.editing import token_scores
from workbench.editing.attaching import edited
from workbench.editing.scoring import score, score_under
from workbench.editing.token_scores import score_tokens_under
from workbench.errors import WorkbenchError
from workbench.models import prefixes
from workbench.models.beginnings import to_score
from workbench.models.loading import load_model
from workbench.models.passes import forward, takes_positions
from workbench.models.prefixes import can_pad, can_share
from workbench.models.prompts import encode, prompt_format
from workbench.models.sharing import batches
from workbench.models.token_trees import TokenTree
from workbench.models.unwrapping import has_hooks

STYLE = replace(
    prompt_format("qa"), primer="Q: Who wrote Dracula?\nA: Bram Stoker did.\n\n", name="short"
)


def question(text, right, wrong):
    return Question(text, right[0], right, wrong)


QUESTIONS = QuestionSet(
    (
        question("Who wrote Frankenstein?", ("Mary Shelley.", "Mary did."), ("Mary I.", "Bram")),
        question("What is the capital of Australia?", ("Canberra.",), ("Sydney.", "It is Sydney")),
        question("Who?", ("It was Mary.", "It was he."), ("It is",)),
    )
)


@pytest.fixture(scope="module", params=list(CONFIGS))
def model(request):
    return load_model(hf_model(request.param, torch.float64), tokenizer(bos=True))


@pytest.fixture(scope="module")
def edits(model):
    return some_edits(model)


@pytest.fixture(scope="module")
def alone(model):
    """Answers' plain scores, of which every row is run once for all tests of a model."""
    kept = {}

    def scores(edit, encoded, start):
        key = id(edit), encoded.tokens, start
        if key not in kept:
            whole = replace(encoded, start=1)
            kept[key] = plain_scores(model, whole, edit, start)
        return kept[key][encoded.start - 1 :]

    return scores


def plain_scores(model, encoded, edit, start):
    """One answer, run whole and alone: the obvious way."""
    with edited(model, edit, start=start, site="module", record=False):
        return nats_from(model, encoded.tokens, encoded.start).float()


def assert_shared_scores_are_plain(model, edit, atol):
    scores = iter(score_under(model, QUESTIONS, [edit, None], style=STYLE)[0])
    for asked in QUESTIONS:
        for answer in asked.answers:
            encoded = encode(model, asked.question, answer, STYLE)
            wanted = plain_scores(model, encoded, edit, encoded.start - 1)
            assert torch.allclose(next(scores).tokens, wanted, atol=atol)


def some_edits(model):
    return [
        random_edit(model),
        None,
        random_edit(model, heads=((2, 0), (0, 1)), alpha=3.0, seed=1, strength="constant"),
        random_edit(model, heads=((1, 2),), seed=2, uncertainty="amplified"),
        random_edit(model, seed=3, beta=1.0, answer_start="plus_three"),
    ]


@pytest.mark.parametrize("answer_start", ["offsets", "plus_three"])
@pytest.mark.parametrize("batch_size", [3, 500])
@pytest.mark.parametrize("style", ["bare", "short"])
def test_shared_scores_are_those_of_single_runs(
    model, edits, alone, style, batch_size, answer_start
):
    chosen = STYLE if style == "short" else prompt_format(style)
    together = score_under(
        model, QUESTIONS, edits, style=chosen, answer_start=answer_start, batch_size=batch_size
    )
    for edit, scores in zip(edits, together, strict=True):
        mine = iter(scores)
        for number, asked in enumerate(QUESTIONS):
            for answer, label in zip(asked.answers, asked.labels, strict=True):
                found = next(mine)
                assert (found.question, found.label) == (number, label)
                encoded = encode(model, asked.question, answer, chosen, answer_start)
                plus_three = edit is not None and edit.answer_start == "plus_three"
                kind = "plus_three" if plus_three else "offsets"
                start = encode(model, asked.question, answer, chosen, kind).start
                wanted = alone(edit, encoded, start - (not plus_three))
                assert torch.allclose(found.tokens, wanted, atol=1e-6)
                assert found.total == pytest.approx(float(wanted.sum()), abs=1e-5)


def test_what_is_shared_is_run_once(model, monkeypatch):
    """Fewer tokens go through the model than the rows hold, and nothing is shared under a hook."""
    edits = some_edits(model)[:4]
    encoded = [encode(model, q.question, a, STYLE) for q in QUESTIONS for a in q.answers]
    begins = [[e.start - 1 for e in encoded]] * len(edits)
    whole = len(edits) * sum(len(e.tokens) for e in encoded)

    def tokens_run():
        count = 0

        def counting(own, tokens, *args, **settings):
            nonlocal count
            count += tokens.numel()
            return forward(own, tokens, *args, **settings)

        with monkeypatch.context() as patch:
            for module in (prefixes, token_scores):
                patch.setattr(module, "forward", counting)
            score_tokens_under(model, encoded, edits, batch_size=500)
        return count

    shared = tokens_run()
    assert shared < whole / 2
    with edited(model, random_edit(model, seed=5), start=0, record=False):
        assert has_hooks(model)
        assert tokens_run() >= whole - len(edits) * len(encoded)
        (batch,) = batches(model, to_score(encoded), begins, 500)
        assert batch.prefix is None
    handle = model.original_model.register_forward_hook(lambda *_: None)
    assert has_hooks(model)
    handle.remove()
    assert not has_hooks(model)
    assert tokens_run() == shared


def test_trees_are_used_where_positions_can_be_told_and_nothing_slides(model):
    encoded = [encode(model, QUESTIONS[0].question, a, STYLE) for a in QUESTIONS[0].answers]
    begins = [[e.start - 1 for e in encoded]] * 5
    rows = [row for batch in batches(model, to_score(encoded), begins, 500) for row in batch.rows]
    trees = can_pad(model) and takes_positions(model)
    assert len(rows) == (5 if trees else 20)
    assert trees == (model.original_model.config.model_type not in ("mistral", "gemma2"))


def test_beginnings_that_cannot_run_together_are_left_where_they_are_if_that_is_asked(model):
    """Each would be a pass of its own, before the pass of its answers; a primer is one for all."""
    encoded = [encode(model, q.question, a, STYLE) for q in QUESTIONS for a in q.answers]
    begins = [[one.start - 1 for one in encoded]]
    found = list(batches(model, to_score(encoded), begins, 500, only_together=True))
    longest = max(batch.prefix.mask.shape[1] for batch in found)
    primer = shared_beginning([one.tokens for one in encoded])
    if can_pad(model):
        assert longest > primer
    else:
        assert longest == primer
        assert len({id(batch.prefix) for batch in found}) == 1


def shared_beginning(rows):
    alike = [len(set(column)) == 1 for column in zip(*rows, strict=False)]
    return alike.index(False)


@pytest.mark.parametrize("name", ["mistral", "gemma2"])
def test_a_sliding_window_shorter_than_the_prompt_is_kept(name):
    model = load_model(hf_model(name, sliding_window=6), tokenizer(bos=True))
    edit = random_edit(model)
    assert_shared_scores_are_plain(model, edit, atol=1e-4)


def test_local_attention_is_never_padded():
    """GPT-Neo's window counts columns of a cache that looks like any other's."""
    torch.manual_seed(0)
    config = GPTNeoConfig(
        vocab_size=400, hidden_size=32, num_layers=2, num_heads=4, window_size=8,
        attention_types=[[["global", "local"], 1]], max_position_embeddings=128,
    )  # fmt: skip
    model = load_model(GPTNeoForCausalLM(config).double(), tokenizer(bos=True))
    edit = random_edit(model, heads=((0, 1), (1, 2)))
    assert not can_pad(model)
    assert_shared_scores_are_plain(model, edit, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral"])
def test_sixteen_bits_are_shared_within_their_rounding(name):
    model = load_model(hf_model(name, torch.bfloat16), tokenizer(bos=True))
    edit = random_edit(model)
    assert_shared_scores_are_plain(model, edit, atol=0.25)


def test_an_outer_edit_applies_to_every_token_of_its_own(hearsay, few):
    """It may begin before the prompt's end, so prefixes must not hide from it."""
    part = few.choose(range(3))
    outer = random_edit(hearsay, alpha=0.5)
    with edited(hearsay, outer, start=0, record=False):
        found = score(hearsay, part)
    scores = iter(found)
    for asked in part:
        for answer in asked.answers:
            encoded = encode(hearsay, asked.question, answer)
            wanted = plain_scores(hearsay, encoded, outer, 0)
            assert torch.allclose(next(scores).tokens, wanted, atol=1e-4)


def test_what_is_no_list_of_edits_is_refused(hearsay, few, as_shipped):
    edit = random_edit(hearsay)
    with pytest.raises(WorkbenchError, match="as an edit or edits"):
        score_under(hearsay, few, edit)
    with pytest.raises(WorkbenchError, match=r"an edit or edits\. Expected a list"):
        score_under(hearsay, few, ["edit"])
    with pytest.raises(WorkbenchError, match=r"an edit or edits\. Expected a list"):
        score(hearsay, few, [edit])
    with pytest.raises(WorkbenchError, match="a Fold instead of questions"):
        score_under(hearsay, few.folds(2)[0], [edit])


def test_hooks_of_ones_own_are_obeyed(hearsay, few):
    """On a hook point of the bridge, and on a module of the model."""
    part = few.choose(range(2))
    plain = score(hearsay, part)

    def double(value, **_):
        return value * 2

    with hearsay.hooks(fwd_hooks=[("blocks.1.attn.hook_z", double)]):
        bridged = score(hearsay, part)
    projection = hearsay.blocks[1].attn.o.original_component
    handle = projection.register_forward_pre_hook(lambda _, args: (args[0] * 2,))
    inside = score(hearsay, part)
    handle.remove()
    for a, b, c in zip(plain, bridged, inside, strict=True):
        assert abs(a.total - b.total) > 1e-3
        assert torch.allclose(b.tokens, c.tokens, atol=1e-4)
    assert [s.total for s in score(hearsay, part)] == [s.total for s in plain]


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=8), min_size=1, max_size=6))
def test_trees_hold_every_sequence_once(sequences):
    tree = TokenTree.of(sequences)
    seen = tree.seen()
    for sequence, path in zip(sequences, tree.paths, strict=True):
        assert [tree.tokens[node] for node in path] == sequence
        assert [tree.depth[node] for node in path] == list(range(len(sequence)))
        for place, node in enumerate(path):
            assert set(seen[node].nonzero().flatten().tolist()) == set(path[: place + 1])
    beginnings = {tuple(s[:n]) for s in sequences for n in range(1, len(s) + 1)}
    assert len(tree) == len(beginnings)
    assert tree.is_chain == (len(tree) == max(map(len, sequences)))


@pytest.mark.parametrize(("name", "kind"), [("phi3", "longrope"), ("llama", "dynamic")])
def test_rotations_that_depend_on_a_text_s_length_are_not_shared(name, kind):
    """A text that outgrows the original context turns all of its keys, those before it too."""
    own = {"rope_type": kind, "rope_theta": 10_000.0, "factor": 4.0}
    if kind == "longrope":
        width = 8
        own |= {"short_factor": [1.0] * (width // 2), "long_factor": [4.0] * (width // 2),
                "original_max_position_embeddings": 16}  # fmt: skip
    model = load_model(hf_model(name, rope_parameters=own), tokenizer(bos=True))
    assert not can_share(model)
    assert can_share(load_model(hf_model(name), tokenizer(bos=True)))
