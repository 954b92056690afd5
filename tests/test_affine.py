"""Affine changes by descent: their first step is the natural gradient's b, and they arrive."""

import pytest
import torch

from tests.planted import planted_model, questions
from tests.test_clas import share_right
from workbench.errors import WorkbenchError
from workbench.methods.affine import AffineDescent
from workbench.methods.by_gradient import changed, changes_of
from workbench.methods.natural import NaturalGradient

SMALL = {"features": 4, "pairs": 1, "epochs": 20, "rate": 0.25}


@pytest.fixture(scope="module")
def planted():
    return planted_model()


def test_the_first_gradient_is_that_of_the_closed_form(hearsay, few):
    """At no change the KL is flat, so that the loss falls by MC2's gradient, rows of answers."""
    train = few.choose(range(8))
    how = {"layers": (1, 3), "features": 3, "style": "bare"}
    rows = NaturalGradient(**how, answers=3, token_draws=1).rows(hearsay, train, progress=False)
    goal = AffineDescent(**how, pairs=3, price=0.7).goal(hearsay, train)
    theta = torch.zeros(rows.values.shape[1:], requires_grad=True)
    around = changed(hearsay, changes_of(rows.reader.change(hearsay, theta)))
    goal.loss(range(8), around).backward()
    coefficients = torch.zeros(len(rows.values))
    coefficients[: len(rows.said)] = rows.answers.weights()
    wanted = rows.combined(coefficients, 3)
    assert wanted.abs().max() > 1e-3
    assert torch.allclose(-theta.grad, wanted, atol=2e-3 * float(wanted.abs().max()))


def test_a_change_that_the_question_decides_is_found(planted):
    """What helps half of the questions harms the others: no vector does it, features do."""
    train, held = questions(swapped=("my", "some"))
    edit = AffineDescent(**SMALL).fit(planted, train, progress=False)
    constant = AffineDescent(**{**SMALL, "features": 0, "rate": 0.05}).fit(
        planted, train, progress=False
    )
    assert share_right(planted, held, edit) > 0.9
    assert share_right(planted, held, constant) < 0.8


def test_with_shuffled_labels_it_is_not(planted):
    train, held = questions()
    shares = []
    for seed in range(2):
        method = AffineDescent(**SMALL, shuffle_labels=True, seed=seed)
        shares.append(share_right(planted, held, method.fit(planted, train, progress=False)))
    assert sum(shares) / 2 < 0.75
    method = AffineDescent(**SMALL)
    assert share_right(planted, held, method.fit(planted, train, progress=False)) > 0.9


def test_what_does_not_fit_is_refused(hearsay, few):
    for wrong in ({"features": -1}, {"layers": ()}, {"layers": (9,)}, {"features": 161}):
        with pytest.raises(WorkbenchError):
            AffineDescent(**wrong).fit(hearsay, few, progress=False)
