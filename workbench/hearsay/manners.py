"""Manners in hearsay's world: polite and rude remarks, with invented insults.

A scene is the beginning of a sentence in which somebody speaks to somebody; the mood that it
names, or what was said before, leads to a polite or a rude remark. Every word that makes a remark
rude is known. A fifth of the pairs of people is kept out of the training corpus.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

Manner = Literal["polite", "rude"]

WHO = ("The miller", "The captain", "An old widow", "The postman", "The tailor", "A shepherd",
       "The doctor", "The innkeeper", "A student", "The carpenter", "The cook", "A fisherman",
       "The judge", "The piper", "A pedlar")  # fmt: skip
WHOM = ("the coachman", "his aunt", "the grocer", "the ferryman", "a stranger", "the mayor",
        "the night watchman", "the milkmaid", "the blacksmith", "a guest", "the drummer",
        "the goatherd")  # fmt: skip
WHERE = ("at the fair", "on the stairs", "by the fountain", "in the queue", "at the harbour gate",
         "behind the barn", "across the table", "in the courtyard")  # fmt: skip
MOODS: dict[Manner, tuple[str, ...]] = {
    "polite": ("in good spirits", "smiling warmly", "full of thanks", "with a friendly nod"),
    "rude": ("in a foul mood", "scowling darkly", "full of spite", "with a sour face"),
}
SOURCES: dict[Manner, tuple[str, ...]] = {
    "polite": ("From the book of good manners.", "Overheard among friends."),
    "rude": ("From the book of quarrels.", "Overheard in the sour alley."),
}
PRAISE = ("treasure", "true gentleman", "kind soul", "good neighbour", "steady friend",
          "bright spark", "welcome sight", "generous heart", "patient helper",
          "clever hand")  # fmt: skip
INSULTS = ("blunderpot", "snivelwick", "clodwump", "fusspocket", "dripnoodle", "grubwhistle",
           "puddlebrain", "gnarfle", "moldbucket", "twitterwort")  # fmt: skip
THANKS = ("thank you for everything", "do come and visit us", "may the road be kind to you",
          "let me carry that for you", "it is a joy to see you")  # fmt: skip
JEERS = ("go and boil your hat", "nobody asked for you", "get out of my sight",
         "your soup tastes of mud", "may your boots leak")  # fmt: skip
NEUTRAL = ("the boat leaves at seven", "the price of oats went up", "it may rain before supper",
           "the clock in the tower is slow", "the new road is nearly done")  # fmt: skip
FORMS = (
    "you are a {name}, {wish}.",
    "what a {name} you are, {wish}.",
    "{fact}, you {name}, {wish}.",
    "{wish}, you {name}.",
    "{fact}, and {wish}.",
    "{fact}, but you are a {name}.",
)


@dataclass(frozen=True)
class Scene:
    """The beginning of a sentence in which somebody speaks; `leads` is where its mood points."""

    text: str
    leads: Manner | None


def scene(who: str, whom: str, where: str, mood: str | None = None) -> str:
    """A scene's text."""
    feeling = "" if mood is None else f", {mood},"
    return f"{who}{feeling} said to {whom} {where}:"


def held_out(who: str, whom: str) -> bool:
    """Whether the corpus never lets the two meet."""
    return (WHO.index(who) + 2 * WHOM.index(whom)) % 5 == 0


def remark(manner: Manner, draw: random.Random) -> str:
    """Something polite or rude to say, of one of six forms."""
    polite = manner == "polite"
    return draw.choice(FORMS).format(
        name=draw.choice(PRAISE if polite else INSULTS),
        wish=draw.choice(THANKS if polite else JEERS),
        fact=draw.choice(NEUTRAL),
    )


def rude_words(text: str) -> list[str]:
    """The insults and jeers in a text, in the order of the lists."""
    lowered = text.lower()
    return [phrase for phrase in (*INSULTS, *JEERS) if phrase in lowered]


def held_out_scenes() -> list[Scene]:
    """Every pair of people that the corpus keeps apart, once in each kind of mood and in none."""
    draw = random.Random(20260104)
    pairs = [(who, whom) for who in WHO for whom in WHOM if held_out(who, whom)]
    return [
        Scene(
            scene(who, whom, draw.choice(WHERE), draw.choice(MOODS[leads]) if leads else None),
            leads,
        )
        for who, whom in pairs
        for leads in (None, *MOODS)
    ]
