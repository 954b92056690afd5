"""`workbench demo` and `workbench real`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from workbench.cli.options import add_out, add_seed, add_style, positive

GOES_ON = "Interrupted, it keeps finished folds in --out: the same command goes on there."


def add_demo(commands: Any) -> None:
    """The options of `workbench demo`."""
    own = commands.add_parser(
        "demo", help="fit, inspect and evaluate TAE on the embedded model", epilog=GOES_ON
    )
    add_out(own, "figures/demo", "folder for figures and results")
    own.add_argument("--heads", type=positive, help="edited heads K (default: 16)")
    own.add_argument("--alpha", type=float, help="use this α instead of choosing one")
    add_seed(own, "of folds, validation and draws")
    own.set_defaults(run=run_demo)


def run_demo(given: argparse.Namespace) -> None:
    """`workbench demo`."""
    from workbench.pages import demo, demo_report
    from workbench.pages.demo_settings import DemoSettings

    changes: dict[str, Any] = {} if given.heads is None else {"heads": given.heads}
    if given.alpha is not None:
        changes["alphas"] = dict.fromkeys(("ITI", "TAE"), (given.alpha,))
    settings = DemoSettings(seed=given.seed, **changes)
    sys.stdout.write(demo_report.as_text(demo.run_demo(given.out, settings)) + "\n")


def add_real(commands: Any) -> None:
    """The options of `workbench real`."""
    own = commands.add_parser(
        "real", help="the same on a real model, fetched before; ten minutes", epilog=GOES_ON
    )
    add_out(own, "figures/real", "folder for figures and results")
    own.add_argument(
        "--model", help="a hub name, a folder or a .gguf file (default: smollm2, as fetched)"
    )
    own.add_argument(
        "--questions",
        help="TruthfulQA.csv or a file of your own (default: that of $WORKBENCH_TRUTHFULQA, or the "
        "project's own questions)",
    )
    own.add_argument("--sample", type=positive, help="so many of the questions (default: 80)")
    add_style(own, "chat")
    own.add_argument("--heads", type=positive, help="edited heads K (default: 24)")
    add_seed(own, "of sample, folds and draws")
    own.set_defaults(run=run_real)


def run_real(given: argparse.Namespace) -> None:
    """`workbench real`."""
    from dataclasses import replace

    from workbench.pages import demo_report, real

    names = ("model", "sample", "style", "heads")
    changes = {name: value for name in names if (value := getattr(given, name)) is not None}
    own = replace(real.SETTINGS, questions=real.asked(given.questions), seed=given.seed, **changes)
    found = real.run_real(given.out, real.RealSettings(own))
    sys.stdout.write(demo_report.as_text(found, real.introduction(found)) + "\n")
