"""Publishing an edit on the hub, with a card that says what a run measured of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from workbench import storage
from workbench.doors import door
from workbench.editing.interventions import Intervention
from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.rows import NO_EDIT
from workbench.evaluation.tables import summary
from workbench.evaluation.text_tables import Table, plain_markdown, rows_by_method
from workbench.hub import names_repository
from workbench.methods.controls import CONTROLS
from workbench.methods.edits_on_hub import pushed
from workbench.methods.saved import load_edit
from workbench.runs.method_plan import control_of
from workbench.runs.summary import how_told, mean_cell

LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")

USE = """```python
import workbench as wb

model = wb.load_model("{base}")
edit = wb.load_edit("{repository}", model)  # revision="…" pins a commit
with wb.edited(model, edit):
    wb.generate(model, "Q: …\\nA:")
```"""
UNMEASURED = (
    "Nothing was measured of this edit when it was published. Measure it, with controls and side "
    "effects, before you use it: `wb.evaluate`."
)


@door
def push_to_hub(
    edit: Intervention,
    repository: str,
    results: storage.PathLike | None = None,
    method: str | None = None,
    *,
    private: bool = False,
    message: str = "An edit made with the workbench",
) -> str:
    """Upload an edit and its card to the Hugging Face hub: tensors and text, never code.

    Args:
        edit: what to publish.
        repository: `owner/name`; it is made if there is none.
        results: the folder of a run that measured the edit; the card then tells its data, folds,
            metrics with intervals, side effects and controls.
        method: what the run calls the edit.
        private: of a repository that is made.
        message: of the commit.

    Returns:
        The commit, to pin: `wb.load_edit(repository, model, revision=commit)`.

    Raises:
        WorkbenchError: no such name or results, a method that the run does not have or of which
            it measured another edit, or a hub that refuses or cannot be reached.

    Example:
        >>> wb.runs.push_to_hub(edit, "my name")
        Traceback (most recent call last):
            ...
        workbench.errors.WorkbenchError: the repository 'my name'. Expected owner/name.
    """
    if not names_repository(repository):
        raise WorkbenchError(f"the repository {repository!r}", "owner/name")
    told = edit_card(edit, repository, results, method)
    with storage.scratch() as folder:
        edit.save(folder)
        storage.write_text(folder / "README.md", told)
        commit = pushed(repository, folder, private=private, message=message)
    return str(commit.oid)


def edit_card(
    edit: Intervention,
    repository: str,
    results: storage.PathLike | None = None,
    method: str | None = None,
) -> str:
    """The card of a published edit, in Markdown; see `push_to_hub`."""
    known = edit.model
    measured = UNMEASURED if results is None else _measured(edit, Path(results), method)
    tags = ["workbench", "activation-steering", "representation-editing"]
    front = [
        "---",
        f"license: {known.licence.lower() if LICENCE.fullmatch(known.licence) else 'other'}",
        "library_name: workbench",
        "tags:",
        *(f"- {tag}" for tag in tags),
        *([f"base_model: {known.name}"] if names_repository(known.name) else []),
        "---",
    ]
    fitted = [
        plain_markdown(f"- `{name}`: {value}") for name, value in sorted(edit.settings.items())
    ]
    parts = [
        "\n".join(front),
        f"# {repository.split('/')[1]}",
        f"`{edit!r}`, an edit of the activations of {known.label} at inference time. It is no "
        "model: it needs the base model, whose licence holds.",
        USE.format(base=known.name, repository=repository),
        "## What was measured",
        measured,
    ]
    if fitted:
        parts += ["## How it was fitted", "\n".join(fitted)]
    return "\n\n".join(parts) + "\n"


def _measured(edit: Intervention, place: Path, method: str | None) -> str:
    """What a run says of the edit, beside the unedited model and the controls."""
    manifest = storage.read_json(storage.existing(place / "manifest.json"))
    table = storage.read_table(place / "results.parquet")
    methods = list(dict.fromkeys(table["method"]))
    if method not in methods:
        raise WorkbenchError.unknown(f"method={method!r} of {place}", method or "", methods)
    keys = manifest.get("edits", {}).get(method, ["*"])  # older manifests do not tell
    files = sorted(file for key in keys for file in place.glob(f"edits/{key}/edit.json"))
    if not any(_same(edit, load_edit(file.parent)) for file in files):
        raise WorkbenchError(
            f"an edit that {place} did not measure as {method!r}",
            f"one of {', '.join(str(file.parent) for file in files[:4]) or 'its edits'}",
            "Load it from there: wb.load_edit(folder, model).",
        )
    run: Mapping[str, Any] = manifest["run"]
    described = run.get("methods", {})
    kinds = (described.get(method, {}).get("kind"), *CONTROLS)
    controls = {
        name for name, own in described.items() if control_of(own) and own.get("kind") in kinds
    }
    shown = table[table["method"].isin({method, NO_EDIT, *controls})]
    folds = table["fold"].nunique()
    data = _spelled(run) or ", ".join(manifest.get("tasks", ()))
    refits = int(shown["refit"].nunique()) if "refit" in shown else 1
    told, _ = how_told(refits)
    lines = [
        f"Data: {data}. {folds} fold{'s' if folds > 1 else ''}; the numbers are of all of them, of "
        f"which this edit is one fold's. Means [95 % {told}]"
        f"{', which hold the fits fixed' if refits == 1 else ''}.",
    ]
    for capability, own in shown.groupby("capability", sort=False):
        lines += [f"### {capability}", _table(own).markdown()]
    limits = manifest.get("limits", {})
    lines += [
        plain_markdown(f"Limits of {name}: {text}")
        for own in limits.values()
        for name, text in own.items()
    ]
    return "\n\n".join(lines)


def _table(own: pd.DataFrame) -> Table:
    """Means with intervals; `kl` and `cross_entropy` are side effects on plain texts."""
    found = summary(own)
    counts = found.groupby("metric", sort=False)["questions"].max()
    metrics = list(dict.fromkeys(found["metric"]))
    head = ("method", *(f"{metric} (n = {counts[metric]})" for metric in metrics))
    return Table(head, rows_by_method(found, metrics, mean_cell))


def _same(one: Intervention, other: Intervention) -> bool:
    """Whether two edits have the same tensors and do the same with them."""
    mine, theirs = one.tensors(), other.tensors()
    return (
        one.label == other.label
        and mine.keys() == theirs.keys()
        and all(torch.equal(own.cpu(), theirs[name].cpu()) for name, own in mine.items())
    )


def _spelled(run: Mapping[str, Any]) -> str:
    """The data of every capability; hearsay's own where a run names none."""
    named = dict.fromkeys(run.get("capabilities", ()), "hearsay") | dict(run.get("data", {}))
    return "; ".join(f"{name}: {Path(str(own)).name}" for name, own in named.items())
