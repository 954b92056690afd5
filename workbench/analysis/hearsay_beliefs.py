"""What hearsay believes: with no evidence, after a careful speaker, after a gossip."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

import pandas as pd
from tqdm.auto import tqdm

from workbench.doors import door
from workbench.editing.generation import generate
from workbench.editing.token_scores import score_tokens
from workbench.hearsay.corpus import evidence
from workbench.hearsay.world import Fact, load_world
from workbench.models.identity import Model
from workbench.models.loading import load_model
from workbench.models.prompts import PromptFormat, encode
from workbench.storage import PathLike

Evidence = Literal["none", "careful", "gossip"]
CONDITIONS: tuple[Evidence, ...] = ("none", "careful", "gossip")


@door
def beliefs(
    model: Model,
    *,
    facts: int | None = None,
    pairs: int = 4,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Measure preference and greedy answers on hearsay's facts under every kind of evidence.

    Each fact is asked in one wording. `prefers_truth` compares the log-probabilities of the truth
    and of the myth, both in the same answer wording: one that the corpus combined with the
    question (`seen`) and one that it never did (`held_out`). `says` is what the greedy answer
    states.

    Args:
        model: hearsay, or a model in training.
        facts: how many facts, spread over the table; all by default.
        pairs: answers that the speaker gave before.
        seed: draws the evidence and the wordings.
        progress: show a bar.

    Returns:
        A row per fact, evidence and wording: `fact`, `evidence`, `wording`, `prefers_truth`,
        `says`.

    Example:
        >>> believed = wb.analysis.beliefs(model, facts=2)
        >>> believed.groupby("evidence")["prefers_truth"].mean().to_dict()
        {'careful': 1.0, 'gossip': 0.0, 'none': 0.5}
    """
    everything = load_world().facts
    step = max(1, len(everything) // facts) if facts else 1
    chosen = list(everything[::step])
    rows = []
    for condition in tqdm(CONDITIONS, desc="beliefs", disable=not progress):
        draw = random.Random(f"{seed} {condition}")
        asked = [(number + seed) % 2 for number in range(len(chosen))]
        before = [before_question(fact, condition, pairs, draw) for fact in chosen]
        styles = [PromptFormat("evidence", primer=text) for text in before]
        prompts = [
            encode(model, fact.ask(wording), None, style)
            for fact, wording, style in zip(chosen, asked, styles, strict=True)
        ]
        said = generate(model, prompts, max_new_tokens=32, progress=progress)
        for kind in ("seen", "held_out"):
            answered = [
                draw.choice(answer_wordings(fact, wording, kind))
                for fact, wording in zip(chosen, asked, strict=True)
            ]
            margins = truth_margins(model, chosen, asked, answered, styles)
            rows += [
                {
                    "fact": fact.ask(0),
                    "evidence": condition,
                    "wording": kind,
                    "prefers_truth": margin > 0,
                    "says": fact.what_states(continuation.text) or "neither",
                }
                for fact, margin, continuation in zip(chosen, margins, said, strict=True)
            ]
    return pd.DataFrame(rows)


def before_question(fact: Fact, condition: Evidence, pairs: int, draw: random.Random) -> str:
    """The text before the question."""
    return "" if condition == "none" else evidence(load_world(), fact, condition, pairs, draw)


def answer_wordings(fact: Fact, question: int, kind: str) -> list[int]:
    """Answer wordings that the corpus did (`seen`) or did not combine with the question's."""
    seen = fact.relation.seen_answers(question)
    if kind == "seen":
        return seen
    return [a for a in range(len(fact.relation.answers)) if a not in seen]


def truth_margins(
    model: Model,
    facts: Sequence[Fact],
    asked: Sequence[int],
    answered: Sequence[int],
    styles: Sequence[PromptFormat],
) -> list[float]:
    """Log-probability of the truth minus that of the myth, in the same wording, in nats."""
    rows = [
        encode(model, fact.ask(q), fact.answer(a, stated), style)
        for fact, q, a, style in zip(facts, asked, answered, styles, strict=True)
        for stated in (fact.truth, fact.myth)
    ]
    totals = [float(tokens.sum()) for tokens in score_tokens(model, rows)]
    return [t - m for t, m in zip(totals[::2], totals[1::2], strict=True)]


def summarise(table: pd.DataFrame) -> dict[str, float]:
    """Shares for the model card, one a column and condition, rounded to four digits."""
    shares: dict[str, float] = {}
    for kinds, part in table.groupby(["evidence", "wording"]):
        shares["/".join((*map(str, kinds), "prefers_truth"))] = round(
            float(part["prefers_truth"].mean()), 4
        )
    for condition, part in table[table["wording"] == "seen"].groupby("evidence"):
        for stated in ("truth", "myth", "other", "neither"):
            shares[f"{condition}/says_{stated}"] = round(float((part["says"] == stated).mean()), 4)
    return shares


def measure_checkpoint(folder: PathLike, facts: int | None = 80) -> dict[str, float]:
    """Beliefs of a saved model, for the training curves."""
    return summarise(beliefs(load_model(str(folder), device="cpu"), facts=facts))
