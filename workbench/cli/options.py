"""Options that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from workbench.errors import WorkbenchError

STYLES = ("bare", "inline", "qa", "plain", "chat")
"""Names of prompt formats; those of `prompts.FORMATS`, which loads torch."""


def add_out(parser: argparse.ArgumentParser, default: str, what: str) -> None:
    """The option --out, its default told."""
    parser.add_argument("--out", default=default, help=f"{what} (default: {default})")


def add_seed(parser: argparse.ArgumentParser, what: str) -> None:
    """The option --seed, its default told."""
    parser.add_argument("--seed", type=natural, default=0, help=f"{what} (default: 0)")


def add_style(parser: argparse.ArgumentParser, default: str) -> None:
    """The option --style, its default and all formats told."""
    others = f"{', '.join(STYLES[:-1])} or {STYLES[-1]}"
    told = f"prompt format: {others} (default: {default})"
    parser.add_argument("--style", default=default, help=told)


def add_execution(parser: argparse.ArgumentParser) -> None:
    """The options of commands that run pieces."""
    parser.add_argument("--out", required=True, help="folder of the run")
    parser.add_argument("--workers", type=positive, default=1, help="processes; 1 works here")
    parser.add_argument("--threads", type=positive, help="of each process; shared out by default")


def named_folders(texts: Sequence[str]) -> dict[str, str]:
    """Folders by name, of texts such as `NAME=FOLDER` or `FOLDER`, which has its own name.

    Raises:
        WorkbenchError: two of one name.
    """
    found: dict[str, str] = {}
    for text in texts:
        before, sign, behind = text.partition("=")
        name, folder = (before, behind) if sign else (Path(text).resolve().name, text)
        if name in found:
            raise WorkbenchError(f"a second edit called {name!r}", "--edit NAME=FOLDER")
        found[name] = folder
    return found


def natural(text: str) -> int:
    """A whole number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if natural(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not at least 1")
    return int(text)
