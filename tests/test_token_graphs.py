import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score

from workbench.errors import WorkbenchError
from workbench.stages.aggregation import aggregate_tokens
from workbench.stages.mutual_information import bin_tokens, mutual_information
from workbench.stages.token_graph import GraphSettings, token_graph, weights_of


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slow_information(tokens, bins):
    """scikit-learn's estimate, pair by pair, of tokens binned with NumPy."""
    edges = torch.linspace(0, 1, bins + 1).numpy()
    binned = []
    for token in tokens.numpy():
        span = token.max() - token.min()
        scaled = (token - token.min()) / (span if span > 0 else np.float32(1))
        binned.append(np.clip(np.searchsorted(edges, scaled) - 1, 0, bins - 1))
    return np.array([[mutual_info_score(a, b) / np.log(2) for b in binned] for a in binned])


@pytest.mark.parametrize("case", range(5))
def test_golden_information(golden, case):
    tokens = torch.tensor(golden[f"mi_{case}_tokens"])
    wanted = torch.tensor(golden[f"mi_{case}_bits"])
    assert torch.allclose(mutual_information(tokens), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_golden_propagation(golden, depth):
    start = int(golden["graph_start"])
    tokens = torch.tensor(golden["graph_acts"])[:, start:].permute(1, 0, 2)[:, :, None]
    wanted = torch.tensor(golden[f"graph_feature_round{depth}"])
    found = aggregate_tokens(tokens, depth)[:, 0]
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The number of unique classes")  # of scikit-learn 1.7
@settings(max_examples=25)
@given(
    st.integers(1, 6),
    st.integers(2, 300),
    st.integers(2, 120),
    st.sampled_from(["normal", "ties", "relu", "bfloat16"]),
    st.integers(0, 99),
)
def test_equals_scikit_learn_pair_by_pair(tokens, channels, bins, kind, seed):
    values = draw(tokens, channels, seed=seed)
    if kind == "ties":
        values = values.round()
    if kind == "relu":
        values = values.relu()
    if kind == "bfloat16":
        values = values.bfloat16().float()
        assert torch.equal(
            mutual_information(values.bfloat16(), bins), mutual_information(values, bins)
        )
    found = mutual_information(values, bins)
    assert np.allclose(found.numpy(), slow_information(values, bins), atol=1e-4)
    assert torch.equal(found, found.T)


def test_batches_blocks_and_single_graphs_agree(monkeypatch):
    values = draw(2, 3, 7, 90)
    whole = mutual_information(values)
    one = torch.stack([torch.stack([mutual_information(x) for x in row]) for row in values])
    assert torch.equal(whole, one)
    monkeypatch.setattr("workbench.stages.mutual_information.BLOCK_CELLS", {"cpu": 30_000})
    assert torch.equal(whole, mutual_information(values))


def test_constant_token_has_no_information():
    values = draw(3, 50)
    values[1] = 2.5
    found = mutual_information(values)
    assert found.isfinite().all()
    assert found[1].abs().max() == 0
    assert found[:, 1].abs().max() == 0


def test_information_of_a_copy_is_the_entropy_and_does_not_depend_on_scale():
    values = draw(1, 400)
    both = torch.cat([values, 4 * values + 8])
    found = mutual_information(both)
    assert torch.allclose(found[0, 0].expand(2, 2), found, atol=1e-5)


def test_low_edge_and_inner_edges_go_to_the_left_bin():
    assert bin_tokens(torch.tensor([[0.0, 0.25, 0.5, 0.75, 1.0]]), 4).tolist() == [[0, 0, 1, 2, 3]]


def test_bias_corrections_bring_independent_tokens_near_zero():
    values = draw(8, 4096)
    off = ~torch.eye(8, dtype=torch.bool)
    plug_in = mutual_information(values)[off].mean()
    assert plug_in > 0.6
    for correction, left in (("miller_madow", 0.6), ("shuffle", 0.05)):
        corrected = mutual_information(values, correction=correction)[off].mean()
        assert corrected.abs() < left * plug_in


def test_corrected_information_of_dependent_tokens_stays_positive():
    values = draw(2, 4096)
    values[1] = values[0] + 0.1 * values[1]
    assert mutual_information(values, correction="shuffle")[0, 1] > 1.0


def test_weights_sum_to_one_in_every_variant():
    similarity = draw(5, 5)
    for loops in (True, False):
        for weighting in ("rows", "centrality"):
            weights = weights_of(similarity, GraphSettings(self_loops=loops, weighting=weighting))
            assert torch.allclose(weights.sum(-1), torch.ones(5), atol=1e-6)
    assert weights_of(similarity, GraphSettings(self_loops=False)).diagonal().abs().max() == 0
    cold = weights_of(similarity, GraphSettings(temperature=1e-3))
    assert torch.equal(cold.argmax(-1), similarity.argmax(-1))
    assert cold.max(-1).values.min() > 0.99


def test_by_default_similarities_are_not_divided():
    similarity = draw(5, 5)
    assert torch.equal(weights_of(similarity, GraphSettings()), similarity.softmax(dim=1))


def test_centrality_is_of_every_graph_of_a_batch():
    similarity = draw(3, 5, 5)
    central = GraphSettings(weighting="centrality")
    alone = torch.stack([weights_of(own, central) for own in similarity])
    assert torch.allclose(weights_of(similarity, central), alone)


def test_single_token_without_self_loops_keeps_itself():
    z = draw(1, 2, 3, 4)
    kept = aggregate_tokens(z, 2, GraphSettings(self_loops=False))
    assert torch.allclose(kept, z[0], atol=1e-6)


def test_depth_zero_is_the_mean_last_is_the_last_and_uniform_equals_the_mean():
    z = draw(6, 2, 3, 4)
    assert torch.allclose(aggregate_tokens(z, 0), z.mean(0), atol=1e-6)
    assert torch.equal(aggregate_tokens(z, "last"), z[-1])
    uniform = aggregate_tokens(z, 3, GraphSettings(similarity="uniform"))
    assert torch.allclose(uniform, z.mean(0), atol=1e-6)


def test_feature_does_not_depend_on_the_order_of_tokens():
    z = draw(6, 2, 3, 16)
    assert torch.allclose(aggregate_tokens(z, 2), aggregate_tokens(z.flip(0), 2), atol=1e-5)


def test_graph_per_head_sees_only_its_head():
    z = draw(5, 2, 3, 40)
    per_head = GraphSettings(scope="head")
    whole = aggregate_tokens(z, 1, per_head)
    alone = aggregate_tokens(z[:, :, 1:2], 1, GraphSettings())
    assert torch.allclose(whole[:, 1:2], alone, atol=1e-6)
    graph = token_graph(z, 1, head=2, settings=per_head)
    assert torch.allclose(graph.similarity, mutual_information(z[:, 1, 2]))


def test_graph_of_a_later_round_is_that_of_the_propagated_tokens():
    z = draw(5, 2, 3, 40)
    first, second = token_graph(z, 0), token_graph(z, 0, depth=1)
    moved = first.weights @ z[:, 0].flatten(1)
    assert torch.allclose(second.similarity, mutual_information(moved), atol=1e-6)
    assert first.strings == ("0", "1", "2", "3", "4")


@pytest.mark.parametrize(
    "change",
    [
        {"similarity": "dot"}, {"scope": "token"}, {"bins": 1}, {"correction": "jackknife"},
        {"temperature": 0.0}, {"temperature": float("nan")}, {"weighting": "columns"},
    ],
)  # fmt: skip
def test_bad_settings_are_refused(as_shipped, change):
    with pytest.raises(WorkbenchError, match="Expected"):
        GraphSettings(**change)


def test_two_bins_are_the_least():
    assert GraphSettings(bins=2).bins == 2


def test_bad_input_is_refused(as_shipped):
    z = draw(4, 2, 3, 5)
    with pytest.raises(WorkbenchError, match="layer 2"):
        token_graph(z, 2)
    with pytest.raises(WorkbenchError, match="head=1"):
        token_graph(z, 0, head=1)
    of_heads = GraphSettings(scope="head")
    assert token_graph(z, 0, head=0, settings=of_heads).weights.shape == (4, 4)
    with pytest.raises(WorkbenchError, match="head 3"):
        token_graph(z, 0, head=3, settings=of_heads)
    with pytest.raises(WorkbenchError, match="NaN"):
        mutual_information(torch.tensor([[0.0, float("nan")]]))
    with pytest.raises(WorkbenchError, match="depth=-1"):
        aggregate_tokens(z, -1)
    with pytest.raises(WorkbenchError, match="depth='first'"):
        aggregate_tokens(z, "first")


def test_inference_mode_leaves_nothing_behind():
    values = draw(4, 64)
    with torch.inference_mode():
        inside = mutual_information(values)
    assert torch.equal(mutual_information(values), inside)


def test_a_graph_is_of_no_round_by_default_and_tells_where_it_is_of(activations_of_few):
    answer = activations_of_few[0]
    plain = token_graph(answer, layer=1)
    assert torch.equal(plain.similarity, token_graph(answer, layer=1, depth=0).similarity)
    assert not torch.equal(plain.similarity, token_graph(answer, layer=1, depth=1).similarity)
    assert {"layer": 1, "head": -1}.items() <= plain.to_xarray().attrs.items()
    of_head = token_graph(answer, layer=1, head=2, settings=GraphSettings(scope="head"))
    assert {"layer": 1, "head": 2}.items() <= of_head.to_xarray().attrs.items()
