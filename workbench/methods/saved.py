"""Saved edits of any method, read again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from workbench import storage
from workbench.editing.interventions import (
    FORMAT,
    Intervention,
    Positions,
    kinds_of_edits,
    warn_of_another_model,
)
from workbench.errors import WorkbenchError
from workbench.methods.registry import METHODS
from workbench.models.identity import Model, identity_from, require_same_shape

BEFORE: Mapping[str, str] = {
    "workbench.edits.Edit": "heads",
    "workbench.methods.caa.AddedVector": "added_vector",
    "workbench.methods.destein.HeadFusion": "head_fusion",
    "workbench.methods.re_control.ValueAscent": "value_ascent",
    "workbench.methods.sea.SpectralEdit": "spectral",
    "workbench.methods.truthx.TruthfulShift": "truthful_shift",
}
"""What edits that were saved before kinds had short names call theirs."""


def load_edit(folder: storage.PathLike, model: Model | None = None) -> Intervention:
    """Read an edit of any method that `save` wrote.

    Args:
        folder: where it was saved.
        model: check at once that the edit fits this model's shape.

    Raises:
        WorkbenchError: a file is missing, truncated or of another edit, or the model has another
            shape; both shapes are named.

    Example:
        >>> edit.save("truth").name
        'truth'
        >>> wb.load_edit("truth", model)
        Edit(4 heads of hearsay, layers (1, 2), alpha=5, adaptive strength)
    """
    len(METHODS)  # the workbench's own kinds of edits are known once its methods are
    place = storage.existing(folder, "folder")
    file = place / "edit.json"
    record = storage.read_json(storage.existing(file))
    tensors = storage.read_tensors(place / "edit.safetensors")
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise WorkbenchError(f"{file} is no edit of format {FORMAT}", "what an edit's save wrote")
    if storage.fingerprint(place / "edit.safetensors") != record.get("tensors"):
        raise WorkbenchError(
            f"{place / 'edit.safetensors'} is not the file that edit.json was written with",
            "the two files of one save",
            "One of them was replaced or damaged: copy both again.",
        )
    kind: Any = _kind(record.get("kind"), file)
    try:
        names = [field.name for field in fields(kind)]
        values = {
            **{name: tensors.get(name, _tupled(record.get(name))) for name in names},
            "model": identity_from(record["model"]),
            "positions": Positions(**record["positions"]),
            "settings": dict(record["settings"]),
        }
        absent = [name for name in names if name not in tensors and name not in record]
        if absent:
            raise KeyError(absent[0])
        edit: Intervention = kind(**values)
    except KeyError as error:
        raise WorkbenchError(
            f"{file} or its tensors lack {error}", f"an edit of format {FORMAT}"
        ) from error
    except (TypeError, ValueError) as error:
        detail = str(error)
        if isinstance(error, WorkbenchError):
            detail = f"{error.came}; not {error.expected}"
        raise WorkbenchError(
            f"{file} describes no edit ({detail})", f"an edit of format {FORMAT}"
        ) from error
    if model is not None:
        require_same_shape(model, edit.model.shape, "an edit")
        warn_of_another_model(model, edit)
    return edit


def _kind(name: Any, file: Path) -> type[Intervention]:
    """A class of edits by what saved edits call it, or called it."""
    found = kinds_of_edits().get(BEFORE.get(str(name), str(name)))
    if found is None:
        known = [kind for kind in kinds_of_edits() if ":" not in kind]
        raise WorkbenchError(
            f"{file} is an edit of the kind {name!r}",
            f"one of {', '.join(known)}, or a kind whose module is imported already",
        )
    return found


def _tupled(value: Any) -> Any:
    """Lists, as JSON has them, as tuples."""
    return tuple(map(_tupled, value)) if isinstance(value, list) else value
