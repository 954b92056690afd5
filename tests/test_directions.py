import warnings
from dataclasses import replace
from itertools import product

import pytest
import torch

from workbench.errors import WorkbenchError
from workbench.stages.aggregation import aggregate
from workbench.stages.capture import capture
from workbench.stages.directions import fit_directions, spread_along, token_level_accuracy


@pytest.fixture(scope="module")
def features(means_of_few):
    return means_of_few


@pytest.fixture(scope="module")
def directions(features, few):
    return fit_directions(features, few)


def noise(features, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return replace(features, values=torch.randn(features.values.shape, generator=draw))


def test_planted_direction_is_recovered_and_ranked_first(features, few):
    planted = torch.nn.functional.normalize(torch.arange(20.0) - 7, dim=0)
    plain = noise(features)
    values = plain.values.clone()
    values[:, 3, 5] += 2.5 * features.label[:, None] * planted
    for kind in ("mean_difference", "probe"):
        found = fit_directions(replace(plain, values=values), few, kind=kind)
        assert found.top(1) == ((3, 5),)
        assert found.vector[3, 5] @ planted > 0.9
        assert found.accuracy[3, 5] > 0.85


def test_shuffled_labels_lose_the_planted_direction(features, few):
    planted = torch.nn.functional.normalize(torch.arange(20.0) - 7, dim=0)
    values = noise(features).values
    values[:, 3, 5] += 2.5 * features.label[:, None] * planted
    found = fit_directions(replace(features, values=values), few, shuffle_labels=True)
    assert (found.vector[3, 5] @ planted).abs() < 0.8
    assert found.accuracy[3, 5] < 0.75


def test_vectors_are_unit_and_spread_is_a_standard_deviation(features, directions):
    found = directions
    assert torch.allclose(found.vector.norm(dim=-1), torch.ones(found.spread.shape), atol=1e-5)
    projected = (features.unlabelled[:, 2, 3] @ found.vector[2, 3]).numpy()
    assert found.spread[2, 3].item() == pytest.approx(projected.std(), rel=1e-4)
    assert torch.allclose(
        spread_along(features.unlabelled + 5.0, found.vector), found.spread, rtol=1e-3
    )


def test_ranking_is_by_validation_questions_only(features, few):
    found = fit_directions(features, few, seed=3)
    held = found.validation[features.question]
    assert int(found.validation.sum()) == round(0.2 * len(few))
    again = found.probes.accuracy(features.values[held], features.label[held])
    assert torch.equal(found.accuracy, again)
    changed = features.values.clone()
    changed[held] = 0.0
    assert torch.equal(
        fit_directions(replace(features, values=changed), few, seed=3).probes.coefficient,
        found.probes.coefficient,
    )


def test_token_level_accuracy_is_over_raw_tokens(activations_of_few, directions):
    activations, probes = activations_of_few, directions.probes
    answers = [0, 7]
    rows = torch.cat([activations[a].own for a in answers])
    labels = torch.cat([activations.label[a].expand(len(activations[a].tokens)) for a in answers])
    found = token_level_accuracy(probes, activations, answers)
    assert torch.equal(found, probes.accuracy(rows, labels))


def test_heads_are_ranked_by_their_accuracy(directions):
    ranked = directions.top(40)
    assert set(ranked) == set(product(range(5), range(8)))
    accuracy = [float(directions.accuracy[head]) for head in ranked]
    assert accuracy == sorted(accuracy, reverse=True)
    assert len(set(accuracy)) > 5
    assert directions.top(7) == ranked[:7]


def test_refusals(features, few, directions, as_shipped):
    with pytest.raises(WorkbenchError, match="41 heads"):
        directions.top(41)
    with pytest.raises(WorkbenchError, match="0 heads"):
        directions.top(0)
    with pytest.raises(WorkbenchError, match="the direction rule 'mean'"):
        fit_directions(features, few, kind="mean")
    with pytest.raises(WorkbenchError, match="other ones"):
        fit_directions(features, few.choose([0, 1, 2]))


def test_accuracies_of_a_handful_are_warned_of(means_of_few, few, hearsay):
    handful = few.choose(range(6))
    features = aggregate(capture(hearsay, handful, progress=False))
    with pytest.warns(UserWarning, match=r"accuracies on \d+ held-back answers, each uncertain by"):
        fit_directions(features, handful)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_directions(means_of_few, few)


def test_chance_is_the_commoner_label_of_the_validation_answers(features, few):
    found = fit_directions(features, few)
    held = found.validation[features.question]
    share = float(features.label[held].float().mean())
    assert found.chance == pytest.approx(max(share, 1 - share))
    assert 0.5 <= found.chance < 1
    turned = fit_directions(replace(features, label=1 - features.label), few)
    assert turned.chance == pytest.approx(found.chance)
