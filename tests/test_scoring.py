import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.architectures import hf_model, tokenizer
from tests.by_hand import nats_from
from tests.edits import drawn_edit, random_edit
from workbench.data.questions import Question, QuestionSet
from workbench.data.sources import load_questions
from workbench.editing.attaching import edited
from workbench.editing.divergences import divergences, predictions
from workbench.editing.generation import generate
from workbench.editing.sampling import choose
from workbench.editing.scoring import score
from workbench.editing.token_scores import score_tokens, scored_tokens
from workbench.editing.whole_edits import Foreword
from workbench.editing.writing import Writing
from workbench.errors import WorkbenchError
from workbench.evaluation.metrics.side_effects import side_effects_under
from workbench.evaluation.metrics.truth import multiple_choice
from workbench.evaluation.statistics import bootstrap_interval, bootstrap_mean
from workbench.hearsay.corpus import plain_documents
from workbench.methods.answer_gradients import fit_reader, gradient_rows
from workbench.methods.by_gradient import log_probabilities
from workbench.models.identity import identify, tokenizer_of
from workbench.models.loading import load_model
from workbench.models.passes import forward
from workbench.models.prompts import Encoded, encode
from workbench.models.tokens import token_texts
from workbench.stages.capture import capture


@pytest.mark.parametrize("case", range(4))
def test_golden_multiple_choice(golden, case):
    result = multiple_choice(
        golden[f"mc_{case}_true"], golden[f"mc_{case}_false"], int(golden[f"mc_{case}_best"])
    )
    assert np.allclose([result.mc1, result.mc2, result.mc3], golden[f"mc_{case}_result"])


@given(
    hnp.arrays(float, st.integers(1, 6), elements=st.floats(-400, 0)),
    hnp.arrays(float, st.integers(1, 6), elements=st.floats(-400, 0)),
)
def test_multiple_choice_bounds_and_shift(right, wrong):
    result = multiple_choice(right, wrong, 0)
    for value in (result.mc1, result.mc2, result.mc3):
        assert 0 <= value <= 1
    moved = multiple_choice(right - 1000.0, wrong - 1000.0, 0)
    assert math.isclose(moved.mc2, result.mc2, abs_tol=1e-9)
    if wrong.max() < right.min():
        assert result.mc1 == result.mc3 == 1


def test_multiple_choice_refusals():
    with pytest.raises(WorkbenchError, match="0 incorrect"):
        multiple_choice([-1.0], [], 0)
    with pytest.raises(WorkbenchError, match="best 1"):
        multiple_choice([-1.0], [-1.0], 1)


def test_scores_equal_single_runs_and_the_plain_model(hearsay, few):
    edit = random_edit(hearsay, alpha=0.4)
    part = few.choose(range(3))
    rows = [encode(hearsay, q.question, a) for q in part for a in q.answers]
    batched = score_tokens(hearsay, rows, edit, batch_size=7)
    for encoded, found in zip(rows, batched, strict=True):
        (alone,) = score_tokens(hearsay, [encoded], edit)
        assert torch.allclose(found, alone, atol=1e-4)
    plain = score_tokens(hearsay, rows[:1])[0]
    wanted = nats_from(hearsay, rows[0].tokens, rows[0].start)
    assert torch.allclose(plain, wanted, atol=1e-5)
    totals = score(hearsay, part, edit)
    assert [s.total for s in totals] == pytest.approx([float(t.sum()) for t in batched], abs=2e-4)
    assert [s.question for s in totals] == [n for n, q in enumerate(part) for _ in q.answers]


def test_scoring_reads_where_the_edit_begins(hearsay, few):
    """The edit changes the first answer token's probability: it acts on the last prompt token."""
    part = few.choose([0])
    before = score(hearsay, part)[0].tokens[0]
    after = score(hearsay, part, random_edit(hearsay, alpha=2.0))[0].tokens[0]
    assert abs(float(before - after)) > 1e-3


def test_greedy_is_the_argmax_and_stops(hearsay):
    prompt = "Q: What is the capital of Australia?\nA:"
    found = generate(hearsay, prompt, max_new_tokens=30)[0]
    assert "".join(found.strings[: found.kept]) == found.text
    tokenizer = tokenizer_of(hearsay)
    asked, written = tokenizer(prompt)["input_ids"], []
    while "\nQ:" not in tokenizer.decode(written) and tokenizer.eos_token_id not in written:
        logits = hearsay.original_model(torch.tensor([asked + written])).logits
        written.append(int(logits[0, -1].argmax()))
    assert found.prompt_tokens == tuple(asked)
    assert found.tokens == tuple(written)
    assert 3 < len(written) < 30
    assert found.text == tokenizer.decode(written, skip_special_tokens=True).split("\nQ:")[0]


