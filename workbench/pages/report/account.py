"""What was run, in plain words: the model, the data, the methods and how they were measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from workbench.evaluation.capabilities.rows import NO_EDIT
from workbench.evaluation.judges.references import reference_metrics
from workbench.evaluation.metrics.references import CONTRASTS
from workbench.evaluation.metrics.registry import METRICS
from workbench.evaluation.text_tables import Table
from workbench.methods.controls import CONTROLS
from workbench.methods.registry import METHODS
from workbench.pages.report.results import Results
from workbench.pages.report.tables import NONE
from workbench.runs.method_plan import control_of

DEMO = {
    NO_EDIT: "none", "random direction": "random", "shuffled labels": "shuffled", "ITI": "iti",
    "TAE": "tae",
}  # fmt: skip
"""The kinds of a demo's methods, where it left no description."""
UNITS = {"truthfulness": "questions", "harmlessness": "prompts"}


def title(results: Results) -> str:
    """The page's title."""
    models = ", ".join(dict.fromkeys(map(str, results.table["model"])))
    capabilities = ", ".join(dict.fromkeys(map(str, results.table["capability"])))
    if results.study is not None:
        axes = ", ".join(results.axes)
        return f"A study of {axes}: {capabilities} of {models}"
    if results.contest is not None:
        return f"Methods at equal side effects: {capabilities} of {models}"
    return f"An evaluation of editing: {capabilities} of {models}"


COSTS = {
    "kl": "plain texts", "kl_own": "answers of the unedited model",
    "kl_right": "answers that it had right", "kl_unrelated": "of its answers to other questions",
    "kl_long": "of its long continuations",
}  # fmt: skip
"""What side effects are measured on."""


def facts(results: Results) -> list[tuple[str, str]]:
    """What was run, a name and a sentence each."""
    run = results.run
    found = [("Model", _model(results)), ("Data", _data(results))]
    found.append(("Methods", f"{len(results.methods)}: {'; '.join(results.methods)}"))
    if results.study is not None:
        found.append(("Settings", _axes(results.study, results.axes)))
    found.append(("Folds", _folds(results)))
    found.append(("How strong", _how_strong(run)))
    judged = run.get("judged_by") or {}
    if judged:
        found.append(("Judges", "; ".join(f"{name}: {who}" for name, who in judged.items())))
    measured = results.table.groupby("metric")["question"].nunique()
    counts = [f"{measured[metric]} {what}" for metric, what in COSTS.items() if metric in measured]
    if counts:
        found.append(("Side effects", f"measured on {', '.join(counts)}"))
    found.append(("Seed", str(results.seed) if results.manifest else "not recorded"))
    return found


def _model(results: Results) -> str:
    name = ", ".join(dict.fromkeys(map(str, results.table["model"])))
    shape = (results.run.get("model_identity") or {}).get("shape")
    if not shape:
        return name
    return (
        f"{name}: {shape['layers']} layers of {shape['heads']} heads, {shape['d_head']} numbers a "
        "head" + (f", as {results.run['dtype']}" if results.run.get("dtype") else "")
    )


def _data(results: Results) -> str:
    """Every capability's source and how many units were tested."""
    sources = results.run.get("data") or {}
    parts = []
    for capability, own in results.table.groupby("capability", sort=False):
        units = own[~own["metric"].isin(["kl", "cross_entropy"])]
        told = f"{units['question'].nunique()} {UNITS.get(str(capability), 'units')} tested"
        if results.run:
            told += f", from {_spelled(sources.get(str(capability), 'hearsay')):.160}"
        parts.append(f"{capability}: {told}")
    return "; ".join(parts)


def _spelled(source: Any) -> str:
    if isinstance(source, Mapping):
        return ", ".join(f"{key} {value}" for key, value in source.items())
    return str(source)


def _axes(study: pd.DataFrame, axes: list[str]) -> str:
    values = {axis: list(dict.fromkeys(study[axis].dropna())) for axis in axes}
    return "; ".join(
        f"{axis} of {', '.join(format(v, 'g') if isinstance(v, float) else str(v) for v in own)}"
        for axis, own in values.items()
    )


