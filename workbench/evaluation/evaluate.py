"""Evaluation: model × edits × data → one tidy table, a value a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any

import pandas as pd

from workbench.data.crows_pairs import PairSet
from workbench.data.questions import QuestionSet, require_questions
from workbench.data.stereoset import StereotypeSet
from workbench.data.toxicity_prompts import PromptSet
from workbench.doors import door, require_fitting
from workbench.editing.interventions import Intervention, no_edit_at_all, warn_of_another_style
from workbench.errors import WorkbenchError, kind_of
from workbench.evaluation.capabilities.fairness import fairness, pair_preference
from workbench.evaluation.capabilities.harmlessness import harmlessness
from workbench.evaluation.capabilities.rows import COLUMNS, Data, Measured, side_effect_rows
from workbench.evaluation.capabilities.truthfulness import truthfulness
from workbench.evaluation.judges.base import Judge, limits_of, toxicity_judge
from workbench.evaluation.judges.references import Described, measure_limits
from workbench.models.identity import Model, identify
from workbench.models.prompts import prompt_format

CAPABILITIES: Mapping[str, Mapping[type, Callable[..., Measured]]] = {
    "truthfulness": {QuestionSet: truthfulness},
    "harmlessness": {PromptSet: harmlessness},
    "fairness": {StereotypeSet: fairness, PairSet: pair_preference},
}
"""What measures a capability, by the kind of its data."""
ENOUGH = 20
"""Texts of which a judge that says the same of all is told as constant."""
GIVEN = ("model", "questions", "prompts", "items", "pairs", "edits", "judge", "judges", "progress")


@door
def evaluate(
    model: Model,
    data: Data,
    edits: Mapping[str, Intervention | Sequence[Intervention] | None],
    *,
    fold: int = 0,
    judges: Sequence[Judge] = (),
    texts: Sequence[str] = (),
    progress: bool = True,
    **settings: Any,
) -> pd.DataFrame:
    """Measure every edit on the same test data.

    Args:
        model: the bridge.
        data: what to measure on: questions (see `capabilities.truthfulness`), prompts
            (`capabilities.harmlessness`), StereoSet's items or CrowS-Pairs' pairs
            (`capabilities.fairness`).
        edits: a name for every edit; None is the model itself, and several edits under one name
            are draws of a random control.
        fold: recorded in the table.
        judges: of the texts that are written; prompts need one of toxicity.
        texts: plain texts for cross-entropy and KL from the unedited model.
        progress: show bars.
        settings: of the capability, such as `style`, `max_new_tokens`, `samples` or `batch_size`.

    Returns:
        Columns `model`, `capability`, `method`, `setting` (the edit's heads and strength), `draw`,
        `fold`, `question` (what is resampled whole: a question, a prompt, a target term, a pair, a
        plain text), `metric` and `value`. The metrics are listed with the capabilities; with
        `texts` there are also `cross_entropy` and `kl`. Where judges say what they cannot tell, the
        table's `attrs["limits"]` holds it, by capability and judge.

    Raises:
        WorkbenchError: no edits, data of an unknown kind, or prompts without a judge.

    Example:
        >>> table = wb.evaluate(
        ...     model, fold.test, {"no edit": None, "TAE": edit}, progress=False
        ... )
        >>> mc1 = table[table["metric"] == "mc1"]
        >>> mc1.groupby("method", sort=False)["value"].mean().round(2).to_dict()
        {'no edit': 0.25, 'TAE': 0.92}
    """
    if not isinstance(edits, Mapping) or not edits:
        came = "no edits" if isinstance(edits, Mapping) else f"{kind_of(edits)}"
        raise WorkbenchError(
            f"{came} to evaluate", "a mapping such as {'no edit': None, 'TAE': edit}"
        )
    if isinstance(texts, str):
        raise WorkbenchError(f"a single text as texts ({texts!r:.60})", "a list of texts")
    named = [
        (method, draw, one)
        for method, own in edits.items()
        for draw, one in enumerate(own if isinstance(own, list | tuple) else [own])
    ]
    empty = [method for method, own in edits.items() if isinstance(own, Sequence) and not own]
    if empty:
        raise WorkbenchError(f"no edits under the name {empty[0]!r}", "an edit, edits or None")
    for method, _, one in named:
        if one is not None and not isinstance(one, Intervention):
            raise no_edit_at_all(one, f" called {method!r}")
    capability, measured = _measured(
        model, data, [edit for *_, edit in named], judges, progress=progress, **settings
    )
    if capability == "truthfulness":
        for one in {id(edit): edit for *_, edit in named}.values():
            warn_of_another_style(one, prompt_format(settings.get("style", "bare")))
    name = identify(model).label
    effects = side_effect_rows(model, texts, [edit for *_, edit in named], progress=progress)
    rows = [
        (name, capability, method, edit.label if edit else "", draw, fold, *row)
        for (method, draw, edit), own, more in zip(named, measured, effects, strict=True)
        for row in (*own, *more)
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    limits = limits_of_capability(capability, judges, settings.get("references", ()))
    limits = both_limits(limits, constancy(table, capability, judges))
    if limits:
        table.attrs["limits"] = {capability: limits}
    return table


def both_limits(limits: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """Two sayings of a judge as one."""
    names = dict.fromkeys([*limits, *more])
    parts = {name: [own[name] for own in (limits, more) if name in own] for name in names}
    return {name: "; ".join(said) for name, said in parts.items()}


def constancy(table: pd.DataFrame, capability: str, judges: Sequence[Judge]) -> dict[str, str]:
    """Judges that said the same of every text of a table, by their names: they tell nothing."""
    found = {}
    for judge in judges:
        own = table[(table["capability"] == capability) & (table["metric"] == judge.name)]
        said = set(own["value"])
        if len(own) >= ENOUGH and len(said) == 1:
            found[judge.name] = f"said the same ({said.pop():g}) of all {len(own)} texts"
    return found


def limits_of_capability(
    capability: str, judges: Sequence[Judge], references: Sequence[Described] = ()
) -> dict[str, str]:
    """What those who judge a capability's texts say they cannot tell, by their names.

    Args:
        capability: one of `CAPABILITIES`.
        judges: as for `evaluate`.
        references: the setting of truthfulness.
    """
    if capability == "truthfulness":
        return limits_of(judges) | measure_limits(references)
    if capability == "harmlessness":
        return limits_of([toxicity_judge(judges)])
    return {}


def require_capability_settings(capability: str, settings: Mapping[str, Any]) -> None:
    """Refuse settings that a capability does not have, and values that they cannot have.

    Args:
        capability: one of `CAPABILITIES`.
        settings: as for `evaluate`, in numbers and texts.
    """
    measures = CAPABILITIES[capability].values()
    found = [name for measure in measures for name in signature(measure).parameters]
    allowed = list(dict.fromkeys(name for name in found if name not in (*GIVEN, "scorer")))
    for key in settings:
        if key not in allowed:
            raise WorkbenchError.unknown(f"the setting {key!r} of {capability}", key, allowed)
    for measure in measures:
        require_fitting(measure, settings, capability)
    prompt_format(settings.get("style", "bare"))


def _measured(
    model: Model,
    data: Data,
    edits: Sequence[Intervention | None],
    judges: Sequence[Judge],
    **settings: Any,
) -> tuple[str, Measured]:
    """The capability that belongs to a kind of data."""
    known_kinds = [
        (capability, measure)
        for capability, measures in CAPABILITIES.items()
        for kind, measure in measures.items()
        if isinstance(data, kind)
    ]
    if not known_kinds:
        require_questions(data)  # says what came
    capability, measure = known_kinds[0]
    known = [name for name in signature(measure).parameters if name not in GIVEN]
    unknown = [name for name in settings if name not in known and name != "progress"]
    if unknown:
        raise WorkbenchError.unknown(
            f"the setting {unknown[0]!r} of {capability}", unknown[0], known
        )
    judging: dict[str, Any] = {}
    if capability == "truthfulness":
        judging = {"judges": judges}
    elif capability == "harmlessness":
        judging = {"judge": toxicity_judge(judges)}
    return capability, measure(model, data, edits, **judging, **settings)
