import math

import pytest
import torch

from tests.architectures import CONFIGS, hf_model, tokenizer
from workbench.errors import WorkbenchError
from workbench.models.identity import shape_of
from workbench.models.loading import load_model
from workbench.models.logit_lens import vocabulary_logits
from workbench.models.passes import attached, forward
from workbench.stages.uncertainty import (
    amplified_entropy,
    entropy_reader,
    normalised_entropy,
    published_amplification,
)


@pytest.mark.parametrize("layer", [1, 6, 12, 20])
def test_golden_entropy(golden, layer):
    found = amplified_entropy(torch.tensor(golden["entropy_logits"]), layer)
    assert torch.allclose(found, torch.tensor(golden[f"entropy_layer{layer}"]), atol=1e-5)


def test_amplification_of_the_published_layer():
    assert published_amplification() == pytest.approx(38.318, abs=1e-3)
    assert published_amplification(1000) == 0.01


def test_bounds():
    uniform, certain = torch.zeros(1, 50), torch.full((1, 50), -1e9)
    certain[0, 3] = 0
    assert normalised_entropy(uniform).item() == pytest.approx(1.0)
    assert normalised_entropy(certain).item() == 0.0
    masked = torch.tensor([[0.0, 0.0, -torch.inf]])
    assert normalised_entropy(masked).item() == pytest.approx(math.log(2, 3))


@pytest.mark.parametrize("name", CONFIGS)
def test_logit_lens_of_the_last_layer_is_the_model(name):
    model = load_model(hf_model(name), tokenizer(bos=True))
    tokens = torch.randint(2, 400, (1, 7), generator=torch.Generator().manual_seed(0))
    kept = {}
    last = shape_of(model).layers - 1
    hook = (f"blocks.{last}.hook_resid_post", lambda value, hook: kept.update(post=value))
    with model.hooks(fwd_hooks=[hook]), attached(model, {}):
        logits, _ = forward(model, tokens, torch.ones_like(tokens))
    assert torch.allclose(vocabulary_logits(model, kept["post"]), logits, atol=1e-4)


def test_chunks_do_not_matter(hearsay, monkeypatch):
    residual = torch.randn(9, shape_of(hearsay).d_model)
    whole = entropy_reader(hearsay, "logit_lens")(residual)
    monkeypatch.setattr("workbench.stages.uncertainty.CHUNK", {"cpu": 4000})
    monkeypatch.setattr("workbench.stages.uncertainty.LEAST_ROWS", 1)
    assert torch.allclose(whole, entropy_reader(hearsay, "logit_lens")(residual), atol=1e-6)


def test_unknown_kind_is_refused(hearsay, as_shipped):
    with pytest.raises(WorkbenchError, match="uncertainty='max'"):
        entropy_reader(hearsay, "max")(torch.zeros(1, shape_of(hearsay).d_model))


def test_amplified_rows_do_not_depend_on_each_other():
    draw = torch.Generator().manual_seed(3)
    logits = torch.randn(3, 2, 50, generator=draw) + 5 * torch.randn(3, 2, 1, generator=draw)
    alone = [[amplified_entropy(own) for own in rows] for rows in logits]
    assert torch.allclose(amplified_entropy(logits), torch.tensor(alone), atol=1e-5)