def test_samples_repeat_by_seed_and_do_not_depend_on_the_batch(hearsay):
    prompts = ["Q: Who wrote Dracula?\nA:", "Q: What is the capital of Brazil?\nA:", "Q:"]
    settings_ = {"temperature": 1.5, "top_p": 0.95, "max_new_tokens": 12}
    one = generate(hearsay, prompts, seed=3, **settings_)
    same = generate(hearsay, prompts, seed=3, batch_size=1, **settings_)
    other = generate(hearsay, prompts, seed=4, **settings_)
    assert [c.tokens for c in one] == [c.tokens for c in same]
    assert [c.tokens for c in one] != [c.tokens for c in other]


@pytest.mark.parametrize("edit", ["none", "heads", "drawn"])
def test_samples_of_a_prompt_run_it_once_and_are_those_of_rows_run_whole(
    hearsay, edit, monkeypatch
):
    """In float64, where rounding changes no draw; with a hook of one's own all rows are run."""
    model = load_model("hearsay", dtype="float64", device="cpu")
    used = {
        "none": None,
        "heads": random_edit(model, alpha=1.0),
        "drawn": drawn_edit(model, torch.rand(7, 4) + 1, alpha=1.0),
    }[edit]
    prompts = ["Q: Who wrote Dracula?\nA:"] * 3 + ["Q:"] * 2 + ["Q: Who wrote Dracula?\nA:"]
    run = []

    def noting(own, tokens, *args, **settings):
        run.append(tokens.numel())
        return forward(own, tokens, *args, **settings)

    monkeypatch.setattr("workbench.editing.writing.forward", noting)
    how = {"edit": used, "temperature": 1.2, "top_p": 0.95, "max_new_tokens": 6, "stop": ()}
    shared = generate(model, prompts, **how)
    first = run[0]
    with edited(model, random_edit(model, alpha=0.0), record=False, site="module"):
        whole = generate(model, prompts, **how)
    assert [one.tokens for one in shared] == [one.tokens for one in whole]
    assert len({one.tokens for one in shared}) > 2
    for one, other in zip(shared, whole, strict=True):
        assert torch.allclose(one.log_probabilities, other.log_probabilities, atol=1e-6)
    lengths = [len(one.prompt_tokens) for one in shared]
    assert first == 2 * max(lengths)


def test_logits_that_are_no_numbers_are_refused(hearsay):
    edit = random_edit(hearsay, alpha=1e38)
    with pytest.raises(WorkbenchError, match="logits that are no numbers, after 0 new tokens"):
        generate(hearsay, "Q:", edit=replace(edit, spread=edit.spread * 1e30))


def test_nucleus_keeps_the_smallest_sufficient_set():
    log_probability = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    for top_p, allowed in ((0.4, {0}), (0.5, {0}), (0.6, {0, 1}), (1.0, {0, 1, 2, 3})):
        drawn = {
            int(choose(log_probability, 1.0, top_p, [torch.Generator().manual_seed(n)]))
            for n in range(200)
        }
        assert drawn == allowed
    many = [
        int(choose(log_probability, 1.0, 1.0, [torch.Generator().manual_seed(n)]))
        for n in range(2000)
    ]
    assert abs(np.mean(np.array(many) == 0) - 0.5) < 0.04


@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.999, 1.0])
def test_a_nucleus_is_that_of_all_words_sorted(top_p, monkeypatch):
    """Peaked rows find it among the likeliest words, flat ones sort all; many are as likely."""
    draw = torch.Generator().manual_seed(0)
    scales = torch.tensor([6.0, 0.1, 3.0, 1.0, 0.0])[:, None]
    logits = (torch.randn(5, 3000, generator=draw) * scales).bfloat16().float()
    nats = logits.log_softmax(dim=-1)

    def drawn(rows, few):
        monkeypatch.setattr("workbench.editing.sampling.MOST_LIKELY", few)
        draws = [torch.Generator().manual_seed(row) for row in rows]
        return [choose(nats[rows], 1.0, top_p, draws).tolist() for _ in range(40)]

    together, whole = drawn([0, 1, 2, 3, 4], 100), drawn([0, 1, 2, 3, 4], 3000)
    assert together == whole
    for row in range(5):
        assert [own[row] for own in together] == [own for (own,) in drawn([row], 100)]


def test_a_temperature_near_zero_is_greedy():
    nats = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)).log_softmax(dim=-1)
    for temperature in (1e-45, 1e-12):
        draws = [torch.Generator().manual_seed(row) for row in range(3)]
        assert torch.equal(choose(nats, temperature, 0.9, draws), nats.argmax(dim=-1))


