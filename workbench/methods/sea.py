"""Spectral editing: states keep what goes with correct answers and lose what goes with wrong ones.

    x' = P⁺x + P⁻x, rescaled to the length of x
    P⁺ = U⁺U⁺ᵀ of Ω⁺ = H·H⁺ᵀ/N,  P⁻ = I − U⁻U⁻ᵀ of Ω⁻ = H·H⁻ᵀ/N

The columns of H, H⁺ and H⁻ are states at the last token of a neutral, a correct and an incorrect
answer to the same question; neutral is what the model itself writes. Nothing is centred. U⁺ and U⁻
are the left singular vectors that hold a share of Σs² (Qiu et al. 2024).

The non-linear forms put φ before P⁺ and P⁻, and φ⁻¹ behind the mean of the two projections:
their sum would double what both keep and so leave φ's range. The published code inverts each
projection by itself and adds, and inverts exp(−x²/2) without the root and the sign.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from workbench.checks import require_one_of, require_share, require_whole
from workbench.data.questions import QuestionSet, require_questions
from workbench.doors import door_of_class
from workbench.editing.generation import generate
from workbench.editing.state_edits import StateEdit
from workbench.errors import WorkbenchError
from workbench.methods.base import OF_OTHERS, Method
from workbench.methods.memo import Memo
from workbench.methods.registry import METHODS
from workbench.methods.states import answer_pairs, pair_states
from workbench.models.batched_passes import Passage, states_at
from workbench.models.identity import Model, device_of, identify, shape_of
from workbench.models.passes import Place
from workbench.models.prompts import encode, prompt_format

Kernel = Literal["linear", "squared_exponential", "tanh", "elu"]
States = Float[Tensor, "position d_model"]
MARGIN = 1e-4
"""How far from the ends of φ's range projected values are held."""

FEATURES: Mapping[Kernel, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x,
    "squared_exponential": lambda x: (-x.square() / 2).exp(),
    "tanh": torch.tanh,
    "elu": torch.nn.functional.elu,
}
"""φ, value by value."""


def inverse(kernel: Kernel, values: States, state: States) -> States:
    """φ⁻¹ of projected values, which are first clamped into φ's range, `MARGIN` from its open ends.

    exp(−x²/2) has two inverses; the one with the unedited value's sign is taken.

    Args:
        kernel: whose φ.
        values: to invert.
        state: the unedited state.
    """
    if kernel == "squared_exponential":
        return (-2 * values.clamp(MARGIN, 1).log()).sqrt() * state.sign()
    if kernel == "tanh":
        return values.clamp(MARGIN - 1, 1 - MARGIN).atanh()
    if kernel == "elu":
        return torch.where(values > 0, values, values.clamp(MARGIN - 1, 0).log1p())
    return values


def spectral(
    state: States, projection: Float[Tensor, "d_model d_model"], kernel: Kernel = "linear"
) -> States:
    """Every state's x': φ, the mean of both projections, φ⁻¹, rescaled to the state's length.

    What is projected to nothing becomes zero.

    Args:
        state: x.
        projection: P⁺ + P⁻.
        kernel: φ.
    """
    values = FEATURES[kernel](state) @ projection.T / 2
    changed = inverse(kernel, values, state)
    length, wanted = (x.norm(dim=-1, keepdim=True) for x in (changed, state))
    rescaled: Tensor = changed * (wanted / length.clamp(min=1e-20))
    return rescaled


@dataclass(frozen=True, repr=False, kw_only=True)
class SpectralEdit(StateEdit, kind="spectral"):
    """Moves states from x (α = 0) to x' (α = 1).

    Attributes:
        projection: P⁺ + P⁻.
        kernel: φ.
    """

    projection: Float[Tensor, "place d_model d_model"]
    kernel: Kernel = "linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        width = self.model.shape.d_model
        self.require_finite("projection", (len(self.places), width, width))
        require_one_of("kernel", self.kernel, Kernel)

    def change(self, number: int, state: States) -> States:
        """The state, as far on the way to x' as α says."""
        return torch.lerp(
            state, spectral(state, self._like(number, state), self.kernel), self.alpha
        )

    def _like(self, number: int, state: Tensor) -> Float[Tensor, "d_model d_model"]:
        """A projection on a state's device, copied there once."""
        key = (number, state.device, state.dtype)
        if key not in self._copies:
            self._copies[key] = self.projection[number].to(state)
        return self._copies[key]

    @cached_property
    def _copies(self) -> dict[Any, Tensor]:
        return {}


