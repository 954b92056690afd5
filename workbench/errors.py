"""The one error class of the workbench."""

from __future__ import annotations


class WorkbenchError(ValueError):
    """Input that the workbench refuses.

    Args:
        came: what was given, with the offending value in it.
        expected: what would have been accepted.
        mend: what the reader can do about it; left out where `expected` already says it.
    """

    def __init__(self, came: str, expected: str, mend: str = "") -> None:
        self.came, self.expected, self.mend = came, expected, mend
        super().__init__(f"{came}. Expected {expected}." + (f" {mend}" if mend else ""))

    def __reduce__(self) -> tuple[type[WorkbenchError], tuple[str, str, str]]:
        return type(self), (self.came, self.expected, self.mend)
