"""LoRA: low-rank changes of the weights, fitted to prefer correct answers.

W ← W + α·B·A at every linear module of every block, A [rank, input] drawn and B [output, rank] from
0 on (Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models"). The loss is that of
direct preference optimisation (Rafailov et al. 2023), or the likelihood of correct answers. A
baseline that is no steering: it acts on prompts too.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from math import sqrt

import torch
from jaxtyping import Bool
from torch import Tensor

from workbench.checks import require_number, require_one_of, require_share, require_whole
from workbench.data.questions import QuestionSet, require_questions
from workbench.doors import door_of_class
from workbench.editing.whole_edits import LowRank, split
from workbench.errors import WorkbenchError
from workbench.methods.base import Method
from workbench.methods.by_gradient import Objective, Preference, objective, preferences, steps
from workbench.methods.memo import Memo
from workbench.methods.registry import METHODS
from workbench.models.identity import Model, identify
from workbench.models.linear_modules import linear_modules, low_rank, sizes_of


@METHODS.register("lora", about="LoRA: low-rank changes of the weights, fitted on preferences")
@door_of_class
@dataclass(frozen=True, kw_only=True)
class LoRA(Method):
    """Settings of a fit.

    Attributes:
        alpha: factor of the fitted change; 1 is what was fitted.
        rank: of the change of every module.
        modules: ends of the names of those that change, such as `("q_proj", "v_proj")`; None for
            all linear ones within blocks.
        objective: `preference`, over pairs of a correct and an incorrect answer, or `likelihood`,
            of correct answers.
        pairs: at most so many pairs of every question; None for all.
        epochs: how often all are gone through.
        step: pairs in a step of the optimiser.
        rate: the optimiser's.
        beta: of the preference.
        style, shuffle_labels, seed, batch_size: see `Method`; half of the pairs change sides.

    Example:
        >>> quick = wb.methods.LoRA(rank=2, modules=("q_proj",), pairs=1, epochs=1)
        >>> quick.fit(model, fold.train, progress=False).label
        '5 modules, rank 2, alpha 1'
    """

    rank: int = 8
    modules: tuple[str, ...] | None = None
    objective: Objective = "preference"
    pairs: int | None = 4
    epochs: int = 3
    step: int = 8
    rate: float = 1e-3
    beta: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("objective", self.objective, Objective)
        for name in ("rank", "epochs", "step"):
            require_whole(name, getattr(self, name), 1)
        if self.pairs is not None:
            require_whole("pairs", self.pairs, 1)
        require_share("rate", self.rate)
        require_number("beta", self.beta, above=0)

    def fit(
        self,
        model: Model,
        train: QuestionSet,
        *,
        everything: QuestionSet | None = None,  # noqa: ARG002 - it does not leak
        memo: Memo | None = None,  # noqa: ARG002 - nothing is shared
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
        preferred = preferences(model, train, self, self.pairs)
        bar = "weights" if progress else None
        down, up = fit_low_rank(model, preferred, names, sizes, self, bar=bar)
        return LowRank(
            modules=names, sizes=sizes, rank=self.rank, down=down, up=up, alpha=self.alpha,
            model=identify(model),
            settings={**asdict(self), "style": self.style_name, "method": "lora"},
        )  # fmt: skip


def fit_low_rank(
    model: Model,
    preferred: list[Preference],
    names: tuple[str, ...],
    sizes: tuple[tuple[int, int], ...],
    method: LoRA,
    *,
    bar: str | None = None,
) -> tuple[Tensor, Tensor]:
    """A and B of all modules, one behind the other, by Adam.

    Args:
        model: the bridge.
        preferred: answers to fit on.
        names: of the modules.
        sizes: their inputs and outputs.
        method: its rank, objective, rate, epochs and seed are used.
        bar: the label of a bar, or None for none.
    """
    loss_of = objective(
        model, preferred, method.objective, beta=method.beta, batch_size=method.batch_size
    )
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

    for _, rows in steps(len(preferred), method.epochs, method.step, draw, bar):
        loss = loss_of(rows, around)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return down.detach().cpu(), up.detach().cpu()