def _folds(results: Results) -> str:
    parts = []
    for capability, own in results.table.groupby("capability", sort=False):
        count = own["fold"].nunique()
        refits = own["refit"].nunique() if "refit" in own else 1
        times = f", {refits} times drawn and fitted anew" if refits > 1 else ""
        parts.append(f"{capability} in {count // refits}{times}")
    return "; ".join(parts) + ". What a fold is tested with was fitted on other data"


def _how_strong(run: Mapping[str, Any]) -> str:
    """How α was chosen, and at which multiples it was measured."""
    if not run:
        return "see the settings below"
    offered = [m["alpha"] for m in run["methods"].values() if isinstance(m.get("alpha"), list)]
    text = "every method's α is as given, or its default, see below"
    if offered:
        text = (
            "where several α's are offered, the best on a part of the training questions is taken, "
            "fold by fold; test questions play no part"
        )
    multiples = [s for s in run.get("multiples", ()) if s != 1]
    if multiples:
        text += f"; measured also at {', '.join(format(s, 'g') for s in multiples)} times that α"
    return text


def methods_table(results: Results) -> Table:
    """What every method is, what it was given, and what it came to in every fold."""
    described = results.run.get("methods") or {}
    rows = []
    for method in results.methods:
        own = described.get(method, {})
        kind = str(own.get("kind", "") if described else DEMO.get(method, ""))
        told, named = _about(kind), own.get("of")
        if control_of(own):
            of = named if isinstance(named, str) else method_name(kind)
            told = CONTROLS.about(control_of(own)).replace("TAE", of)
        left_out = ("kind", "control", *(["of"] if isinstance(named, str) else []))
        given = ", ".join(f"{k} {_value(v)}" for k, v in own.items() if k not in left_out)
        used = _settings(results.table[results.table["method"] == method])
        rest = "defaults" if described else NONE
        rows.append((method, told or NONE, given or rest, used))
    return Table(("method", "what it is", "given", "used"), rows, "Methods")


def method_name(kind: str) -> str:
    """What a kind of method is called, as its description begins."""
    return "TAE" if kind in CONTROLS else METHODS.about(kind).partition(":")[0] or kind


def _about(kind: str) -> str:
    """What a kind of method is, in a few words; a user's own by its name."""
    own = {"none": "the model as it is"}.get(kind, "")
    return own or METHODS.about(kind) or CONTROLS.about(kind) or kind


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "/".join(map(_value, value))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} {_value(own)}" for key, own in value.items()) + "}"
    return format(value, "g") if isinstance(value, float) else str(value)


def _settings(own: pd.DataFrame) -> str:
    """The edits' settings, folds with the same one together."""
    used: dict[str, list[str]] = {}
    several = len(own["capability"].unique()) > 1
    for row in own[["capability", "fold", "setting"]].drop_duplicates().itertuples():
        place = f"{row.capability}, fold {row.fold}" if several else f"fold {row.fold}"
        used.setdefault(str(row.setting), []).append(place)
    if len(used) <= 1:
        return next(iter(used), "") or NONE
    return "; ".join(f"{' and '.join(where)}: {setting}" for setting, where in used.items())


def made_with(results: Results) -> Table:
    """Versions of packages; several where sessions with different ones took part."""
    found: dict[str, list[str]] = {}
    for one in results.manifest.get("made with", ()):
        for name, version in one.items():
            found.setdefault(str(name), []).append(str(version))
    rows = [(name, ", ".join(dict.fromkeys(own))) for name, own in found.items()]
    return Table(("package", "version"), rows, "Made with")


def failed(results: Results) -> Table:
    """What could not be fitted or measured, and why."""
    head = ("method", "capability", "fold", "error")
    left = results.manifest.get("failed", ())
    return Table(head, [[str(one[name]) for name in head] for one in left])


def glossary(metrics: list[str]) -> list[tuple[str, str]]:
    """What the metrics mean; groups of one (`ss/gender`) are told once."""
    plain = dict.fromkeys(metric.split("/")[0] for metric in metrics)
    return [(metric, METRICS.about(metric) or _of_references(metric)) for metric in plain]


def _of_references(metric: str) -> str:
    """What a metric of a measure of references means, or one of a judge."""
    measure, _, contrast = metric.rpartition("_")
    if metric not in reference_metrics() or contrast not in CONTRASTS:
        return "the score of the judge, or of the function, of this name"
    told = CONTRASTS[contrast]
    return told if contrast == "acc" else f"{measure} {told}"
