"""What was run, in plain words: the model, the data, the methods and how they were measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from workbench.judges.references import METRICS as OF_REFERENCES
from workbench.report.results import Results
from workbench.report.tables import NONE, Table

KINDS = {
    "none": "the model as it is",
    "tae": "token-aware editing: each token and head has a strength of its own",
    "iti": "inference-time intervention: truth directions of heads, one strength for all",
    "caa": "contrastive activation addition: the mean difference of right and wrong answers",
    "sea": "spectral editing of activations",
    "destein": "DeStein: mean differences blended into every head",
    "lofit": "LoFiT: head offsets that are learned",
    "re_control": "RE-Control: a value function steers the states",
    "truthx": "TruthX: edits in a learned truthful space",
    "random": "control: random directions in the heads that TAE chose",
    "shuffled": "control: TAE fitted on shuffled labels",
    "even": "control: TAE's strengths, taken even over all tokens",
    "resampled": "control: TAE's strengths, drawn without regard to the token",
}
DEMO = {
    "no edit": "none", "random direction": "random", "shuffled labels": "shuffled", "ITI": "iti",
    "TAE": "tae",
}  # fmt: skip
"""The kinds of a demo's methods, where it left no description."""
UNITS = {"truthfulness": "questions", "harmlessness": "prompts"}
METRICS = {
    "mc1": "share of questions whose best answer is likelier than every wrong one; more is better",
    "mc2": "probability of the right answers among all that are given; more is better",
    "mc3": "share of right answers that are likelier than every wrong one; more is better",
    "true": "share of answers that state nothing false; more is better",
    "info": "share of answers that state anything; more is better",
    "true_x_info": "true times info; more is better",
    "says_truth": "share of answers that state the truth; more is better",
    "says_myth": "share of answers that state the myth; less is better",
    "says_neither": "share of answers that state neither",
    "ended": "share of answers that end as a sentence does; more is better",
    "max_toxicity": "toxicity of the worst of a prompt's continuations; less is better",
    "any_toxic": "share of prompts with a toxic continuation; less is better",
    "share_toxic": "share of continuations that are toxic; less is better",
    "distinct_1": "different words among all words written",
    "distinct_2": "different pairs of words among all pairs written",
    "distinct_3": "different triples of words among all triples written",
    "tokens": "tokens a continuation",
    "empty": "share of continuations without a word; less is better",
    "continuation_nats": "nats a token of the continuations, for the unedited model or the scorer",
    "perplexity": "the exponential of continuation_nats; less is more fluent",
    "lms": "percentage of meaningful sentences preferred to meaningless ones; 100 is best",
    "ss": "percentage of stereotypes preferred to their opposites; 50 is best",
    "icat": "lms, reduced by the distance of ss from 50; 100 is best",
    "crows_pairs": "percentage of stereotypes preferred to their opposites; 50 is best",
    "cross_entropy": "nats a token on plain texts; less is better",
    "kl": "Kullback-Leibler divergence from the unedited model on plain texts, nats a token",
}
CONTRASTS = {
    "max": "of an answer to the nearest correct reference answer",
    "diff": "of an answer to the nearest correct reference answer, minus that to the nearest "
    "incorrect one; more is better",
    "acc": "share of answers that are nearer to a correct reference answer than to any incorrect "
    "one; more is better",
}
"""What a measure's likeness to references is made into, by the end of the metric's name."""


def title(results: Results) -> str:
    """The page's title."""
    models = ", ".join(dict.fromkeys(map(str, results.table["model"])))
    tasks = ", ".join(dict.fromkeys(map(str, results.table["task"])))
    if results.study is not None:
        axes = ", ".join(results.axes)
        return f"A study of {axes}: {tasks} of {models}"
    if results.contest is not None:
        return f"Methods at equal side effects: {tasks} of {models}"
    return f"An evaluation of editing: {tasks} of {models}"


def facts(results: Results) -> list[tuple[str, str]]:
    """What was run, a name and a sentence each."""
    run = results.run
    found = [("Model", _model(results)), ("Data", _data(results))]
    found.append(("Methods", f"{len(results.methods)}: {'; '.join(results.methods)}"))
    if results.study is not None:
        found.append(("Settings", _axes(results.study, results.axes)))
    found.append(("Folds", _folds(results)))
    found.append(("Strengths", _strengths(run)))
    judged = run.get("judged_by") or {}
    if judged:
        found.append(("Judges", "; ".join(f"{name}: {who}" for name, who in judged.items())))
    texts = results.table[results.table["metric"] == "kl"]
    if len(texts):
        count = texts["question"].nunique()
        found.append(("Side effects", f"measured on {count} plain texts"))
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
    """Every task's source and how many units were tested."""
    sources = results.run.get("data") or {}
    parts = []
    for task, own in results.table.groupby("task", sort=False):
        units = own[~own["metric"].isin(["kl", "cross_entropy"])]
        told = f"{units['question'].nunique()} {UNITS.get(str(task), 'units')} tested"
        if results.run:
            told += f", from {_spelled(sources.get(str(task), 'hearsay')):.160}"
        parts.append(f"{task}: {told}")
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
    for task, own in results.table.groupby("task", sort=False):
        count = own["fold"].nunique()
        parts.append(f"{task} in {count}")
    return "; ".join(parts) + ". What a fold is tested with was fitted on other data"


def _strengths(run: Mapping[str, Any]) -> str:
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
    multiples = [s for s in run.get("strengths", ()) if s != 1]
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
        told = KINDS.get(kind, kind).replace("TAE", own.get("of", "TAE"))
        given = ", ".join(f"{k} {_value(v)}" for k, v in own.items() if k not in ("kind", "of"))
        used = _settings(results.table[results.table["method"] == method])
        rest = "defaults" if described else NONE
        rows.append((method, told or NONE, given or rest, used))
    return Table("Methods", ("method", "what it is", "given", "used"), tuple(rows))


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "/".join(map(_value, value))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} {_value(own)}" for key, own in value.items()) + "}"
    return format(value, "g") if isinstance(value, float) else str(value)


def _settings(own: pd.DataFrame) -> str:
    """The edits' settings, folds with the same one together."""
    used: dict[str, list[str]] = {}
    several = len(own["task"].unique()) > 1
    for row in own[["task", "fold", "setting"]].drop_duplicates().itertuples():
        place = f"{row.task}, fold {row.fold}" if several else f"fold {row.fold}"
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
    rows = tuple((name, ", ".join(dict.fromkeys(own))) for name, own in found.items())
    return Table("Made with", ("package", "version"), rows)


def glossary(metrics: list[str]) -> list[tuple[str, str]]:
    """What the metrics mean; groups of one (`ss/gender`) are told once."""
    plain = dict.fromkeys(metric.split("/")[0] for metric in metrics)
    return [(metric, METRICS.get(metric) or _of_references(metric)) for metric in plain]


def _of_references(metric: str) -> str:
    """What a metric of a measure of references means, or one of a judge."""
    if metric not in OF_REFERENCES:
        return "the score of the judge of this name"
    measure, _, contrast = metric.rpartition("_")
    told = CONTRASTS[contrast]
    return told if contrast == "acc" else f"{measure} {told}"
