"""What all methods have in common: settings, checked when they are made, and a fit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from workbench.checks import require_number, require_whole
from workbench.data.questions import QuestionSet
from workbench.doors import door
from workbench.editing.interventions import Intervention
from workbench.errors import WorkbenchError
from workbench.methods.memo import Memo
from workbench.models.identity import Model
from workbench.models.prompts import PromptFormat, prompt_format
from workbench.models.tokens import require_batch_size

OF_GATES: Final = ("resampled",)
"""What edits with gates lack of `CONTROLS`."""
OF_VECTORS: Final = ("even", "resampled")
"""What edits lack that add the same at every token."""
OF_OTHERS: Final = ("random", "even", "resampled")
"""What edits lack that have neither directions nor strengths."""


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Settings of a fit.

    Attributes:
        alpha: the edit's factor, in the method's own units; 0 changes nothing.
        style: prompt format of the training answers; the default is that of the questions to be
            answered.
        shuffle_labels: a control: which answers are correct is permuted before anything is fitted.
        seed: of all that is drawn.
        batch_size: answers run together; what is fitted does not depend on it.

    A subclass says in `LACKS` which controls its edits cannot have; those of the fit, as shuffled
    labels, are every method's.

    Example:
        >>> isinstance(wb.TokenAware(), wb.methods.Method)
        True
        >>> wb.methods.METHODS.find("caa")(alpha=2)
        ContrastiveAddition(alpha=2, style='bare', shuffle_labels=False, seed=0, batch_size=64,
        layer=None, normalised=False, validation_share=0.2)
    """

    alpha: float = 1.0
    style: str | PromptFormat = "bare"
    shuffle_labels: bool = False
    seed: int = 0
    batch_size: int = 64
    LACKS: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if "fit" in cls.__dict__:
            own: Any = cls
            own.fit = door(own.fit)

    def __post_init__(self) -> None:
        require_number("alpha", self.alpha)
        prompt_format(self.style)
        require_batch_size(self.batch_size)
        if not isinstance(self.shuffle_labels, bool):
            raise WorkbenchError(f"shuffle_labels={self.shuffle_labels!r}", "true or false")
        require_whole("seed", self.seed, 0)

    @property
    def leaks(self) -> bool:
        """Whether the fit looks at questions outside of the training ones."""
        return False

    @property
    def graded(self) -> bool:
        """Whether α is more than a switch, so that a sweep over its multiples says anything."""
        return True

    @property
    def lacks(self) -> tuple[str, ...]:
        """The controls that cannot be made of its edits."""
        return self.LACKS

    @property
    def stage_order(self) -> str:
        """Sorts settings so that those with common stages stand together; "" if none have any."""
        return repr((self.style_name, self.seed))

    def require_model(self, model: Model) -> None:  # noqa: B027  # most fit any model
        """Refuse settings that a model does not allow."""

    @abstractmethod
    def fit(
        self,
        model: Model,
        train: QuestionSet,
        *,
        everything: QuestionSet | None = None,
        memo: Memo | None = None,
        progress: bool = True,
    ) -> Intervention:
        """Fit on training questions.

        Args:
            model: the bridge.
            train: the training questions of a fold.
            everything: the whole question set, for methods that leak.
            memo: of this model; stages that it holds are not computed again.
            progress: show bars.
        """

    @property
    def style_name(self) -> str:
        """The prompt format's name."""
        return self.style if isinstance(self.style, str) else self.style.name
