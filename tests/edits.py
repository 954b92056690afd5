"""Edits for tests, with random directions and estimators."""

import torch

from workbench.editing.head_edits import Edit
from workbench.models.identity import identify, shape_of


def random_edit(model, heads=((0, 1), (1, 0), (1, 3), (2, 2)), alpha=1.5, seed=0, **changes):
    draw = torch.Generator().manual_seed(seed)
    shape = shape_of(model)
    settings = {
        "heads": tuple(heads),
        "direction": torch.nn.functional.normalize(
            torch.randn(len(heads), shape.d_head, generator=draw), dim=-1
        ),
        "spread": torch.rand(len(heads), generator=draw) + 0.5,
        "coefficient": torch.randn(len(heads), shape.d_head, generator=draw),
        "intercept": torch.randn(len(heads), generator=draw),
        "alpha": alpha,
        "beta": 0.5,
        "strength": "adaptive",
        "uncertainty": "logit_lens",
        "answer_start": "offsets",
        "model": identify(model),
    }
    return Edit(**{**settings, **changes})
