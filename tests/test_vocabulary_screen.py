from dataclasses import replace

import pytest
import torch

from tests.architectures import hf_model, tokenizer
from tests.edits import random_edit
from workbench.editing.attaching import edited
from workbench.editing.generation import generate
from workbench.editing.strengths import Strength
from workbench.errors import WorkbenchError
from workbench.models.loading import load_model
from workbench.models.logit_lens import vocabulary_logits
from workbench.models.passes import forward
from workbench.models.tokens import tokenize
from workbench.stages.uncertainty import normalised_entropy
from workbench.stages.vocabulary_screen import _residuals, conformal_bound, fit_vocabulary_screen


@pytest.fixture(scope="module")
def fold(questions):
    return questions.folds(2)[0]


def errors_by_question(model, screen, questions):
    """Mean and largest error of u over each question's answers, at every layer."""
    found = {}
    for numbers, layer, residual in _residuals(model, questions, range(len(questions)), "bare", 64):
        exact = normalised_entropy(vocabulary_logits(model, residual))
        error = (screen.uncertainty(model, residual) - exact).abs()
        for number in set(numbers.tolist()):
            found.setdefault((number, layer), []).append(error[numbers == number])
    parts = [
        [torch.cat(found[number, layer]) for layer in range(5)] for number in range(len(questions))
    ]
    mean = torch.tensor([[float(part.mean()) for part in row] for row in parts])
    return mean, torch.tensor([[float(part.max()) for part in row] for row in parts])


def test_bounds_hold_on_questions_never_seen(hearsay, fold):
    """On 163 held-out questions, within three standard errors of the level, at every layer."""
    screen = fit_vocabulary_screen(hearsay, fold.train, 40, 64, level=0.9)
    mean, worst = errors_by_question(hearsay, screen, fold.test)
    slack = 3 * (0.9 * 0.1 * (1 / len(mean) + 1 / (len(fold.train) / 2))) ** 0.5
    for errors, bound in ((mean, screen.mean_bound), (worst, screen.worst_bound)):
        covered = (errors <= bound).float().mean(dim=0)
        assert (covered > 0.9 - slack).all()
        assert (covered < 1).any()
    assert screen.mean_bound.max() < 0.06


def test_a_better_screen_is_nearer_and_a_whole_one_exact(hearsay, few):
    residual = torch.randn(50, 160, generator=torch.Generator().manual_seed(0)) * 3
    exact = normalised_entropy(vocabulary_logits(hearsay, residual))
    off = []
    for rank, top in ((10, 16), (60, 128), (160, 1), (5, 2048)):
        screen = fit_vocabulary_screen(hearsay, few, rank, top)
        off.append(float((screen.uncertainty(hearsay, residual) - exact).abs().mean()))
    assert off[0] > 2 * off[1] > 0
    assert off[2] < 1e-3
    assert off[3] < 1e-6


@pytest.mark.parametrize("name", ["gpt2", "opt", "gemma2", "qwen3"])
def test_every_architecture_s_norm_biases_and_caps(name, few):
    model = load_model(hf_model(name), tokenizer(bos=True))
    screen = fit_vocabulary_screen(model, few.choose(range(4)), 32, 20)
    residual = torch.randn(6, 32)
    exact = vocabulary_logits(model, residual)
    assert torch.allclose(screen.logits(model, residual), exact, atol=1e-3)


def test_sixteen_bits(few):
    """In bfloat16 the bound is measured against what the edit would read off all logits."""
    model = load_model("hearsay", dtype="bfloat16", device="cpu")
    screen = fit_vocabulary_screen(model, few, 40, 64)
    mean, _ = errors_by_question(model, screen, few)
    assert torch.isfinite(mean).all()
    assert mean.max() < 0.15
    whole = fit_vocabulary_screen(model, few.choose(range(4)), 160, 2048)
    residual = torch.randn(20, 160, dtype=torch.bfloat16) * 3
    exact = vocabulary_logits(model, residual)
    assert (whole.logits(model, residual) - exact).abs().max() < 0.02 * exact.abs().max()
    assert repr(screen).startswith("VocabularyScreen(rank 40 of 160, top 64, mean error of u")


def test_edits_read_u_through_a_screen(hearsay, few):
    edit = random_edit(hearsay)
    tokens = torch.tensor([tokenize(hearsay, "Q: Who wrote Dracula?\nA:")[0]])
    screen = fit_vocabulary_screen(hearsay, few, 60, 128)
    with edited(hearsay, edit, start=0, screen=screen, site="module") as trace:
        forward(hearsay, tokens, torch.ones_like(tokens))
    with edited(hearsay, edit, start=0, site="module") as exact:
        forward(hearsay, tokens, torch.ones_like(tokens))
    edits = ~exact.strengths.isnan()
    apart = (trace.strengths - exact.strengths)[edits].abs()
    assert 0 < apart.max() < 0.5 * 0.2
    whole = fit_vocabulary_screen(hearsay, few, 5, 2048)
    one, other = (
        generate(hearsay, "Q: Who wrote Dracula?\nA:", edit=edit, screen=s)[0]
        for s in (None, whole)
    )
    assert one.tokens == other.tokens


def test_conformal_bounds_cover_new_draws_as_often_as_they_say():
    generator = torch.Generator().manual_seed(0)
    errors = torch.rand(4000, 40, generator=generator).square()
    bounds = torch.stack(
        [conformal_bound(part[:39], 0.9) for part in errors.T.reshape(100, 40, 40)]
    )
    covered = torch.stack(
        [
            part[39] <= bound
            for part, bound in zip(errors.T.reshape(100, 40, 40), bounds, strict=True)
        ]
    )
    assert abs(float(covered.float().mean()) - 0.9) < 0.02
    assert conformal_bound(errors[:8], 0.9).isinf().all()
    assert torch.equal(conformal_bound(errors[:9], 0.9), errors[:9].amax(dim=0))


def test_refusals(hearsay, few, as_shipped):
    for changes, says in (
        ({"rank": 161}, "rank=161"), ({"rank": 0}, "rank=0"), ({"top": 2049}, "top=2049"),
        ({"level": 1.0}, "level=1.0"),
    ):  # fmt: skip
        with pytest.raises(WorkbenchError, match=says):
            fit_vocabulary_screen(hearsay, few, **changes)
    with pytest.raises(WorkbenchError, match="1 questions"):
        fit_vocabulary_screen(hearsay, few.choose([0]))
    screen = fit_vocabulary_screen(hearsay, few.choose(range(4)), 5, 5)
    amplified = random_edit(hearsay, uncertainty="amplified")
    with edited(hearsay, replace(amplified, strength=Strength("constant")), screen=screen):
        pass  # it reads no u
    refused = pytest.raises(WorkbenchError, match="uncertainty='amplified'")
    with refused, edited(hearsay, amplified, screen=screen):
        pass
