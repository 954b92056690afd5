"""Edits and directions for tests, with random tensors."""

import torch

from workbench.editing.head_edits import Edit
from workbench.models.identity import ModelIdentity, ModelShape, identify, shape_of
from workbench.stages.directions import Directions
from workbench.stages.probes import Probes


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


def directions_of(accuracy, validation, chance=0.6):
    """Directions of heads so accurate, of a model that is none."""
    layers, heads = accuracy.shape
    none = torch.zeros(layers, heads, 4)
    return Directions(
        vector=none,
        spread=none[..., 0],
        accuracy=accuracy,
        chance=chance,
        probes=Probes(none, none[..., 0]),
        validation=torch.tensor(validation),
        model=ModelIdentity("none", "", ModelShape(layers, heads, 4, 4 * heads, 9, 9)),
    )
