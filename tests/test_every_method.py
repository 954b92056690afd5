"""What holds for every registered method; a new one is tested by being registered."""

import pytest
import torch

from workbench.editing.attaching import edited
from workbench.editing.generation import generate
from workbench.editing.scoring import score_under
from workbench.editing.whole_edits import WholeEdit
from workbench.errors import WorkbenchError
from workbench.methods.controls import CONTROLS, strength_sample
from workbench.methods.making import make_method, settings_of
from workbench.methods.memo import Memo
from workbench.methods.registry import METHODS, settings_class
from workbench.methods.saved import load_edit
from workbench.models.loading import load_model
from workbench.pages.explorer import explore
from workbench.runs.method_plan import OF_THE_RUN, plan_of

QUICK = {
    "tae": {"heads": 6, "alpha": 2.0},
    "iti": {"heads": 6, "alpha": 2.0},
    "caa": {"alpha": 2.0},
    "sea": {"keep": 0.99, "max_new_tokens": 8},
    "lofit": {"heads": 2, "pairs": 1, "epochs": 1},
    "re_control": {"epochs": 2, "alpha": 3.0},
    "truthx": {"epochs": 1, "modules": 3},
    "act": {"heads": 4, "clusters": 2, "alpha": 3.0},
    "clas": {"pairs": 1, "epochs": 1, "rate": 0.05},
    "dsas": {"of": {"kind": "iti", "heads": 6, "alpha": 5.0}},
    "cast": {"of": {"kind": "caa", "alpha": 2.0}},
    "lora": {"rank": 2, "pairs": 1, "epochs": 1, "rate": 0.01},
    "prompt": {"shots": 2},
    "reft_r1": {"pairs": 1, "epochs": 2},
    "affine": {"layers": (2,), "features": 1, "pairs": 2, "epochs": 1, "rate": 0.05},
    "natural_gradient": {
        "layers": (3,),
        "features": 2,
        "answers": 2,
        "token_draws": 1,
        "folds": 2,
        "max_new_tokens": 4,
    },
}
"""What makes a fit quick, and its effect plain; the defaults for all others."""


def tensors(edit):
    return edit.tensors()


@pytest.fixture(scope="module", params=list(METHODS))
def fitted(request, hearsay, few):
    """A kind of method, its settings, its edit and the questions that it was not fitted on."""
    method = make_method(request.param, QUICK.get(request.param, {}))
    train, asked = few.choose(range(30)), few.choose(range(30, 34))
    return request.param, method, method.fit(hearsay, train, progress=False), train, asked


def totals(model, asked, edits, **how):
    scored = score_under(model, asked, edits, progress=False, **how)
    return [torch.tensor([answer.total for answer in own]) for own in scored]


def test_it_fits_the_same_again_and_tells_how(hearsay, fitted):
    kind, method, edit, train, _ = fitted
    memo = Memo()
    for _ in range(2):
        again = method.fit(hearsay, train, memo=memo, progress=False)
        assert {n: v.tolist() for n, v in tensors(again).items()} == {
            n: v.tolist() for n, v in tensors(edit).items()
        }
    assert memo.made or isinstance(edit, WholeEdit)  # which have no stages to share
    assert all(0 <= layer < edit.model.shape.layers for layer in edit.layers)
    assert str(edit.alpha) in edit.label or f"{edit.alpha:g}" in edit.label
    assert {"seed", "style"} <= set(edit.settings)
    assert METHODS.about(kind)


def test_shuffled_labels_give_another_edit(hearsay, fitted):
    kind, _, edit, train, _ = fitted
    shuffled = make_method(kind, {**QUICK.get(kind, {}), "shuffle_labels": True})
    other = shuffled.fit(hearsay, train, progress=False)
    changed = [
        name
        for name, value in tensors(edit).items()
        if value.shape != tensors(other)[name].shape
        or not torch.allclose(value, tensors(other)[name], atol=1e-3)
    ]
    assert changed


@pytest.fixture(scope="module")
def exact_hearsay():
    """In float64, where rounding does not take another way at a kink, as of RE-Control's ReLU."""
    return load_model("hearsay", device="cpu", dtype=torch.float64)


def test_it_scores_with_any_company_and_scales_to_nothing(hearsay, exact_hearsay, fitted):
    *_, edit, _, asked = fitted
    plain, nothing, moved = totals(hearsay, asked, [None, edit.scaled(0.0), edit])
    assert torch.allclose(plain, nothing, atol=1e-4)
    assert (plain - moved).abs().max() > 1e-2
    _, moved = totals(exact_hearsay, asked, [None, edit])
    (alone,) = totals(exact_hearsay, asked, [edit], batch_size=1)
    assert torch.allclose(alone, moved, rtol=0, atol=1e-4)
    assert edit.scaled(3.0).alpha == 3.0


