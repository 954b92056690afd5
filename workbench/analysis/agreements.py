"""Agreement of directions: between methods at the same head, between heads in the residual stream.

Heads have spaces of their own: the cosine of two heads' directions in z says nothing, since the
coordinates of one have no relation to those of the other. What a head writes is W_O z, in the
residual stream that all heads share, and there the images W_O θ can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from workbench.doors import door, door_of_class
from workbench.editing.head_edits import HeadEdit
from workbench.errors import WorkbenchError, kind_of
from workbench.models.identity import Model, shape_of
from workbench.records import Record
from workbench.stages.directions import Directions

Head = tuple[int, int]
"""Layer and number of a head."""
Given = Directions | HeadEdit | Float[Tensor, "layer head d_head"]


@door_of_class
@dataclass(frozen=True, repr=False)
class Agreement(Record):
    """Cosines between directions.

    Attributes:
        names: of the methods; or of the heads, L1 H3 for head 3 of layer 1.
        cosine: of every two; of methods, the mean over the heads for which both have a direction,
            NaN where there is none.
        width: dimensions of the space, d_head or d_model: two random directions have a cosine of
            0 ± 1/√width, and a mean over n heads one of 0 ± 1/√(n·width).
        by_head: of methods, the cosine at every head; None between heads.

    Example:
        >>> flipped = -directions.vector
        >>> agreed = wb.analysis.agreement({"TAE": edit, "flipped": flipped})
        >>> agreed.names
        ('TAE', 'flipped')
        >>> round(float(agreed.cosine[0, 1]), 3)
        -1.0
    """

    names: tuple[str, ...]
    cosine: Float[Tensor, "name other"]
    width: int
    by_head: Float[Tensor, "name other layer head"] | None = None

    def coordinates(self) -> Mapping[str, tuple[str, Sequence[Any]]]:
        """What was compared."""
        return {"name": ("name", self.names), "other": ("other", self.names)}

    def attributes(self) -> Mapping[str, Any]:
        """The dimensions of the space."""
        return {"width": self.width}

    def __repr__(self) -> str:
        kind = "heads" if self.by_head is None else "methods"
        return f"Agreement({len(self.names)} {kind}, {self.width} dimensions)"

    def between(self, one: str, other: str) -> Float[Tensor, "layer head"]:
        """The cosine of two methods at every head.

        Raises:
            WorkbenchError: no such method, or an agreement between heads.
        """
        if self.by_head is None or one not in self.names or other not in self.names:
            raise WorkbenchError(
                f"the agreement of {one!r} and {other!r} head by head",
                "two methods of an agreement between methods"
                if self.by_head is None
                else f"two of {', '.join(self.names)}",
            )
        return self.by_head[self.names.index(one), self.names.index(other)]


@door
def agreement(directions: Mapping[str, Given]) -> Agreement:
    """How far methods agree on the directions of heads, head by head.

    Args:
        directions: a name for each: directions, an edit of heads, of which other heads have none,
            or a tensor [layer, head, d_head]. A vector of zeros is no direction.

    Raises:
        WorkbenchError: fewer than two, another kind, different shapes, or an edit of which several
            goals share a head.

    Example:
        >>> drawn = wb.fit_directions(wb.aggregate(acts), fold.train, kind="random")
        >>> agreed = wb.analysis.agreement({"found": directions, "drawn": drawn})
        >>> agreed.between("found", "drawn").shape
        torch.Size([5, 8])
        >>> bool(abs(agreed.cosine[0, 1]) < 0.1)
        True
    """
    if len(directions) < 2:
        raise WorkbenchError(f"{len(directions)} methods", "at least two to compare")
    vectors = {name: _vectors(name, given) for name, given in directions.items()}
    shapes = {name: tuple(own.shape) for name, own in vectors.items()}
    for one, other in combinations(shapes, 2):
        if shapes[one] != shapes[other]:
            raise WorkbenchError(
                f"directions of shape {shapes[one]} ({one}) and {shapes[other]} ({other})",
                "directions of the same model",
            )
    stacked = torch.stack([_unit(own) for own in vectors.values()])
    by_head = torch.einsum("alhd,blhd->ablh", stacked, stacked).clamp(-1, 1)
    cosine = by_head.flatten(start_dim=2).nanmean(dim=-1)
    return Agreement(tuple(directions), cosine, stacked.shape[-1], by_head)


@door
def agreement_of_heads(
    model: Model, given: Given, heads: Sequence[Head] | None = None
) -> Agreement:
    """How far heads push the residual stream the same way when each moves along its direction.

    The cosine is of the images W_O θ. It does not say that two heads read the same thing, nor what
    later layers make of it; and a norm that a model has behind its heads is left out.

    Args:
        model: whose heads these are.
        given: directions, an edit of heads, or a tensor [layer, head, d_head].
        heads: (layer, head) pairs, such as `directions.top(16)`; by default all with a direction,
            in order.

    Raises:
        WorkbenchError: another shape of model, or no such head or direction.

    Example:
        >>> agreed = wb.analysis.agreement_of_heads(model, edit)
        >>> agreed.names, agreed.cosine.shape
        (('L1 H1', 'L1 H2', 'L2 H3', 'L2 H5'), torch.Size([4, 4]))
    """
    vectors = _vectors("these", given)
    shape = shape_of(model)
    expected = (shape.layers, shape.heads, shape.d_head)
    if tuple(vectors.shape) != expected:
        raise WorkbenchError(f"directions of shape {tuple(vectors.shape)}", f"{expected}")
    known = [(int(at), int(head)) for at, head in vectors.norm(dim=-1).nonzero().tolist()]
    chosen = known if heads is None else [(at, head) for at, head in heads]
    if not chosen or not set(chosen) <= set(known) or len(set(chosen)) < len(chosen):
        raise WorkbenchError(
            f"the heads {chosen}", f"different heads with a direction, of {len(known)} such"
        )
    images = torch.stack([_written(model, vectors[at, head], (at, head)) for at, head in chosen])
    unit = _unit(images)
    names = tuple(f"L{at} H{head}" for at, head in chosen)
    return Agreement(names, (unit @ unit.T).clamp(-1, 1), shape.d_model)


def _vectors(name: str, given: Given) -> Float[Tensor, "layer head d_head"]:
    """A vector a head; zeros where there is no direction."""
    if isinstance(given, Directions):
        return given.vector.double().cpu()
    if isinstance(given, Tensor) and given.ndim == 3:
        return given.double().cpu()
    if not isinstance(given, HeadEdit) or given.shares_heads:
        shared = isinstance(given, HeadEdit)
        raise WorkbenchError(
            f"{name}: an edit whose goals share heads" if shared
            else f"{name}: {kind_of(given)}",
            "directions, an edit of heads with one direction each, or a tensor "
            "[layer, head, d_head]",
        )  # fmt: skip
    shape = given.model.shape
    vectors = torch.zeros(shape.layers, shape.heads, shape.d_head, dtype=torch.float64)
    layer, head = torch.tensor(given.heads).unbind(dim=1)
    vectors[layer, head] = given.direction.double().cpu()
    return vectors


def _unit(vectors: Float[Tensor, "*row width"]) -> Float[Tensor, "*row width"]:
    """Unit vectors; NaN for zeros."""
    none = vectors.norm(dim=-1, keepdim=True) == 0
    return normalize(vectors, dim=-1).masked_fill(none, torch.nan)


def _written(
    model: Model, vector: Float[Tensor, " d_head"], head: Head
) -> Float[Tensor, " d_model"]:
    """What a head writes to the residual stream where its z is a vector: W_O z."""
    layer, number = head
    output = model.blocks[layer].attn.o.original_component
    like = next(output.parameters())
    z = torch.zeros(2, shape_of(model).heads, len(vector), dtype=like.dtype, device=like.device)
    z[1, number] = vector.to(z)
    with torch.no_grad():
        nothing, written = output.forward(z.flatten(start_dim=1)[None])[0].double().cpu()
    image: Tensor = written - nothing
    return image
