"""What a demo runs on, and its sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from workbench import storage
from workbench.checks import require_number, require_one_of, require_whole
from workbench.data.plain import plain_texts
from workbench.errors import WorkbenchError
from workbench.methods.iti import inference_time
from workbench.methods.token_aware import TokenAware

METHODS = ("ITI", "TAE")
"""Those that the demo is about; all others are controls."""
Controls = Literal["ITI", "TAE"]


def _hearsay_alphas() -> dict[str, tuple[float, ...]]:
    return dict.fromkeys(METHODS, (0.5, 1.0, 1.5, 2.0, 3.0))


@dataclass(frozen=True)
class DemoSettings:
    """What a demo runs on, and its sizes; the defaults are hearsay's.

    Attributes:
        model: for `load_model`.
        questions: for `load_questions`.
        sample: so many of the questions, drawn by the seed; all by default.
        style: prompt format.
        heads: K, the published one by default.
        alphas: α's to choose from, of ITI and of TAE; see `evaluation.choose`.
        criterion: the metric that α is chosen by.
        folds, seed: how questions are split.
        controls: whose heads and strength the controls have. ITI's cost no uncertainty.
        draws: random directions a fold, half of them opposites of the other half.
        texts: plain texts for side effects, a fold.
        text_kind: `hearsay` or `english`; see `plain_texts`.
        tokens: most tokens of a greedy answer.
        examples: questions shown with their answers.
        drawn: questions that they are taken from.
        risk: judge p̂ by hearsay's ground truth.

    Raises:
        WorkbenchError: a value that cannot be used, whatever the model.
    """

    model: Any = "hearsay"
    questions: storage.PathLike = "hearsay"
    sample: int | None = None
    style: str = "bare"
    heads: int = 16
    alphas: Mapping[str, tuple[float, ...]] = field(default_factory=_hearsay_alphas)
    criterion: str = "says_truth"
    folds: int = 2
    seed: int = 0
    controls: Controls = "TAE"
    draws: int = 4
    texts: int = 32
    text_kind: str = "hearsay"
    tokens: int = 32
    examples: int = 3
    drawn: int = 24
    risk: bool = True

    def __post_init__(self) -> None:
        methods_of(self)
        require_one_of("controls", self.controls, Controls)
        for name, least in (("tokens", 1), ("examples", 0), ("drawn", 0)):
            require_whole(name, getattr(self, name), least)
        if self.draws < 2 or self.draws % 2:
            raise WorkbenchError(f"draws={self.draws!r}", "an even number from 2 on")
        for name in METHODS:
            if not self.alphas.get(name):
                raise WorkbenchError(f"no α of {name} to choose from", "at least one")
            for alpha in self.alphas[name]:
                require_number("alpha", alpha)
        plain_texts(self.text_kind, self.texts)


def methods_of(settings: DemoSettings) -> dict[str, TokenAware]:
    """ITI and TAE, not yet fitted."""
    own: dict[str, Any] = {
        "heads": settings.heads, "seed": settings.seed, "style": settings.style
    }  # fmt: skip
    return {"ITI": inference_time(**own), "TAE": TokenAware(**own)}
