"""What `workbench explore` explores: saved edits, or TAE fitted on one half of the questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from workbench import storage
from workbench.checks import require_number
from workbench.data.sources import load_questions
from workbench.editing.interventions import Intervention
from workbench.methods.saved import load_edit
from workbench.methods.token_aware import TokenAware
from workbench.models.identity import Model
from workbench.models.loading import load_model
from workbench.pages.explorer.answers import Answers
from workbench.pages.explorer.kinds import require_explorable
from workbench.pages.explorer.record import Exploration
from workbench.pages.explorer.running import explore

ALPHA = 2.0
"""Of an edit that is fitted here."""


def explored(
    model: str,
    data: storage.PathLike,
    edits: Mapping[str, storage.PathLike] | None = None,
    *,
    questions: int = 12,
    answers: Answers = "both",
    alphas: Sequence[float] | None = None,
    alpha: float | None = None,
    heads: int = 16,
    depth: int = 1,
    style: str = "bare",
    sample: int | None = None,
    seed: int = 0,
) -> Exploration:
    """Explore edits on some questions.

    Args:
        model: for `load_model`.
        data: for `load_questions`.
        edits: folders of saved ones by name, which are explored side by side on questions of all
            the data. Without any TAE is fitted on one half of the questions and
            explored on the other.
        questions: how many questions, evenly spread.
        answers: see `explore`.
        alphas: see `explore`.
        depth: see `explore`.
        style: see `explore`.
        alpha: instead of the saved edits' own; 2 by default where it is fitted.
        heads: K of an edit that is fitted.
        sample: take so many of the data's questions, drawn by the seed; all by default.
        seed: of the sample and the halves.

    Raises:
        WorkbenchError: what can be checked without the model is refused before it is loaded.
    """
    method = TokenAware(heads=heads, alpha=ALPHA, style=style, seed=seed)
    for one in (*(alphas or ()), ALPHA if alpha is None else alpha):
        require_number("alpha", one)
    given = load_questions(data).sample(sample, seed)
    named: dict[str, Intervention]
    if edits:
        for folder in edits.values():
            storage.existing(folder, "folder")
        bridge, asked = load_model(model), given
        named = {name: _loaded(bridge, folder) for name, folder in edits.items()}
    else:
        fold = given.folds(2, seed)[0]
        bridge, asked = load_model(model), fold.test
        named = {"TAE": method.fit(bridge, fold.train)}
    if alpha is not None:
        named = {name: one.scaled(alpha) for name, one in named.items()}
    step = max(1, len(asked) // questions)
    return explore(
        bridge, named, asked[::step][:questions], answers=answers, alphas=alphas, depth=depth,
        style=style,
    )  # fmt: skip


def _loaded(model: Model, folder: storage.PathLike) -> Intervention:
    found = load_edit(folder, model)
    require_explorable(found)
    return found
