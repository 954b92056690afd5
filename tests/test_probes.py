import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from workbench.errors import WorkbenchError
from workbench.stages.logistic_regression import _newton, _solved
from workbench.stages.probes import fit_probes


def data(rows, layers, heads, d_head, seed, signal=1.0):
    draw = torch.Generator().manual_seed(seed)
    label = (torch.rand(rows, generator=draw) < 0.4).long()
    label[:2] = torch.tensor([0, 1])
    z = torch.randn(rows, layers, heads, d_head, generator=draw)
    z[..., 0] += signal * label[:, None, None]
    return z, label


def difference(z, label, penalty=1.0):
    """Largest difference in probability to scikit-learn in float64, head by head.

    Its inputs are centred, which the free intercept makes up for: far from 0 it stops too early.
    """
    probability = fit_probes(z, label, penalty).probability(z).numpy()
    worst = 0.0
    for layer in range(z.shape[1]):
        for head in range(z.shape[2]):
            x = z[:, layer, head].double().numpy()
            x = x - x.mean(axis=0)
            oracle = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=20_000)
            wanted = oracle.fit(x, label.numpy()).predict_proba(x)[:, 1]
            worst = max(worst, float(np.abs(probability[:, layer, head] - wanted).max()))
    return worst


@settings(max_examples=20)
@given(
    st.integers(12, 120), st.integers(1, 6), st.integers(0, 99), st.sampled_from([0.1, 1.0, 9.0]),
    st.sampled_from(["float32", "bfloat16", "ties", "shifted"]),
    st.sampled_from([0.1, 1.0, 30.0]),
)  # fmt: skip
def test_same_optimum_as_scikit_learn(rows, d_head, seed, signal, kind, penalty):
    z, label = data(rows, 2, 3, d_head, seed, signal)
    if kind == "bfloat16":
        z = z.bfloat16()
    if kind == "ties":
        z = z.round()
    if kind == "shifted":
        z = z * 0.1 + 30.0
    assert difference(z, label, penalty) < 1e-4


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_same_optimum_where_channels_are_correlated(power):
    """Spectra like those of real heads, on which scikit-learn takes hundreds of steps."""
    draw = torch.Generator().manual_seed(int(power))
    z, label = data(1500, 1, 2, 48, 3, signal=0.5)
    scale = torch.arange(1, 49).float() ** (-power / 2)
    turn = torch.linalg.qr(torch.randn(48, 48, generator=draw))[0]
    assert difference((z * scale) @ turn + torch.randn(48, generator=draw), label) < 1e-4


def test_blocks_and_layers_do_not_matter(monkeypatch):
    z, label = data(80, 3, 5, 6, 0)
    whole = fit_probes(z, label)
    monkeypatch.setattr("workbench.stages.probes.BLOCK_BYTES", {"cpu": 2 * 4 * 80 * 6})
    assert torch.allclose(whole.probability(z), fit_probes(z, label).probability(z), atol=1e-5)
    assert torch.equal(whole.layer(1).logit(z[:, 1:2]), whole.logit(z)[:, 1:2])


def test_what_single_precision_cannot_solve_is_solved_in_double(monkeypatch):
    """The slow solver alone, and the fast one giving up on some heads, agree with the fast one."""
    z, label = data(90, 1, 4, 5, 2)
    fast = fit_probes(z, label).probability(z)
    monkeypatch.setattr("workbench.stages.logistic_regression.TOLERANCE", 0.0)
    slow = fit_probes(z, label).probability(z)
    assert not torch.equal(fast, slow)
    assert torch.allclose(fast, slow, atol=1e-5)
    monkeypatch.undo()
    z[:, 0, 1] *= 1e4
    assert difference(z, label, penalty=1e-3) < 1e-4


