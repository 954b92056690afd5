"""Several goals at once: edits of different capabilities combined, and how far they conflict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.doors import door
from workbench.editing.head_edits import Edit
from workbench.editing.interventions import Intervention
from workbench.editing.strengths import Estimators
from workbench.errors import WorkbenchError, kind_of

PARTS = ("model", "strength", "answer_start", "positions")


@dataclass(frozen=True)
class Conflict:
    """How two edits meet.

    Attributes:
        shared: heads that both edit.
        cosine: of their directions there; −1 where they undo each other, 1 where they agree.
        expected: the root mean square cosine of two random directions, 1/√d_head.
    """

    shared: tuple[tuple[int, int], ...]
    cosine: Float[Tensor, " shared"]
    expected: float


@door
def combine(edits: Mapping[str, Intervention]) -> Edit:
    """One edit that makes the changes of all: z ← z + Σ α·σ·s·θ, every strength read off z itself.

    Attached inside one another, the second edit would read p̂ off what the first has changed; here
    none sees another's change in the same layer.

    Args:
        edits: the name of every goal and its edit, all of one model and with the same
            strength, `answer_start` and positions.

    Returns:
        An edit with α = 1, whose spreads hold every edit's own α, and whose rows are named in
        `goals`; `scaled` strengthens or weakens all goals together. It reads u off all words.

    Raises:
        WorkbenchError: fewer than two edits, or edits that do not fit together; what differs is
            named.

    Example:
        >>> remarks = wb.data.load_contrast("hearsay").sample(12)
        >>> manners = wb.TokenAware(heads=2).fit(model, remarks, progress=False)
        >>> wb.combine({"truth": edit, "manners": manners}).goals
        ('truth', 'truth', 'truth', 'truth', 'manners', 'manners')
    """
    if not isinstance(edits, Mapping):
        raise WorkbenchError(
            f"{kind_of(edits)} of edits to combine", 'a mapping: {"polite": edit, ...}'
        )
    if len(edits) < 2:
        raise WorkbenchError(f"{len(edits)} edits to combine", "at least two, by name")
    plain = require_plain(edits)
    first = next(iter(plain.values()))
    for name, other in list(plain.items())[1:]:
        for part in PARTS:
            if getattr(other, part) != getattr(first, part):
                raise WorkbenchError(
                    f"{name!r} with {part}={getattr(other, part)!r} beside "
                    f"{getattr(first, part)!r}",
                    f"the same {part} for all goals",
                )
        if other.goals:
            raise WorkbenchError(f"{name!r}, which is a combination itself", "single edits")
    if first.goals:
        raise WorkbenchError("a combination to combine", "single edits")
    own = [replace(edit, alpha=1.0, spread=edit.alpha * edit.spread) for edit in plain.values()]
    return Edit(
        heads=tuple(head for edit in own for head in edit.heads),
        goals=tuple(name for name, edit in plain.items() for _ in edit.heads),
        alpha=1.0,
        direction=torch.cat([edit.direction for edit in own]),
        spread=torch.cat([edit.spread for edit in own]),
        estimators=_joined([edit.estimators for edit in own]),
        strength=first.strength,
        answer_start=first.answer_start,
        positions=first.positions,
        model=first.model,
        settings={name: {**edit.settings, "alpha": edit.alpha} for name, edit in plain.items()},
    )


def _joined(given: Sequence[Estimators | None]) -> Estimators | None:
    """The estimators of all; None where one has none and so, of the same strength, needs none."""
    known = [own for own in given if own is not None]
    if len(known) < len(given):
        return None
    return Estimators(
        torch.cat([own.coefficient for own in known]), torch.cat([own.intercept for own in known])
    )


def require_plain(edits: Mapping[str, Intervention]) -> dict[str, Edit]:
    """Refuse edits whose steps do not come from p̂ and u alone."""
    found = {}
    for name, edit in edits.items():
        if not isinstance(edit, Edit) or edit.threshold is not None:
            raise WorkbenchError(f"{name!r}, {edit!r}, to combine", "`Edit`s without threshold")
        found[name] = edit
    return found


@door
def conflict(one: Edit, other: Edit) -> Conflict:
    """The heads that two edits share, and the cosine of their directions there.

    Raises:
        WorkbenchError: combinations, or edits of different shapes of model.

    Example:
        >>> found = wb.editing.conflict(edit, edit.scaled(1))
        >>> set(found.shared) == set(edit.heads), bool((found.cosine > 0.999).all())
        (True, True)
    """
    if one.goals or other.goals:
        raise WorkbenchError("the conflict of a combination", "single edits", "Compare its parts.")
    if one.model.shape != other.model.shape:
        raise WorkbenchError(
            f"edits of {one.model.name} and {other.model.name}", "edits of one shape of model"
        )
    shared = tuple(head for head in one.heads if head in other.heads)
    a = one.direction[[one.heads.index(head) for head in shared]].float()
    b = other.direction[[other.heads.index(head) for head in shared]].float()
    return Conflict(
        shared=shared,
        cosine=torch.nn.functional.cosine_similarity(a, b, dim=-1),
        expected=one.model.shape.d_head**-0.5,
    )