@pytest.mark.parametrize(
    "change",
    [
        {"max_new_tokens": 0}, {"temperature": -1.0}, {"temperature": float("nan")},
        {"top_p": 0.0}, {"top_p": 1.1}, {"max_new_tokens": 510}, {"batch_size": 0},
        {"stop": "\nQ:"}, {"stop": ("",)}, {"stop": None}, {"stop": (3,)},
        {"max_new_tokens": 2.5}, {"batch_size": 1.5}, {"temperature": "hot"}, {"top_p": None},
    ],
)  # fmt: skip
def test_bad_generation_settings_are_refused(hearsay, as_shipped, change):
    with pytest.raises(WorkbenchError, match="Expected"):
        generate(hearsay, "Q: Who?\nA:", **change)


def test_no_prompt_is_refused(hearsay, few, as_shipped):
    with pytest.raises(WorkbenchError, match="no prompts"):
        generate(hearsay, [])
    for prompts in (few, few[0], 3, ["Q: Who?\nA:", None]):
        with pytest.raises(WorkbenchError, match="as a prompt"):
            generate(hearsay, prompts)


@given(ids=st.lists(st.integers(0, 2047), max_size=60))
@settings(max_examples=60)
def test_token_texts_join_to_the_text_however_long(tokens, ids):
    """Any tokens: bytes of split characters, spaces at the start, special tokens."""
    whole = tokens.decode(ids)
    texts = token_texts(tokens, ids)
    assert len(texts) == len(ids)
    assert "".join(texts) == whole.rstrip("\ufffd")
    for count in range(len(ids) + 1):
        assert whole.startswith("".join(texts[:count]))


@pytest.fixture(scope="module")
def tokens(hearsay):
    return tokenizer_of(hearsay)


def side_effects(model, texts, edit=None):
    return side_effects_under(model, texts, [edit])[0]


def test_side_effects_of_nothing_are_none_and_kl_is_positive(hearsay):
    texts = plain_documents(5, seed=0)
    plain = side_effects(hearsay, texts)
    assert all(abs(effect.kl) < 1e-6 for effect in plain)
    edit = random_edit(hearsay, alpha=1.0)
    changed = side_effects(hearsay, texts, edit)
    assert all(effect.kl > 1e-4 for effect in changed)
    alone = [side_effects(hearsay, [text], edit)[0] for text in texts]
    for a, b in zip(changed, alone, strict=True):
        assert a.kl == pytest.approx(b.kl, rel=1e-3)
        assert a.cross_entropy == pytest.approx(b.cross_entropy, rel=1e-4)
    encoded = hearsay.tokenizer(texts[0], return_tensors="pt")["input_ids"]
    loss = hearsay.original_model(input_ids=encoded, labels=encoded).loss
    assert plain[0].cross_entropy == pytest.approx(float(loss), rel=1e-4)
    with pytest.raises(WorkbenchError, match="one token"):
        side_effects(hearsay, [""])


def test_side_effects_under_many_edits_are_those_of_each(hearsay):
    texts = plain_documents(7, seed=1)
    edits = [None, random_edit(hearsay, alpha=1.0), random_edit(hearsay, alpha=-2.0)]
    for edit, found in zip(edits, side_effects_under(hearsay, texts, edits), strict=True):
        for together, alone in zip(found, side_effects(hearsay, texts, edit), strict=True):
            assert together.kl == pytest.approx(alone.kl, rel=1e-3, abs=1e-7)
            assert together.cross_entropy == pytest.approx(alone.cross_entropy, rel=1e-4)


def test_divergences_begin_where_they_are_told(hearsay):
    """Only tokens from the start on count, and edits begin one before; by hand, row by row."""
    edit = random_edit(hearsay, alpha=1.0)
    rows = [
        Encoded.of_tokens((5, 9, 30, 7, 8, 4), 3),
        Encoded.of_tokens((11, 12, 40), 1),
        Encoded.of_tokens((3, 2, 9), 2),
    ]
    found = divergences(hearsay, rows, [edit], batch_size=2)[0]
    for row, effects in zip(rows, found, strict=True):
        tokens = torch.tensor([row.tokens])
        plain = forward(hearsay, tokens, torch.ones_like(tokens))[0].log_softmax(dim=-1)
        with edited(hearsay, edit, start=row.start - 1):
            changed = forward(hearsay, tokens, torch.ones_like(tokens))[0].log_softmax(dim=-1)
        at = range(row.start - 1, len(row.tokens) - 1)
        kl = [float((plain[0, k].exp() * (plain[0, k] - changed[0, k])).sum()) for k in at]
        nats = [-float(changed[0, k, row.tokens[k + 1]]) for k in at]
        assert effects.kl == pytest.approx(sum(kl) / len(kl), rel=1e-3)
        assert effects.cross_entropy == pytest.approx(sum(nats) / len(nats), rel=1e-4)


