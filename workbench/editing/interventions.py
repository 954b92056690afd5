"""Interventions: what is attached to a model while it runs, saved and loaded as artefacts.

All methods end in one: `head_edits.Edit` adds to heads, `state_edits.StateEdit` changes states.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from workbench import storage
from workbench.checks import require_number, require_one_of, require_whole
from workbench.doors import door, door_of_class
from workbench.errors import WorkbenchError, kind_of
from workbench.models.identity import (
    Model,
    ModelIdentity,
    identify,
)
from workbench.models.prompts import AnswerStart, PromptFormat

OTHER_STYLE = "the edit was fitted on prompts of the style"
"""How the warning of `warn_of_another_style` begins."""
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
FORMAT = 4  # 3 knew no shortlists, 2 kept all parts of an edit of heads side by side
Own = TypeVar("Own", bound="Intervention")
_KINDS: dict[str, type[Intervention]] = {}


@door_of_class
@dataclass(frozen=True)
class Positions:
    r"""Which positions are edited, counted from the last prompt token.

    Attributes:
        first: how many are left alone before the first: 0 changes the answer from its first token
            on, 1 from its second.
        every: only every n-th from there.

    Example:
        >>> with wb.edited(model, edit.at(wb.editing.Positions(every=3))) as trace:
        ...     answers = wb.generate(model, "Q: What is the capital of Australia?\nA:")
        >>> trace[0].strings  # where the edit acted
        (':', 'ra', ' capital', '.')
    """

    first: int = 0
    every: int = 1

    def __post_init__(self) -> None:
        require_whole("first", self.first, 0)
        require_whole("every", self.every, 1)


class Intervention(ABC):
    """A fitted edit of a model; a frozen dataclass of tensors and plain values.

    A subclass gives the kind that saved edits hold, `class AddedVector(StateEdit,
    kind="added_vector")`; without one it is the subclass' `module:name`.

    Attributes:
        kind: what saved edits call it.
        parts: fields that are dataclasses themselves, beside the model, and their classes.
        alpha: the factor of the whole edit; 0 changes nothing.
        answer_start: where scoring begins to edit: `offsets`, at the last prompt token;
            `plus_three`, as TAE's published code, at the length of the tokenised question plus 3.
        positions: which positions from there on.
        model: the model it was fitted on.
        settings: how it was fitted, for the record.

    Example:
        >>> isinstance(edit, wb.editing.Intervention), edit.kind, edit.layers
        (True, 'heads', (1, 2))
        >>> edit.scaled(0).alpha
        0
    """

    kind: ClassVar[str]
    parts: ClassVar[Mapping[str, type]] = {"positions": Positions}
    alpha: float
    answer_start: AnswerStart
    positions: Positions
    model: ModelIdentity
    settings: Mapping[str, Any]

    def __init_subclass__(cls, kind: str = "", **more: Any) -> None:
        super().__init_subclass__(**more)
        address = f"{cls.__module__}:{cls.__qualname__}"
        cls.kind = kind or address
        known = _KINDS.get(cls.kind)
        if known is not None and f"{known.__module__}:{known.__qualname__}" != address:
            raise WorkbenchError(
                f"a second kind of edit {cls.kind!r} ({address})",
                f"another kind: this one is {known.__module__}:{known.__qualname__}",
            )
        _KINDS[cls.kind] = cls

    @property
    @abstractmethod
    def layers(self) -> tuple[int, ...]:
        """The edited layers, ascending."""

    @property
    @abstractmethod
    def label(self) -> str:
        """Size and strength in a few words, as tables show them."""

    def require_sound(self) -> None:
        """Refuse values that no intervention has; those of a kind check the rest."""
        require_number("alpha", self.alpha)
        require_one_of("answer_start", self.answer_start, AnswerStart)
        if not isinstance(self.positions, Positions):
            raise WorkbenchError(f"positions={self.positions!r}", "Positions(...)")

    def require_finite(self, name: str, shape: tuple[int, ...]) -> None:
        """Refuse a tensor of another shape or kind, or with NaN or infinite values.

        Args:
            name: of the field, that of a part with a dot.
            shape: the expected one.
        """
        values: Tensor = attrgetter(name)(self)
        if tuple(values.shape) != shape or values.dtype not in FLOATS:
            raise WorkbenchError(
                f"an edit's {name} of shape {tuple(values.shape)} and {values.dtype}",
                f"shape {shape} and one of {', '.join(map(str, FLOATS))}",
            )
        if not bool(values.isfinite().all()):
            raise WorkbenchError(f"an edit's {name} with NaN or infinite values", "finite ones")

    def scaled(self: Own, alpha: float) -> Own:
        """The same edit with another α."""
        made: Any = self
        changed: Own = replace(made, alpha=alpha)
        return changed

    def at(self: Own, positions: Positions) -> Own:
        """The same edit at other positions."""
        made: Any = self
        changed: Own = replace(made, positions=positions)
        return changed

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by the names of their fields, those of parts with a dot."""
        return _divided(self)[1]

    def constant(self) -> Mapping[Any, Tensor] | None:
        """What is added everywhere, by (point, layer); None where it depends on the state.

        Points are those of `models.passes`: z as [head, d_head], others as [d_model].
        """
        return None

    def export(self, folder: storage.PathLike, model: Model) -> Path:
        """Write a folder that does without the workbench what the edit does; see `exports`.

        Args:
            folder: a new one.
            model: the bridge that it was fitted on, or one of the same shape.
        """
        from workbench.editing.exports.exporting import export  # which reads edits of all kinds

        return export(self, folder, model)

    @door
    def save(self, folder: storage.PathLike, *, overwrite: bool = False) -> Path:
        """Write `edit.safetensors` and `edit.json` into a folder; see `methods.saved.load_edit`.

        Args:
            folder: where to; it is made if there is none.
            overwrite: replace another edit that is there.

        Raises:
            WorkbenchError: the folder holds another edit.
        """
        target = Path(folder)
        plain, tensors = _divided(self)
        with storage.scratch() as place:
            held = {name: value.cpu() for name, value in tensors.items()}
            weights = storage.write_tensors(place / "edit.safetensors", held)
            record = {
                "format": FORMAT,
                "kind": self.kind,
                "tensors": storage.fingerprint(weights),
                **plain,
            }
            told = storage.write_json(place / "edit.json", record)
            known = target / "edit.json"
            there = known.exists() and not overwrite
            if there and storage.fingerprint(known) != storage.fingerprint(told):
                raise WorkbenchError(
                    f"{target}, which holds another edit", "a new folder, or overwrite=True"
                )
            storage.write_tensors(target / "edit.safetensors", held)
            storage.write_json(known, record)
        return target


