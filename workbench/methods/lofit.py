"""LoFiT: vectors fitted by gradient are added to the few heads that a first fit scaled the most.

Stage 1 fits z ← (1 + A_h) ⊙ z at all heads and keeps those with the largest ‖A_h‖; stage 2 begins
anew and fits z ← z + v_h at these alone. Both minimise direct preference optimisation's loss,
−log σ(β (log π(c) / π₀(c) − log π(w) / π₀(w))), over pairs of a correct answer c and an incorrect
one w, π₀ being the unedited model; stage 1 adds λ Σ‖A_h‖₁. Yin et al. 2024, "LoFiT: Localized
Fine-tuning on LLM Representations", sections 3.1 and 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from workbench.checks import require_number, require_share, require_whole
from workbench.data.questions import QuestionSet, require_questions
from workbench.doors import door_of_class
from workbench.editing.head_edits import Edit
from workbench.editing.strengths import Strength
from workbench.errors import WorkbenchError
from workbench.methods.base import Method
from workbench.methods.by_gradient import (
    Changes,
    Preference,
    changed,
    margins,
    preferences,
    reference_margins,
    steps,
)
from workbench.methods.memo import Memo
from workbench.methods.objectives import preference_loss
from workbench.methods.registry import METHODS
from workbench.models.identity import Model, identify, shape_of

INITIAL = 1e-3
"""Standard deviation of the first values of A and v (Yin et al. 2024)."""
SHARE_OF_HEADS = 0.03
"""Of all heads kept where their number is not given (Yin et al. 2024, for TruthfulQA)."""


@dataclass(frozen=True)
class Fitted:
    """What a stage fits.

    Attributes:
        of: the change that a parameter makes.
        first: the parameter's first value.
        rate: the optimiser's.
        sparsity: weight of the sum of the parameter's absolute values.
    """

    of: Callable[[Tensor], Changes]
    first: Tensor
    rate: float
    sparsity: float = 0.0


@METHODS.register("lofit", about="LoFiT: head offsets that are learned")
@door_of_class
@dataclass(frozen=True, kw_only=True)
class LoFiT(Method):
    """Settings of a fit.

    Attributes:
        alpha: factor of v; 1 is what was fitted.
        heads: how many are edited; by default 3 % of them, at least one.
        pairs: at most so many pairs of every question; None for all.
        epochs: of either stage.
        step: pairs in a step of the optimiser.
        beta: of the loss.
        scale_rate, shift_rate: the optimiser's, in stages 1 and 2.
        sparsity: λ.
        style, shuffle_labels, seed, batch_size: see `Method`; half of the pairs change sides.

    Example:
        >>> quick = wb.methods.LoFiT(heads=1, pairs=1, epochs=1)
        >>> quick.fit(model, fold.train, progress=False).strength.kind
        'constant'
    """

    heads: int | None = None
    pairs: int | None = 4
    epochs: int = 5
    step: int = 8
    beta: float = 0.5
    scale_rate: float = 5e-3
    shift_rate: float = 1e-2
    sparsity: float = 5e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("heads", "pairs"):
            if getattr(self, name) is not None:
                require_whole(name, getattr(self, name), 1)
        for name in ("epochs", "step"):
            require_whole(name, getattr(self, name), 1)
        for name in ("scale_rate", "shift_rate"):
            require_share(name, getattr(self, name))
        require_number("beta", self.beta, above=0)
        require_number("sparsity", self.sparsity, least=0)

    @property
    def stage_order(self) -> str:
        """Settings with a common stage 1 stand together; see `Method`."""
        return repr(self._first_stage())

    def _first_stage(self) -> tuple[Hashable, ...]:
        """What stage 1 depends on, beside the questions."""
        return (self.style, self.shuffle_labels, self.seed, self.pairs, self.epochs, self.step,
                self.beta, self.scale_rate, self.sparsity)  # fmt: skip

    def fit(
        self,
        model: Model,
        train: QuestionSet,
        *,
        everything: QuestionSet | None = None,  # noqa: ARG002 - it does not leak
        memo: Memo | None = None,
        progress: bool = True,
    ) -> Edit:
        """Fit on training questions; see `Method.fit`."""
        require_questions(train)
        shape = shape_of(model)
        count = self.heads or max(1, round(SHARE_OF_HEADS * shape.layers * shape.heads))
        if count > shape.layers * shape.heads:
            raise WorkbenchError(f"heads={count}", f"at most {shape.layers * shape.heads}")
        preferred = preferences(model, train, self, self.pairs)

        def scales() -> Tensor:
            draw = torch.Generator().manual_seed(2 * self.seed)
            first = torch.randn(
                shape.layers, shape.heads, shape.d_head, generator=draw, dtype=torch.float32
            )
            change = Fitted(scaling, INITIAL * first, self.scale_rate, self.sparsity)
            bar = "scales" if progress else None
            return fit_changes(model, preferred, self, draw, change, bar=bar)

        key = (train, self._first_stage())
        heads = largest((memo or Memo()).get("scales", key, scales), count)
        draw = torch.Generator().manual_seed(2 * self.seed + 1)
        first = torch.randn(count, shape.d_head, generator=draw, dtype=torch.float32)
        change = Fitted(partial(shifting, heads), INITIAL * first, self.shift_rate)
        bar = "shifts" if progress else None
        shift = fit_changes(model, preferred, self, draw, change, bar=bar)
        return Edit(
            heads=heads, direction=normalize(shift, dim=1), spread=shift.norm(dim=1),
            alpha=self.alpha, strength=Strength("constant"), model=identify(model),
            settings={"method": "lofit", **asdict(self), "style": self.style_name},
        )  # fmt: skip


def fit_changes(
    model: Model,
    preferred: Sequence[Preference],
    method: LoFiT,
    draw: torch.Generator,
    change: Fitted,
    *,
    bar: str | None = None,
) -> Tensor:
    """Fit the parameter of a change by Adam; the model's own weights stay as they are.

    Args:
        model: the bridge.
        preferred: what to fit on.
        method: its β, epochs and batch sizes are used.
        draw: draws the order of the pairs.
        change: what is fitted.
        bar: the label of a bar, or None for none.

    Returns:
        The parameter's last value.
    """
    reference = reference_margins(model, preferred, method.batch_size)
    parameter = change.first.clone().to(reference.device).requires_grad_()
    optimiser = torch.optim.Adam([parameter], lr=change.rate)
    for _, rows in steps(len(preferred), method.epochs, method.step, draw, bar):
        around = changed(model, change.of(parameter))
        told = margins(model, [preferred[k] for k in rows], around)
        loss = preference_loss(told - reference[rows], method.beta)
        loss = loss + change.sparsity * parameter.abs().sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return parameter.detach().cpu()


def scaling(scale: Float[Tensor, "layer head d_head"]) -> Changes:
    """Stage 1: z ← (1 + A) ⊙ z, in every layer."""
    return {("z", layer): partial(torch.mul, 1 + own) for layer, own in enumerate(scale)}


def shifting(heads: Sequence[tuple[int, int]], shift: Float[Tensor, "edited d_head"]) -> Changes:
    """Stage 2: z ← z + v, at some heads; of others nothing is said.

    Args:
        heads: (layer, head) pairs.
        shift: v of each.
    """

    def added(layer: int, z: Tensor) -> Tensor:
        rows = [row for row, head in enumerate(heads) if head[0] == layer]
        own = torch.tensor([heads[row][1] for row in rows], device=z.device)
        return z.index_add(2, own, shift[rows].expand(*z.shape[:2], -1, -1))

    return {("z", layer): partial(added, layer) for layer in {layer for layer, _ in heads}}


def largest(scale: Float[Tensor, "layer head d_head"], count: int) -> tuple[tuple[int, int], ...]:
    """The (layer, head) pairs with the largest ‖A_h‖, largest first."""
    order = scale.norm(dim=-1).flatten().sort(descending=True, stable=True).indices[:count]
    return tuple((int(k) // scale.shape[1], int(k) % scale.shape[1]) for k in order)
