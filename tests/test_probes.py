import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from workbench.errors import WorkbenchError
from workbench.probes import fit_probes


def data(rows, layers, heads, d_head, seed, signal=1.0):
    draw = torch.Generator().manual_seed(seed)
    label = (torch.rand(rows, generator=draw) < 0.4).long()
    label[:2] = torch.tensor([0, 1])
    z = torch.randn(rows, layers, heads, d_head, generator=draw)
    z[..., 0] += signal * label[:, None, None]
    return z, label


@settings(max_examples=10, deadline=None)
@given(
    st.integers(12, 120), st.integers(1, 6), st.integers(0, 99), st.sampled_from([0.1, 1.0, 9.0])
)
def test_same_optimum_as_scikit_learn(rows, d_head, seed, signal):
    z, label = data(rows, 2, 2, d_head, seed, signal)
    probes = fit_probes(z, label)
    for layer in range(2):
        for head in range(2):
            x = z[:, layer, head].double().numpy()
            oracle = LogisticRegression(tol=1e-10, max_iter=10_000).fit(x, label.numpy())
            wanted = oracle.predict_proba(x)[:, 1]
            found = probes.probability(z)[:, layer, head].numpy()
            assert np.abs(found - wanted).max() < 1e-4


def test_separable_labels_have_a_finite_optimum():
    z, label = data(60, 1, 1, 3, 0, signal=100.0)
    probes = fit_probes(z, label)
    assert probes.coefficient.isfinite().all()
    assert probes.accuracy(z, label).item() == 1.0


def test_planted_head_is_found_and_noise_is_not():
    z, label = data(600, 2, 3, 8, 1, signal=0.0)
    z[:, 1, 2, 4] += 3.0 * label
    probes = fit_probes(z[:300], label[:300])
    accuracy = probes.accuracy(z[300:], label[300:])
    assert accuracy.argmax() == 1 * 3 + 2
    assert accuracy[1, 2] > 0.9
    rest = accuracy.flatten()[:-1]
    assert (rest - 0.6).abs().max() < 0.12  # the majority label's share, give or take
    direction = torch.nn.functional.normalize(probes.coefficient[1, 2], dim=0)
    assert direction[4] > 0.95


def test_one_label_and_bad_numbers_are_refused():
    z, label = data(10, 1, 1, 2, 0)
    with pytest.raises(WorkbenchError, match="both labels"):
        fit_probes(z, torch.zeros_like(label))
    z[0, 0, 0, 0] = float("inf")
    with pytest.raises(WorkbenchError, match="finite"):
        fit_probes(z, label)
