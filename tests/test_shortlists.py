import json
import math
from dataclasses import fields, replace

import pytest
import torch

from tests.architectures import hf_model, tokenizer
from tests.edits import random_edit
from workbench.editing.attaching import edited
from workbench.editing.combining import combine
from workbench.editing.generation import generate
from workbench.editing.scoring import score, score_under
from workbench.editing.strengths import Strength
from workbench.errors import WorkbenchError
from workbench.methods.saved import load_edit
from workbench.methods.token_aware import TokenAware
from workbench.models.batched_passes import Passage, states_at
from workbench.models.loading import load_model
from workbench.models.logit_lens import vocabulary_logits
from workbench.models.prompts import encode, prompt_format
from workbench.stages.shortlist_fitting import _errors, _within, enough, fit_shortlists
from workbench.stages.shortlists import Shortlists
from workbench.stages.uncertainty import entropy_reader, normalised_entropy


@pytest.fixture(scope="module")
def fold(questions):
    return questions.folds(2)[0]


def lists_of(words_of, level=0.9, vocabulary=2048):
    """Shortlists of given words, by layer."""
    return Shortlists(
        layers=torch.tensor(list(words_of)),
        counts=torch.tensor([len(own) for own in words_of.values()]),
        words=torch.cat(list(words_of.values())),
        error=torch.zeros(len(words_of)),
        tolerance=0.01,
        level=level,
        vocabulary=vocabulary,
    )


def mean_errors(model, lists, layer, questions):
    """The mean error of u over the answers of each question."""
    dtype = next(model.original_model.parameters()).dtype
    exact, listed = (entropy_reader(model, "logit_lens", w) for w in (None, lists.of(layer)))
    style, found = prompt_format("bare"), []
    for question in questions:
        texts = [encode(model, question.question, answer, style) for answer in question.answers]
        places = [(one, at) for one in texts for at in range(one.start - 1, len(one.tokens))]
        once = {one.tokens[: at + 1]: Passage(one.tokens, (at,)) for one, at in places}
        passages = list(once.values())
        residual = states_at(model, passages, [("resid_pre", layer)])["resid_pre", layer].to(dtype)
        found.append(float((listed(residual) - exact(residual)).abs().mean()))
    return torch.tensor(found)


def entropies_of(model, questions, layer):
    """Every word's share of the entropy of what the logit lens reads in answers."""
    place, passages = ("resid_pre", layer), []
    for question in questions:
        for answer in question.answers:
            one = encode(model, question.question, answer, prompt_format("bare"))
            passages.append(Passage(one.tokens, range(one.start - 1, len(one.tokens))))
    logits = vocabulary_logits(model, states_at(model, passages, [place])[place])
    return torch.special.entr(logits.float().softmax(dim=-1)).sum(dim=0)


@pytest.mark.slow
@pytest.mark.long
def test_the_tolerance_holds_on_questions_never_seen(hearsay, fold):
    """On 80 held-out questions, within three standard errors of the level."""
    lists = fit_shortlists(hearsay, fold.train, [1, 3], tolerance=0.05, level=0.8, most=120)
    slack = 3 * (0.8 * 0.2 * (1 / 80 + 1 / 60)) ** 0.5
    listed = [layer for layer in (1, 3) if lists.of(layer) is not None]
    assert listed  # not all words are needed everywhere
    for layer in listed:
        errors = mean_errors(hearsay, lists, layer, fold.test.choose(range(80)))
        seen = lists.error[lists.layers.tolist().index(layer)]
        assert 0 < seen <= 0.05
        assert (errors <= 0.05).float().mean() > 0.8 - slack
        assert (errors > 0).all()


@pytest.mark.slow
def test_a_list_holds_the_words_with_most_entropy_and_the_tolerance_makes_it_long(hearsay, few):
    wide, narrow = (fit_shortlists(hearsay, few, tolerance=t, level=0.8) for t in (0.4, 1e-6))
    assert wide.counts.tolist() == [256] * 5  # any list keeps to that
    assert narrow.counts.tolist() == [0] * 5  # and none to this: all words are read
    assert narrow.error.tolist() == [0.0] * 5
    assert narrow.of(2) is None
    again = fit_shortlists(hearsay, few, tolerance=0.4, level=0.8)
    assert torch.equal(again.words, wide.words)
    assert repr(narrow).startswith("Shortlists(5 layers, 2,048 to 2,048 of 2,048 words")
    drawn = lists_of({2: torch.randperm(2048, generator=torch.Generator().manual_seed(0))[:256]})
    asked = few.choose(range(12))
    best, chance = (mean_errors(hearsay, own, 2, asked).mean() for own in (wide, drawn))
    assert best < chance / 2
    most = entropies_of(hearsay, asked, layer=2).argsort(descending=True)[:128]
    assert len({*most.tolist()} & {*wide.of(2).tolist()}) > 100


