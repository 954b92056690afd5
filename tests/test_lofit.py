"""LoFiT: the one head through which a preference can be reached is found, and reaches it."""

from dataclasses import replace

import pytest
import torch

from tests.architectures import hf_model, tokenizer
from workbench.data.questions import Question, QuestionSet
from workbench.editing.attaching import edited
from workbench.editing.generation import generate
from workbench.editing.token_scores import score_tokens, score_tokens_under
from workbench.errors import WorkbenchError
from workbench.methods.by_gradient import changed, margins, preferences
from workbench.methods.lofit import LoFiT, largest, scaling, shifting
from workbench.methods.memo import Memo
from workbench.methods.objectives import preference_loss
from workbench.models.loading import load_model
from workbench.models.prompts import encode

HEAD = (1, 2)


@pytest.fixture(scope="module")
def narrow():
    """A random model in which all heads but one lead nowhere."""
    own = hf_model("llama")
    for layer, block in enumerate(own.model.layers):
        kept = torch.zeros(32, dtype=torch.bool)
        if layer == HEAD[0]:
            kept[HEAD[1] * 8 : HEAD[1] * 8 + 8] = True
        block.self_attn.o_proj.weight.data[:, ~kept] = 0
    return load_model(own, tokenizer(bos=True))


@pytest.fixture(scope="module")
def asked(narrow):
    """Questions to which the answer that the model finds less likely is the correct one."""
    texts = [f"What is {a} {b}?" for a in ("the", "an", "my", "some") for b in "abcdefgh"]
    answers = ("Canberra.", "Shelley.")
    plain = score_tokens(narrow, [encode(narrow, q, a) for q in texts for a in answers])
    total = torch.stack([own.sum() for own in plain]).view(-1, 2).sum(dim=0)
    good, bad = answers[int(total.argmin())], answers[int(total.argmax())]
    items = tuple(Question(text, good, (good,), (bad,)) for text in texts)
    return QuestionSet(items[::2], "planted"), QuestionSet(items[1::2], "held out")


@pytest.fixture(scope="module")
def made(hearsay, few):
    return LoFiT(epochs=1, pairs=1, heads=2).fit(hearsay, few, progress=False)


def preferring(model, questions, edit):
    """Share of questions to which the correct answer is the likelier one."""
    encoded = [encode(model, q.question, a) for q in questions for a in q.answers]
    nats = score_tokens(model, encoded, edit)
    total = torch.stack([own.sum() for own in nats]).view(-1, 2)
    return float((total[:, 0] > total[:, 1]).float().mean())


def test_a_planted_preference_is_reached_through_its_head(narrow, asked):
    train, held = asked
    method = LoFiT(heads=1, epochs=25)
    edit = method.fit(narrow, train, progress=False)
    assert edit.heads == (HEAD,)
    pairs = preferences(narrow, train, method, method.pairs)
    with torch.no_grad():
        before = margins(narrow, pairs)
        change = shifting(edit.heads, edit.direction * edit.spread[:, None])
        after = margins(narrow, pairs, changed(narrow, change))
    assert preference_loss(after - before, 0.5) < 0.8 * preference_loss(before - before, 0.5)
    assert preferring(narrow, held, edit) > preferring(narrow, held, None) + 0.3


def test_with_shuffled_labels_it_is_not(narrow, asked):
    train, held = asked
    edit = LoFiT(heads=1, epochs=25, shuffle_labels=True).fit(narrow, train, progress=False)
    assert preferring(narrow, held, edit) < preferring(narrow, held, None) + 0.15


