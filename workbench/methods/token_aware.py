"""Token-Aware Editing (Wang et al., EMNLP 2025), stage after stage, and its two presets.

`corrected` is the method as the paper describes it. `reference` is what the published code
computes; each of its five deviations is a switch of its own, so that an ablation can tell what it
contributes. Two of them show test questions to the fit, which is why it needs the whole set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.activations import TokenActivations
from workbench.aggregation import Depth, aggregate, require_depth
from workbench.capturing import SHARD_BYTES, capture, how_captured
from workbench.data.questions import QuestionSet, require_questions
from workbench.directions import (
    DirectionKind,
    Directions,
    fit_directions,
    spread_along,
    token_level_accuracy,
)
from workbench.edits import Edit, StrengthKind, require_alpha
from workbench.errors import WorkbenchError
from workbench.misalignment import Grouping, fit_estimators, incorrect_answers, require_beta
from workbench.models import Model, identify, shape_of
from workbench.probes import Probes
from workbench.prompts import AnswerStart, PromptFormat, prompt_format
from workbench.storage import PathLike
from workbench.token_graphs import GraphSettings
from workbench.uncertainty import UncertaintyKind, require_kind

Ranking = Literal["validation", "token_level", "token_level_published"]
SpreadFold = Literal["train", "all"]

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "corrected": {},
    "reference": {
        "uncertainty": "amplified",
        "head_ranking": "token_level_published",
        "estimator_grouping": "published",
        "answer_start": "plus_three",
        "spread_fold": "all",
    },
}


@dataclass(frozen=True)
class TokenAware:
    """Settings of a fit; the defaults are the preset `corrected`.

    Attributes:
        heads: K, the number of edited heads.
        alpha: α, in units of σ.
        beta: weight of p̂ against u in the strength.
        depth: rounds of graph propagation, or `last`.
        graph: how tokens are joined.
        direction: `mean_difference` or `probe`.
        strength: `adaptive`, or `constant` for s = 1.
        uncertainty: `logit_lens`, or `amplified` (reference switch 1).
        head_ranking: `validation`; `token_level`, the same questions' raw tokens;
            `token_level_published` (reference switch 2), raw tokens of answers whose numbers are
            the validation questions' numbers.
        estimator_grouping: `own`, or `published` (reference switch 3).
        answer_start: `offsets`, or `plus_three` (reference switch 4): where the answer's tokens
            begin at capture and where scoring begins to edit.
        spread_fold: `train`, or `all` questions (reference switch 5).
        style: prompt format of the training answers; `inline` is the published one, the default
            is that of the questions to be answered.
        validation_share: share of the training questions that rank heads.
        shuffle_labels: a control, labels permuted over answers before directions are fitted.
        seed: chooses validation questions and unlabelled prompts.
        batch_size: answers captured together.
    """

    heads: int = 16
    alpha: float = 1.0
    beta: float = 0.5
    depth: Depth = 1
    graph: GraphSettings = field(default_factory=GraphSettings)
    direction: DirectionKind = "mean_difference"
    strength: StrengthKind = "adaptive"
    uncertainty: UncertaintyKind = "logit_lens"
    head_ranking: Ranking = "validation"
    estimator_grouping: Grouping = "own"
    answer_start: AnswerStart = "offsets"
    spread_fold: SpreadFold = "train"
    style: str | PromptFormat = "bare"
    validation_share: float = 0.2
    shuffle_labels: bool = False
    seed: int = 0
    batch_size: int = 64

    def __post_init__(self) -> None:
        for name in ("heads", "batch_size"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise WorkbenchError(f"{name}={getattr(self, name)!r}", "a whole number from 1 on")
        if not isinstance(self.graph, GraphSettings):
            raise WorkbenchError(f"graph={self.graph!r}", "GraphSettings(...)")
        if not 0 < self.validation_share < 1:
            raise WorkbenchError(
                f"validation_share={self.validation_share}", "a share between 0 and 1"
            )
        prompt_format(self.style)
        require_alpha(self.alpha)
        require_beta(self.beta)
        require_depth(self.depth)
        require_kind(self.uncertainty)
        for name, kinds in (
            ("direction", DirectionKind), ("strength", StrengthKind), ("head_ranking", Ranking),
            ("estimator_grouping", Grouping), ("answer_start", AnswerStart),
            ("spread_fold", SpreadFold),
        ):  # fmt: skip
            if getattr(self, name) not in get_args(kinds):
                raise WorkbenchError(
                    f"{name}={getattr(self, name)!r}", f"one of {', '.join(get_args(kinds))}"
                )

    @classmethod
    def preset(cls, name: str, **settings: Any) -> TokenAware:
        """The settings of a preset, `corrected` or `reference`, with changes.

        Raises:
            WorkbenchError: no such preset or setting.
        """
        if name not in PRESETS:
            raise WorkbenchError(f"the preset {name!r}", f"one of {', '.join(PRESETS)}")
        known = [f.name for f in fields(cls)]
        unknown = [key for key in settings if key not in known]
        if unknown:
            raise WorkbenchError(f"the setting {unknown[0]!r}", f"one of {', '.join(known)}")
        return cls(**{**PRESETS[name], **settings})

    @property
    def leaks(self) -> bool:
        """Whether the fit looks at questions outside of the training ones."""
        return (
            self.head_ranking == "token_level_published"
            or self.estimator_grouping == "published"
            or self.spread_fold == "all"
        )

    def fit(
        self,
        model: Model,
        train: QuestionSet,
        *,
        everything: QuestionSet | TokenActivations | None = None,
        activations: TokenActivations | None = None,
        progress: bool = True,
    ) -> Edit:
        """Fit on training questions.

        Args:
            model: the bridge.
            train: the training questions of a fold.
            everything: the whole question set (or its activations), which the leaking switches of
                `reference` look at; refused by nothing else and used by nothing else.
            activations: of `train`, if they were captured already with the same format.
            progress: show bars.

        Raises:
            WorkbenchError: more heads than the model has, a leaking switch without `everything`,
                or activations of other questions.
        """
        require_questions(train)
        self.require_heads(model)
        if self.leaks and everything is None:
            raise WorkbenchError(
                "a reference switch that looks at all questions, without all questions",
                "fit(model, fold.train, everything=fold.everything)",
            )
        mine = activations or self.capture(model, train, progress=progress)
        if mine.questions != train:
            raise WorkbenchError(
                "activations of other questions", "those of the training questions"
            )
        self.require_own(model, mine)
        whole = None
        if self.leaks:
            whole = (
                self.capture(model, everything, progress=progress)
                if isinstance(everything, QuestionSet)
                else everything
            )
        if whole is not None:
            self.require_own(model, whole)
        features = aggregate(mine, self.depth, self.graph, progress=progress)
        directions = fit_directions(
            features, train, kind=self.direction, validation_share=self.validation_share,
            seed=self.seed, shuffle_labels=self.shuffle_labels,
        )  # fmt: skip
        directions = self._ranked(directions, mine, whole)
        if self.spread_fold == "all" and whole is not None:
            directions = replace(
                directions, spread=spread_along(whole.unlabelled, directions.vector)
            )
        return self._edit(directions, self._estimators(mine, whole))

    def require_heads(self, model: Model) -> None:
        """Refuse more heads than the model has."""
        shape = shape_of(model)
        if self.heads > shape.layers * shape.heads:
            raise WorkbenchError(
                f"heads={self.heads} on a model with {shape.layers} layers x {shape.heads} heads",
                f"1 to {shape.layers * shape.heads}",
            )

    def require_own(self, model: Model, activations: TokenActivations) -> None:
        """Refuse activations of another model, or captured with other settings than these."""
        wanted = how_captured(self.style, self.answer_start, self.uncertainty, self.seed)
        differing = [key for key in wanted if activations.made[key] != wanted[key]]
        if activations.model != identify(model):
            raise WorkbenchError(
                f"activations of {activations.model.name} to fit {identify(model).name}",
                "activations of the same model",
            )
        if differing:
            came, expected = (
                ", ".join(f"{key}={_spelled(made[key])}" for key in differing)
                for made in (activations.made, wanted)
            )
            raise WorkbenchError(
                f"activations captured with {came}",
                expected,
                "Capture them with the method's own `capture`.",
            )

    def capture(
        self,
        model: Model,
        questions: QuestionSet,
        *,
        unlabelled: bool = True,
        folder: PathLike | None = None,
        memory: int = SHARD_BYTES,
        progress: bool = True,
    ) -> TokenActivations:
        """The activations that `fit` needs; only for looking, without the unlabelled prompts.

        See `capture` for the folder and the memory budget.
        """
        self.require_heads(model)
        return capture(
            model, questions, style=self.style, answer_start=self.answer_start,
            uncertainty=self.uncertainty, batch_size=self.batch_size, seed=self.seed,
            unlabelled=unlabelled, folder=folder, memory=memory, progress=progress,
        )  # fmt: skip

    def _ranked(
        self, directions: Directions, mine: TokenActivations, whole: TokenActivations | None
    ) -> Directions:
        """Directions with the accuracies that the chosen ranking uses."""
        if self.head_ranking == "validation":
            return directions
        held = directions.validation.nonzero().flatten().tolist()
        if whole is None or self.head_ranking == "token_level":
            accuracy = token_level_accuracy(directions.probes, mine, mine.of_questions(held))
        else:
            answers = numbers_in(whole.questions, mine.questions, held)
            accuracy = token_level_accuracy(directions.probes, whole, answers)
        return replace(directions, accuracy=accuracy)

    def _estimators(self, mine: TokenActivations, whole: TokenActivations | None) -> Probes:
        """Misalignment estimators by the chosen grouping."""
        numbers = range(len(mine.questions))
        if whole is None or self.estimator_grouping == "own":
            return fit_estimators(mine, incorrect_answers(mine, numbers))
        numbers_there = numbers_in(whole.questions, mine.questions, numbers)
        return fit_estimators(whole, incorrect_answers(whole, numbers_there, "published"))

    def _edit(self, directions: Directions, estimators: Probes) -> Edit:
        heads = directions.top(self.heads)
        layer, head = torch.tensor(heads).unbind(dim=1)

        def chosen(values: Float[Tensor, "layer head *rest"]) -> Tensor:
            return values[layer, head].contiguous()

        style = self.style if isinstance(self.style, str) else self.style.name
        return Edit(
            heads=heads,
            direction=chosen(directions.vector),
            spread=chosen(directions.spread),
            coefficient=chosen(estimators.coefficient),
            intercept=chosen(estimators.intercept),
            alpha=self.alpha,
            beta=self.beta,
            strength=self.strength,
            uncertainty=self.uncertainty,
            answer_start=self.answer_start,
            model=directions.model,
            settings={**asdict(replace(self, style=style))},
        )


def _spelled(value: Any) -> str:
    """A setting in an error, prompt formats by their name."""
    return value.name if isinstance(value, PromptFormat) else repr(value)


def numbers_in(whole: QuestionSet, part: QuestionSet, numbers: range | list[int]) -> list[int]:
    """The numbers that questions of a part have in the whole set; matched by their text."""
    place = {question.question: number for number, question in enumerate(whole)}
    try:
        return [place[part[number].question] for number in numbers]
    except KeyError as error:
        raise WorkbenchError(
            f"the training question {error} is not in `everything`", "a set that holds them all"
        ) from error
