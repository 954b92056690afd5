"""What a judge is, and what all judges share: checks, templates, loading, batches."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm.auto import tqdm

from workbench import storage
from workbench.checks import is_share
from workbench.errors import WorkbenchError, kind_of
from workbench.models.bridging import looks_like_folder, quiet
from workbench.models.loading import floating_dtype

Value = TypeVar("Value")
_BLANK = re.compile(r"\{(question|prompt|answer)\}")


@runtime_checkable
class Judge(Protocol):
    """Anything that scores answers.

    A judge may also have `limits`, a sentence on what it cannot tell; it then stands below every
    table of its numbers.

    Attributes:
        name: the metric that it yields, e.g. `true`, `info` or `toxicity`.
        identity: what produced the numbers, for the manifest: a model's name, an endpoint's model.

    Example:
        >>> class Brevity:
        ...     name, identity = "info", "counts characters"
        ...
        ...     def scores(self, prompts, answers):
        ...         return [float(len(answer) < 40) for answer in answers]
        >>> asked = fold.test.choose([0])
        >>> judged = wb.evaluate(
        ...     model, asked, {"no edit": None}, judges=[Brevity()], max_new_tokens=4,
        ...     progress=False,
        ... )
        >>> judged[judged["metric"] == "info"]["value"].tolist()
        [1.0]
    """

    name: str
    identity: str

    def scores(self, prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
        """One score in [0, 1] per prompt and its answer, in their order."""
        ...


@runtime_checkable
class Named(Protocol):
    """What judges and measures of answers against references have in common."""

    name: str
    identity: str


def limits_of(judges: Iterable[Judge]) -> dict[str, str]:
    """What judges say they cannot tell, by their names; those that say nothing are left out."""
    told = {judge.name: str(getattr(judge, "limits", "")) for judge in judges}
    return {name: text for name, text in told.items() if text}


def require_pairs(prompts: Sequence[str], answers: Sequence[str]) -> list[tuple[str, str]]:
    """Each prompt with its answer; an empty answer is one too.

    Raises:
        WorkbenchError: unequal counts, one text instead of several, or an item that is no text;
            its row is named, counted from 0.
    """
    for what, given in (("prompts", prompts), ("answers", answers)):
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise WorkbenchError(f"{what} of {given!r:.60}", "a list of texts")
        for row, text in enumerate(given):
            if not isinstance(text, str):
                raise WorkbenchError(f"{what} of {text!r:.60} in row {row}", "a text in every row")
    if len(prompts) != len(answers):
        raise WorkbenchError(
            f"{len(prompts)} prompts and {len(answers)} answers", "one answer per prompt"
        )
    return list(zip(prompts, answers, strict=True))


def require_scores(values: Sequence[Any], judge: Judge, count: int | None = None) -> list[float]:
    """A judge's scores as floats.

    Args:
        values: what the judge returned.
        judge: who returned them.
        count: how many there must be, where that is known.

    Raises:
        WorkbenchError: None, NaN, something that is no number, a number outside [0, 1], or
            another count; the row is named, counted from 0.
    """
    if not isinstance(values, Iterable):
        raise WorkbenchError(
            f"{judge.name} scores {values!r:.60}, by {judge.identity}", "one score per answer"
        )
    for row, value in enumerate(values):
        if not is_share(value):
            raise WorkbenchError(
                f"{judge.name} scores of {value!r:.60} in row {row}, by {judge.identity}",
                "a number from 0 to 1 in every row",
            )
    if count is not None and len(values) != count:
        raise WorkbenchError(
            f"{len(values)} {judge.name} scores for {count} answers, by {judge.identity}",
            "one score per answer",
        )
    return [float(value) for value in values]


def how_to_judge(metric: str) -> str:
    """The ways to a judge of a metric, and how to make each."""
    return (
        f"Make a causal judge (published_judge('true' or 'info') or CausalJudge({metric!r}, model, "
        "template=...) of workbench.evaluation.judges.causal), "
        f"a classifier (ClassifierJudge({metric!r}, model, label=...) of "
        "workbench.evaluation.judges.classifier) "
        f"or an endpoint (EndpointJudge({metric!r}, model, template, folder=...) of "
        "workbench.evaluation.judges.endpoint); on hearsay the ground truth needs no model "
        f"(HearsayJudge({metric!r}) of workbench.evaluation.judges.hearsay), and overt rudeness "
        "needs a small package alone (RudenessJudge() of workbench.evaluation.judges.rudeness, for "
        "'toxicity')."
    )


def missing_judge(metric: str) -> WorkbenchError:
    """The error to raise where a metric needs a judge and none is given."""
    return WorkbenchError(
        f"no judge for {metric!r}", f"a judge whose name is {metric!r}", how_to_judge(metric)
    )


def toxicity_judge(judges: Sequence[Judge]) -> Judge:
    """The first of toxicity among some judges.

    Raises:
        WorkbenchError: none is.
    """
    for judge in judges:
        if judge.name == "toxicity":
            return judge
    raise missing_judge("toxicity")


def require_template(template: str) -> None:
    """Refuse a template without a place for the answer."""
    if not isinstance(template, str) or "{answer}" not in template:
        raise WorkbenchError(
            f"the template {template!r:.80}", "a text with {answer} in it, and {question} if wanted"
        )


def fill(template: str, prompt: str, answer: str) -> str:
    """A template with its blanks filled; other braces stay, those of the texts too.

    Example:
        >>> fill('{question} {answer} {"a": 1}', "Who?", "{question}")
        'Who? {question} {"a": 1}'
    """
    texts = {"question": prompt, "prompt": prompt, "answer": answer}
    return _BLANK.sub(lambda blank: texts[blank[1]], template)


def load_pretrained(
    kind: str,
    metric: str,
    source: Any,
    tokenizer: Any = None,
    *,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
) -> tuple[Any, Any]:
    """A Hugging Face model in evaluation mode, and its tokenizer.

    Args:
        kind: the auto class, e.g. `AutoModelForCausalLM`.
        metric: what the model is to judge.
        source: a folder, a hub name or a loaded model, whose dtype and device stay.
        tokenizer: the tokenizer of a loaded model; for a name or folder, one to use instead of
            its own.
        dtype: floating-point, for names and folders; float32 by default.
        device: for names and folders; the default is a GPU if there is one.

    Raises:
        WorkbenchError: it cannot be loaded, it lacks trained weights, or a loaded model comes
            without its tokenizer or with a dtype or device.
    """
    if not isinstance(source, str | Path):
        if not hasattr(source, "config") or tokenizer is None:
            raise WorkbenchError(
                f"{kind_of(source)} {'with' if tokenizer else 'without'} a tokenizer",
                "a name, a folder, or a loaded Hugging Face model with its tokenizer",
            )
        if (dtype, device) != (None, None):
            raise WorkbenchError(
                "dtype or device for a model that is loaded already",
                "a model that was loaded as it is wanted",
                "Cast and place it before, e.g. model.to(device, dtype).",
            )
        return source.eval(), tokenizer
    place, wanted = str(source), floating_dtype(torch.float32 if dtype is None else dtype)
    if looks_like_folder(place):
        place = str(storage.existing(Path(place) / "config.json", "model config").parent)
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        import transformers

        with quiet():
            own = tokenizer or transformers.AutoTokenizer.from_pretrained(place)
            model, report = getattr(transformers, kind).from_pretrained(
                place, dtype=wanted, output_loading_info=True
            )
            model = model.to(chosen)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WorkbenchError(
            f"the judge model {place!r} could not be loaded on device {chosen} ({reason})",
            "a folder in Hugging Face format, a hub name that is cached or can be reached, or a "
            "loaded model with its tokenizer",
            how_to_judge(metric),
        ) from None
    absent = sorted(report["missing_keys"])
    if absent:
        raise WorkbenchError(
            f"the judge model {place!r} has no weights for {', '.join(absent[:3])}"
            f"{' and others' if absent[3:] else ''}: they would be random",
            f"a checkpoint trained as {kind.removeprefix('AutoModelFor')}",
        )
    return model.eval(), own


def require_room(number: int, row: int, limit: int | None, judge: Judge, mend: str) -> None:
    """Refuse a text of more tokens than the judge's model takes."""
    if limit is not None and number > limit:
        raise WorkbenchError(
            f"row {row} has {number} tokens for {judge.name}",
            f"at most {limit}, the maximum of {judge.identity}",
            mend,
        )


def run_batched(
    rows: Sequence[Sequence[int]],
    size: int,
    run: Callable[[list[int]], Iterable[Value]],
    what: str,
    *,
    progress: bool,
) -> list[Value]:
    """A value a row; rows of similar lengths run together, the longest first.

    Args:
        rows: of token ids.
        size: most rows of a batch.
        run: the values of the rows of these numbers, in their order.
        what: is shown beside the bar.
        progress: show the bar.
    """
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
    found: dict[int, Value] = {}
    for begin in tqdm(range(0, len(order), size), desc=what, disable=not progress, leave=False):
        batch = order[begin : begin + size]
        found |= zip(batch, run(batch), strict=True)
    return [found[row] for row in range(len(rows))]


def pad_rows(
    rows: Sequence[Sequence[int]], filler: int, *, left: bool
) -> tuple[Int[Tensor, "batch position"], Int[Tensor, "batch position"]]:
    """Rows of token ids as one tensor, and its attention mask."""
    length = max(map(len, rows))
    tokens = torch.full((len(rows), length), filler)
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    for index, row in enumerate(rows):
        place = slice(length - len(row), length) if left else slice(0, len(row))
        tokens[index, place] = torch.tensor(row)
        mask[index, place] = 1
    return tokens, mask
