"""`workbench report` and `workbench explore`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from workbench.cli.options import add_out, add_seed, add_style, named_folders, natural, positive


def add_report(commands: Any) -> None:
    """The options of `workbench report`."""
    own = commands.add_parser("report", help="one page of a folder of results, to read anywhere")
    own.add_argument("results", help="what evaluate, compare, ablate or demo wrote")
    own.add_argument("--out", help="the HTML file (default: report.html in that folder)")
    own.add_argument("--examples", type=natural, default=4, help="held-out questions to answer")
    own.add_argument(
        "--trust", action="store_true", help="run code that the results name as module:name"
    )
    own.set_defaults(run=run_report)


def run_report(given: argparse.Namespace) -> None:
    """`workbench report`."""
    from workbench.pages.report import report

    out = given.out or f"{given.results}/report.html"
    written = report(given.results, out, examples=given.examples, trust=given.trust)
    sys.stdout.write(f"Written to {written}\n")


def add_explore(commands: Any) -> None:
    """The options of `workbench explore`."""
    own = commands.add_parser("explore", help="one HTML page of what an edit does at every token")
    own.add_argument(
        "--model", default="hearsay",
        help="'hearsay', a fetched name such as smollm2, a hub name, a folder or a .gguf file "
        "(default: hearsay)",
    )  # fmt: skip
    own.add_argument(
        "--data",
        default="hearsay",
        help="'hearsay', 'truthfulqa', a path or module:name (default: hearsay)",
    )
    own.add_argument(
        "--edit", nargs="+", default=(), metavar="[NAME=]FOLDER",
        help="saved edits, laid side by side; without one TAE is fitted on one half",
    )  # fmt: skip
    add_out(own, "explorer.html", "the page")
    own.add_argument("--questions", type=positive, default=12, help="so many (default: 12)")
    own.add_argument(
        "--answers", choices=("own", "greedy", "both"), default="both",
        help="the data's own, those that the edited model writes, or both (default: both)",
    )  # fmt: skip
    own.add_argument(
        "--alphas", type=float, nargs="+",
        help="values of α to run, beside the edit's own (default: from none to twice its own)",
    )  # fmt: skip
    own.add_argument("--alpha", type=float, help="of the edit (default: its own; 2 where fitted)")
    own.add_argument(
        "--heads", type=positive, default=16, help="K of an edit that is fitted (default: 16)"
    )
    own.add_argument(
        "--depth", type=natural, default=1,
        help="most rounds of propagation before a graph (default: 1)",
    )  # fmt: skip
    add_style(own, "bare")
    own.add_argument("--sample", type=positive, help="so many of the data's questions, to be quick")
    add_seed(own, "of sample and halves")
    own.set_defaults(run=run_explore)


def run_explore(given: argparse.Namespace) -> None:
    """`workbench explore`."""
    from workbench.pages.explorer.command import explored

    record = explored(
        given.model, given.data, named_folders(given.edit), questions=given.questions,
        answers=given.answers, alphas=given.alphas, alpha=given.alpha, heads=given.heads,
        depth=given.depth, style=given.style, sample=given.sample, seed=given.seed,
    )  # fmt: skip
    sys.stdout.write(f"Written to {record.save(given.out)}\n")
