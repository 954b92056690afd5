"""Spectral editing: planted subspaces, its formula, its kernels, and fits on hearsay."""

from dataclasses import replace

import pytest
import torch

from workbench.editing.generation import generate
from workbench.errors import WorkbenchError
from workbench.methods import sea
from workbench.methods.memo import Memo
from workbench.methods.sea import SpectralEdit, SpectralEditing, inverse, projection_of, spectral
from workbench.models.identity import identify, shape_of
from workbench.models.passes import attached, forward
from workbench.models.prompts import encode

WIDTH = 12
KERNELS = ("linear", "squared_exponential", "tanh", "elu")


@pytest.fixture(scope="module")
def fold(few):
    return few.folds(2, seed=0)[0]


def basis(width=WIDTH, seed=0):
    """Orthonormal columns: 3 that go with correct answers, 3 with wrong ones, the rest neither."""
    draw = torch.Generator().manual_seed(seed)
    whole = torch.linalg.qr(torch.randn(width, width, generator=draw, dtype=torch.float64)).Q
    return whole[:, :3], whole[:, 3:6], whole[:, 6:]


def triples(rows=400, noise=0.0, seed=0):
    """Neutral states; correct (wrong) answers repeat what they hold of the first (second) part."""
    draw = torch.Generator().manual_seed(seed)
    good, bad, rest = basis()
    amounts = torch.randn(rows, WIDTH, generator=draw, dtype=torch.float64)
    amounts = torch.linalg.qr(amounts).Q * rows**0.5 if not noise else amounts
    neutral = amounts @ torch.cat([good, bad, rest], dim=1).T
    told = [amounts[:, :3] @ good.T, amounts[:, 3:6] @ bad.T]
    disturbed = [
        side + noise * torch.randn(rows, WIDTH, generator=draw, dtype=torch.float64)
        for side in told
    ]
    return neutral, *disturbed


def test_planted_subspaces_are_doubled_removed_and_kept():
    good, bad, rest = basis()
    projection = projection_of(*triples(), keep=0.9999)
    assert torch.allclose(projection @ good, 2 * good)
    assert torch.allclose(projection @ bad, 0 * bad)
    assert torch.allclose(projection @ rest, rest)
    state = (good @ torch.tensor([1.0, -2.0, 0.5]).double())[None]
    assert torch.allclose(spectral(state, projection), state)


def test_planted_subspaces_are_found_in_noise():
    projection = projection_of(*triples(noise=0.1), keep=0.98)
    gain = [float((projection @ part).norm() / part.norm()) for part in basis()]
    assert gain == pytest.approx([2.0, 0.0, 1.0], abs=0.3)


def test_without_labels_nothing_is_told_apart():
    """The negative control: sides that are mixed by chance give back the states themselves."""
    neutral, positive, negative = triples(rows=2000)
    turned = torch.rand(2000, generator=torch.Generator().manual_seed(1)) < 0.5
    mixed = torch.where(turned[:, None], positive, negative)
    other = torch.where(turned[:, None], negative, positive)
    projection = projection_of(neutral, mixed, other, keep=0.99)
    good, bad, _ = basis()
    for part in (good, bad):
        assert (projection @ part - part).norm() < 0.3 * part.norm()


def test_the_share_decides_how_many_are_kept():
    neutral = torch.eye(4, dtype=torch.float64)
    answers = torch.diag(torch.tensor([1.0, 3.0, 2.0, 0.0], dtype=torch.float64))  # s²: 9, 4, 1
    for keep, wanted in (
        (0.5, [1]),
        (0.64, [1]),
        (0.65, [1, 2]),
        (0.92, [1, 2]),
        (0.998, [0, 1, 2]),
    ):
        kept = sea.leading(neutral, answers, keep)
        assert sorted((kept @ kept.T).diagonal().nonzero().flatten().tolist()) == wanted
    with pytest.raises(WorkbenchError, match="cross-covariance"):
        sea.leading(neutral, torch.zeros_like(answers), 0.5)


