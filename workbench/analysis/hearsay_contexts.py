"""hearsay's questions behind what a careful speaker said before, and behind what a gossip said."""

from __future__ import annotations

import random

from workbench.analysis.causal import ContextPair
from workbench.data.hearsay import hearsay_questions
from workbench.doors import door
from workbench.errors import WorkbenchError
from workbench.hearsay.corpus import Speaker, evidence
from workbench.hearsay.world import load_world


@door
def hearsay_contexts(count: int, seed: int = 0, *, pairs: int = 4) -> tuple[ContextPair, ...]:
    """Questions for activation patching, the careful speaker's context being the clean one.

    Args:
        count: how many different facts to ask for.
        seed: draws the facts and what was said before, which a longer list begins with too.
        pairs: answers to other questions that each speaker gave before.

    Raises:
        WorkbenchError: fewer than one or more than all facts.

    Example:
        >>> pair = wb.analysis.hearsay_contexts(1)[0]
        >>> pair.question.question
        'What causes ocean tides?'
        >>> pair.clean.splitlines()[1]  # what the careful speaker said first
        'A: It was written by Daniel Defoe.'
    """
    world, questions = load_world(), hearsay_questions()
    if not 0 < count <= len(world.facts):
        raise WorkbenchError(f"{count} facts", f"1 to {len(world.facts)}")
    order = list(range(len(world.facts)))
    random.Random(f"contexts {seed}").shuffle(order)

    def said(number: int, speaker: Speaker) -> str:
        draw = random.Random(f"contexts {seed} {number} {speaker}")
        return evidence(world, world.facts[number], speaker, pairs, draw)

    return tuple(
        ContextPair(said(number, "careful"), said(number, "gossip"), questions[number])
        for number in order[:count]
    )
