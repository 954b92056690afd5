"""TruthX: a planted direction of truth is decoded again, with shuffled labels it is not."""

import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize

from workbench.errors import WorkbenchError
from workbench.methods.truthx import (
    Sizes,
    TruthX,
    accuracy,
    centres,
    contrast,
    decoded,
    decoded_way,
    encoded,
    fit_autoencoder,
)

SIZES = Sizes(16, 48, 2, 8)
TENSORS = ("weights", "shift")


def planted(seed, pairs=300):
    """States of pairs at three places, at the last of which truth does not show."""
    draw = torch.Generator().manual_seed(9)
    truth = normalize(torch.randn(16, generator=draw), dim=0)
    draw = torch.Generator().manual_seed(seed)
    meaning = torch.randn(3, 1, pairs, 16, generator=draw)
    meaning = meaning - (meaning @ truth)[..., None] * truth
    sides = (
        torch.tensor([1.0, -1.0])[None, :, None, None]
        * torch.tensor([2.0, 2.0, 0.0])[:, None, None, None]
    )
    noise = 0.7 * torch.randn(3, 2, pairs, 16, generator=draw)
    return truth, meaning + sides * truth + noise


def recovered(states, truth, fresh, seed=0):
    """Mean cosine of Δ and the planted direction, and how well fresh states are told apart."""
    weights = fit_autoencoder(SIZES, states, TruthX(epochs=25, rate=3e-3, seed=seed))
    shift, middle = centres(SIZES, weights, states)
    way = decoded_way(SIZES, weights, fresh[0].flatten(0, 1), shift[0])
    told = accuracy(SIZES, weights, fresh, shift, middle)
    return float(cosine_similarity(way, truth, dim=-1).mean()), told


@pytest.fixture(scope="module")
def made(hearsay, few):
    return TruthX(epochs=1, modules=3).fit(hearsay, few, progress=False)


def test_a_planted_direction_is_decoded_and_its_places_rank_first():
    truth, states = planted(1)
    cosine, told = recovered(states, truth, planted(2)[1])
    assert cosine > 0.8
    assert told[:2].min() > 0.95
    assert told[2] < 0.65


@pytest.mark.slow
def test_with_shuffled_labels_it_is_not():
    """A chance direction leans one way or the other, so four permutations are averaged."""
    truth, states = planted(1)
    cosines = []
    for seed in range(4):
        turned = torch.randperm(300, generator=torch.Generator().manual_seed(seed))[:150]
        shuffled = states.clone()
        shuffled[:, :, turned] = states[:, :, turned].flip(1)
        cosines.append(recovered(shuffled, truth, planted(2)[1], seed)[0])
    assert abs(sum(cosines) / 4) < 0.4
    assert max(cosines) < 0.8


def test_contrast_by_hand():
    latent = torch.tensor([[[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]]])
    alike = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    wanted = torch.log(1 + torch.exp(torch.tensor(-2.0)))
    assert torch.allclose(contrast(latent, alike, 0.5), wanted)


def test_the_decoder_by_hand():
    """One slot attends to one alone, so the latents add up."""
    sizes = Sizes(2, 2, 1, 2)
    one, none = torch.eye(2).flatten(), torch.zeros(2)
    weights = torch.cat([one, none, one, none] * 3)
    x = torch.tensor([[1.0, 2.0], [3.0, 0.5]])
    semantic, truthful = encoded(sizes, weights, x)
    assert torch.equal(semantic, x)
    assert torch.equal(truthful, x)
    assert torch.allclose(decoded(sizes, weights, semantic, truthful), 2 * x)
    two = Sizes(2, 2, 2, 1)
    share = torch.tensor([[1.0, 2.0], [3.0, 0.5]]).softmax(dim=1)
    found = decoded(two, weights, torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 2.0]]))
    assert torch.allclose(found, (1 + share[0] @ torch.tensor([1.0, 2.0])).expand(1, 2))


def test_a_state_moves_by_alpha_times_its_norm(made):
    state = torch.randn(7, 160, generator=torch.Generator().manual_seed(0))
    for number in range(3):
        moved = made.scaled(0.7).change(number, state)
        assert torch.allclose((moved - state).norm(dim=1), 0.7 * state.norm(dim=1), rtol=1e-4)
        assert torch.equal(made.scaled(0.0).change(number, state), state)
        longer = made.scaled(0.7).change(number, 10 * state)
        assert torch.allclose(longer, 10 * moved, atol=1e-3)
    assert made.change(0, state.double()).dtype == torch.float64


def test_the_same_seed_gives_the_same_edit(hearsay, few, made):
    again = TruthX(epochs=1, modules=3).fit(hearsay, few, progress=False)
    assert again.places == made.places
    assert all(torch.equal(getattr(again, name), getattr(made, name)) for name in TENSORS)
    other = TruthX(epochs=1, modules=3, seed=1).fit(hearsay, few, progress=False)
    assert not torch.equal(other.weights, made.weights)


def test_bad_settings_are_refused(hearsay, few):
    for settings in (
        {"modules": 0}, {"hidden": 0}, {"slots": 0}, {"width": 0}, {"epochs": 0},
        {"temperature": 0.0}, {"rate": 1.0}, {"validation_share": 0.0}, {"over": 0},
    ):  # fmt: skip
        with pytest.raises(WorkbenchError, match=next(iter(settings))):
            TruthX(**settings)
    with pytest.raises(WorkbenchError, match="modules=11"):
        TruthX(modules=11).fit(hearsay, few, progress=False)
