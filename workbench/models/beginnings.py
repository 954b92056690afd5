"""Beginnings: which prompts and answers begin alike, and whether running that once saves anything.

Edits begin at the last prompt token, and nothing is looked at before it: so far a question is the
same for all of its answers and edits, and a primer for all questions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from workbench.models.prompts import Encoded

WORTHWHILE = 8
"""Tokens saved for each beginning, from which running it apart is worth a pass."""


@dataclass(frozen=True)
class Reading:
    """Tokens to run, and the first position at which anything is looked at."""

    tokens: tuple[int, ...]
    first: int


def to_score(encoded: Sequence[Encoded]) -> list[Reading]:
    """What is run to score answers: their last tokens predict nothing that is asked for."""
    return [Reading(one.tokens[:-1], one.start - 1) for one in encoded]


@dataclass(frozen=True)
class Row:
    """Answers under one edit that are run together, and their first edited position."""

    answers: tuple[int, ...]
    edit: int
    begin: int


@dataclass(frozen=True)
class Plan:
    """Which answers begin alike.

    Attributes:
        readings: all prompts with their answers.
        begins: for every edit, the first edited position of every answer.
        groups: answers by their unedited beginnings, the longest beginnings first.
        primer: how many tokens all beginnings share; 0 where it is not worth a pass.
    """

    readings: Sequence[Reading]
    begins: Sequence[Sequence[int]]
    groups: dict[tuple[int, ...], list[int]]
    primer: int

    @classmethod
    def of(cls, readings: Sequence[Reading], begins: Sequence[Sequence[int]]) -> Plan:
        """The plan of some answers under all edits."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for answer, one in enumerate(readings):
            free = max(0, min([one.first, *(own[answer] for own in begins)]))
            groups.setdefault(one.tokens[:free], []).append(answer)
        ordered = dict(sorted(groups.items(), key=lambda pair: -len(pair[0])))
        alike = 0
        for column in zip(*ordered, strict=False):
            if len(set(column)) > 1:
                break
            alike += 1
        primer = min(alike, min(map(len, ordered), default=0) - 1)
        worth = primer >= WORTHWHILE and len(readings) * len(begins) > 1
        return cls(readings, begins, ordered, primer if worth else 0)

    @property
    def groups_pay(self) -> bool:
        """Whether running the beginnings apart saves tokens enough."""
        saved = sum(
            (len(key) - self.primer) * (len(answers) * len(self.begins) - 1)
            for key, answers in self.groups.items()
        )
        return saved >= WORTHWHILE * len(self.groups)

    def packed(self, rows: int, tokens: int) -> Iterator[list[tuple[int, ...]]]:
        """Beginnings with others of about their length: so many answers, and tokens of them."""
        part: list[tuple[int, ...]] = []
        room = rows
        for key, answers in self.groups.items():
            wide = part and (len(part) + 1) * (len(part[0]) - self.primer) > tokens
            if part and (wide or len(answers) * len(self.begins) > room):
                yield part
                part, room = [], rows
            part.append(key)
            room -= len(answers) * len(self.begins)
        if part:
            yield part

    def rows(self, key: tuple[int, ...], answers: int, tokens: int) -> list[Row]:
        """The rows behind a beginning: of answers that are edited alike, so many, and tokens."""
        found = []
        for edit, own in enumerate(self.begins):
            alike: dict[int, list[int]] = {}
            for answer in self.groups[key]:
                alike.setdefault(own[answer], []).append(answer)
            for begin, some in alike.items():
                found += [
                    Row(part, edit, begin) for part in self._parts(some, key, answers, tokens)
                ]
        return found

    def _parts(
        self, some: Sequence[int], key: tuple[int, ...], answers: int, tokens: int
    ) -> Iterator[tuple[int, ...]]:
        """Answers cut into parts of at most so many, and so many tokens, but always an answer."""
        part: list[int] = []
        held = 0
        for answer in some:
            own = len(self.readings[answer].tokens) - len(key)
            if part and (len(part) == answers or held + own > tokens):
                yield tuple(part)
                part, held = [], 0
            part.append(answer)
            held += own
        yield tuple(part)