def _divided(part: Any, prefix: str = "") -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A dataclass' plain values, parts nested, and its tensors, those of parts with a dot."""
    plain: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    for field in fields(part):
        value = getattr(part, field.name)
        if isinstance(value, Tensor):
            tensors[prefix + field.name] = value
        elif is_dataclass(value):
            plain[field.name], inner = _divided(value, f"{prefix}{field.name}.")
            if isinstance(value, Intervention):
                plain[field.name]["kind"] = value.kind
            tensors |= inner
        else:
            plain[field.name] = dict(value) if isinstance(value, Mapping) else value
    return plain, tensors


def kinds_of_edits() -> Mapping[str, type[Intervention]]:
    """The classes of edits that are imported, by what saved edits call them."""
    return MappingProxyType(_KINDS)


def warn_of_another_model(model: Model, edit: Intervention) -> None:
    """Warn where an edit of the right shape was fitted on a model of other config or weights."""
    here, there = identify(model), edit.model
    differing = [
        name
        for name, own, other in (
            ("config", here.fingerprint, there.fingerprint),
            ("quantisation", here.quantisation, there.quantisation),
        )
        if own != other
    ]
    if differing:
        warnings.warn(
            f"the edit was fitted on {there.label}, whose {' and '.join(differing)} differs from "
            f"that of {here.label}; shapes agree, but directions need not transfer",
            stacklevel=3,
        )


def no_edit_at_all(given: object, of: str = "") -> WorkbenchError:
    """The error of something in the place of a fitted edit."""
    mend = "A saved one is read by load_edit(folder, model)."
    if hasattr(given, "fit"):
        mend = "It is a method that was not fitted: method.fit(model, questions) gives one."
    return WorkbenchError(f"{kind_of(given)} as an edit{of}", "a fitted edit, or None", mend)


def warn_of_another_style(edit: object, style: str | PromptFormat) -> None:
    """Warn where an edit is used in another prompt format than that which it was fitted in."""
    fitted = edit.settings.get("style") if isinstance(edit, Intervention) else None
    used = style if isinstance(style, str) else style.name
    if fitted is not None and fitted != used:
        warnings.warn(
            f"{OTHER_STYLE} {fitted!r}, and is used in {used!r}; directions need not transfer",
            stacklevel=4,
        )
