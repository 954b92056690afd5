"""`workbench lm-eval`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from workbench.cli.options import add_out, add_seed, named_folders, natural, positive
from workbench.errors import WorkbenchError


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
    from workbench.evaluation.capabilities.rows import NO_EDIT
    from workbench.methods.saved import load_edit
    from workbench.models.loading import load_model
    from workbench.runs.harness_tasks import harness

    questions = load_questions(given.questions) if given.questions else None
    folders = named_folders(given.edit)
    if NO_EDIT in folders:
        raise WorkbenchError(f"an edit called {NO_EDIT!r}", "another name: it is the model's own")
    for folder in folders.values():
        storage.existing(folder, "folder")
    model = load_model(given.model)
    edits: dict[str, Any] = {NO_EDIT: None}
    edits |= {name: load_edit(folder, model) for name, folder in folders.items()}
    harness(
        model, given.tasks, edits, given.out, limit=given.limit, few_shot=given.few_shot,
        questions=questions, chat=given.chat, batch_size=given.batch_size, seed=given.seed,
    )  # fmt: skip
    sys.stdout.write(storage.read_text(f"{given.out}/summary.md"))
    sys.stdout.write(f"\nWritten to {given.out}\n")
