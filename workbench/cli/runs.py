"""`workbench evaluate`, `ablate` and `compare`: what goes on where it was interrupted."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from workbench.cli.options import add_execution, natural, positive


def add_evaluate(commands: Any) -> None:
    """The options of `workbench evaluate`."""
    own = commands.add_parser(
        "evaluate", help="measure methods on capabilities; goes on where it was interrupted"
    )
    own.add_argument("config", nargs="?", help="a .toml file; without one, defaults")
    add_execution(own)
    own.add_argument("--model", help="instead of the file's")
    own.add_argument("--capabilities", nargs="+", help="instead of the file's")
    own.add_argument(
        "--data", nargs="+", default=[], metavar="CAPABILITY=SOURCE", help="instead of the file's"
    )
    own.add_argument("--methods", nargs="+", help="some of the file's methods, or kinds")
    own.add_argument("--presets", nargs="+", help="presets of TAE to measure as well")
    own.add_argument("--name", help="of the run, for several in one folder, which share parts")
    own.add_argument("--folds", type=positive, help="instead of the file's")
    own.add_argument("--seed", type=natural, help="instead of the file's")
    _add_refits_now(own)
    own.add_argument("--metrics", nargs="+", help="those to show in the summary")
    own.set_defaults(run=run_evaluate)


def _add_refits_now(own: Any) -> None:
    own.add_argument(
        "--refits-now", type=positive, metavar="N",
        help="the first N of the file's refits; with more, the same folder goes on there",
    )  # fmt: skip


def run_evaluate(given: argparse.Namespace) -> int:
    """`workbench evaluate`."""
    from workbench.runs.description import read_config, with_data, with_methods
    from workbench.runs.resumable import run

    config = read_config(
        given.config, model=given.model, capabilities=given.capabilities, folds=given.folds,
        seed=given.seed, metrics=given.metrics, refits_now=given.refits_now,
    )  # fmt: skip
    config = with_methods(with_data(config, given.data), given.methods, given.presets)
    name = given.name or ""
    run(config, given.out, name=name, workers=given.workers, threads=given.threads)
    return _told(f"{given.out}/{name}" if name else given.out, "summary.md")


def _told(place: str, page: str) -> int:
    """Print what a run says; 1 where pieces of it failed, which the page names."""
    from workbench import storage

    sys.stdout.write(storage.read_text(f"{place}/{page}"))
    sys.stdout.write(f"\nWritten to {place}\n")
    return int(bool(storage.read_json(f"{place}/manifest.json")["failed"]))


def add_ablate(commands: Any) -> None:
    """The options of `workbench ablate`."""
    own = commands.add_parser("ablate", help="a grid of settings of one method; goes on likewise")
    own.add_argument("study", help="the study (.toml)")
    add_execution(own)
    own.add_argument("--name", help="of the study, for several in one folder")
    own.add_argument("--limit", type=positive, help="allow so many settings")
    own.add_argument("--sample", type=positive, help="take so many settings at random")
    own.set_defaults(run=run_ablate)


def run_ablate(given: argparse.Namespace) -> int:
    """`workbench ablate`."""
    from workbench.runs.ablation import read_study, run_study

    study = read_study(given.study, name=given.name, limit=given.limit, sample=given.sample)
    run_study(study, given.out, workers=given.workers, threads=given.threads)
    return _told(f"{given.out}/{study.name}" if study.name else given.out, "summary.md")


def _estimated(config: Any, workers: int) -> int:
    """Print what a run would cost."""
    from workbench.runs.estimating import estimate

    found = estimate(config)
    rounded = found.round({"fit_seconds": 0, "measure_seconds": 0, "seconds": 0})
    minutes = found["seconds"].sum() / 60
    sys.stdout.write(f"{rounded.to_string(index=False)}\n\n")
    several = f", {minutes / workers:.0f} in {workers} that do not slow each other down"
    sys.stdout.write(
        f"About {minutes:.0f} minutes in one process{several if workers > 1 else ''}.\n"
    )
    return 0


def add_compare(commands: Any) -> None:
    """The options of `workbench compare`."""
    own = commands.add_parser("compare", help="all methods at equal side effects")
    own.add_argument("config", help="the run (.toml), with several multiples")
    add_execution(own)
    own.add_argument(
        "--against", help="what the others are compared with; by default the file's, or TAE"
    )
    own.add_argument(
        "--gain", help="the metric that is gained; by default true answers or MC2, as is primary"
    )
    _add_refits_now(own)
    own.add_argument(
        "--estimate", action="store_true", help="tell what it would cost, and do not run it"
    )
    own.set_defaults(run=run_compare)


def run_compare(given: argparse.Namespace) -> int:
    """`workbench compare`."""
    from workbench import plots, storage
    from workbench.runs.description import read_config
    from workbench.runs.head_to_head import compared_with, head_to_head

    config = read_config(given.config, refits_now=given.refits_now)
    against = compared_with(config, given.against)
    if given.estimate:
        return _estimated(config, given.workers)
    found = head_to_head(
        config, given.out, against=against, gain=given.gain,
        workers=given.workers, threads=given.threads,
    )  # fmt: skip
    for name in dict.fromkeys(found.curves["side_effect"]):
        own = found.curves[found.curves["side_effect"] == name]
        figure = plots.front(own, gain=found.gain, side_effect=name, envelope=True)
        storage.write_figure(f"{given.out}/front_{name.removeprefix('1 - ')}", figure)
    return _told(given.out, "head_to_head.md")
