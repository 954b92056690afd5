"""Token-Aware Editing (Wang et al., EMNLP 2025), stage after stage, and its two presets.

`corrected` is the method as the paper describes it. `reference` is what the published code
computes; each of its five deviations is a switch of its own, so that an ablation can tell what it
contributes. Two of them show test questions to the fit, which is why it needs the whole set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.data.questions import QuestionSet, require_questions
from workbench.doors import door_of_class
from workbench.editing.head_edits import Edit
from workbench.editing.strengths import Estimators, Strength
from workbench.errors import WorkbenchError
from workbench.methods.memo import Memo
from workbench.methods.registry import METHODS
from workbench.methods.stages import Stages
from workbench.methods.token_aware_settings import TokenAwareSettings
from workbench.models.identity import Model
from workbench.stages.activations import TokenActivations
from workbench.stages.directions import (
    Directions,
)
from workbench.stages.probes import Probes

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


@METHODS.register("tae", about="token-aware editing: each token and head has a strength of its own")
@door_of_class
@dataclass(frozen=True, kw_only=True)
class TokenAware(TokenAwareSettings):
    """Settings of a fit, see `TokenAwareSettings`; the defaults are the preset `corrected`.

    Example:
        >>> method = wb.TokenAware(heads=4, alpha=5)
        >>> method.fit(model, fold.train, progress=False)
        Edit(4 heads of hearsay, layers (1, 2), alpha=5, adaptive strength)
    """

    @classmethod
    def preset(cls, name: str, **settings: Any) -> TokenAware:
        """The settings of a preset, `corrected` or `reference`, with changes.

        Raises:
            WorkbenchError: no such preset or setting.
        """
        if name not in PRESETS:
            raise WorkbenchError.unknown(f"the preset {name!r}", name, PRESETS)
        known = [f.name for f in fields(cls)]
        unknown = [key for key in settings if key not in known]
        if unknown:
            raise WorkbenchError.unknown(f"the setting {unknown[0]!r}", unknown[0], known)
        return cls(**{**PRESETS[name], **settings})

    def fit(
        self,
        model: Model,
        train: QuestionSet,
        *,
        everything: QuestionSet | TokenActivations | None = None,
        activations: TokenActivations | None = None,
        memo: Memo | None = None,
        progress: bool = True,
    ) -> Edit:
        """Fit on training questions.

        Args:
            model: the bridge.
            train: the training questions of a fold.
            everything: the whole question set (or its activations), which the leaking switches of
                `reference` look at; refused by nothing else and used by nothing else.
            activations: of `train`, if they were captured already with the same format.
            memo: of this model; stages that it holds are not computed again.
            progress: show bars.

        Raises:
            WorkbenchError: more heads than the model has, a leaking switch without `everything`,
                or activations of other questions.
        """
        require_questions(train)
        self.require_model(model)
        if self.leaks and everything is None:
            raise WorkbenchError(
                "a reference switch that looks at all questions, without all questions",
                "fit(model, fold.train, everything=fold.everything)",
            )
        stages = Stages(self, model, train, everything, activations, memo or Memo(), progress)
        directions = stages.directions()
        chosen = self._choose(directions)
        estimators = threshold = None
        if self.strength != "constant" or self.risk_share is not None:
            estimators = stages.estimators()
        if self.risk_share is not None:
            threshold = stages.risk(1 - self.risk_share)
        edit = self._edit(chosen, directions, estimators, threshold)
        if not self.tolerance or edit.reads_uncertainty is None:
            return edit
        return replace(edit, shortlists=stages.shortlists(edit.layers))

    def _choose(self, directions: Directions) -> tuple[tuple[int, int], ...]:
        """The edited heads."""
        if isinstance(self.heads, tuple):
            chosen = self.heads
        else:
            own = None if self.layers is None else set(self.layers)
            ranked = directions.top(directions.accuracy.numel())
            chosen = tuple(pair for pair in ranked if own is None or pair[0] in own)[: self.heads]
        return tuple(pair for place, pair in enumerate(chosen) if place != self.leave_out)

    def _edit(
        self,
        heads: tuple[tuple[int, int], ...],
        directions: Directions,
        estimators: Probes | None,
        threshold: Float[Tensor, "layer head"] | None,
    ) -> Edit:
        layer, head = torch.tensor(heads).unbind(dim=1)

        def chosen(values: Float[Tensor, "layer head *rest"]) -> Tensor:
            return values[layer, head].contiguous()

        own = (
            None
            if estimators is None
            else Estimators(
                coefficient=chosen(estimators.coefficient),
                intercept=chosen(estimators.intercept),
                threshold=None if threshold is None else chosen(threshold),
            )
        )
        return Edit(
            heads=heads,
            direction=chosen(directions.vector),
            spread=chosen(directions.spread),
            alpha=self.alpha,
            strength=Strength(self.strength, self.beta, self.uncertainty),
            estimators=own,
            answer_start=self.answer_start,
            model=directions.model,
            settings={**asdict(self), "style": self.style_name},
            positions=self.positions,
        )
