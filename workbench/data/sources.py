"""From a name or a path to questions, prompts, stereotypes and contrast sets."""

from __future__ import annotations

from pathlib import Path

from workbench import storage
from workbench.data.contrast import contrast_questions
from workbench.data.crows_pairs import PairSet, crows_pairs_csv
from workbench.data.hearsay import (
    hearsay_contrast,
    hearsay_prompts,
    hearsay_questions,
    hearsay_stereotypes,
)
from workbench.data.questions import QuestionSet
from workbench.data.stereoset import StereotypeSet, stereoset_json
from workbench.data.tables import csv_questions, json_lines_questions
from workbench.data.toxicity_prompts import PromptSet, real_toxicity_hub, real_toxicity_jsonl
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

    Example:
        >>> questions = wb.load_questions("hearsay")
        >>> questions
        QuestionSet('hearsay': 327 questions, 3270 answers)
        >>> questions[0].question, questions[0].incorrect_answers[0]
        ('What is the capital of Australia?', 'Sydney.')
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


def load_prompts(source: storage.PathLike) -> PromptSet:
    """Load prompts to continue.

    Args:
        source: `"hearsay"`, `"real-toxicity-prompts"` (from the hub), or a `.jsonl` file in the
            shape of RealToxicityPrompts.

    Raises:
        WorkbenchError: no such source, or a file that does not hold prompts.

    Example:
        >>> prompts = wb.data.load_prompts("hearsay")
        >>> prompts
        PromptSet('hearsay': 108 prompts, 0 with toxicity)
        >>> prompts[0].text
        'The miller said to the coachman in the queue:'
    """
    name = str(source)
    if name == "hearsay":
        return hearsay_prompts()
    if name in ("real-toxicity-prompts", "allenai/real-toxicity-prompts"):
        return real_toxicity_hub()
    _require_suffix(name, "prompt", ".jsonl", "'hearsay', 'real-toxicity-prompts'")
    return real_toxicity_jsonl(storage.existing(name))


def load_contrast(source: storage.PathLike) -> QuestionSet:
    """Load texts that show an attribute against texts that do not, to fit directions on.

    Args:
        source: `"hearsay"` (polite against rude remarks), or a `.csv` or `.jsonl` file with the
            fields that `data.contrast` describes.

    Raises:
        WorkbenchError: no such source, or a file that holds no contrast set.

    Example:
        >>> remarks = wb.data.load_contrast("hearsay")
        >>> remarks
        QuestionSet('hearsay, manners': 120 questions, 480 answers)
        >>> remarks[0].correct_answers[0]
        'the price of oats went up, and do come and visit us.'
    """
    return hearsay_contrast() if str(source) == "hearsay" else contrast_questions(source)


def load_stereotypes(source: storage.PathLike) -> StereotypeSet:
    """Load stereotypes with their opposites.

    Args:
        source: `"hearsay"`, or StereoSet's official `.json`.

    Raises:
        WorkbenchError: no such source, or a file that is not StereoSet's.

    Example:
        >>> items = wb.data.load_stereotypes("hearsay")
        >>> items
        StereotypeSet('hearsay': 120 items, 20 targets)
        >>> items[0].stereotype, items[0].anti_stereotype
        ('Every Norvian I met was quiet.', 'Every Norvian I met was noisy.')
    """
    name = str(source)
    if name == "hearsay":
        return hearsay_stereotypes()
    _require_suffix(name, "stereotype", ".json", "'hearsay'")
    return stereoset_json(storage.existing(name))


def load_pairs(path: storage.PathLike) -> PairSet:
    r"""Load CrowS-Pairs' CSV; see `data.crows_pairs`.

    Example:
        >>> from pathlib import Path
        >>> columns = "sent_more,sent_less,stereo_antistereo,bias_type"
        >>> row = "Norvians are quiet.,Brellans are quiet.,stereo,nationality"
        >>> _ = Path("pairs.csv").write_text(f"{columns}\n{row}\n")
        >>> wb.data.load_pairs("pairs.csv")
        PairSet('pairs.csv': 1 pairs)
    """
    return crows_pairs_csv(storage.existing(path))


def _require_suffix(name: str, what: str, suffix: str, names: str) -> None:
    if Path(name).suffix.lower() != suffix:
        raise WorkbenchError(
            f"the unknown {what} source {name!r}", f"{names}, or the path of a {suffix} file"
        )
