"""RE-Control: a planted reward is learnt and climbed, a permuted one is not."""

from dataclasses import replace

import pytest
import torch

from workbench.data.questions import Question, QuestionSet
from workbench.errors import WorkbenchError
from workbench.methods.re_control import (
    WEIGHTS,
    ReControl,
    ValueAscent,
    fit_value,
    slope,
    temporal_difference,
    value,
)
from workbench.models.identity import identify

WIDTH = 12


@pytest.fixture(scope="module")
def planted():
    """Answers whose states all lie on the side of a plane that their reward tells."""
    draw = torch.Generator().manual_seed(1)
    direction = torch.nn.functional.normalize(torch.randn(WIDTH, generator=draw), dim=0)
    states, reward = [], torch.tensor([float(k % 2) for k in range(240)])
    for r in reward:
        own = torch.randn(int(torch.randint(2, 7, (1,), generator=draw)), WIDTH, generator=draw)
        states.append(own + (2 * r - 1 - own @ direction)[:, None] * direction)
    return direction, states, reward, torch.arange(240) % 5 == 0


@pytest.fixture(scope="module")
def made(hearsay, few):
    return ReControl(epochs=3).fit(hearsay, few, progress=False)


def climb(planted, reward):
    """How far V and the planted reward rise in 30 steps from fresh states."""
    direction, states, _, held = planted
    weights = fit_value(states, reward, held, ReControl(hidden=32, rate=3e-3))
    fresh = torch.randn(200, WIDTH, generator=torch.Generator().manual_seed(2))
    moved = fresh
    for _ in range(30):
        moved = moved + 0.1 * slope(weights, moved)
    rise = value(weights, moved) - value(weights, fresh)
    way = moved - fresh
    along = way @ direction
    return rise, along, along / way.norm(dim=1).clamp(min=1e-9)


def test_a_planted_reward_is_climbed(planted):
    rise, along, cosine = climb(planted, planted[2])
    assert (rise > 0).float().mean() > 0.95
    assert along.mean() > 0.5
    assert cosine.mean() > 0.55


def test_a_permuted_reward_is_not(planted):
    draw = torch.Generator().manual_seed(3)
    _, along, cosine = climb(planted, planted[2][torch.randperm(240, generator=draw)])
    assert abs(along.mean()) < 0.2
    assert abs(cosine.mean()) < 0.35


def test_the_loss_draws_each_value_to_the_next_and_the_last_to_the_reward():
    values = torch.tensor([[0.2, 0.5, 0.9], [0.4, 0.1, 7.0]], requires_grad=True)
    real = torch.tensor([[True, True, True], [True, True, False]])
    loss = temporal_difference(values, real, torch.tensor([1.0, 0.0]))
    wanted = (0.3**2 + 0.4**2 + 0.1**2 + 0.3**2 + 0.1**2) / 2
    assert float(loss.detach()) == pytest.approx(wanted)
    loss.backward()
    assert torch.allclose(values.grad, torch.tensor([[-0.3, -0.4, -0.1], [0.3, 0.1, 0.0]]))


def test_steps_along_the_gradient_by_hand(hearsay):
    """With one unit a layer, V = 2·relu(3·relu(h₀)): its slope is 6 where h₀ > 0."""
    weights = {name: torch.zeros(1, 1, 1) for name in WEIGHTS[::2]}
    weights["first"] = torch.zeros(1, 1, 4)
    weights["first"][0, 0, 0], weights["second"][0, 0, 0], weights["last"][0, 0, 0] = 1, 3, 2
    edit = ValueAscent(
        places=(("final_norm", 4),), alpha=0.5, steps=2, model=identify(hearsay), **weights,
        **{name: torch.zeros(1, 1) for name in WEIGHTS[1::2]},
    )  # fmt: skip
    state = torch.tensor([[1.0, 2.0, 3.0, 4.0], [-1.0, 2.0, 3.0, 4.0]])
    with torch.no_grad():
        assert torch.equal(edit.change(0, state)[:, 0], torch.tensor([7.0, -1.0]))
        assert torch.equal(edit.change(0, state)[:, 1:], state[:, 1:])
        assert torch.equal(edit.scaled(0.0).change(0, state), state)
    assert edit.change(0, state.double()).dtype == torch.float64


def test_the_same_seed_gives_the_same_value_function(hearsay, few, made):
    again = ReControl(epochs=3).fit(hearsay, few, progress=False)
    assert all(torch.equal(getattr(again, name), getattr(made, name)) for name in WEIGHTS)
    for changes in ({"seed": 1}, {"shuffle_labels": True}, {"sampled": 1}):
        other = replace(ReControl(epochs=1), **changes).fit(hearsay, few, progress=False)
        assert not torch.equal(other.first, made.first)


def test_bad_settings_are_refused(hearsay):
    for settings in (
        {"steps": 0}, {"hidden": 0}, {"sampled": -1}, {"epochs": 0}, {"rate": 0.0},
        {"validation_share": 1.0}, {"alpha": float("nan")},
    ):  # fmt: skip
        with pytest.raises(WorkbenchError, match=next(iter(settings))):
            ReControl(**settings)
    with pytest.raises(WorkbenchError, match="0 of 3 answers held"):
        fit_value([torch.zeros(2, 4)] * 3, torch.zeros(3), torch.zeros(3) > 1, ReControl(hidden=2))
    others = tuple(Question(f"Is {k} odd?", "Yes.", ("Yes.",), ("No.",)) for k in range(3))
    with pytest.raises(WorkbenchError, match="whose truth is not known"):
        ReControl(sampled=1).fit(hearsay, QuestionSet(others), progress=False)
