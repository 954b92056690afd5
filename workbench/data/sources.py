"""`load_questions`: from a name or a path to a question set."""

from __future__ import annotations

from pathlib import Path

from workbench import storage
from workbench.data.hearsay import hearsay_questions
from workbench.data.questions import QuestionSet
from workbench.data.tables import csv_questions, json_lines_questions
from workbench.data.truthfulqa import truthfulqa_hub, truthfulqa_mc_task
from workbench.errors import WorkbenchError

READERS = {
    ".csv": csv_questions,
    ".json": truthfulqa_mc_task,
    ".jsonl": json_lines_questions,
}
HUB_NAMES = {"truthfulqa": "truthfulqa/truthful_qa", "truthful_qa": "truthfulqa/truthful_qa"}


def load_questions(source: storage.PathLike) -> QuestionSet:
    """Load questions by name or path.

    Args:
        source: `"hearsay"`; `"truthfulqa"` (from the hub); or a file: `.csv` with TruthfulQA's
            columns or one's own, `.json` in the shape of mc_task.json, `.jsonl` of one's own.

    Raises:
        WorkbenchError: no such source, or a file that does not hold questions.
    """
    name = str(source)
    if name == "hearsay":
        return hearsay_questions()
    if name.lower() in HUB_NAMES or name in HUB_NAMES.values():
        return truthfulqa_hub(HUB_NAMES.get(name.lower(), name))
    reader = READERS.get(Path(name).suffix.lower())
    if reader is None:
        raise WorkbenchError(
            f"the unknown question source {name!r}",
            "'hearsay', 'truthfulqa', or the path of a .csv, .json (mc_task) or .jsonl file",
        )
    return reader(storage.existing(name))
