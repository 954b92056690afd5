"""Saved edits of any method, read again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from workbench import storage
from workbench.doors import door
from workbench.editing.interventions import (
    FORMAT,
    Intervention,
    kinds_of_edits,
    warn_of_another_model,
)
from workbench.errors import WorkbenchError
from workbench.hub import names_repository
from workbench.methods.edits_on_hub import fetch_edit
from workbench.methods.making import tupled
from workbench.methods.older_edits import OLDER, modernised
from workbench.methods.registry import METHODS
from workbench.models.identity import Model, identity_from, require_same_shape


@door
def load_edit(
    folder: storage.PathLike, model: Model | None = None, *, revision: str | None = None
) -> Intervention:
    """Read an edit of any method that `save` wrote, or that was pushed to the hub.

    The class of one's own kind of edit is not looked for: import its module before. A file that
    names code to run is none that one may open.

    Args:
        folder: where it was saved; or `owner/name` on the Hugging Face hub, if there is no such
            folder here. The edit's `settings["hub"]` then tells the commit it is of.
        model: check at once that the edit fits this model's shape.
        revision: on the hub, a commit, branch or tag; give a commit for what does not change.

    Raises:
        WorkbenchError: a file is missing, truncated or of another edit, or the model has another
            shape; both shapes are named; or the hub does not have it or cannot be reached.

    Example:
        >>> edit.save("truth").name
        'truth'
        >>> wb.load_edit("truth", model)
        Edit(4 heads of hearsay, layers (1, 2), alpha=5, adaptive strength)
    """
    len(METHODS)  # the workbench's own kinds of edits are known once its methods are
    here = Path(storage.expanded(folder))
    commit = ""
    if isinstance(folder, str) and names_repository(folder) and not here.exists():
        here, commit = fetch_edit(folder, revision)
    elif revision is not None:
        raise WorkbenchError(f"revision={revision!r} of {folder}", "owner/name on the hub")
    place = storage.existing(here, "folder")
    file = place / "edit.json"
    record = storage.read_json(storage.existing(file))
    tensors = storage.read_tensors(place / "edit.safetensors")
    if not isinstance(record, dict) or record.get("format") not in (FORMAT, *OLDER):
        came = record.get("format") if isinstance(record, dict) else None
        raise WorkbenchError(
            f"{file}, which holds no edit of a known format ({came!r:.20})",
            f"what an edit's save wrote, of a format from {min(OLDER)} to {FORMAT}",
            "A larger number is a newer workbench's.",
        )
    if storage.fingerprint(place / "edit.safetensors") != record.get("tensors"):
        raise WorkbenchError(
            f"{place / 'edit.safetensors'} is not the file that edit.json was written with",
            "the two files of one save",
            "One of them was replaced or damaged: copy both again.",
        )
    edit = _read(record, tensors, file)
    if commit:
        known: Any = edit
        edit = replace(known, settings={**edit.settings, "hub": f"{folder}@{commit}"})
    if model is not None:
        require_same_shape(model, edit.model.shape, "an edit")
        warn_of_another_model(model, edit)
    return edit


def _read(record: Mapping[str, Any], tensors: Mapping[str, Tensor], file: Path) -> Intervention:
    """An edit of what its two files hold."""
    wanted = f"an edit of format {record['format']}"
    try:
        if record["format"] in OLDER:
            record, tensors = modernised(record, tensors)
        kind = kinds_of_edits().get(str(record["kind"]))
        edit = None if kind is None else _made(kind, record, tensors)
    except KeyError as error:
        raise WorkbenchError(f"{file} or its tensors lack {error}", wanted) from error
    except (TypeError, ValueError, AttributeError) as error:
        detail = str(error)
        if isinstance(error, WorkbenchError):
            detail = f"{error.came}; not {error.expected}"
        raise WorkbenchError(f"{file} describes no edit ({detail})", wanted) from error
    if edit is None:
        known = [name for name in kinds_of_edits() if ":" not in name]
        raise WorkbenchError(
            f"{file} is an edit of the kind {record['kind']!r}",
            f"one of {', '.join(known)}, or a kind whose module is imported already",
        )
    return edit


def _made(kind: Any, record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Intervention:
    """An edit of a kind, its parts put together."""
    values: dict[str, Any] = {}
    for name in (field.name for field in fields(kind)):
        if name in tensors:
            values[name] = tensors[name]
        elif name in kind.parts and record[name] is not None:
            own = {
                key.removeprefix(f"{name}."): value
                for key, value in tensors.items()
                if key.startswith(f"{name}.")
            }
            values[name] = _part(kind.parts[name], record[name], own)
        else:
            values[name] = tupled(record[name])
    values["model"] = identity_from(record["model"])
    values["settings"] = dict(record["settings"])
    made: Intervention = kind(**values)
    return made


def _part(kind: Any, record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    """A part of an edit; one that is an edit itself says of what kind."""
    if issubclass(kind, Intervention):
        return _made(kinds_of_edits()[record["kind"]], record, tensors)
    return kind(**{**record, **tensors})