def test_margins_are_those_of_the_edit_at_test_time(hearsay, few, made):
    """What is fitted on is what scoring does, and alpha 0 is no edit."""
    pairs = preferences(hearsay, few.choose(range(6)), LoFiT(), most=1)
    encoded = [e for pair in pairs for e in (pair.chosen, pair.rejected)]
    strong = made.scaled(3.0)
    changes = changed(hearsay, shifting(made.heads, 3 * made.direction * made.spread[:, None]))
    scores = score_tokens_under(hearsay, encoded, [None, strong, strong.scaled(0.0)])
    plain, moved, still = (torch.stack([s.sum() for s in own]).view(-1, 2) for own in scores)
    assert torch.allclose(plain, still, atol=1e-5)
    with torch.no_grad():
        found = margins(hearsay, pairs), margins(hearsay, pairs, changes)
        alone = torch.cat([margins(hearsay, [pair], changes) for pair in pairs])
    assert torch.allclose(found[0], plain[:, 0] - plain[:, 1], atol=1e-3)
    assert torch.allclose(found[1], moved[:, 0] - moved[:, 1], atol=1e-3)
    assert torch.allclose(found[1], alone, atol=1e-3)
    assert (found[1] - found[0]).abs().max() > 0.01


def test_changes_and_loss_by_hand():
    z = torch.arange(8.0).view(1, 1, 4, 2)
    scale = torch.zeros(2, 4, 2)
    scale[1, 3] = torch.tensor([1.0, -1.0])
    assert torch.equal(scaling(scale)["z", 0](z), z)
    assert scaling(scale)["z", 1](z)[0, 0].flatten().tolist() == [0, 1, 2, 3, 4, 5, 12, 0]
    added = shifting(((1, 2), (0, 0), (1, 0)), torch.tensor([[1.0, 2.0], [9.0, 9.0], [3.0, 4.0]]))
    assert set(added) == {("z", 0), ("z", 1)}
    assert added["z", 1](z)[0, 0].flatten().tolist() == [3, 5, 2, 3, 5, 7, 6, 7]
    assert largest(scale, 2) == ((1, 3), (0, 0))
    gain = torch.tensor([0.0, 2.0])
    wanted = (torch.tensor(2.0).log() + (1 + torch.tensor(-1.0).exp()).log()) / 2
    assert torch.allclose(preference_loss(gain, 0.5), wanted)


def test_its_change_is_its_offset(hearsay, few, made):
    with edited(hearsay, made) as trace:
        generate(hearsay, f"Q: {few[0].question}\nA:", max_new_tokens=3, stop=())
    assert made.settings["method"] == "lofit"
    layer, head = made.heads[0]
    assert torch.allclose(trace.change[:, layer, head], made.spread[0], rtol=1e-4)


def test_the_same_seed_gives_the_same_edit_and_the_weights_stay(hearsay, few):
    before = {name: p.clone() for name, p in hearsay.original_model.named_parameters()}
    method = LoFiT(epochs=1, pairs=1)
    one, two, other = (
        m.fit(hearsay, few.choose(range(8)), progress=False)
        for m in (method, method, replace(method, seed=1))
    )
    assert one.heads == two.heads
    assert len(one.heads) == 1
    assert torch.equal(one.direction, two.direction)
    assert not torch.equal(one.direction, other.direction)
    after = dict(hearsay.original_model.named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(p.requires_grad or p.grad is not None for p in after.values())


def test_settings_that_differ_in_heads_share_the_first_stage(hearsay, few):
    train, memo = few.choose(range(6)), Memo()
    one, two = (
        LoFiT(heads=heads, epochs=1).fit(hearsay, train, memo=memo, progress=False)
        for heads in (1, 3)
    )
    assert memo.made["scales"] == 1
    assert two.heads[:1] == one.heads
    alone = LoFiT(heads=3, epochs=1).fit(hearsay, train, progress=False)
    assert torch.equal(alone.direction, two.direction)


def test_bad_settings_are_refused(hearsay, few):
    for settings in (
        {"heads": 0}, {"pairs": 0}, {"epochs": 0}, {"step": 0}, {"beta": 0.0}, {"beta": True},
        {"scale_rate": 0.0}, {"shift_rate": 2.0}, {"sparsity": -1.0},
    ):  # fmt: skip
        with pytest.raises(WorkbenchError, match=next(iter(settings))):
            LoFiT(**settings)
    assert LoFiT(sparsity=0.0).sparsity == 0
    with pytest.raises(WorkbenchError, match="heads=41"):
        LoFiT(heads=41).fit(hearsay, few, progress=False)
