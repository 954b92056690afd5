"""Methods around another method: they decide where its edit acts, and leave how to it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from workbench.data.questions import QuestionSet
from workbench.editing.added_vectors import as_vectors
from workbench.editing.interventions import Intervention
from workbench.editing.state_edits import StateEdit
from workbench.errors import WorkbenchError
from workbench.methods.base import OF_GATES, Method
from workbench.methods.caa import ContrastiveAddition
from workbench.methods.memo import Memo
from workbench.models.identity import Model

COMMON = ("style", "seed", "shuffle_labels", "batch_size")


@dataclass(frozen=True, kw_only=True)
class AroundMethod(Method):
    """Settings that such methods have in common.

    Attributes:
        of: the method whose edit is used, with an α of its own; it is fitted with this one's style,
            seed, batch size and `shuffle_labels`. In run files it is a table with its `kind`. It
            must add the same at every token, or edit whole states: TAE has a strength of its own
            at every token.
    """

    of: Method = field(default_factory=ContrastiveAddition)
    LACKS: ClassVar[tuple[str, ...]] = OF_GATES

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.of, Method):
            raise WorkbenchError(f"of={self.of!r:.80}", "a method")

    @property
    def leaks(self) -> bool:
        """Whether the other method does."""
        return self.of.leaks

    @property
    def lacks(self) -> tuple[str, ...]:
        """Random directions, where the other method has none, and what it lacks itself."""
        return tuple({*self.LACKS, *(name for name in self.of.lacks if name == "random")})

    @property
    def stage_order(self) -> str:
        """That of the other method."""
        return self.inner.stage_order

    @property
    def inner(self) -> Method:
        """The other method, with what is common to both."""
        other: Any = self.of
        made: Method = replace(other, **{name: getattr(self, name) for name in COMMON})
        return made

    def told(self, inner: StateEdit) -> dict[str, Any]:
        """What settings tell of the other method, and of the style."""
        return {"of": dict(inner.settings), "style": self.style_name}

    def require_model(self, model: Model) -> None:
        """Refuse settings of the other method that a model does not allow."""
        self.inner.require_model(model)

    def fit_inner(
        self,
        model: Model,
        train: QuestionSet,
        everything: QuestionSet | None,
        memo: Memo | None,
        *,
        progress: bool,
    ) -> StateEdit:
        """The other method's edit, as one of states; see `Method.fit`.

        Raises:
            WorkbenchError: it has strengths of its own at every token.
        """
        return as_states(
            self.inner.fit(model, train, everything=everything, memo=memo, progress=progress)
        )


def as_states(edit: Intervention) -> StateEdit:
    """An edit as one of states.

    Raises:
        WorkbenchError: an edit of heads whose strength depends on the token.
    """
    if isinstance(edit, StateEdit):
        return edit
    if edit.constant() is None:
        raise WorkbenchError(
            f"a method around {edit!r}, which has a strength of its own at every token",
            "a method that adds the same everywhere, or one that edits states",
            "TAE with strength='constant' is one.",
        )
    return as_vectors(edit)