def test_rows_far_out_do_not_keep_from_the_optimum():
    """Two of forty, three hundred times as far as the others."""
    z, label = data(40, 1, 2, 3, 4)
    z[:2] *= 300
    label[:2] = torch.tensor([0, 1])
    inputs = z.double().reshape(len(z), 2, 3)
    found = _newton(inputs, label.double(), 1e-3)
    assert difference(z, label, penalty=1e-3) < 1e-4

    def loss(weights):
        margin = torch.einsum("nhd,hd->hn", inputs, weights[:, :3]) + weights[:, 3:]
        fit = torch.nn.functional.softplus(margin) - label * margin
        return fit.sum(dim=1) + 5e-4 * weights[:, :3].square().sum(dim=1)

    for scale in (0.99, 1.01):
        assert bool((loss(found) < loss(scale * found)).all())


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
    for wrong in ({"penalty": -1.0}, {"penalty": float("nan")}, {"label": label + 1}):
        with pytest.raises(WorkbenchError, match="labels 0 and 1"):
            fit_probes(**{"z": z, "label": label, **wrong})
    with pytest.raises(WorkbenchError, match="both labels"):
        fit_probes(z, torch.zeros_like(label))
    z[0, 0, 0, 0] = float("inf")
    with pytest.raises(WorkbenchError, match="finite"):
        fit_probes(z, label)


@pytest.mark.parametrize("kind", ["low rank", "few rows", "outlier"])
def test_heads_that_single_precision_cannot_factor_are_solved_all_the_same(kind):
    draw = torch.Generator().manual_seed(0)
    label = (torch.rand(60, generator=draw) < 0.5).long()
    z = torch.randn(60, 1, 3, 24, generator=draw)
    if kind == "low rank":
        z[:, :, 1] = (z[:, :, 1, :3] @ torch.randn(3, 24, generator=draw)) * 1e3
    if kind == "few rows":
        z, label = z[:9] * 1e3, torch.tensor([0, 1] * 4 + [0])
    if kind == "outlier":
        z[5, 0, 2, 3] = 1e9
    probability = fit_probes(z, label).probability(z)
    assert probability.isfinite().all()
    if kind != "outlier":
        assert difference(z, label) < 1e-3


WIDE = """
import torch
from workbench.stages import logistic_regression, probes

torch.set_num_threads(2)  # the command line and workers do, and batched solves were then broken
for width in (64, 128, 192, 256):
    draw = torch.Generator().manual_seed(width)
    planted = torch.nn.functional.normalize(torch.randn(4, width, generator=draw), dim=-1)
    label = (torch.arange(700) % 2)
    z = torch.randn(700, 1, 4, width, generator=draw)
    z[:, 0] += 8 * label[:, None, None] * planted
    for tolerance in (3e-8, 0.0):  # conjugate gradients, and Newton's method for all heads
        logistic_regression.TOLERANCE = tolerance
        found = probes.fit_probes(z, label)
        direction = torch.nn.functional.normalize(found.coefficient[0], dim=-1)
        assert float((direction * planted).sum(dim=-1).min()) > 0.8, (width, tolerance)
        assert float(found.accuracy(z, label).min()) > 0.99, (width, tolerance)
        if tolerance:
            fast = found.probability(z)
        else:
            assert torch.allclose(fast, found.probability(z), atol=1e-4), width
"""


@pytest.mark.slow
def test_wide_heads_are_solved_after_the_number_of_threads_was_set():
    done = subprocess.run([sys.executable, "-c", WIDE], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]


def test_singular_systems_are_solved_with_the_ridge_that_rounding_needs():
    draw = torch.Generator().manual_seed(0)
    thin = torch.randn(3, 150, 20, generator=draw, dtype=torch.float64)
    hessian = thin @ thin.mT
    wanted = torch.randn(3, 150, generator=draw, dtype=torch.float64)
    gradient = (hessian @ wanted[..., None])[..., 0]
    found = _solved(hessian, gradient)
    assert torch.allclose((hessian @ found[..., None])[..., 0], gradient, rtol=1e-6, atol=1e-6)
    whole = hessian + torch.eye(150, dtype=torch.float64)
    assert torch.allclose((whole @ _solved(whole, wanted)[..., None])[..., 0], wanted, atol=1e-9)
