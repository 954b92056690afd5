"""Free answers against a question's reference answers, without a judge's model.

A measure scores how like an answer is to one reference; what is told is nearness to the correct
references against nearness to the incorrect ones, in the names of lm-evaluation-harness:
`bleu_max`, `bleu_diff`, `bleu_acc`, `rouge1_max`, and so on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from workbench.errors import WorkbenchError
from workbench.evaluation.judges.registry import MEASURES
from workbench.evaluation.metrics.references import CONTRASTS, References, contrasted


@runtime_checkable
class Measure(Protocol):
    """How like an answer is to a reference.

    A measure may also have `limits`, as a judge may.

    Attributes:
        name: of the measure.
        identity: what produced the numbers, for the manifest.
        kinds: beginnings of the metrics that it yields, such as `rouge1`.

    Example:
        >>> import numpy as np
        >>> class Same:
        ...     name, identity, kinds = "same", "compares texts", ("same",)
        ...
        ...     def likeness(self, pairs):
        ...         return np.array([[float(one == other)] for one, other in pairs])
        >>> measured = wb.evaluate(
        ...     model, fold.test.choose([0]), {"no edit": None}, references=[Same()],
        ...     max_new_tokens=4, progress=False,
        ... )
        >>> "same_max" in set(measured["metric"])
        True
    """

    name: str
    identity: str
    kinds: tuple[str, ...]

    def likeness(self, pairs: Sequence[tuple[str, str]]) -> Float[np.ndarray, "pair kind"]:
        """How like each answer is to its reference, a column a kind."""
        ...


Described = str | Mapping[str, Any] | Measure
"""A measure, its name, or a table with its `kind` and its settings."""


def reference_metrics(described: Sequence[Described] = ()) -> list[str]:
    """The metrics of the workbench's own measures, and of those that are described."""
    measures = [*MEASURES.values(), *(one if isinstance(one, Measure) else _class_of(one)
                                      for one in described)]  # fmt: skip
    return list(dict.fromkeys(
        f"{kind}_{contrast}" for own in measures for kind in own.kinds for contrast in CONTRASTS
    ))  # fmt: skip


def require_measures(described: Sequence[Described]) -> None:
    """Refuse descriptions of measures that there are not, and one that stands twice.

    Raises:
        WorkbenchError: no list of descriptions, or such a description.
    """
    if isinstance(described, str | Mapping) or not isinstance(described, Sequence):
        raise WorkbenchError(f"references={described!r:.80}", "a list such as ['bleu', 'rouge']")
    names = [_named(one) for one in described]
    for name, one in zip(names, described, strict=True):
        if not isinstance(one, Measure):
            MEASURES.find(name, f"the measure {name!r} of references")
    if len(set(names)) < len(names):
        raise WorkbenchError(f"references={names}", "each of them once")


def named_measure(described: Any) -> Any:
    """A description with the name of a class of one's own in the class's place.

    Raises:
        WorkbenchError: a measure that is made already, which no other process can make again.
    """
    if isinstance(described, Measure) and not isinstance(described, type):
        raise WorkbenchError(
            f"the measure {described.name!r} in the description of a run, as it is",
            "its class or its name, or a table of its kind and settings",
        )
    kind = described.get("kind") if isinstance(described, Mapping) else described
    known = callable(kind) or (isinstance(kind, str) and kind in MEASURES)
    own = MEASURES.name_of(kind) if known else kind
    return {**described, "kind": own} if isinstance(described, Mapping) else own


def make_measures(described: Sequence[Described]) -> list[Measure]:
    """Measures from names, tables of settings, or as they are.

    Args:
        described: such as `"bleu"`, `"rouge"` or `{"kind": "similarity", "model": folder}`.

    Raises:
        WorkbenchError: no such measure, settings that it does not have, or a package or model that
            it lacks.
    """
    require_measures(described)
    return [one if isinstance(one, Measure) else _made(one) for one in described]


def measure_limits(described: Sequence[Described]) -> dict[str, str]:
    """What measures cannot tell, by their names; none of them is loaded for it."""
    known = {_named(one): one if isinstance(one, Measure) else _class_of(one) for one in described}
    told = {name: str(getattr(one, "limits", "")) for name, one in known.items()}
    return {name: text for name, text in told.items() if text}


def _named(described: Any) -> str:
    if isinstance(described, Mapping):
        return str(described.get("kind"))
    return described if isinstance(described, str) else str(getattr(described, "name", described))


def _class_of(described: Any) -> Any:
    return MEASURES.find(_named(described))


def _made(described: str | Mapping[str, Any]) -> Measure:
    name = _named(described)
    settings = {} if isinstance(described, str) else dict(described)
    settings.pop("kind", None)
    try:
        made: Measure = MEASURES.find(name)(**settings)
    except TypeError as error:
        raise WorkbenchError(
            f"the measure {name!r} of references ({error})",
            "a table of its kind and settings, such as {kind = 'similarity', model = 'folder'}",
        ) from error
    return made


def against_references(
    measure: Measure, answers: Sequence[str], references: Sequence[References]
) -> list[dict[str, float]]:
    """The metrics of a measure for every answer.

    Args:
        measure: how like answers are to references.
        answers: texts as they were written. What follows an empty line is left out, where the
            harness stops a model.
        references: of every answer's question.

    Raises:
        WorkbenchError: unequal counts, or a likeness that is no number.
    """
    if len(answers) != len(references):
        raise WorkbenchError(
            f"{len(answers)} answers and {len(references)} questions' references", "one an answer"
        )
    texts = [answer.strip().split("\n\n")[0] for answer in answers]
    pairs = [(t, told) for t, own in zip(texts, references, strict=True) for told in own.all]
    values = measure.likeness(pairs)
    if values.shape != (len(pairs), len(measure.kinds)) or not np.isfinite(values).all():
        raise WorkbenchError(
            f"likenesses of shape {values.shape} by {measure.identity}, "
            f"{np.isnan(values).sum()} of them nan",
            f"a finite number for {len(pairs)} pairs and the kinds {', '.join(measure.kinds)}",
        )
    found, begin = [], 0
    for own in references:
        part = values[begin : begin + len(own.all)]
        begin += len(own.all)
        found.append({
            f"{kind}_{contrast}": value
            for number, kind in enumerate(measure.kinds)
            for contrast, value in contrasted(part[:, number].tolist(), own).items()
        })  # fmt: skip
    return found
