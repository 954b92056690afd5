"""LoRA: low-rank changes of the weights, fitted to prefer correct answers.

W ← W + α·B·A at every linear module of every block, A [rank, input] drawn and B [output, rank] from
0 on (Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models"). The loss is that of
direct preference optimisation (Rafailov et al. 2023), the likelihood of correct answers, or MC2
less its price in nats. A baseline that is no steering: it acts on prompts too.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from math import sqrt
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from workbench.checks import require_whole
from workbench.data.questions import QuestionSet, require_questions
from workbench.doors import door_of_class
from workbench.editing.whole_edits import LowRank, split
from workbench.errors import WorkbenchError
from workbench.methods.base import OF_OTHERS
from workbench.methods.by_gradient import steps
from workbench.methods.memo import Memo
from workbench.methods.objectives import Descent, Goal
from workbench.methods.registry import METHODS
from workbench.models.identity import Model, identify
from workbench.models.linear_modules import linear_modules, low_rank, sizes_of


@METHODS.register("lora", about="LoRA: low-rank changes of the weights, fitted by descent")
@door_of_class
@dataclass(frozen=True, kw_only=True)
class LoRA(Descent):
    """Settings of a fit.

    Attributes:
        alpha: factor of the fitted change; 1 is what was fitted.
        rank: of the change of every module.
        modules: ends of the names of those that change, such as `("q_proj", "v_proj")`; None for
            all linear ones within blocks; experts held as one tensor are none, and stay.
        objective, pairs, epochs, step, rate, beta, price: see `Descent`.
        style, shuffle_labels, seed, batch_size: see `Method`.

    Example:
        >>> quick = wb.methods.LoRA(rank=2, modules=("q_proj",), pairs=1, epochs=1)
        >>> quick.fit(model, fold.train, progress=False).label
        '5 modules, rank 2, alpha 1'
    """

    rank: int = 8
    modules: tuple[str, ...] | None = None
    LACKS: ClassVar[tuple[str, ...]] = OF_OTHERS

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("rank", self.rank, 1)

    def fit(
        self,
        model: Model,
        train: QuestionSet,
        *,
        everything: QuestionSet | None = None,  # noqa: ARG002 - it does not leak
        memo: Memo | None = None,
        progress: bool = True,
    ) -> LowRank:
        """Fit on training questions; see `Method.fit`.

        Raises:
            WorkbenchError: no module of the model has such a name.
        """
        require_questions(train)
        known = linear_modules(model)
        names = tuple(n for n in known if self.modules is None or n.endswith(self.modules))
        if not names:
            ends = sorted({name.rpartition(".")[2] for name in known})
            raise WorkbenchError(f"modules={self.modules}", f"some of {', '.join(ends)}")
        sizes = tuple(sizes_of(known[name]) or (0, 0) for name in names)
        bar = "weights" if progress else None
        goal = self.goal(model, train, memo)
        down, up = fit_low_rank(model, goal, names, sizes, self, bar=bar)
        return LowRank(
            modules=names, sizes=sizes, rank=self.rank, down=down, up=up, alpha=self.alpha,
            model=identify(model),
            settings={**asdict(self), "style": self.style_name, "method": "lora"},
        )  # fmt: skip


def fit_low_rank(
    model: Model,
    goal: Goal,
    names: tuple[str, ...],
    sizes: tuple[tuple[int, int], ...],
    method: LoRA,
    *,
    bar: str | None = None,
) -> tuple[Tensor, Tensor]:
    """A and B of all modules, one behind the other, by Adam.

    Args:
        model: the bridge.
        goal: what is descended on.
        names: of the modules.
        sizes: their inputs and outputs.
        method: its rank, rate, epochs and seed are used.
        bar: the label of a bar, or None for none.
    """
    draw = torch.Generator().manual_seed(method.seed)
    device = next(model.original_model.parameters()).device
    parts = [
        torch.randn(method.rank * inputs, generator=draw, dtype=torch.float32) / sqrt(inputs)
        for inputs, _ in sizes
    ]
    down = torch.cat(parts).to(device).requires_grad_()
    outputs = method.rank * sum(count for _, count in sizes)
    up = torch.zeros(outputs, device=device, dtype=torch.float32, requires_grad=True)
    optimiser = torch.optim.Adam([down, up], lr=method.rate)

    def around(_: Bool[Tensor, "batch position"]) -> AbstractContextManager[None]:
        return low_rank(model, split(names, sizes, method.rank, down, up))

    for _, rows in steps(goal.count, method.epochs, method.step, draw, bar):
        loss = goal.loss(rows, around)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return down.detach().cpu(), up.detach().cpu()
