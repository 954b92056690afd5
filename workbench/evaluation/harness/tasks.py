"""Tasks of lm-evaluation-harness whose data lie on this machine.

The harness downloads the data of its tasks. TruthfulQA's tasks are here given questions that were
loaded already; prompts, choices and metrics stay the harness' own. A little of MMLU is shipped with
the harness itself, as the worked examples of one of its tasks.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache, partial
from importlib import resources
from typing import Any, Literal, get_args

from datasets import Dataset
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from workbench.checks import require_one_of
from workbench.data.questions import QuestionSet
from workbench.errors import WorkbenchError

Kind = Literal["mc1", "mc2", "gen"]
KINDS: Mapping[str, Kind] = {f"truthfulqa_{kind}": kind for kind in get_args(Kind)}
MMLU = "mmlu_shipped"
JUDGED = (
    "metric_list", "filter_list", "output_type", "repeats", "generation_kwargs",
)  # fmt: skip
"""Entries of a task's configuration that its results depend on, beside its requests."""
SHIPPED = resources.files("lm_eval") / "tasks"
EXAMPLE = re.compile(r"^Q: (.*?)\n(\(A\)[^\n]*)\nA: .*?The answer is \(([A-D])\)", re.S | re.M)
CHOICE = re.compile(r"\([A-D]\)")
LETTERS = "ABCD"


def load_tasks(
    tasks: Sequence[Any],
    questions: QuestionSet | None = None,
) -> dict[str, Any]:
    """Tasks by their names, those of groups one by one.

    Args:
        tasks: names, paths of YAML files or task objects.
        questions: for TruthfulQA's tasks.

    Raises:
        WorkbenchError: an unknown task, or one whose data cannot be had.
    """
    manager = task_manager()
    found: dict[str, Any] = {}
    for one in tasks:
        own = {one: few_of_mmlu} if one == MMLU else {}
        if questions is not None and one in KINDS:
            own = {one: partial(truthfulqa, questions, KINDS[one])}
        made = {name: make() for name, make in own.items()} or _loaded(manager, one)
        twice = [name for name in made if name in found]
        if twice:
            raise WorkbenchError(f"two tasks of the name {twice[0]!r}", "different names")
        found |= made
    return found


@cache
def task_manager() -> TaskManager:
    """The harness' own, which takes seconds to list its tasks."""
    return TaskManager()


def _loaded(manager: TaskManager, task: Any) -> dict[str, Any]:
    """A task, or the tasks of a group, of the harness' own."""
    try:
        return dict(manager.load([task])["tasks"])
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if isinstance(error, KeyError):
            known = [MMLU, *manager.all_tasks]
            raise WorkbenchError(
                f"the task {task!r}", "a task of lm-evaluation-harness, or the path of a YAML file",
                f"Did you mean {' or '.join(get_close_matches(str(task), known, 3))}?",
            ) from None  # fmt: skip
        raise WorkbenchError(
            f"the task {task!r}, which could not be loaded ({type(error).__name__}: {reason:.200})",
            "a task whose data are on this machine, or can be downloaded",
            f"Without a hub: {MMLU}; {', '.join(KINDS)} with questions; or a YAML file of a task "
            "whose data are local files.",
        ) from error


def fingerprint_of_task(task: Any, lm: Any, settings: Mapping[str, Any]) -> str:
    """A digest of all that a task asks of a model, and of how it judges the answers.

    Args:
        task: the harness' task; its requests are built.
        lm: the harness' model, for its chat template.
        settings: `few_shot`, `limit`, `chat` and `seed`.
    """
    if settings["few_shot"] is not None and task.get_config("num_fewshot") != 0:
        task.set_config(key="num_fewshot", value=settings["few_shot"])
    elif task.get_config("num_fewshot") is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=settings["seed"])
    chat = settings["chat"]
    task.build_all_requests(
        limit=settings["limit"], rank=0, world_size=1, apply_chat_template=chat,
        fewshot_as_multiturn=chat, chat_template=lm.apply_chat_template if chat else None,
        tokenizer_name=lm.tokenizer_name if chat else "",
    )  # fmt: skip
    asked = [(one.request_type, one.doc_id, one.args) for one in task.instances]
    config = task.dump_config()
    judged = {key: config.get(key) for key in JUDGED} | {
        "code": [_source(own) for own in vars(task.config).values() if callable(own)]
    }
    text = json.dumps([asked, judged], sort_keys=True, default=_source)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _source(value: Any) -> str:
    """A function by its code, anything else as text."""
    if callable(value):
        try:
            return inspect.getsource(value)
        except (OSError, TypeError):
            return str(getattr(value, "__qualname__", type(value).__name__))
    return str(value)


def truthfulqa(questions: QuestionSet, kind: Kind, **changes: Any) -> ConfigurableTask:
    """One of the harness' tasks on TruthfulQA, on loaded questions.

    Args:
        questions: what is asked, in place of the hub's data.
        kind: `mc1`: the best answer against the incorrect ones; `mc2`: all; `gen`: free answers.
        changes: of the task's configuration, such as `doc_to_text`.
    """
    require_one_of("kind", kind, Kind)
    config = load_yaml(SHIPPED / "truthfulqa" / f"truthfulqa_{kind}.yaml", resolve_func=True)
    rows = [_document(question, kind) for question in questions]
    return _task({**config, **changes}, rows, "validation")


def _document(question: Any, kind: Kind) -> dict[str, Any]:
    """A question in the shape of the hub's rows."""
    asked = {"question": question.question}
    if kind == "gen":
        return {
            **asked,
            "best_answer": question.best_answer,
            "correct_answers": list(question.correct_answers),
            "incorrect_answers": list(question.incorrect_answers),
        }
    choices = list(question.answers)
    if kind == "mc1":
        choices = [question.best_answer, *question.incorrect_answers]
    right = set(question.correct_answers)
    labels = [int(choice in right) for choice in choices]
    return {**asked, f"{kind}_targets": {"choices": choices, "labels": labels}}


def few_of_mmlu() -> ConfigurableTask:
    """Some 270 of MMLU's development questions (Hendrycks et al. 2021): which answer is likelier.

    The harness ships them as worked examples of its task `mmlu_flan_cot_fewshot`. Accuracy on so
    few tells of large losses alone, and is no number to hold against those of the test set.
    """
    file = SHIPPED / "mmlu" / "flan_cot_fewshot" / "_cot_prompts.json"
    rows = [row for text in json.loads(file.read_text()).values() for row in _examples(text)]
    config = {
        "task": MMLU,
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        "num_fewshot": 0,
    }
    return _task(config, rows, "test")


def _examples(text: str) -> Iterator[dict[str, Any]]:
    """The questions of some worked examples, their choices and the right one's number."""
    for question, choices, answer in EXAMPLE.findall(text):
        texts = [choice.strip() for choice in CHOICE.split(choices)[1:]]
        if len(set(texts)) == len(LETTERS):
            row = {"question": question.strip(), "choices": texts}
            yield {**row, "answer": LETTERS.index(answer)}


def _task(config: Mapping[str, Any], rows: Sequence[Any], split: str) -> ConfigurableTask:
    documents = {split: Dataset.from_list(list(rows))}
    return ConfigurableTask(config={**config, "custom_dataset": lambda **_: documents})
