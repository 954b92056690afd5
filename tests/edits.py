"""Edits and directions for tests, with random tensors."""

from dataclasses import fields

import torch

from workbench.editing.drawn_strengths import DrawnHeads
from workbench.editing.head_edits import Edit, HeadEdit
from workbench.editing.strengths import Estimators, Strength
from workbench.models.identity import ModelIdentity, ModelShape, identify, shape_of
from workbench.stages.directions import Directions
from workbench.stages.probes import Probes


def random_edit(model, heads=((0, 1), (1, 0), (1, 3), (2, 2)), alpha=1.5, seed=0, **changes):
    """An edit of heads; a part of its strength or estimators may be given by its own name."""
    draw = torch.Generator().manual_seed(seed)
    shape = shape_of(model)
    own = {name: changes.pop(name) for name in ("beta", "uncertainty") if name in changes}
    threshold = changes.pop("threshold", None)
    settings = {
        "heads": tuple(heads),
        "direction": torch.nn.functional.normalize(
            torch.randn(len(heads), shape.d_head, generator=draw), dim=-1
        ),
        "spread": torch.rand(len(heads), generator=draw) + 0.5,
        "estimators": Estimators(
            torch.randn(len(heads), shape.d_head, generator=draw),
            torch.randn(len(heads), generator=draw),
            threshold,
        ),
        "alpha": alpha,
        "strength": Strength(changes.pop("strength", "adaptive"), **own),
        "model": identify(model),
    }
    return Edit(**{**settings, **changes})


def drawn_edit(model, strengths, **changes):
    """The same with strengths that are drawn from a table."""
    edit = random_edit(model, **changes)
    kept = {field.name: getattr(edit, field.name) for field in fields(HeadEdit)}
    return DrawnHeads(**kept, strengths=strengths)


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
