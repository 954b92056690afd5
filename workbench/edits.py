"""Edits as artefacts: what is added to which heads, how strongly, saved and loaded."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from workbench import storage
from workbench.errors import WorkbenchError
from workbench.misalignment import require_beta
from workbench.models import Model, ModelIdentity, identify, identity_from, require_same_shape
from workbench.prompts import AnswerStart
from workbench.uncertainty import UncertaintyKind, require_kind

StrengthKind = Literal["adaptive", "constant"]
TENSORS = ("direction", "spread", "coefficient", "intercept")
FORMAT = 1


@dataclass(frozen=True, repr=False)
class Edit:
    """A fitted edit of some heads of a model.

    Attributes:
        heads: (layer, head) pairs, best first; the tensors below have a row for each. Different
            ones, but that different goals may share heads.
        direction: unit vectors θ.
        spread: σ, in the units of z.
        alpha: the strength's common factor, in units of σ.
        beta: weight of p̂ against u.
        strength: `adaptive`, s = 1 + β·p̂ + (1 − β)·u; `constant`, s = 1 (ITI).
        uncertainty: how u is read off the residual stream.
        coefficient, intercept: the misalignment estimators; unused where strength is constant.
        answer_start: where scoring begins to edit: `offsets`, at the last prompt token;
            `plus_three`, as published, at the length of the tokenised question plus three.
        model: the model it was fitted on.
        settings: how it was fitted, for the record.
        goals: of a combination, every row's goal; empty otherwise. See `goals.combine`.
    """

    heads: tuple[tuple[int, int], ...]
    direction: Float[Tensor, "edited d_head"]
    spread: Float[Tensor, " edited"]
    coefficient: Float[Tensor, "edited d_head"]
    intercept: Float[Tensor, " edited"]
    alpha: float
    beta: float
    strength: StrengthKind
    uncertainty: UncertaintyKind
    answer_start: AnswerStart
    model: ModelIdentity
    settings: Mapping[str, Any] = field(default_factory=dict)
    goals: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_alpha(self.alpha)
        require_beta(self.beta)
        require_kind(self.uncertainty)
        for name, kinds in (("strength", StrengthKind), ("answer_start", AnswerStart)):
            if getattr(self, name) not in get_args(kinds):
                raise WorkbenchError(
                    f"{name}={getattr(self, name)!r}", f"one of {', '.join(get_args(kinds))}"
                )
        layers, heads = self.model.shape.layers, self.model.shape.heads
        known = [0 <= layer < layers and 0 <= head < heads for layer, head in self.heads]
        goals = self.goals or ("",) * len(self.heads)
        if len(goals) != len(self.heads):
            raise WorkbenchError(f"{len(goals)} goals of {len(self.heads)} heads", "one a head")
        twice = len(set(zip(self.heads, goals, strict=True))) < len(self.heads)
        if not self.heads or not all(known) or twice:
            raise WorkbenchError(
                f"an edit of the heads {list(self.heads)}",
                f"different (layer, head) pairs of {layers} layers x {heads} heads",
            )
        rows, width = len(self.heads), self.model.shape.d_head
        shapes = ((rows, width), (rows,), (rows, width), (rows,))
        for name, shape in zip(TENSORS, shapes, strict=True):
            values: Tensor = getattr(self, name)
            if tuple(values.shape) != shape or not values.is_floating_point():
                raise WorkbenchError(
                    f"an edit's {name} of shape {tuple(values.shape)} and {values.dtype}",
                    f"shape {shape} and a floating-point dtype",
                )
            if not bool(torch.isfinite(values).all()):
                raise WorkbenchError(f"an edit's {name} with NaN or infinite values", "finite ones")

    def __repr__(self) -> str:
        return (
            f"Edit({len(self.heads)} heads of {self.model.name}, layers {self.layers}, "
            f"alpha={self.alpha:g}, {self.strength} strength)"
        )

    @property
    def layers(self) -> tuple[int, ...]:
        """The edited layers, ascending."""
        return tuple(sorted({layer for layer, _ in self.heads}))

    @property
    def shares_heads(self) -> bool:
        """Whether several goals edit the same head."""
        return len(set(self.heads)) < len(self.heads)

    @property
    def reads_uncertainty(self) -> UncertaintyKind | None:
        """The kind of u that the strength depends on; None where it depends on none."""
        return self.uncertainty if self.strength == "adaptive" and self.beta < 1 else None

    def scaled(self, alpha: float) -> Edit:
        """The same edit with another α."""
        return replace(self, alpha=alpha)

    def save(self, folder: storage.PathLike) -> Path:
        """Write `edit.safetensors` and `edit.json` into a folder; see `load_edit`."""
        target = Path(folder)
        tensors = {name: getattr(self, name).cpu() for name in TENSORS}
        weights = storage.write_tensors(target / "edit.safetensors", tensors)
        record = {
            "format": FORMAT,
            "heads": [list(pair) for pair in self.heads],
            "alpha": self.alpha,
            "beta": self.beta,
            "strength": self.strength,
            "uncertainty": self.uncertainty,
            "answer_start": self.answer_start,
            "model": asdict(self.model),
            "settings": dict(self.settings),
            "goals": list(self.goals),
            "tensors": storage.fingerprint(weights),
        }
        storage.write_json(target / "edit.json", record)
        return target


def load_edit(folder: storage.PathLike, model: Model | None = None) -> Edit:
    """Read an edit that `Edit.save` wrote.

    Args:
        folder: where it was saved.
        model: check at once that the edit fits this model's shape.

    Raises:
        WorkbenchError: a file is missing, truncated or of another edit, or the model has another
            shape; both shapes are named.
    """
    place = storage.existing(folder, "folder")
    record = storage.read_json(storage.existing(place / "edit.json"))
    tensors = storage.read_tensors(place / "edit.safetensors")
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise WorkbenchError(
            f"{place / 'edit.json'} is no edit of format {FORMAT}", "Edit.save's file"
        )
    if storage.fingerprint(place / "edit.safetensors") != record.get("tensors"):
        raise WorkbenchError(
            f"{place / 'edit.safetensors'} is not the file that edit.json was written with",
            "the two files of one save",
            "One of them was replaced or damaged: copy both again.",
        )
    try:
        edit = Edit(
            heads=tuple((int(layer), int(head)) for layer, head in record["heads"]),
            alpha=record["alpha"],
            beta=record["beta"],
            strength=record["strength"],
            uncertainty=record["uncertainty"],
            answer_start=record["answer_start"],
            model=identity_from(record["model"]),
            settings=dict(record["settings"]),
            goals=tuple(record.get("goals", ())),
            **{name: tensors[name] for name in TENSORS},
        )
    except KeyError as error:
        raise WorkbenchError(
            f"{place / 'edit.json'} or its tensors lack {error}", f"an edit of format {FORMAT}"
        ) from error
    except (TypeError, ValueError) as error:
        detail = str(error)
        if isinstance(error, WorkbenchError):
            detail = f"{error.came}; not {error.expected}"
        raise WorkbenchError(
            f"{place / 'edit.json'} describes no edit ({detail})", f"an edit of format {FORMAT}"
        ) from error
    if model is not None:
        require_same_shape(model, edit.model.shape, "an edit")
        warn_of_another_model(model, edit)
    return edit


def warn_of_another_model(model: Model, edit: Edit) -> None:
    """Warn where an edit of the right shape was fitted on a model with another config."""
    here = identify(model)
    if here.fingerprint != edit.model.fingerprint:
        warnings.warn(
            f"the edit was fitted on {edit.model.name}, whose config differs from that of "
            f"{here.name}; shapes agree, but directions need not transfer",
            stacklevel=3,
        )


def require_alpha(alpha: float) -> None:
    """Refuse an α that is not a finite number."""
    if isinstance(alpha, bool | str) or not math.isfinite(alpha):
        raise WorkbenchError(f"alpha={alpha}", "a finite number")