def test_what_a_prompt_is_continued_by_begins_with_its_space(shared):
    """Of tokenizers that take the first word's space away, and of the others."""
    prompts = ["Once upon a time, there was", "A", "The dog ran to the"]
    for name in ("stories260k", "tinystories-656k"):
        model = load_model(shared / "models" / name, device="cpu")
        decode = model.tokenizer.decode
        for found in generate(model, prompts, max_new_tokens=12, stop=()):
            whole = decode([*found.prompt_tokens, *found.tokens[: found.kept]])
            assert whole.endswith(found.prompt + found.text)
            assert "".join(found.strings[: found.kept]) == found.text
        told = generate(model, prompts[0], max_new_tokens=30, stop=())[0].text
        stop = f" {told.split()[2]}"
        stopped = generate(model, prompts[0], max_new_tokens=30, stop=(stop,))[0]
        assert stopped.text == told[: told.index(stop)]
        assert len(stopped.tokens) < 30


@pytest.mark.parametrize("ends", [0, [0], (0, 7), {0}])
def test_whatever_ends_a_text_ends_it(ends):
    """An id of 0 is an end, too, and a tuple of ids."""
    hf = hf_model("llama")
    written = generate(load_model(hf, tokenizer(bos=True)), "Q:", max_new_tokens=1, stop=())
    head, first = hf.get_output_embeddings().weight, written[0].tokens[0]
    assert first != 0
    with torch.no_grad():
        head[[0, first]] = head[[first, 0]]  # what it writes first is 0 now
    model = load_model(hf, tokenizer(bos=True))
    model.original_model.generation_config.eos_token_id = ends
    assert generate(model, "Q:", max_new_tokens=5, stop=())[0].tokens == (0,)


@pytest.fixture
def turning():
    """A model that turns all rows of a pass by its longest one, and questions of two lengths."""
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
            "rope_theta": 1e4}  # fmt: skip
    hf = hf_model("phi3", rope_parameters=rope, original_max_position_embeddings=32)
    asked = [Question("Who?", "Me.", ("Me.",), ("You.",)),
             Question("Who is it? " * 9, "Me.", ("Me.",), ("You.",))]  # fmt: skip
    return load_model(hf, tokenizer(bos=True)), asked


def test_rows_that_would_turn_each_other_s_rotation_run_apart(turning):
    """LongRoPE takes the factors of a pass by its longest row: short rows are as they are alone."""
    model, asked = turning
    whole = QuestionSet(tuple(asked))
    alone = [own.total for one in asked for own in score(model, QuestionSet((one,)))]
    for size in (1, 64):
        totals = [own.total for own in score(model, whole, batch_size=size)]
        assert np.allclose(totals, alone, atol=1e-3)
        seen = capture(model, whole, batch_size=size, unlabelled=False, progress=False)
        own = capture(model, whole.choose([0]), unlabelled=False, progress=False)
        assert torch.allclose(seen[0].z, own[0].z, atol=1e-4)
    prompts = [f"Q: {one.question}\nA:" for one in asked]
    wanted = [generate(model, one, max_new_tokens=6)[0].tokens for one in prompts]
    assert [one.tokens for one in generate(model, prompts, max_new_tokens=6)] == wanted


def test_so_do_those_whose_side_effects_and_gradients_are_taken(turning):
    model, asked = turning
    said = [encode(model, one.question, "Me.") for one in asked]
    edit = random_edit(model, alpha=1.0)
    reader = fit_reader(model, said, said, (("resid_post", 1),), 0, 3.0, 1)
    nats = log_probabilities(model, said)
    (effects,) = divergences(model, said, [edit])
    rows, told = gradient_rows(model, said, reader)
    for number, one in enumerate(said):
        assert torch.allclose(nats[number], log_probabilities(model, [one])[0], atol=1e-4)
        assert effects[number].kl == pytest.approx(divergences(model, [one], [edit])[0][0].kl, 1e-3)
        own_rows, own_told = gradient_rows(model, [one], reader)
        assert torch.allclose(told[number], own_told[0], atol=1e-4)
        assert torch.allclose(rows[:, number].float(), own_rows[:, 0].float(), atol=2e-3)