def test_it_generates_alike_in_batches_and_leaves_a_trace(hearsay, fitted):
    *_, edit, _, asked = fitted
    prompts = [f"Q: {question.question}\nA:" for question in asked]
    together = generate(hearsay, prompts, edit=edit, max_new_tokens=6, stop=())
    alone = generate(hearsay, prompts, edit=edit, max_new_tokens=6, stop=(), batch_size=1)
    assert [own.tokens for own in together] == [own.tokens for own in alone]
    if isinstance(edit, WholeEdit):
        assert edit.layers == ()  # so that it leaves no trace
        return
    with edited(hearsay, edit) as trace:
        again = generate(hearsay, prompts[:1], max_new_tokens=6, stop=())
    assert again[0].tokens == together[0].tokens
    moved = trace[0].moved[:, list(edit.layers)]
    assert bool((moved > 0).any())
    assert not bool(moved.isnan().any())


def test_the_explorer_shows_what_it_does(hearsay, fitted):
    *_, edit, _, asked = fitted
    found = explore(hearsay, edit, asked[:1], alphas=(0.0,), progress=False)
    own, at = found.answers[1], found.row(edit.alpha)
    assert not torch.allclose(own.nats[0], own.nats[at], atol=1e-3)
    assert found.edit.label in found.page()
    if not isinstance(edit, WholeEdit):
        assert not found.moved(1, 0.0).any()
        assert float(found.moved(1, edit.alpha).max()) > 0


def test_it_says_which_controls_it_lacks(hearsay, fitted, as_shipped):
    """So that a run is refused before the fit, and not after it."""
    kind, method, edit, train, _ = fitted
    for name in CONTROLS:
        control = CONTROLS[name]
        described = {**QUICK.get(kind, {}), "kind": kind, "control": name}
        if name not in method.lacks:
            assert plan_of("A", described, 0, (1.0,)).control is control
            made_of(control, hearsay, edit, train)
            continue
        with pytest.raises(WorkbenchError, match=f"{name!r}.*of kind {kind}.*shuffled"):
            plan_of("A", described, 0, (1.0,))
        with pytest.raises(WorkbenchError):
            made_of(control, hearsay, edit, train)


@pytest.mark.parametrize(
    ("described", "control"),
    [
        ({"kind": "cast", "of": {"kind": "truthx"}}, "random"),
        ({"kind": "dsas", "of": {"kind": "sea"}}, "random"),
        ({"kind": "natural_gradient", "features": 0}, "even"),
        ({"kind": "affine", "features": 0}, "even"),
    ],
)
def test_what_a_method_lacks_follows_its_settings(described, control, as_shipped):
    with pytest.raises(WorkbenchError, match=f"{control!r} of 'A'"):
        plan_of("A", {**described, "control": control}, 0, (1.0,))
    assert plan_of("A", {**described, "control": "shuffled"}, 0, (1.0,)).control


def made_of(control, model, edit, train):
    if control.derived is None:
        return None
    sample = strength_sample(model, edit, train, most=2) if control.sampled else None
    return control.derived(edit, sample, 2, 0)


def test_saved_and_loaded_it_is_the_same(hearsay, fitted, tmp_path):
    *_, edit, _, asked = fitted
    found = load_edit(edit.save(tmp_path), hearsay)
    assert type(found) is type(edit)
    assert tensors(edit)
    assert tensors(found).keys() == tensors(edit).keys()
    assert all(torch.equal(tensors(found)[name], value) for name, value in tensors(edit).items())
    before, after = totals(hearsay, asked, [edit, found])
    assert torch.equal(before, after)


def test_what_fits_no_setting_is_refused(fitted, as_shipped):
    kind, *_ = fitted
    for name, value in (("alpha", float("nan")), ("seed", -1), ("shuffle_labels", 2)):
        with pytest.raises(WorkbenchError):
            make_method(kind, {name: value})
    with pytest.raises(WorkbenchError, match=r"'alhpa'.*Did you mean"):
        make_method(kind, {"alhpa": 1.0})
    assert "alpha" in settings_of(kind)
    assert not {*OF_THE_RUN} & {*settings_of(kind)}  # which a run's table could not give
    assert settings_class(kind).__doc__
