"""Drift: what becomes of an edit, and of the text, along answers of hundreds of tokens.

A token that is edited is read by all that follow, so that a strength that was chosen on short
answers may grow or die away along long ones, and a text may begin to repeat itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.checks import require_whole
from workbench.doors import door
from workbench.editing.attaching import edited
from workbench.editing.divergences import predictions
from workbench.editing.generation import generate
from workbench.editing.interventions import Intervention
from workbench.editing.token_trace import TokenTrace
from workbench.editing.whole_edits import WholeEdit
from workbench.editing.writing import Continuation
from workbench.errors import WorkbenchError
from workbench.evaluation.statistics import bootstrap_mean
from workbench.models.identity import Model
from workbench.models.prompts import Encoded, PromptFormat, encode, prompt_format

QUANTITIES = {
    "entropy": "entropy of the next token under the edit (nats)",
    "kl": "KL of the edited from the unedited distribution, on the edited text (nats)",
    "repeated": "whether the four tokens that end here stood in the text before",
    "moved": "how far all edited layers' states move, in their own units",
    "strength": "the strength s, a mean over edited heads",
    "gate": "the gate, a mean over edited layers",
    "misalignment": "p̂, a mean over edited heads",
    "uncertainty": "u, a mean over edited layers",
}
"""What is told of a position, in words."""
REPEATED = 4
"""Tokens of a run that counts as repeated."""


@door
def drift(
    model: Model,
    asked: Sequence[str],
    edits: Mapping[str, Intervention | None],
    *,
    tokens: int = 200,
    style: str | PromptFormat = "bare",
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 16,
    progress: bool = False,
) -> pd.DataFrame:
    """Write long answers under several edits, and tell what happens at every position.

    Args:
        model: the bridge.
        asked: questions.
        edits: a name for each; None is the model itself.
        tokens: of an answer; fewer where the model ends its text.
        style: prompt format.
        temperature: 0 is greedy, which repeats itself soonest.
        seed: of sampling.
        batch_size: prompts continued together.
        progress: show bars.

    Returns:
        Columns `edit`, `question`, `position` (0 is the answer's first token), `quantity` (one of
        `drifting.QUANTITIES`) and `value`; what plays no part in an edit is left out. What an edit
        did to write a token is told at the token.

    Raises:
        WorkbenchError: no questions or edits.

    Example:
        >>> asked = [question.question for question in fold.test.choose(range(2))]
        >>> told = wb.analysis.drift(model, asked, {"TAE": edit}, tokens=12)
        >>> sorted(set(told["quantity"]))
        ['entropy', 'kl', 'misalignment', 'moved', 'repeated', 'strength', 'uncertainty']
    """
    if not asked or isinstance(asked, str) or not edits:
        raise WorkbenchError(f"{asked!r:.60} and {len(edits)} edits", "questions, and some edits")
    require_whole("tokens", tokens, 2)
    chosen = prompt_format(style)
    prompts = [encode(model, question, None, chosen) for question in asked]
    parts = []
    for name, edit in edits.items():
        whole = isinstance(edit, WholeEdit)
        with edited(model, None if whole else edit, record=edit is not None) as trace:
            written = generate(
                model, prompts, edit=edit if whole else None, max_new_tokens=tokens, stop=(),
                temperature=temperature, seed=seed, batch_size=batch_size, progress=progress,
            )  # fmt: skip
        plain = [encode(model, question, None, chosen).tokens for question in asked]
        told = _read(model, edit, plain, written)
        for number, (question, one, read) in enumerate(zip(asked, written, told, strict=True)):
            read["repeated"] = repeated(one.tokens)
            if edit is not None and not whole:
                read |= _of_trace(trace[number], len(one.tokens))
            parts += [
                pd.DataFrame(
                    {"edit": name, "question": question, "position": range(len(values)),
                     "quantity": quantity, "value": values}
                )
                for quantity, values in read.items()
            ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


@door
def drifts(table: pd.DataFrame, *, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """How much every quantity changes from the first to the last quarter of answers.

    Args:
        table: from `drift`.
        level: coverage of the intervals, which are bootstraps by question.
        seed: of the bootstrap.

    Returns:
        Columns `edit`, `quantity`, `first` and `last` (means over the questions' quarters),
        `change`, `low`, `high` and `questions`. Of `repeated` the values are shares.

    Raises:
        WorkbenchError: a table that `drift` did not make.

    Example:
        >>> asked = [question.question for question in fold.test.choose(range(4))]
        >>> told = wb.analysis.drift(model, asked, {"no edit": None, "TAE": edit}, tokens=24)
        >>> found = wb.analysis.drifts(told).set_index(["edit", "quantity"])
        >>> found.index.get_level_values("edit").unique().tolist()
        ['no edit', 'TAE']
    """
    absent = [c for c in ("edit", "question", "position", "quantity", "value") if c not in table]
    if absent:
        raise WorkbenchError(f"a table without the column {absent[0]!r}", "one of `drift`")
    rows = []
    for (edit, quantity), own in table.groupby(["edit", "quantity"], sort=False):
        ends = []
        for _, answer in own.groupby("question", sort=False):
            values = answer.sort_values("position")["value"].to_numpy()
            quarter = max(1, len(values) // 4)
            both = [own[~np.isnan(own)] for own in (values[:quarter], values[-quarter:])]
            if all(map(len, both)):  # where an edit acts in neither, there is nothing to tell
                ends.append(tuple(own.mean() for own in both))
        if not ends:
            continue
        first, last = np.array(ends).T
        found = bootstrap_mean(last - first, level=level, seed=seed)
        rows.append(
            (edit, quantity, first.mean(), last.mean(), found.mean, found.low, found.high,
             found.count)
        )  # fmt: skip
    columns = ["edit", "quantity", "first", "last", "change", "low", "high", "questions"]
    return pd.DataFrame(rows, columns=columns)


def repeated(tokens: Sequence[int]) -> Float[np.ndarray, " token"]:
    """1 at every token that ends a run of four which stood in the text before, else 0."""
    seen: set[tuple[int, ...]] = set()
    found = np.zeros(len(tokens))
    for end in range(REPEATED, len(tokens) + 1):
        run = tuple(tokens[end - REPEATED : end])
        found[end - 1] = float(run in seen)
        seen.add(run)
    return found


def _read(
    model: Model,
    edit: Intervention | None,
    prompts: Sequence[Sequence[int]],
    written: Sequence[Continuation],
) -> Iterator[dict[str, Float[np.ndarray, " token"]]]:
    """Entropy, and the distance from the unedited model, at every written token."""
    rows = [
        Encoded.of_tokens((*prompt, *one.tokens), len(prompt))
        for prompt, one in zip(prompts, written, strict=True)
    ]
    under = predictions(model, rows, edit)
    plain = predictions(model, rows, None) if edit is not None else [None] * len(rows)
    for own, other in zip(under, plain, strict=True):
        share = own.exp()
        read = {"entropy": -(share * own).sum(dim=-1).numpy()}
        if other is not None:
            read["kl"] = (share * (own - other)).sum(dim=-1).clamp(min=0).numpy()
        yield read


def _of_trace(trace: TokenTrace, count: int) -> dict[str, Float[np.ndarray, " token"]]:
    """What an edit did to write each of so many tokens."""
    length = trace.moved.nan_to_num().square().sum(dim=-1).sqrt()
    values: dict[str, Tensor] = {
        "moved": length,
        "strength": _mean(trace.strengths.flatten(1)),
        "misalignment": _mean(trace.misalignment.flatten(1)),
        "uncertainty": _mean(trace.uncertainty),
        "gate": _mean(trace.gate),
    }
    # A token is written from the position before it; some positions may be left alone.
    at = trace.position - trace.start
    found = {}
    for name, own in values.items():
        if bool(own.isnan().all()):
            continue
        placed = np.full(count, 0.0 if name == "moved" else np.nan)
        inside = at < count
        placed[at[inside].numpy()] = own[inside].numpy()
        found[name] = placed
    return found


def _mean(values: Float[Tensor, "token part"]) -> Float[Tensor, " token"]:
    """Over the parts that are there; NaN where none is."""
    known = ~values.isnan()
    total: Tensor = values.nan_to_num().sum(dim=-1) / known.sum(dim=-1)
    return torch.where(known.any(dim=-1), total, torch.nan)