def test_errors_are_those_of_renormalised_words():
    logits = torch.randn(7, 60, generator=torch.Generator().manual_seed(1)) * 3
    found = _errors(logits, [5, 20, 30])
    whole = normalised_entropy(logits)
    for place, size in enumerate((5, 20, 30)):
        own = logits[:, :size].double().softmax(dim=1)
        wanted = (torch.special.entr(own).sum(dim=1) / math.log(60) - whole).abs()
        assert torch.allclose(found[:, place], wanted.float(), atol=1e-5)
    far = torch.zeros(1, 60).index_fill(1, torch.tensor([59]), 1e3)  # the list has none of it
    assert float(_errors(far, [5])) == pytest.approx(math.log(5, 60))


@pytest.mark.parametrize("name", ["gpt2", "opt", "gemma2", "granite", "qwen3"])
def test_every_architecture_s_norm_biases_and_caps(name):
    """All words as a list, in another order, are all words."""
    model = load_model(hf_model(name), tokenizer(bos=True))
    vocabulary = int(model.cfg.d_vocab)
    words = torch.randperm(vocabulary, generator=torch.Generator().manual_seed(0))
    residual = torch.randn(6, model.cfg.d_model) * 3
    exact = entropy_reader(model, "logit_lens")(residual)
    assert torch.allclose(entropy_reader(model, "logit_lens", words)(residual), exact, atol=1e-6)
    some = entropy_reader(model, "logit_lens", words[:50])(residual)
    logits = vocabulary_logits(model, residual)[:, words[:50]]
    assert torch.allclose(some, normalised_entropy(logits, vocabulary), atol=1e-6)


def test_edits_read_u_off_lists_wherever_they_run(hearsay, few, tmp_path):
    exact = random_edit(hearsay)
    words = torch.randperm(2048, generator=torch.Generator().manual_seed(0))
    lists = lists_of({layer: words[: 40 * (layer + 1)] for layer in exact.layers})
    quick = replace(exact, shortlists=lists)
    prompt = "Q: Who wrote Dracula?\nA:"
    with edited(hearsay, quick) as trace:
        generate(hearsay, prompt, max_new_tokens=1)
    one = encode(hearsay, "Who wrote Dracula?", None, prompt_format("bare"))
    passage = [Passage(one.tokens, [len(one.tokens) - 1])]
    with edited(hearsay, quick, start=len(one.tokens) - 1, record=False):
        states = states_at(hearsay, passage, [("resid_pre", layer) for layer in exact.layers])
    for layer in exact.layers:
        wanted = entropy_reader(hearsay, "logit_lens", lists.of(layer))(states["resid_pre", layer])
        assert torch.allclose(trace[0].uncertainty[0, layer], wanted[0], atol=1e-5)
    asked = few.choose(range(3))
    other = replace(exact, shortlists=lists_of({0: words[:0], 1: words[7:30], 2: words[60:99]}))
    edits = [exact, None, quick, quick.scaled(3.0), other]
    together = score_under(hearsay, asked, edits)
    for edit, mine in zip(edits, together, strict=True):
        alone = score(hearsay, asked, edit)
        assert all(abs(a.total - b.total) < 1e-3 for a, b in zip(alone, mine, strict=True))
    for one, another in ((0, 2), (0, 4), (2, 4)):  # and they differ
        pairs = zip(together[one], together[another], strict=True)
        assert any(abs(a.total - b.total) > 1e-2 for a, b in pairs)
    again = load_edit(quick.save(tmp_path / "edit"), hearsay)
    for field in fields(Shortlists):
        wanted, found = (getattr(own, field.name) for own in (lists, again.shortlists))
        same = torch.equal(wanted, found) if isinstance(wanted, torch.Tensor) else wanted == found
        assert same, field.name
    file = exact.save(tmp_path / "edit", overwrite=True) / "edit.json"
    record = json.loads(file.read_text())
    del record["shortlists"]
    file.write_text(json.dumps({**record, "format": 3}))
    assert load_edit(tmp_path / "edit", hearsay).shortlists is None
    whole = replace(exact, shortlists=lists_of({n: torch.arange(2048) for n in exact.layers}))
    answers = [generate(hearsay, prompt, edit=edit)[0].tokens for edit in (exact, whole)]
    assert answers[0] == answers[1]
    assert combine({"one": quick, "other": quick}).shortlists is None


@pytest.mark.slow
def test_a_method_fits_them_within_its_tolerance(hearsay, few):
    method = TokenAware(heads=4, alpha=2.0, tolerance=0.05)
    edit = method.fit(hearsay, few, progress=False)
    assert edit.shortlists.layers.tolist() == list(edit.layers)
    assert bool((edit.shortlists.error <= 0.05).all())
    assert edit.shortlists.counts.tolist() != [0] * len(edit.layers)
    assert edit.shortlists.tolerance == 0.05
    exact = TokenAware(heads=4, alpha=2.0).fit(hearsay, few, progress=False)
    assert exact.shortlists is None
    assert torch.equal(exact.direction, edit.direction)
    constant = replace(method, strength="constant").fit(hearsay, few, progress=False)
    assert constant.shortlists is None  # nobody reads u


