"""The settings of Token-Aware Editing, checked when they are made, and what they ask of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from workbench.checks import is_whole, require_one_of, require_share, require_whole
from workbench.data.questions import QuestionSet
from workbench.editing.interventions import Positions
from workbench.editing.strengths import StrengthKind
from workbench.errors import WorkbenchError
from workbench.methods.base import Method
from workbench.models.identity import Model, identify, shape_of
from workbench.models.prompts import AnswerStart, PromptFormat
from workbench.stages.activations import TokenActivations
from workbench.stages.aggregation import Depth, require_depth
from workbench.stages.capture import SHARD_BYTES, capture, how_captured
from workbench.stages.directions import (
    RULES,
    Rule,
)
from workbench.stages.misalignment import (
    Grouping,
    require_beta,
)
from workbench.stages.token_graph import GraphSettings
from workbench.stages.uncertainty import UncertaintyKind, require_kind
from workbench.storage import PathLike

Ranking = Literal["validation", "token_level", "token_level_published", "random"]
SpreadFold = Literal["train", "all"]


@dataclass(frozen=True, kw_only=True)
class TokenAwareSettings(Method):
    """Settings of a fit; the defaults are the preset `corrected`.

    Attributes:
        heads: K, the number of edited heads, the best of the ranking; or (layer, head) pairs.
        layers: those from which K heads are taken; all by default.
        leave_out: the place, from 0, of one of the K heads that is left alone.
        alpha: α, in units of σ.
        beta: weight of p̂ against u in the strength.
        depth: rounds of graph propagation, or `last`.
        graph: how tokens are joined.
        direction: `mean_difference`, `probe`, or `random`.
        strength: `adaptive`; `misalignment` or `uncertainty`, p̂ or u alone with its own weight; or
            `constant` for s = 1.
        uncertainty: `logit_lens`, or `amplified` (reference switch 1).
        tolerance: how far u may be off on average over a question's answers, for the sake of speed:
            it is then read off short lists of words, see `stages.shortlists`; 0 reads all words.
        head_ranking: `validation`; `token_level`, the same questions' raw tokens;
            `token_level_published` (reference switch 2), raw tokens of answers whose numbers are
            the validation questions' numbers; `random`.
        estimator_grouping: `own`, or `published` (reference switch 3).
        answer_start: `offsets`, or `plus_three` (reference switch 4): where the answer's tokens
            begin at capture and where scoring begins to edit.
        spread_fold: `train`, or `all` questions (reference switch 5).
        positions: which positions are edited.
        risk_share: edit the positions of highest p̂ alone, so many of those of the training
            questions' incorrect answers; all by default.
        style: prompt format of the training answers; `inline` is the published one, the default
            is that of the questions to be answered.
        validation_share: share of the training questions that rank heads.
        shuffle_labels: a control, labels permuted over answers before directions are fitted.
        seed: chooses validation questions, unlabelled prompts and whatever is random.
        batch_size: answers captured together.
    """

    heads: int | tuple[tuple[int, int], ...] = 16
    layers: tuple[int, ...] | None = None
    leave_out: int | None = None
    beta: float = 0.5
    depth: Depth = 1
    graph: GraphSettings = field(default_factory=GraphSettings)
    direction: str | Rule = "mean_difference"
    strength: StrengthKind = "adaptive"
    uncertainty: UncertaintyKind = "logit_lens"
    tolerance: float = 0.0
    head_ranking: Ranking = "validation"
    estimator_grouping: Grouping = "own"
    answer_start: AnswerStart = "offsets"
    spread_fold: SpreadFold = "train"
    positions: Positions = field(default_factory=Positions)
    risk_share: float | None = None
    validation_share: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_heads()
        for name, kind in (("graph", GraphSettings), ("positions", Positions)):
            if not isinstance(getattr(self, name), kind):
                raise WorkbenchError(f"{name}={getattr(self, name)!r}", f"{kind.__name__}(...)")
        require_share("validation_share", self.validation_share)
        if self.risk_share is not None:
            require_share("risk_share", self.risk_share)
        require_beta(self.beta)
        require_depth(self.depth)
        object.__setattr__(self, "direction", RULES.name_of(self.direction))
        require_kind(self.uncertainty)
        if self.tolerance != 0:
            require_share("tolerance", self.tolerance)
        if self.tolerance and self.uncertainty != "logit_lens":
            raise WorkbenchError(
                f"tolerance={self.tolerance} with uncertainty={self.uncertainty!r}",
                "0, or uncertainty='logit_lens'",
            )
        for name, kinds in (
            ("strength", StrengthKind),
            ("head_ranking", Ranking), ("estimator_grouping", Grouping),
            ("answer_start", AnswerStart), ("spread_fold", SpreadFold),
        ):  # fmt: skip
            require_one_of(name, getattr(self, name), kinds)

    def _require_heads(self) -> None:
        if isinstance(self.heads, list):
            given = tuple(tuple(pair) if isinstance(pair, list) else pair for pair in self.heads)
            object.__setattr__(self, "heads", given)
        pairs = isinstance(self.heads, tuple)
        if not pairs:
            require_whole("heads", self.heads, 1)
        elif not self.heads or not all(
            isinstance(pair, tuple) and len(pair) == 2 and all(map(is_whole, pair))
            for pair in self.heads  # type: ignore[union-attr]
        ):
            raise WorkbenchError(f"heads={self.heads!r}", "a number, or (layer, head) pairs")
        if self.layers is not None and (
            pairs or not self.layers or not all(map(is_whole, self.layers))
        ):
            raise WorkbenchError(
                f"layers={self.layers!r} with heads={self.heads!r}",
                "numbers of layers, with a number of heads",
            )
        if self.leave_out is not None and not 0 <= self.leave_out < self.count > 1:
            raise WorkbenchError(
                f"leave_out={self.leave_out!r} of {self.count} heads", "one of several heads"
            )

    @property
    def count(self) -> int:
        """K."""
        return self.heads if isinstance(self.heads, int) else len(self.heads)

    @property
    def leaks(self) -> bool:
        """Whether the fit looks at questions outside of the training ones."""
        return (
            self.head_ranking == "token_level_published"
            or self.estimator_grouping == "published"
            or self.spread_fold == "all"
        )

    def require_model(self, model: Model) -> None:
        """Refuse more heads than the model has, or others."""
        shape = shape_of(model)
        own = set(range(shape.layers) if self.layers is None else self.layers)
        pairs = self.heads if isinstance(self.heads, tuple) else ()
        beyond = [layer for layer in own if not 0 <= layer < shape.layers]
        beyond += [n for n, head in pairs if n >= shape.layers or not 0 <= head < shape.heads]
        if beyond or self.count > len(own) * shape.heads:
            limits = "" if self.layers is None else f" of the layers {self.layers}"
            raise WorkbenchError(
                f"heads={self.heads}{limits} on a model with {shape.layers} layers x {shape.heads} "
                "heads",
                "heads that it has" if beyond else f"1 to {len(own) * shape.heads}",
            )

    @property
    def stage_order(self) -> str:
        """See `Method`."""
        captured = (self.style_name, self.answer_start, self.seed)
        return repr((captured, self.depth, self.graph, self.direction, self.shuffle_labels))

    def require_own(self, model: Model, activations: TokenActivations) -> None:
        """Refuse activations of another model, or whose z was captured with other settings."""
        wanted = how_captured(self.style, self.answer_start, None, self.seed)
        differing = [
            key
            for key in wanted
            if not key.startswith("uncertainty") and activations.made[key] != wanted[key]
        ]
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
        uncertainty: bool | Sequence[int] = False,
        folder: PathLike | None = None,
        memory: int = SHARD_BYTES,
        progress: bool = True,
    ) -> TokenActivations:
        """The activations that `fit` needs; only for looking, without the unlabelled prompts.

        Args:
            model: the bridge.
            questions: what to ask.
            unlabelled: also run the unlabelled prompts, which `fit` needs.
            uncertainty: record u as well, at all layers or at those given; `fit` needs none.
            folder: see `capture`.
            memory: see `capture`.
            progress: show a bar.
        """
        self.require_model(model)
        layers = None if isinstance(uncertainty, bool) else tuple(uncertainty)
        return capture(
            model, questions, style=self.style, answer_start=self.answer_start,
            uncertainty=self.uncertainty if uncertainty or layers else None,
            uncertainty_layers=layers, batch_size=self.batch_size, seed=self.seed,
            unlabelled=unlabelled, folder=folder, memory=memory, progress=progress,
        )  # fmt: skip


def _spelled(value: Any) -> str:
    """A setting in an error, prompt formats by their name."""
    return value.name if isinstance(value, PromptFormat) else repr(value)
