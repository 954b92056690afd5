"""What an exploration holds: answers with their graphs, what an edit did, and log-probabilities."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench import storage
from workbench.doors import door_of_class
from workbench.editing.head_edits import Edit
from workbench.editing.interventions import Intervention
from workbench.errors import WorkbenchError
from workbench.stages.misalignment import strengths
from workbench.stages.token_graph import GraphSettings

Kind = Literal["correct", "incorrect", "greedy"]


@dataclass(frozen=True, repr=False)
class ExploredAnswer:
    """One answer, read token by token with the model held to it.

    Token t stands for the position before it, at which the model is about to write it: p̂, u, gates
    and what the edit does are those of that position. Graphs join the answer's own tokens.

    Attributes:
        question, answer: the texts; the question is the prompt where there was no question.
        kind: a correct or an incorrect answer of the data, or the greedy one of the edited model.
        prompt, strings: the tokens before the answer, and the answer's.
        tokens: ids of all of them.
        begin: position at which the edit begins.
        graphs: similarity of tokens without the edit, in bits by default, after 0, 1, ... rounds
            of propagation.
        misalignment: p̂ under every α, a column an edited head; NaN where strength is constant or
            nothing is edited. Edits that are not of heads have no columns.
        uncertainty: u of every edited layer under every α, in [0, 1]; NaN at other layers, and
            under edits that are not of heads.
        reached: whether the edit acts at the position before each token; a threshold on p̂ apart.
        nats: log-probability of each token under every α.
        written: the greedy answer to the same prompt under every α.
        attention: how the edited heads at the position before each token weigh the tokens so far,
            without an edit (0) and under the edit's own α (1), 0 for what they do not see; None
            where the model has no attention patterns, or the edit no heads.
        moved: how far an edit of states moved those of every edited layer under every α, in their
            own units; NaN where it does not act. None for other edits; see `Exploration.moved`.
        gate: how much of its change each token gets, a mean over a layer's heads and places; NaN
            where it does not act or has no gates. None for other edits.
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
    moved: Float[Tensor, "alpha token edited_layer"] | None = None
    gate: Float[Tensor, "alpha token edited_layer"] | None = None

    def __repr__(self) -> str:
        return f"ExploredAnswer({self.kind}: {self.question!r} {self.answer!r})"


@door_of_class
@dataclass(frozen=True, repr=False)
class Exploration:
    """Some answers under an edit at several α.

    Attributes:
        answers: at least one.
        alphas: ascending; the edit's own α is among them.
        edit: the edit: of heads with σ and β, of states, or of the whole model.
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
    edit: Intervention
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

    @property
    def gated(self) -> bool:
        """Whether the answers have gates."""
        return any(own.gate is not None and not own.gate.isnan().all() for own in self.answers)

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
            WorkbenchError: an edit that is not of heads, an α that was not run, or a β outside
                [0, 1].
        """
        own = self.answers[answer]
        row = self.row(alpha)
        edit = self._of_heads()
        weighed = edit.strength if beta is None else replace(edit.strength, beta=beta)
        layers = [layer for layer, _ in edit.heads]
        doubt = own.uncertainty[row][:, layers]
        found = strengths(own.misalignment[row].nan_to_num(), doubt, *weighed.factors)
        return found.where(own.reached[:, None], torch.tensor(torch.nan))

    def change(
        self, answer: int, alpha: float, beta: float | None = None
    ) -> Float[Tensor, "token edited"]:
        """The signed length α·σ·s that z moves along θ, in the units of z; see `strengths`.

        It is 0 where p̂ is under the edit's threshold, and NaN where the edit does not act.
        """
        edit = self._of_heads()
        moved = alpha * edit.spread * self.strengths(answer, alpha, beta)
        if edit.threshold is None:
            return moved
        risk = self.answers[answer].misalignment[self.row(alpha)]
        return moved.masked_fill(risk < edit.threshold, 0.0)

    def moved(
        self, answer: int, alpha: float, beta: float | None = None
    ) -> Float[Tensor, "token edited_layer"]:
        """How far the states of every edited layer moved, in their own units; NaN where none did.

        Args:
            answer: the answer's number.
            alpha: one of `alphas`.
            beta: of an edit of heads, see `strengths`; of z it is the root of the sum of squares
                over the layer's edited heads.

        Raises:
            WorkbenchError: an edit of the whole model, whose states are not followed, or an α that
                was not run.
        """
        if isinstance(self.edit, Edit):
            change = self.change(answer, alpha, beta)
            at = torch.tensor([layer for layer, _ in self.edit.heads])
            each = [change[:, at == layer].norm(dim=1) for layer in self.edit.layers]
            return torch.stack(each, dim=1)
        found = self.answers[answer].moved
        if found is None:
            raise WorkbenchError(
                f"how far {self.edit!r} moves states", "an edit of heads or of states",
                "`nats` and `written` of its answers show what it does.",
            )  # fmt: skip
        return found[self.row(alpha)]

    def _of_heads(self) -> Edit:
        """The edit, refused where it is not of heads."""
        if not isinstance(self.edit, Edit):
            raise WorkbenchError(
                f"the strengths of {self.edit!r}", "an Edit of heads, which has p̂ and u",
                "`moved` and the answers' `gate` show what an edit of states does at each token.",
            )  # fmt: skip
        return self.edit

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

    def widget(self, model: Any = None, edit: Intervention | None = None) -> Any:
        """The same for a notebook; live where model and edit are given, see `explorer.widget`."""
        from workbench.pages.explorer.widget import widget  # likewise, and needs `lab`

        return widget(self, model, edit)