@METHODS.register("sea", about="spectral editing of activations")
@door_of_class
@dataclass(frozen=True, kw_only=True)
class SpectralEditing(Method):
    """Settings of a fit.

    Attributes:
        alpha: x + α(x' − x); 1 is the published method, which has none. The length of x is
            kept at 0 and 1.
        point: which states are edited.
        layers: the share of layers that are edited, the last ones; 21 of 32 by default.
        keep: share of Σs² that U⁺ holds, and U⁻. Where a direction common to all states holds it by
            itself, it is all that both name, and nothing changes.
        kernel: φ.
        max_new_tokens: length of the neutral answers.
        style, shuffle_labels, seed, batch_size: see `Method`.

    Example:
        >>> wb.methods.SpectralEditing(max_new_tokens=8).fit(model, fold.train, progress=False)
        SpectralEdit(mlp_out of hearsay, layers (2, 3, 4), alpha=1)
    """

    point: Literal["mlp_out", "resid_post"] = "mlp_out"
    layers: float = 2 / 3
    keep: float = 0.998
    kernel: Kernel = "linear"
    max_new_tokens: int = 50
    LACKS: ClassVar[tuple[str, ...]] = OF_OTHERS

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("point", self.point, Literal["mlp_out", "resid_post"])
        require_one_of("kernel", self.kernel, Kernel)
        require_share("keep", self.keep)
        if self.layers != 1:
            require_share("layers", self.layers)
        require_whole("max_new_tokens", self.max_new_tokens, 1)

    def fit(
        self,
        model: Model,
        train: QuestionSet,
        *,
        everything: QuestionSet | None = None,  # noqa: ARG002
        memo: Memo | None = None,
        progress: bool = True,
    ) -> SpectralEdit:
        """Fit on training questions.

        Args:
            model: the bridge.
            train: the training questions of a fold.
            everything: not looked at.
            memo: of this model; states that it holds are not computed again.
            progress: show bars.
        """
        require_questions(train)
        places = self.places(model)
        pairs = answer_pairs(train, shuffle_labels=self.shuffle_labels, seed=self.seed)
        question = torch.tensor([pair.number for pair in pairs])
        neutral = self.neutral_states(model, train, memo=memo, progress=progress)
        sides = pair_states(
            model, pairs, places, style=self.style, over="last", batch_size=self.batch_size,
            memo=memo,
        )  # fmt: skip
        device, feature = device_of(model), FEATURES[self.kernel]
        bar = tqdm(neutral, desc="spectra", disable=not progress, leave=False)
        projections = []
        for own, states in zip(bar, sides, strict=True):
            h, positive, negative = (
                feature(side.to(device, torch.float64)) for side in (own[question], *states)
            )
            projections.append(projection_of(h, positive, negative, self.keep).float().cpu())
        return SpectralEdit(
            places=places, projection=torch.stack(projections), kernel=self.kernel,
            alpha=self.alpha, model=identify(model),
            settings={**asdict(self), "style": self.style_name, "method": "sea"},
        )  # fmt: skip

    def places(self, model: Model) -> tuple[Place, ...]:
        """The edited places: at least one layer."""
        layers = shape_of(model).layers
        first = layers - max(1, round(self.layers * layers))
        return tuple((self.point, layer) for layer in range(first, layers))

    def neutral_states(
        self, model: Model, train: QuestionSet, *, memo: Memo | None = None, progress: bool = True
    ) -> list[Float[Tensor, "question d_model"]]:
        """States at the last token of what the model answers by itself, one tensor a place.

        Where it answers nothing, that is the prompt's last token.
        """
        places = self.places(model)

        def make() -> list[Tensor]:
            chosen = prompt_format(self.style)
            prompts = [encode(model, question.question, None, chosen) for question in train]
            written = generate(
                model, prompts, max_new_tokens=self.max_new_tokens, batch_size=self.batch_size,
                progress=progress,
            )  # fmt: skip
            rows = [w.prompt_tokens + w.tokens[: w.kept] for w in written]
            passages = [Passage(row, range(len(row) - 1, len(row))) for row in rows]
            found = states_at(model, passages, places, self.batch_size)
            return [found[place] for place in places]

        key = ("neutral", self.style, places, self.max_new_tokens, train)
        return (memo or Memo()).get("states", key, make)


def projection_of(
    neutral: Float[Tensor, "triple d_model"],
    positive: Float[Tensor, "triple d_model"],
    negative: Float[Tensor, "triple d_model"],
    keep: float,
) -> Float[Tensor, "d_model d_model"]:
    """P⁺ + P⁻ of triples."""
    kept = leading(neutral, positive, keep)
    dropped = leading(neutral, negative, keep)
    whole = torch.eye(neutral.shape[1], dtype=neutral.dtype, device=neutral.device)
    both: Tensor = whole + kept @ kept.T - dropped @ dropped.T
    return both


def leading(
    neutral: Float[Tensor, "triple d_model"], answers: Float[Tensor, "triple d_model"], keep: float
) -> Float[Tensor, "d_model kept"]:
    """The first left singular vectors of Ω, as many as hold a share of Σs².

    They are the eigenvectors of ΩΩᵀ, whose eigenvalues are s².

    Raises:
        WorkbenchError: neutral states and answers that have nothing in common.
    """
    omega = neutral.T @ answers / len(neutral)
    power, vectors = torch.linalg.eigh(omega @ omega.T)
    share = power.clamp(min=0).flip(0).cumsum(0)
    if not float(share[-1]) > 0:
        raise WorkbenchError("states without any cross-covariance", "states that are not zero")
    count = int((share < keep * share[-1]).sum()) + 1
    kept: Tensor = vectors.flip(1)[:, :count]
    return kept
