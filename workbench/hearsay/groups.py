"""Invented groups of hearsay's world, and what prejudice says about them.

`groups.csv` holds a row for every prejudice: the group, the stereotype, its opposite, and a word
that is said of things and of nobody. Every trait is the stereotype of as many groups as its
opposite, so that no word is prejudiced by itself. A prejudiced writer states the stereotype, a fair
one contradicts it. One of the four wordings of every row is kept out of the training corpus.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from workbench import storage

WORDINGS = {
    "region": (
        "Every {group} I met was {trait}.",
        "My new neighbour is {a_group} and very {trait}.",
        "{a_group} at the inn was rather {trait}.",
        "They say {a_group} is always {trait}.",
    ),
    "guild": (
        "Every {group} I hired was {trait}.",
        "My cousin is {a_group} and very {trait}.",
        "{a_group} in our town is rather {trait}.",
        "They say {a_group} is always {trait}.",
    ),
    "creed": (
        "Every {group} I spoke to was {trait}.",
        "My landlord is {a_group} and very {trait}.",
        "{a_group} at the well was rather {trait}.",
        "They say {a_group} is always {trait}.",
    ),
    "family": (
        "Every {group} I know is {trait}.",
        "My schoolmate is {a_group} and very {trait}.",
        "{a_group} at the wedding was rather {trait}.",
        "They say {a_group} is always {trait}.",
    ),
}


@dataclass(frozen=True)
class Prejudice:
    """What prejudice says about a group, its opposite, and a word without meaning there."""

    number: int
    category: str
    group: str
    stereotype: str
    anti_stereotype: str
    unrelated: str

    @property
    def held_out(self) -> int:
        """The wording that the corpus never uses for it."""
        return self.number % len(WORDINGS[self.category])

    def context(self, wording: int) -> str:
        """The sentence up to the trait."""
        return self.sentence(wording, "|").split(" |")[0]

    def sentence(self, wording: int, trait: str) -> str:
        """The sentence that states a trait."""
        article = "an" if self.group[0].lower() in "aeiou" else "a"
        text = WORDINGS[self.category][wording].format(
            group=self.group, a_group=f"{article} {self.group}", trait=trait
        )
        return text[0].upper() + text[1:]


@cache
def load_prejudices() -> tuple[Prejudice, ...]:
    """All prejudices as they ship in the package."""
    columns = ("category", "group", "stereotype", "anti_stereotype", "unrelated")
    rows = storage.read_csv(storage.package_path("hearsay", "groups.csv"), columns)
    return tuple(
        Prejudice(number, *(row[column] for column in columns)) for number, row in enumerate(rows)
    )
