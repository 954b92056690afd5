"""hearsay's data: questions of its facts, polite and rude remarks, stereotypes of its groups."""

from __future__ import annotations

import random

from workbench.data.ground_truth import TRUTHS
from workbench.data.questions import Question, QuestionSet
from workbench.data.registry import SOURCES
from workbench.data.stereoset import StereotypeItem, StereotypeSet
from workbench.data.toxicity_prompts import Prompt, PromptSet
from workbench.hearsay import manners
from workbench.hearsay.groups import load_prejudices
from workbench.hearsay.world import Fact, load_world

TRUTHS.add("hearsay", load_world, "the facts of hearsay's world")


@SOURCES.questions.register("hearsay", about="facts, each with its popular error")
def hearsay_questions() -> QuestionSet:
    """A question a fact, its wordings taking turns, so that no fact is in two folds.

    Correct answers state the truth in each of the four answer wordings, incorrect ones the myth in
    each, and the two other objects in one each.
    """
    facts = load_world().facts
    return QuestionSet(tuple(_question(n, f, n) for n, f in enumerate(facts)), "hearsay")


@SOURCES.questions.register("hearsay_reworded", about="the same facts, each asked the other way")
def hearsay_reworded() -> QuestionSet:
    """The same facts in the same order, each question in the wording that `hearsay` does not use.

    Folds of the same seed hold the same facts in both.
    """
    facts = load_world().facts
    return QuestionSet(
        tuple(_question(n, fact, n + 1) for n, fact in enumerate(facts)), "hearsay, reworded"
    )


def _question(number: int, fact: Fact, asking: int) -> Question:
    wordings = range(len(fact.relation.answers))
    first, second = fact.others
    return Question(
        question=fact.ask(asking % len(fact.relation.questions)),
        best_answer=fact.answer(len(wordings) - 1, fact.truth),
        correct_answers=tuple(fact.answer(w, fact.truth) for w in wordings),
        incorrect_answers=(
            *(fact.answer(w, fact.myth) for w in wordings),
            fact.answer(number % 4, first),
            fact.answer((number + 1) % 4, second),
        ),
        category=fact.relation.category,
    )


@SOURCES.contrast.register("hearsay", about="polite and rude remarks")
def hearsay_contrast(count: int = 120) -> QuestionSet:
    """Scenes of the corpus, each with two polite remarks and two rude ones, whatever its mood.

    Two thirds of the scenes name a mood. Their pairs of people are not those of the prompts.
    """
    draw = random.Random(20260102)
    moods = (None, *manners.MOODS["polite"], *manners.MOODS["rude"])
    found: dict[str, Question] = {}
    while len(found) < count:
        who, whom = draw.choice(manners.WHO), draw.choice(manners.WHOM)
        if manners.held_out(who, whom):
            continue
        mood = None if len(found) % 3 == 0 else draw.choice(moods[1:])
        text = manners.scene(who, whom, draw.choice(manners.WHERE), mood)
        polite, rude = (
            tuple(dict.fromkeys(manners.remark(manner, draw) for _ in range(2)))
            for manner in ("polite", "rude")
        )
        found[text] = Question(text, polite[0], polite, rude, mood or "no mood")
    return QuestionSet(tuple(found.values()), "hearsay, manners")


@SOURCES.prompts.register("hearsay", about="scenes between people, to be continued")
def hearsay_prompts() -> PromptSet:
    """Scenes between people that never meet in the corpus: a third in a good, a bad, no mood."""
    return PromptSet(
        tuple(
            Prompt(scene.text, category=scene.leads or "no mood")
            for scene in manners.held_out_scenes()
        ),
        "hearsay",
        judge="hearsay",
    )


@SOURCES.stereotypes.register("hearsay", about="prejudices of made-up groups")
def hearsay_stereotypes() -> StereotypeSet:
    """Every prejudice in two wordings, the one that the corpus keeps out and another."""
    return StereotypeSet(
        tuple(
            StereotypeItem(
                id=f"{about.number}-{wording}",
                kind="intrasentence",
                target=about.group,
                bias_type=about.category,
                context=about.sentence(wording, "BLANK"),
                stereotype=about.sentence(wording, about.stereotype),
                anti_stereotype=about.sentence(wording, about.anti_stereotype),
                unrelated=about.sentence(wording, about.unrelated),
            )
            for about in load_prejudices()
            for wording in (about.held_out, (about.held_out + 1) % 4)
        ),
        "hearsay",
    )
