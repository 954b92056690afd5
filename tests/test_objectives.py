"""MC2 less its price, by descent: it is what it says, and a higher price is paid less of."""

import pytest
import torch

from tests.planted import planted_model, questions
from workbench.editing.added_vectors import AddedVector
from workbench.editing.divergences import divergences
from workbench.editing.token_scores import score_tokens_under
from workbench.errors import WorkbenchError
from workbench.methods.by_gradient import changed, changes_of, predictions, unchanged
from workbench.methods.clas import ContextualLinear
from workbench.methods.lora import LoRA
from workbench.methods.objectives import Descent
from workbench.methods.training_texts import WEIGHT, own_answers, said_of, texts_of
from workbench.models.batched_passes import batched
from workbench.models.identity import identify
from workbench.models.prompts import encode

FEW = {"objective": "truth_per_nat", "batch_size": 5}


def nats_of(model, encoded, edit=None):
    (told,) = score_tokens_under(model, encoded, [edit])
    return torch.stack([own.sum() for own in told])


@pytest.mark.parametrize("price", [0.0, 0.7])
def test_the_loss_is_the_price_of_the_kl_less_mc2(hearsay, few, price):
    train = few.choose(range(6))
    draw = torch.Generator().manual_seed(0)
    shape = identify(hearsay).shape
    edit = AddedVector(
        places=(("resid_post", 1), ("resid_post", 3)), alpha=1.0, model=identify(hearsay),
        vector=torch.randn(2, shape.d_model, generator=draw) * 30,
    )  # fmt: skip
    method = LoRA(**FEW, price=price, pairs=2)
    goal = method.goal(hearsay, train)
    assert goal.count == len(train)

    said = said_of(hearsay, train, 2)
    own = own_answers(hearsay, train, max_new_tokens=30, batch_size=4)
    texts = texts_of(own, said, nats_of(hearsay, said.encoded))
    mc2 = said.answers(nats_of(hearsay, said.encoded, edit)).shares()[1]
    ((*effects,),) = divergences(hearsay, texts.encoded, [edit])
    rows = [4, 1]
    cost = sum(
        WEIGHT[kind] / texts.kind.count(kind) * one.kl
        for kind, one, number in zip(texts.kind, effects, texts.question, strict=True)
        if kind and number in rows
    ) * (len(train) / len(rows) / sum(WEIGHT[kind] for kind in {*texts.kind} - {None}))
    assert cost > 0.01
    with torch.no_grad():
        found = goal.loss(rows, changed(hearsay, changes_of(edit)))
        at_rest = goal.loss(rows, unchanged)
    assert float(found) == pytest.approx(price * cost - float(mc2[rows].mean()), abs=2e-4)
    before = said.answers(nats_of(hearsay, said.encoded)).shares()[1]
    assert float(at_rest) == pytest.approx(-float(before[rows].mean()), abs=1e-5)


def test_steps_together_are_the_whole(hearsay, few):
    """The mean over steps of equal size is the loss of all, whatever kinds their texts are of."""
    train = few.choose(range(6))
    goal = LoRA(**FEW, pairs=2).goal(hearsay, train)
    shape = identify(hearsay).shape
    edit = AddedVector(
        places=(("resid_post", 2),), vector=torch.full((1, shape.d_model), 10.0), alpha=1.0,
        model=identify(hearsay),
    )  # fmt: skip
    around = changed(hearsay, changes_of(edit))
    with torch.no_grad():
        whole = goal.loss(range(6), around)
        parts = [goal.loss(rows, around) for rows in ([0, 1, 2], [3, 4, 5])]
    assert float(whole) == pytest.approx(float(sum(parts)) / 2, abs=1e-5)


def test_predictions_are_those_of_answers_one_by_one(hearsay, few):
    """However they are put together in passes, in the order in which they were given."""
    encoded = [encode(hearsay, q.question, a) for q in few.choose(range(5)) for a in q.answers]
    encoded.append(encode(hearsay, few[0].question, " ".join(few[1].answers)))
    assert len({len(own.tokens) for own in encoded}) > 4
    with torch.no_grad():
        whole = predictions(hearsay, encoded)
        each = [predictions(hearsay, [own]) for own in encoded]
    assert whole.count == len(encoded)
    assert torch.allclose(whole.nats, torch.cat([own.nats for own in each]), atol=1e-3)
    assert torch.equal(whole.said, torch.cat([own.said for own in each]))
    assert whole.answer.tolist() == [
        number for number, own in enumerate(encoded) for _ in own.answer_tokens
    ]
    assert torch.allclose(whole.answers, torch.cat([own.answers for own in each]), atol=1e-3)


def test_rows_run_together_as_far_as_they_are_alike():
    texts = [range(length) for length in (2, 10, 9, 3, 10, 3)]
    found = list(batched(texts, 9, 1000, 0.15))
    assert found == [[1, 4, 2], [3, 5, 0]]
    assert list(batched(texts, 9, 1000)) == [[1, 4, 2, 3, 5, 0]]
    assert list(batched(texts, 2, 1000)) == [[1, 4], [2, 3], [5, 0]]
    assert list(batched(texts, 9, 20)) == [[1, 4], [2, 3], [5, 0]]
    assert list(batched([range(30)], 9, 20)) == [[0]]
    assert list(batched([], 9, 20)) == []


def test_a_higher_price_is_paid_less_of():
    model = planted_model()
    train, held = questions()
    encoded = list(said_of(model, held, 1).encoded)
    paid, gained = [], []
    for price in (0.0, 3.0):
        method = ContextualLinear(
            **FEW, price=price, epochs=30, rate=0.05, layers=(1,), contextual=False
        )
        edit = method.fit(model, train, progress=False)
        (effects,) = divergences(model, encoded, [edit])
        paid.append(sum(one.kl for one in effects) / len(effects))
        said = said_of(model, held, 1)
        gained.append(float(said.answers(nats_of(model, said.encoded, edit)).shares()[1].mean()))
    assert paid[1] < paid[0] / 2
    assert (
        gained[0] > gained[1] > float(said.answers(nats_of(model, said.encoded)).shares()[1].mean())
    )


def test_what_does_not_fit_is_refused():
    for wrong in ({"price": -1.0}, {"objective": "mc1"}, {"price": "much"}):
        with pytest.raises(WorkbenchError):
            LoRA(**wrong)
    assert issubclass(LoRA, Descent)