def test_sixteen_bits(few):
    model = load_model("hearsay", dtype="bfloat16", device="cpu")
    lists = fit_shortlists(model, few, [2], tolerance=0.1, level=0.8)
    assert lists.of(2) is not None
    assert mean_errors(model, lists, 2, few.choose(range(6))).max() < 0.2


def test_what_is_enough_is_so_for_as_many_new_questions_as_it_says():
    """1,000 fits on 19 questions whose errors rise and fall with the size; a new question each."""
    generator = torch.Generator().manual_seed(0)
    errors = torch.rand(1000, 20, 60, generator=generator) * torch.linspace(2, 0.5, 60)
    for level in (0.5, 0.8):
        picked = enough(errors[:, :19], 0.6, level)
        after = torch.nn.functional.pad(errors[:, 19], (0, 1)).flip(1).cummax(dim=1).values.flip(1)
        covered = float((after.gather(1, picked[:, None]) <= 0.6).float().mean())
        assert level - 0.04 < covered < level + 0.1
    assert enough(errors[:, :19], 0.6, 0.96).tolist() == [60] * 1000  # too few questions
    assert enough(errors[:, :19], 3.0, 0.9).tolist() == [0] * 1000  # any size is enough
    falling = torch.tensor([[[0.3, 0.2, 0.1], [0.5, 0.05, 0.01], [0.1, 0.3, 0.05]]])
    assert enough(falling, 0.15, 0.5).tolist() == [2]  # they need 2, 1 and 2
    assert enough(falling, 0.25, 0.5).tolist() == [1]  # they need 1, 1 and 2
    assert enough(torch.zeros(2, 4, 0), 0.1, 0.5).tolist() == [0, 0]
    unknown = torch.tensor([[[torch.nan, 0.0]] * 3])
    assert enough(unknown, 0.1, 0.5).tolist() == [1]


def test_lists_together_hold_no_more_than_the_vocabulary():
    sizes = [256, 512, 1024]
    assert _within(torch.tensor([2, 0, 1, 2, 3]), sizes, 2048).tolist() == [2, 0, 1, 3, 3]
    assert _within(torch.tensor([2, 0, 1, 2, 3]), sizes, 4096).tolist() == [2, 0, 1, 2, 3]
    assert _within(torch.tensor([0, 0]), [], 400).tolist() == [0, 0]


def test_refusals(hearsay, few, as_shipped):
    for changes, says in (
        ({"tolerance": 0}, "tolerance=0,"), ({"tolerance": 1.0}, "tolerance=1.0"),
        ({"level": 1.0}, "level=1.0"), ({"layers": [5]}, r"layers=\[5\].*from 0 to 4"),
        ({"layers": []}, "layers="), ({"most": 1}, "1 questions"),
    ):  # fmt: skip
        with pytest.raises(WorkbenchError, match=says):
            fit_shortlists(hearsay, few, **changes)
    edit = random_edit(hearsay)
    words = torch.arange(10)
    for lists, says in (
        (lists_of({0: words}), "edited layers"),
        (lists_of(dict.fromkeys(edit.layers, words + 2040)), "a number that is none.*0 to 2047"),
        (lists_of(dict.fromkeys(edit.layers, words // 2)), "a word twice"),
        (replace(lists_of(dict.fromkeys(edit.layers, words)), level=1.0), "edited layers"),
        ("all", "shortlists='all'"),
    ):
        with pytest.raises(WorkbenchError, match=says):
            replace(edit, shortlists=lists)
    fine = lists_of(dict.fromkeys(edit.layers, words))
    elsewhere = replace(edit, shortlists=replace(fine, vocabulary=5000))
    with pytest.raises(WorkbenchError, match="5,000 words, on a model of 2,048"):
        score(hearsay, few.choose([0]), elsewhere)
    with pytest.warns(UserWarning, match="6 questions to measure shortlists on are too few"):
        assert fit_shortlists(hearsay, few, [1], 0.9, most=12).counts.tolist() == [0]
    with pytest.raises(WorkbenchError, match="uncertainty='amplified'"):
        replace(edit, strength=Strength(uncertainty="amplified"), shortlists=fine)
    for wrong in (1.0, -0.1, "none", True):
        with pytest.raises(WorkbenchError, match="tolerance="):
            TokenAware(tolerance=wrong)
    with pytest.raises(WorkbenchError, match=r"tolerance=0\.1"):
        TokenAware(tolerance=0.1, uncertainty="amplified")


def test_lists_do_not_depend_on_what_passes_can_share(hearsay, fold):
    """Something that hangs on the model stops sharing."""
    train = fold.train.choose(range(16))
    shared = fit_shortlists(hearsay, train, [2], 0.02, level=0.8)
    handle = hearsay.original_model.register_forward_hook(lambda *_: None)
    try:
        apart = fit_shortlists(hearsay, train, [2], 0.02, level=0.8)
    finally:
        handle.remove()
    assert shared.counts.tolist() == apart.counts.tolist()
    assert len(set(shared.words.tolist()) - set(apart.words.tolist())) <= 1  # of equal ones
    assert torch.allclose(shared.error, apart.error, atol=1e-5)
