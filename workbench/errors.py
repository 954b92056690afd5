"""The one error class of the workbench."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class WorkbenchError(ValueError):
    """Input that the workbench refuses.

    Args:
        came: what was given, with the offending value in it.
        expected: what would have been accepted.
        mend: what the reader can do about it; left out where `expected` already says it.

    Example:
        >>> wb.TokenAware(beta=2)
        Traceback (most recent call last):
            ...
        workbench.errors.WorkbenchError: beta=2. Expected a number from 0 to 1.
    """

    def __init__(self, came: str, expected: str, mend: str = "") -> None:
        self.came, self.expected, self.mend = came, expected, mend
        super().__init__(f"{came}. Expected {expected}." + (f" {mend}" if mend else ""))

    @classmethod
    def unknown(cls, came: str, name: object, known: Iterable[object]) -> WorkbenchError:
        """A name that is not known; those that are, and the nearest of them, are told.

        Args:
            came: what was given, with the name in it.
            name: the name alone.
            known: all names that there are.
        """
        names = list(map(str, known))
        near = get_close_matches(str(name), names, 3)
        mend = f"Did you mean {' or '.join(near)}?" if near else ""
        return cls(came, f"one of {', '.join(names)}", mend)

    @classmethod
    def lacking(cls, package: str, what: str, extra: str) -> WorkbenchError:
        """A package that is not installed.

        Args:
            package: its name in the package index.
            what: what needs it.
            extra: the extra of the workbench that holds it.
        """
        return cls(
            f"{what} without the package {package}, which is not installed",
            "it beside the workbench",
            f"Install it with `pip install {package}`, or with the workbench's extra `{extra}`.",
        )

    def __reduce__(self) -> tuple[type[WorkbenchError], tuple[str, str, str]]:
        return type(self), (self.came, self.expected, self.mend)


def kind_of(value: object) -> str:
    """What a value is, with its article: `an int`, `a list`.

    Example:
        >>> kind_of(3), kind_of([])
        ('an int', 'a list')
    """
    return with_article(type(value).__name__)


def with_article(name: str) -> str:
    """A name behind its article."""
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
