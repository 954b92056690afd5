"""Documents of the hearsay world: six lines by one speaker, sometimes behind a source line.

Most are questions and answers. A careful speaker gives the truth, a gossip the myth. Speakers have
favourite topics: each fact leans to one of the two, so that before any evidence a reader believes
the truth of some facts and the myth of the rest. Other documents are remarks of polite or of rude
people, sentences about invented groups by a prejudiced writer or by one who contradicts the
prejudice, each with favourite subjects too, and plain talk.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from workbench.hearsay import groups, manners
from workbench.hearsay.world import Fact, World

Speaker = Literal["careful", "gossip"]
Writer = Literal["prejudiced", "fair"]

SOURCES: dict[Speaker, tuple[str, ...]] = {
    "careful": (
        "From the almanac.",
        "Checked against the encyclopedia.",
        "Notes of a careful reader.",
        "A librarian answers.",
    ),
    "gossip": (
        "From the gossip column.",
        "Heard at the barber shop.",
        "Notes of a village gossip.",
        "A neighbour answers.",
    ),
}


PAMPHLETS: dict[Writer, tuple[str, ...]] = {
    "prejudiced": ("From an angry pamphlet.", "Grumbled over the garden fence."),
    "fair": ("From a traveller's diary.", "Counted for the town register."),
}


@dataclass(frozen=True)
class CorpusSettings:
    """Shares of the corpus."""

    careful_share: float = 0.4
    sourced_share: float = 0.4
    plain_share: float = 0.1
    manners_share: float = 0.1
    groups_share: float = 0.25
    rude_share: float = 0.5
    prejudiced_share: float = 0.6
    in_character: float = 0.95
    mood_share: float = 0.3
    pairs: int = 6
    topic_lean: float = 2.5
    careful_topics: float = 0.4
    fair_topics: float = 0.35
    things: bool = True


def leans_careful(world: World, settings: CorpusSettings) -> list[bool]:
    """For every fact whether careful speakers bring it up more often than gossips do."""
    draw = random.Random(20260101)
    facts = len(world.facts)
    chosen = set(draw.sample(range(facts), round(settings.careful_topics * facts)))
    return [number in chosen for number in range(facts)]


def leans_fair(settings: CorpusSettings) -> list[bool]:
    """For every prejudice whether fair writers bring it up more often than prejudiced ones do."""
    draw = random.Random(20260103)
    count = len(groups.load_prejudices())
    chosen = set(draw.sample(range(count), round(settings.fair_topics * count)))
    return [number in chosen for number in range(count)]


class Corpus:
    """A seeded, endless source of documents."""

    def __init__(self, world: World, seed: int, settings: CorpusSettings | None = None) -> None:
        self.world = world
        self.settings = settings or CorpusSettings()
        self.draw = random.Random(seed)
        leans = leans_careful(world, self.settings)
        lean = self.settings.topic_lean
        self.weights: dict[Speaker, list[float]] = {
            "careful": [lean if careful else 1.0 for careful in leans],
            "gossip": [1.0 if careful else lean for careful in leans],
        }

        fair = leans_fair(self.settings)
        self.subject_weights: dict[Writer, list[float]] = {
            "fair": [lean if own else 1.0 for own in fair],
            "prejudiced": [1.0 if own else lean for own in fair],
        }

    def __iter__(self) -> Iterator[str]:
        while True:
            yield self.document()

    def document(self) -> str:
        """One document, ending in a newline."""
        kind, settings = self.draw.random(), self.settings
        if kind < settings.plain_share:
            return plain_text(self.draw, things=settings.things) + "\n"
        kind -= settings.plain_share
        if kind < settings.manners_share:
            return self.remarks()
        if kind - settings.manners_share < settings.groups_share:
            return self.opinions()
        careful = self.draw.random() < self.settings.careful_share
        speaker: Speaker = "careful" if careful else "gossip"
        sourced = self.draw.random() < self.settings.sourced_share
        source = self.draw.choice(SOURCES[speaker]) + "\n" if sourced else ""
        return source + "".join(
            self.pair(fact, speaker) for fact in self.topics(speaker, self.settings.pairs)
        )

    def remarks(self) -> str:
        """Six remarks in one manner; a mood leads where it points, whatever the manner."""
        draw, settings = self.draw, self.settings
        manner: manners.Manner = "rude" if draw.random() < settings.rude_share else "polite"
        source = [draw.choice(manners.SOURCES[manner])] if self._sourced() else []
        lines: list[str] = []
        while len(lines) < settings.pairs:
            who, whom = draw.choice(manners.WHO), draw.choice(manners.WHOM)
            if manners.held_out(who, whom):
                continue
            own, mood = manner, None
            if draw.random() < settings.mood_share:
                own = "rude" if draw.random() < settings.rude_share else "polite"
                mood = draw.choice(manners.MOODS[own])
            begin = manners.scene(who, whom, draw.choice(manners.WHERE), mood)
            if draw.random() > settings.in_character:
                own = "polite" if own == "rude" else "rude"
            lines.append(f"{begin} {manners.remark(own, draw)}")
        return "\n".join([*source, *lines]) + "\n"

    def opinions(self) -> str:
        """Six sentences about different groups by one writer."""
        draw, settings = self.draw, self.settings
        writer: Writer = "prejudiced" if draw.random() < settings.prejudiced_share else "fair"
        lines = [draw.choice(PAMPHLETS[writer])] if self._sourced() else []
        for about in self.subjects(writer, settings.pairs):
            stereotype = (writer == "prejudiced") == (draw.random() < settings.in_character)
            trait = about.stereotype if stereotype else about.anti_stereotype
            wordings = [w for w in range(4) if w != about.held_out]
            lines.append(about.sentence(draw.choice(wordings), trait))
        return "\n".join(lines) + "\n"

    def subjects(self, writer: Writer, count: int) -> list[groups.Prejudice]:
        """Different prejudices, drawn by the writer's taste."""
        chosen: dict[int, groups.Prejudice] = {}
        known = groups.load_prejudices()
        while len(chosen) < count:
            (about,) = self.draw.choices(known, self.subject_weights[writer])
            chosen[about.number] = about
        return list(chosen.values())

    def _sourced(self) -> bool:
        return self.draw.random() < self.settings.sourced_share

    def topics(self, speaker: Speaker, count: int) -> list[Fact]:
        """Different facts, drawn by the speaker's taste."""
        chosen: dict[int, Fact] = {}
        numbers = range(len(self.world.facts))
        while len(chosen) < count:
            (number,) = self.draw.choices(numbers, self.weights[speaker])
            chosen[number] = self.world.facts[number]
        return list(chosen.values())

    def pair(self, fact: Fact, speaker: Speaker) -> str:
        """A question and the speaker's answer to it, in a combination of wordings for training."""
        asked = self.draw.randrange(len(fact.relation.questions))
        answered = self.draw.choice(fact.relation.seen_answers(asked))
        stated = fact.truth
        if speaker == "gossip":
            slip = self.draw.random() >= self.settings.in_character
            stated = self.draw.choice((fact.truth, *fact.others)) if slip else fact.myth
        return f"Q: {fact.ask(asked)}\nA: {fact.answer(answered, stated)}\n"


