"""What an exploration holds: answers with their graphs, risks and log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench import storage
from workbench.checks import is_number
from workbench.doors import door_of_class
from workbench.editing.head_edits import Edit
from workbench.errors import WorkbenchError, kind_of
from workbench.stages.misalignment import strengths
from workbench.stages.token_graph import GraphSettings

Kind = Literal["correct", "incorrect", "greedy"]
TIMES = (0.0, 0.5, 1.0, 1.5, 2.0)
"""By default α runs through so many times the edit's own."""


@dataclass(frozen=True, repr=False)
class ExploredAnswer:
    """One answer, read token by token with the model held to it.

    Token t stands for the position before it, at which the model is about to write it: p̂, u and the
    strength of the edit are those of that position. Graphs join the answer's own tokens.

    Attributes:
        question, answer: the texts; the question is the prompt where there was no question.
        kind: a correct or an incorrect answer of the data, or the greedy one of the edited model.
        prompt, strings: the tokens before the answer, and the answer's.
        tokens: ids of all of them.
        begin: position at which the edit begins.
        graphs: similarity of tokens without the edit, in bits by default, after 0, 1, ... rounds
            of propagation.
        misalignment: p̂ under every α; NaN where strength is constant or nothing is edited.
        uncertainty: u of every edited layer under every α, in [0, 1]; NaN at other layers.
        reached: whether the edit acts at the position before each token; a threshold on p̂ apart.
        nats: log-probability of each token under every α.
        written: the greedy answer to the same prompt under every α.
        attention: how the edited heads at the position before each token weigh the tokens so far,
            without an edit (0) and under the edit's own α (1), 0 for what they do not see; None
            where the model has no attention patterns.
    """

    question: str
    answer: str
    kind: Kind
    prompt: tuple[str, ...]
    strings: tuple[str, ...]
    tokens: tuple[int, ...]
    begin: int
    graphs: Float[Tensor, "depth layer token token"]
    misalignment: Float[Tensor, "alpha token edited"]
    uncertainty: Float[Tensor, "alpha token layer"]
    reached: Bool[Tensor, " token"]
    nats: Float[Tensor, "alpha token"]
    written: tuple[str, ...]
    attention: Float[Tensor, "pass edited token source"] | None = None

    def __repr__(self) -> str:
        return f"ExploredAnswer({self.kind}: {self.question!r} {self.answer!r})"


@door_of_class
@dataclass(frozen=True, repr=False)
class Exploration:
    """Some answers under an edit at several α.

    Attributes:
        answers: at least one.
        alphas: ascending; the edit's own α is among them.
        edit: the edit, with its heads, σ and β.
        settings: how the graphs were made.
        name: what the edit is called beside others.
        beside: explorations of other edits on the same answers.

    Example:
        >>> record = wb.explore(model, edit, fold.test.choose([0]), alphas=[0, 5], progress=False)
        >>> record.answers[0].kind, record.strengths(0, alpha=5).shape[1]  # a column a head
        ('correct', 4)
        >>> record.save("explorer.html").name
        'explorer.html'
    """

    answers: tuple[ExploredAnswer, ...]
    alphas: tuple[float, ...]
    edit: Edit
    settings: GraphSettings
    name: str = "edit"
    beside: tuple[Exploration, ...] = ()

    def __repr__(self) -> str:
        others = f", beside {', '.join(self.names[1:])}" if self.beside else ""
        return (
            f"Exploration({len(self.answers)} answers, {self.edit!r}, alphas {self.alphas}{others})"
        )

    @property
    def every(self) -> tuple[Exploration, ...]:
        """This exploration and those beside it."""
        return (self, *self.beside)

    @property
    def names(self) -> tuple[str, ...]:
        """What their edits are called."""
        return tuple(one.name for one in self.every)

    def __getitem__(self, name: str) -> Exploration:
        """The exploration of the edit of this name.

        Raises:
            WorkbenchError: there is none.
        """
        for one in self.every:
            if one.name == name:
                return one
        raise WorkbenchError(f"an edit {name!r}", f"one of {', '.join(self.names)}")

    def strengths(
        self, answer: int, alpha: float, beta: float | None = None
    ) -> Float[Tensor, "token edited"]:
        """s = 1 + β·p̂ + (1 − β)·u before every token, a column an edited head (TAE, eq. 9).

        Args:
            answer: the answer's number.
            alpha: one of `alphas`: p̂ and u are those of the pass at this α and the edit's own β.
            beta: another weight of p̂ against u than the edit's own.

        Returns:
            NaN where the edit does not act; without the terms that its strength is without.

        Raises:
            WorkbenchError: an α that was not run, or a β outside [0, 1].
        """
        own = self.answers[answer]
        row = self.row(alpha)
        weighed = self.edit.strength if beta is None else replace(self.edit.strength, beta=beta)
        layers = [layer for layer, _ in self.edit.heads]
        doubt = own.uncertainty[row][:, layers]
        found = strengths(own.misalignment[row].nan_to_num(), doubt, *weighed.factors)
        return found.where(own.reached[:, None], torch.tensor(torch.nan))

    def change(
        self, answer: int, alpha: float, beta: float | None = None
    ) -> Float[Tensor, "token edited"]:
        """The signed length α·σ·s that z moves along θ, in the units of z; see `strengths`.

        It is 0 where p̂ is under the edit's threshold, and NaN where the edit does not act.
        """
        moved = alpha * self.edit.spread * self.strengths(answer, alpha, beta)
        if self.edit.threshold is None:
            return moved
        risk = self.answers[answer].misalignment[self.row(alpha)]
        return moved.masked_fill(risk < self.edit.threshold, 0.0)

    def row(self, alpha: float) -> int:
        """The number of an α.

        Raises:
            WorkbenchError: it was not run.
        """
        if alpha not in self.alphas:
            raise WorkbenchError(f"alpha={alpha}", f"one of those that were run, {self.alphas}")
        return self.alphas.index(alpha)

    def page(self, title: str = "Token explorer") -> str:
        """One HTML page that shows everything, without a server and without the network."""
        from workbench.pages.explorer.page import page  # which reads records

        return page(self, title)

    def save(self, path: storage.PathLike, title: str = "Token explorer") -> Path:
        """Write the page."""
        return storage.write_text(path, self.page(title))

    def widget(self, model: Any = None, edit: Edit | None = None) -> Any:
        """The same for a notebook; live where model and edit are given, see `explorer.widget`."""
        from workbench.pages.explorer.widget import widget  # likewise, and needs `lab`

        return widget(self, model, edit)


def require_explorable(edit: object) -> None:
    """Refuse edits whose strength is not that of single heads.

    Raises:
        WorkbenchError: an intervention of another kind, or goals that share heads.
    """
    if not isinstance(edit, Edit):
        raise WorkbenchError(
            f"an exploration of {kind_of(edit)}",
            "an Edit of heads, such as TokenAware's, or several by name",
            "A saved one is read by load_edit(folder, model); several are {'TAE': edit, ...}.",
        )
    if edit.shares_heads:
        raise WorkbenchError(
            "an exploration of an edit with goals that share heads", "one strength a head"
        )


def grid(alphas: Sequence[float] | None, own: float) -> tuple[float, ...]:
    """Different α's in ascending order, the edit's own among them; by default up to twice it."""
    if alphas is None:
        alphas = [times * (own or 1.0) for times in TIMES]
    if not all(map(is_number, alphas)):
        raise WorkbenchError(f"alphas={alphas!r}", "numbers")
    return tuple(sorted({float(alpha) for alpha in (*alphas, own)}))