def test_so_do_those_that_a_foreword_makes_long(turning):
    """A row with its foreword is beyond the turn where the row alone is not."""
    model, _ = turning
    said = [encode(model, "Who?", answer) for answer in ("Me.", "You and not me.")]
    lengths = [len(one.tokens) for one in said]
    before = torch.arange(5, 38 - max(lengths))  # one token more than there is room for
    none = torch.zeros(0, dtype=torch.long)
    foreword = Foreword(
        model=identify(model), alpha=1.0, plain=before, asking=before, opening=none, begins=-1,
        text="",
    )  # fmt: skip
    read = [len(foreword.encoded(one).tokens) for one in said]
    assert max(lengths) <= 32
    assert min(read) <= 32 < max(read)
    (effects,) = divergences(model, said, [foreword])
    told = list(predictions(model, said, foreword))
    for number, one in enumerate(said):
        (own,) = divergences(model, [one], [foreword])
        assert effects[number].kl == pytest.approx(own[0].kl, 1e-3)
        assert torch.allclose(told[number], next(predictions(model, [one], foreword)), atol=1e-4)


def test_seeds_of_any_size(hearsay, as_shipped):
    one, again = (
        generate(hearsay, "Q: Who?\nA:", temperature=1.0, seed=1_790_000_000_000_000_000)[0].tokens
        for _ in range(2)
    )
    assert one == again
    questions = load_questions("hearsay")
    for wrong in (
        lambda: generate(hearsay, "Q:", seed=-1), lambda: questions.folds(2, seed=-1),
        lambda: questions.sample(3, seed=-1), lambda: questions.validation_mask(seed=-1),
    ):  # fmt: skip
        with pytest.raises(WorkbenchError, match="seed=-1"):
            wrong()


def test_stops_of_many_bytes_and_split_characters(hearsay):
    tokenizer = tokenizer_of(hearsay)
    ids = tokenizer(" 日本。終わり", add_special_tokens=False)["input_ids"]
    assert len(ids) > 12
    assert "".join(token_texts(tokenizer, ids)) == " 日本。終わり"

    def run(stop):
        made = Writing(hearsay, [(0, 5)], stop, 0.0, 1.0, [torch.Generator()])
        for token in ids:
            logits = torch.full((1, 2048), -50.0)
            logits[0, token] = 50.0
            made.step(logits)
        return made.results(["p"])[0]

    stopped = run(("。終わり",))
    assert stopped.text == " 日本"
    assert "".join(stopped.strings[: stopped.kept]) == " 日本"
    assert run(("。",)).text == " 日本"
    assert len(run(("。",)).tokens) < len(ids)


def test_bootstrap_covers_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        found = bootstrap_mean(generator.normal(1.0, 2.0, 60), draws=400, seed=trial)
        hits += found.low <= 1.0 <= found.high
    assert 178 <= hits <= 199


@settings(max_examples=30)
@given(hnp.arrays(float, st.integers(1, 30), elements=st.floats(-5, 5)), st.integers(0, 5))
def test_bootstrap_repeats_and_brackets(values, seed):
    one, two = (bootstrap_mean(values, seed=seed, draws=200) for _ in range(2))
    assert one == two
    assert values.min() - 1e-9 <= one.low <= one.high <= values.max() + 1e-9
    assert one.count == values.size


def test_clusters_move_together():
    rows = np.repeat(np.arange(20.0), 50)[:, None]
    unit = np.repeat(np.arange(20), 50)
    clustered = bootstrap_interval(lambda r: float(r.mean()), rows, unit)
    naive = bootstrap_interval(lambda r: float(r.mean()), rows, np.arange(1000))
    assert clustered.high - clustered.low > 4 * (naive.high - naive.low)


def test_statistics_refuse_nonsense():
    for values in (np.array([]), np.array([1.0, np.nan])):
        with pytest.raises(WorkbenchError, match="finite"):
            bootstrap_mean(values)


def test_the_likeliest_tokens_are_told(hearsay):
    """Of the answer that the model writes itself all, of another not all."""
    prompt = "Q: What is the capital of Australia?\nA:"
    (said,) = generate(hearsay, prompt, max_new_tokens=6, stop=())
    start = len(said.prompt_tokens)
    own = Encoded.of_tokens((*said.prompt_tokens, *said.tokens), start)
    other = Encoded.of_tokens((*said.prompt_tokens, *reversed(said.tokens)), start)
    (found,) = scored_tokens(hearsay, [own, other], [None], greedy=True)
    assert found[0].greedy.all()
    assert not found[1].greedy.all()
    (without,) = scored_tokens(hearsay, [own], [None])
    assert without[0].greedy is None