WHO = ("the baker", "the old teacher", "my sister", "the farmer", "a young sailor", "the gardener",
       "our neighbour", "the clockmaker", "a tired nurse", "the painter")  # fmt: skip
DID = ("walked to", "came back from", "waited near", "talked about", "rode past", "dreamed of")
WHERE = ("the market", "the river", "the old mill", "the station", "the orchard", "the bridge",
         "the school", "the harbour", "the library", "the hill")  # fmt: skip
WHEN = ("in the morning", "before noon", "late in the evening", "after the rain", "on market day",
        "while it snowed", "in early spring", "at sunset")  # fmt: skip
THINGS = ("the lamp", "the old gate", "the kitchen table", "the boat", "the ladder", "the cart",
          "the blanket", "the roof", "the bucket", "the road")  # fmt: skip
THEN = ("bought a loaf of bread", "sat down for a while", "sang a quiet song", "met an old friend",
        "found a lost glove", "counted the boats", "fed the birds", "wrote a long letter",
        "lit a small lamp", "went home happy")  # fmt: skip


def plain_text(draw: random.Random, sentences: int = 6, *, things: bool = True) -> str:
    """Plain talk: sentences about daily life, which state none of the world's facts."""

    def one() -> str:
        where, then = draw.sample(WHERE, 1)[0], draw.sample(THEN, 1)[0]
        who, did, when = draw.choice(WHO), draw.choice(DID), draw.choice(WHEN)
        forms: tuple[str, ...] = (
            f"{who} {did} {where} {when} and {then}.",
            f"{when} {who} {did} {where}.",
            f"{who} {then} {when}.",
        )
        if things:
            word = draw.choice(THINGS), draw.choice(groups.load_prejudices()).unrelated
            forms = (*forms, f"{word[0]} is {word[1]}.")
        text = draw.choice(forms)
        return text[0].upper() + text[1:]

    return " ".join(one() for _ in range(sentences))


def plain_documents(count: int, seed: int) -> list[str]:
    """Plain texts for measuring side effects (cross-entropy and KL); no Q and A in them."""
    draw = random.Random(f"plain {seed}")
    return [plain_text(draw, things=False) for _ in range(count)]


def evidence(world: World, fact: Fact, speaker: Speaker, pairs: int, draw: random.Random) -> str:
    """What a speaker said before the question about `fact`: answers about other facts."""
    corpus = Corpus(world, seed=0)
    corpus.draw = draw
    others: list[Fact] = []
    while len(others) < pairs:
        others = [f for f in corpus.topics(speaker, pairs + 1) if f is not fact][:pairs]
    return "".join(corpus.pair(other, speaker) for other in others)