def test_singular_vectors_are_those_of_the_definition():
    neutral, positive, negative = (
        torch.randn(30, 7, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
        for n in range(3)
    )
    whole = torch.zeros(7, 7, dtype=torch.float64)
    for answers, keeping in ((positive, True), (negative, False)):
        left, values, _ = torch.linalg.svd(neutral.T @ answers / 30)
        count = int((values.square().cumsum(0) < 0.9 * values.square().sum()).sum()) + 1
        chosen = left[:, :count] if keeping else left[:, count:]
        whole += chosen @ chosen.T
    assert torch.allclose(projection_of(neutral, positive, negative, 0.9), whole)


def test_a_state_computed_by_hand():
    projection = torch.diag(torch.tensor([2.0, 0.0, 1.0]))
    state = torch.tensor([[3.0, 4.0, 0.0], [2.0, 5.0, 4.0], [0.0, 7.0, 0.0], [0.0, 0.0, 0.0]])
    wanted = torch.tensor([[5.0, 0.0, 0.0], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    wanted[1] *= 45**0.5 / 2**0.5
    assert torch.allclose(spectral(state, projection), wanted)


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_are_inverted_and_clamped(kernel):
    state = torch.linspace(-2.5, 2.5, 21)[None]
    back = inverse(kernel, sea.FEATURES[kernel](state), state)
    assert torch.allclose(back, state, atol=1e-4)
    far = torch.tensor([[-9.0, -1.0, -0.3, 0.0, 0.4, 1.0, 9.0]])
    assert inverse(kernel, far, far).isfinite().all()
    both = 2 * torch.eye(21)
    assert torch.allclose(spectral(state, both, kernel), state, atol=1e-3)
    some = spectral(state, torch.diag(torch.arange(21) / 10), kernel)
    assert some.norm() == pytest.approx(float(state.norm()), rel=1e-5)
    assert (some - state).norm() > 0.1


def made(model, places, projection, **changes):
    return SpectralEdit(
        places=places, projection=projection, **{"alpha": 1.0, "model": identify(model), **changes}
    )


@pytest.mark.parametrize("kernel", KERNELS)
def test_strength_is_the_way_to_the_edited_state(hearsay, kernel):
    draw = torch.Generator().manual_seed(0)
    width = shape_of(hearsay).d_model
    projection = torch.randn(1, width, width, generator=draw)
    edit = made(hearsay, (("mlp_out", 1),), projection, kernel=kernel)
    state = torch.randn(5, width, generator=draw)
    assert torch.equal(edit.scaled(0.0).change(0, state), state)
    whole = edit.change(0, state)
    assert torch.allclose(whole.norm(dim=1), state.norm(dim=1), rtol=1e-4)
    assert torch.allclose(
        edit.scaled(0.25).change(0, state), state + (whole - state) / 4, atol=1e-4
    )


def test_neutral_states_are_those_of_what_the_model_says_itself(hearsay, fold):
    asked = fold.train.choose(range(3))
    method = SpectralEditing(layers=0.2, max_new_tokens=12)
    found = method.neutral_states(hearsay, asked, progress=False)
    assert method.places(hearsay) == (("mlp_out", 4),)
    for number, question in enumerate(asked):
        prompt = encode(hearsay, question.question)
        (written,) = generate(hearsay, prompt, max_new_tokens=12)
        row = torch.tensor([prompt.tokens + written.tokens[: written.kept]])
        seen = []
        with attached(hearsay, {("mlp_out", 4): lambda x, seen=seen: seen.append(x[0, -1])}):
            forward(hearsay, row, torch.ones_like(row))
        assert torch.allclose(found[0][number], seen[0], rtol=1e-3, atol=1e-2)


def test_layers_are_the_last_share():
    class Shape:
        layers = 32

    method = SpectralEditing()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sea, "shape_of", lambda model: Shape)
        assert [layer for _, layer in method.places(None)] == list(range(11, 32))
        assert len(SpectralEditing(layers=1.0).places(None)) == 32
        assert len(SpectralEditing(layers=0.001).places(None)) == 1


@pytest.mark.parametrize(("point", "keep"), [("mlp_out", 0.9999), ("resid_post", 0.999999)])
def test_fits_share_states_and_not_labels(hearsay, fold, point, keep):
    method = SpectralEditing(point=point, keep=keep, max_new_tokens=16)
    memo = Memo()
    edit = method.fit(hearsay, fold.train, memo=memo, progress=False)
    assert edit.places == ((point, 2), (point, 3), (point, 4))
    assert edit.settings["method"] == "sea"
    assert torch.equal(edit.projection, edit.projection.mT)
    again = method.fit(hearsay, fold.train, memo=memo, progress=False)
    assert torch.equal(again.projection, edit.projection)
    assert memo.made["states"] == 2
    shuffled = replace(method, shuffle_labels=True)
    control = shuffled.fit(hearsay, fold.train, memo=memo, progress=False)
    assert not torch.allclose(control.projection, edit.projection, atol=1e-3)


def test_a_fit_does_not_depend_on_batches(hearsay, fold):
    asked = fold.train.choose(range(6))
    one, other = (
        SpectralEditing(batch_size=size, max_new_tokens=8, layers=0.2).fit(
            hearsay, asked, progress=False
        )
        for size in (64, 5)
    )
    assert torch.allclose(one.projection, other.projection, atol=1e-3)


def test_what_is_no_setting_is_refused(hearsay, as_shipped):
    for settings in (
        {"point": "z"}, {"kernel": "cubic"}, {"keep": 1.0}, {"layers": 0.0}, {"layers": 1.5},
        {"max_new_tokens": 0}, {"alpha": float("inf")},
    ):  # fmt: skip
        with pytest.raises(WorkbenchError, match=next(iter(settings))):
            SpectralEditing(**settings)
    with pytest.raises(WorkbenchError, match="projection of shape"):
        made(hearsay, (("mlp_out", 0),), torch.eye(3)[None])
    whole = torch.eye(shape_of(hearsay).d_model)[None]
    with pytest.raises(WorkbenchError, match="kernel"):
        made(hearsay, (("mlp_out", 0),), whole, kernel="cubic")
