"""What a run evaluates: the keys of its description, checked before anything is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, get_args

from workbench import storage
from workbench.checks import is_whole, require_whole
from workbench.data.registry import SOURCES
from workbench.doors import door_of_class
from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.rows import NO_EDIT
from workbench.evaluation.capabilities.splits import Capability
from workbench.evaluation.evaluate import require_capability_settings
from workbench.evaluation.judges.making import require_described
from workbench.evaluation.judges.references import (
    named_measure,
    reference_metrics,
    require_measures,
)
from workbench.evaluation.judges.registry import JUDGES
from workbench.evaluation.metrics.registry import METRICS, Metric, own_metrics
from workbench.methods.making import named
from workbench.runs.method_plan import MethodPlan, plan_of, require_multiples

SOURCE = TEXTS = "hearsay"
"""The data of a capability of which a run says nothing, and the kind of its plain texts."""

WHERE = {
    f"{metric}_{ending}": key
    for metric in ("kl", "cross_entropy")
    for ending, key in (
        ("own", "own_answers"), ("right", "right_answers"), ("long", "long_answers"),
        ("unrelated", "unrelated"),
    )
}  # fmt: skip
"""What says that side effects are measured where edits act."""


@door_of_class
@dataclass(frozen=True)
class RunConfig:
    """What to evaluate; the keys of a TOML file.

    Attributes:
        model: a name or folder, as `load_model` takes it.
        dtype, device: of the model; its defaults if left out.
        capabilities: some of truthfulness, harmlessness and fairness.
        data: every capability's source, such as a path or a user's `module:name`, see
            `capabilities.splits`; hearsay by default.
        methods: a table a method: `kind` (none, or one of `methods.METHODS`), `control` (one of
            `methods.CONTROLS`, made of the method: shuffled labels, random directions, or its own
            strengths taken even over tokens or drawn among them; as a kind it is that of tae),
            `preset` of tae, `alpha` (a number, or a list to choose from on training questions),
            `choose` (a table of such lists of other settings), `of` (of a method around another
            one, the other's table), `draws` of random directions or of drawn strengths, `fit` (a
            capability, or a list of them whose edits are combined, instead of the one that is
            tested), `train_size` (so many training questions, drawn by the seed), `multiples`
            instead of the run's, and any setting of the kind.
        multiples: what every method's α is multiplied with; 1 must be among them. What is measured
            at others is in the sweep alone.
        judges: a table a judge, see `judges.making`; hearsay needs none.
        scorer: name or folder of the model whose perplexity of continuations counts; by default
            the evaluated one, unedited.
        metrics: those to show in the summary; all by default. Everything is measured.
        primary: the metrics that are to decide, see `compare`; all by default.
        against: the method that the others are compared with.
        folds, seed: how data are split; the seed is also that of methods and samples.
        refits: how often folds are drawn and methods fitted anew, with seeds of their own; tables
            then have a column `refit`, and intervals hold what another fit would change.
        refits_now: how many of the refits are made, the first ones; all by default. What they are
            does not depend on it: the same run with more, in the same folder, goes on there.
        texts: plain texts for cross-entropy and KL: how many of hearsay's a fold; or the path of a
            JSON list, which the folds share out; or a table of `path` and `count`, the first of
            each fold's share.
        together: how many methods of a fold are measured at once, and share what can be shared.
        evaluation: settings by capability, such as `samples` and `max_new_tokens` of harmlessness,
            or `references` of truthfulness: a list of `"bleu"`, `"rouge"` and
            `{kind = "similarity", model = folder}`, see `judges.references`.

    Example:
        >>> methods = {"no edit": {"kind": "none"}, "ITI": {"kind": "iti", "heads": 4}}
        >>> wb.runs.RunConfig(methods=methods).capabilities
        ('truthfulness',)
        >>> wb.runs.RunConfig(folds=0)
        Traceback (most recent call last):
            ...
        workbench.errors.WorkbenchError: folds=0. Expected a whole number from 2 on.
    """

    model: str = "hearsay"
    dtype: str | None = None
    device: str | None = None
    capabilities: Sequence[str] = ("truthfulness",)
    data: Mapping[str, Any] = field(default_factory=dict)
    methods: Mapping[str, Mapping[str, Any]] = field(
        default_factory=lambda: {NO_EDIT: {"kind": "none"}, "TAE": {"kind": "tae"}}
    )
    judges: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    scorer: str | None = None
    metrics: Sequence[str] = ()
    primary: Sequence[str] = ()
    against: str | None = None
    folds: int = 2
    seed: int = 0
    refits: int = 1
    refits_now: int | None = None
    texts: int | str | Mapping[str, Any] = 0
    multiples: Sequence[float] = (1.0,)
    together: int = 12
    evaluation: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._require_types()
        self._name_objects()
        known = get_args(Capability)
        for capability in (*self.capabilities, *self.data, *self.evaluation, *self.fitted()):
            if capability not in known:
                raise WorkbenchError.unknown(f"the capability {capability!r}", capability, known)
        if not self.capabilities or not self.methods:
            raise WorkbenchError("a run without capabilities or methods", "at least one of each")
        if len(set(self.capabilities)) < len(self.capabilities):
            raise WorkbenchError(f"capabilities={list(self.capabilities)}", "different ones")
        for plan in self.plans.values():
            self._require_start(plan)
        if self.against is not None and self.against not in self.methods:
            raise WorkbenchError(
                f"against={self.against!r}", f"one of the methods {', '.join(self.methods)}"
            )
        for name, judge in self.judges.items():
            require_described(name, judge)
        self._require_shown()

    def _name_objects(self) -> None:
        """Put names in the place of a user's classes and functions, as a file would hold them."""
        methods = {
            name: named(own) if isinstance(own, Mapping) else own
            for name, own in self.methods.items()
        }
        judges = {
            name: {**own, "kind": JUDGES.name_of(own["kind"])}
            if isinstance(own, Mapping) and (callable(own.get("kind")) or own.get("kind") in JUDGES)
            else own
            for name, own in self.judges.items()
        }
        evaluation = {name: dict(own) for name, own in self.evaluation.items()}
        for own in evaluation.values():
            if "metrics" in own:
                own["metrics"] = [METRICS.name_of(one) for one in own["metrics"]]
            if isinstance(own.get("references"), list | tuple):
                own["references"] = [named_measure(one) for one in own["references"]]
        data = {capability: SOURCES.named(source) for capability, source in self.data.items()}
        for key, value in (
            ("methods", methods), ("judges", judges), ("evaluation", evaluation), ("data", data),
        ):  # fmt: skip
            object.__setattr__(self, key, value)

    def _require_shown(self) -> None:
        """Refuse settings of capabilities, and metrics, that there are not."""
        for capability, settings in self.evaluation.items():
            require_measures(settings.get("references", ()))
            require_capability_settings(capability, settings)
        measured = [name for name, entry in METRICS.items() if isinstance(entry, Metric)]
        known = [*measured, *self.judges, *self._own_metrics()]
        for metric in (*self.metrics, *self.primary):
            if metric.split("/")[0] not in known:
                raise WorkbenchError.unknown(f"the metric {metric!r}", metric, known)
        settings = self.evaluation.get("truthfulness", {})
        for metric in self.primary:
            name = metric.split("/")[0]
            key = WHERE.get(name)
            lacks = f"evaluation.truthfulness.{key}" if key and not settings.get(key) else ""
            if name in ("kl", "cross_entropy") and not self.texts:
                lacks = "texts"
            if lacks:
                raise WorkbenchError(
                    f"the primary metric {metric!r}, which is not measured", f"{lacks} beside it"
                )

    def _own_metrics(self) -> list[str]:
        """What measures of references and functions of a user's own yield."""
        found = reference_metrics()
        for settings in self.evaluation.values():
            found += reference_metrics(settings.get("references", ()))
            found += own_metrics(settings.get("metrics", ()))
        return found

    def _require_types(self) -> None:
        """Refuse values of another kind than their keys have."""
        for key in ("data", "methods", "judges", "evaluation"):
            if not isinstance(getattr(self, key), Mapping):
                raise WorkbenchError(f"{key}={getattr(self, key)!r:.60}", "a table")
        for key in ("capabilities", "metrics", "primary"):
            value = getattr(self, key)
            if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
                raise WorkbenchError(f"{key}={value!r:.60}", "a list of names")
        if self.scorer is not None and not isinstance(self.scorer, str):
            raise WorkbenchError(f"scorer={self.scorer!r:.60}", "a model's name or folder")
        for key, least in (("folds", 2), ("seed", 0), ("refits", 1), ("together", 1)):
            require_whole(key, getattr(self, key), least)
        if self.refits_now is not None:
            require_whole("refits_now", self.refits_now, 1)
            if self.refits_now > self.refits:
                raise WorkbenchError(
                    f"refits_now={self.refits_now}", f"at most refits={self.refits}"
                )
        self._require_texts()
        require_multiples(self.multiples)
        self._require_evaluation()

    def _require_evaluation(self) -> None:
        for capability, settings in self.evaluation.items():
            if not isinstance(settings, Mapping):
                raise WorkbenchError(f"evaluation.{capability}={settings!r}", "a table")
            listed = settings.get("metrics", [])
            if not isinstance(listed, list | tuple):
                raise WorkbenchError(
                    f"evaluation.{capability}.metrics={listed!r:.60}",
                    "a list of functions, or of their module:name",
                )

    def _require_texts(self) -> None:
        texts = self.texts
        if is_whole(texts) and texts >= 0:
            return
        path, count = self.text_source()
        known = is_whole(count) and count > 0
        if not isinstance(path, str) or not (count is None or known):
            raise WorkbenchError(
                f"texts={self.texts!r}",
                "a number from 0 on, a path, or a table of a path and a count from 1 on",
            )
        storage.existing(path)

    @property
    def refits_made(self) -> int:
        """How many refits the run has, so far as it is to be made."""
        return self.refits_now or self.refits

    def text_source(self) -> tuple[Any, Any]:
        """The path of plain texts, and how many of them a fold; None for all."""
        if isinstance(self.texts, Mapping) and set(self.texts) == {"path", "count"}:
            return self.texts["path"], self.texts["count"]
        return self.texts, None

    def _require_start(self, plan: MethodPlan) -> None:
        """Refuse TAE's published beginning of answers where there are no questions and answers."""
        fitted = plan.capabilities or self.capabilities
        others = [capability for capability in fitted if capability != "truthfulness"]
        starts = [getattr(method, "answer_start", "") for method in plan.candidates]
        if others and "plus_three" in starts:
            raise WorkbenchError(
                f"the method {plan.name!r} with answer_start='plus_three' for {others[0]}",
                "questions and answers: three tokens on, a short continuation is over",
                "Give it answer_start = 'offsets'.",
            )

    @cached_property
    def plans(self) -> dict[str, MethodPlan]:
        """The methods by name, as typed values."""
        return {
            name: plan_of(name, described, self.seed, self.multiples)
            for name, described in self.methods.items()
        }

    def fitted(self) -> list[Any]:
        """The capabilities that are tested, then those that methods are only fitted on."""
        more = [one for plan in self.plans.values() for one in plan.capabilities]
        return list(dict.fromkeys([*self.capabilities, *more]))
