"""What the table of a method in a run's description means, as one typed value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.checks import is_number, is_whole
from workbench.errors import WorkbenchError
from workbench.methods.base import Method
from workbench.methods.controls import CONTROLS, Control
from workbench.methods.making import candidates
from workbench.methods.registry import METHODS

OF_THE_RUN = ("kind", "control", "draws", "fit", "train_size", "multiples")
"""Keys of a method's table that are no settings of the method."""
RENAMED = {"strengths": "multiples", "task": "evaluation"}
"""Keys of run files by what they were called before."""


@dataclass(frozen=True)
class MethodPlan:
    """A method of a run: what to fit, on what, and what to measure of it.

    Attributes:
        name: in the run.
        fitted: the kind of method that is fitted; "" for the model itself.
        control: what is made of the fit; None for a method itself.
        candidates: the settings that training questions choose from.
        styled: whether the prompt format is given; it is the capability's otherwise.
        capabilities: those that are fitted on and combined; that which is measured if empty.
        train_size: how many training questions are taken; all if None.
        draws: of random directions or of drawn strengths.
        multiples: what α is multiplied with.
    """

    name: str
    fitted: str
    control: Control | None
    candidates: tuple[Method, ...]
    styled: bool = False
    capabilities: tuple[str, ...] = ()
    train_size: int | None = None
    draws: int = 4
    multiples: tuple[float, ...] = (1.0,)


def kinds() -> list[str]:
    """All kinds that a method of a run may have, beside a user's `module:name`."""
    return ["none", *METHODS, *CONTROLS]


def plan_of(name: str, described: Any, seed: int, multiples: Sequence[float]) -> MethodPlan:
    """The plan of a described method.

    Args:
        name: of the method in the run.
        described: its table; see `RunConfig`.
        seed: of the run, where the table has none.
        multiples: of the run, where the table has none.

    Raises:
        WorkbenchError: no kind or an unknown one, or a setting that is not known or does not fit.
    """
    if not isinstance(described, Mapping) or "kind" not in described:
        raise WorkbenchError(
            f"the method {name!r} described by {described!r}",
            f"a table with kind, one of {', '.join(kinds())}",
        )
    kind = described["kind"]
    if kind not in kinds():
        said = f"the kind {kind!r} of the method {name!r}"
        if ":" not in str(kind):
            raise WorkbenchError.unknown(said, kind, kinds())
        METHODS.find(kind, said)
    if "strengths" in described:
        raise WorkbenchError(
            f"strengths of {name!r}", f"{RENAMED['strengths']!r}, as it is called now"
        )
    control = _control(name, described)
    fitted = {"none": ""}.get(kind, "tae" if kind in CONTROLS else kind)
    draws = described.get("draws", 4)
    if not is_whole(draws) or draws < 2 or draws % 2:
        raise WorkbenchError(f"draws={draws!r} of {name!r}", "an even number from 2 on")
    own_multiples = described.get("multiples", multiples)
    require_multiples(own_multiples, f" of {name!r}")
    size = described.get("train_size")
    if size is not None and (not is_whole(size) or size < 2):
        raise WorkbenchError(f"train_size={size!r} of {name!r}", "a whole number from 2 on")
    capabilities = described.get("fit", ())
    if not isinstance(capabilities, str | list | tuple) or (
        "fit" in described and not capabilities
    ):
        raise WorkbenchError(f"fit={capabilities!r} of {name!r}", "a capability, or a list of them")
    chosen = _candidates(name, described, fitted, control, seed)
    asked = control_of(described)
    if any(asked in method.lacks for method in chosen):
        raise WorkbenchError(
            f"control={asked!r} of {name!r}, of kind {kind}",
            f"one of {', '.join(own for own in CONTROLS if own not in chosen[0].lacks)}",
            "The kind's edits have not what that control takes from them.",
        )
    graded = any(method.graded for method in chosen)
    return MethodPlan(
        name=name,
        fitted=fitted,
        control=control,
        candidates=chosen,
        styled="style" in described,
        capabilities=(capabilities,) if isinstance(capabilities, str) else tuple(capabilities),
        train_size=size,
        draws=draws,
        multiples=tuple(own_multiples) if graded else (1.0,),
    )


def control_of(described: Mapping[str, Any]) -> str:
    """The name of the control that a method's table describes; "" for a method itself."""
    kind = described.get("kind", "")
    return kind if kind in CONTROLS else str(described.get("control", ""))


def _control(name: str, described: Mapping[str, Any]) -> Control | None:
    """The control that a table asks for: of TAE by its kind, of any method by `control`."""
    kind, asked = described["kind"], described.get("control")
    if asked is None:
        return CONTROLS.get(kind)
    if kind == "none" or kind in CONTROLS:
        raise WorkbenchError(
            f"control={asked!r} of {name!r}, of kind {kind}", "a control of a kind of method"
        )
    if asked not in CONTROLS:
        raise WorkbenchError.unknown(f"control={asked!r} of {name!r}", str(asked), CONTROLS)
    return CONTROLS[asked]


def require_multiples(multiples: Any, of: str = "") -> None:
    """Refuse multiples of α that are no different numbers above 0, or without 1."""
    sound = isinstance(multiples, list | tuple) and all(map(is_number, multiples))
    if (
        not sound
        or 1 not in multiples
        or len(set(multiples)) < len(multiples)
        or min(multiples) <= 0
    ):
        raise WorkbenchError(
            f"multiples={multiples!r:.60}{of}", "different numbers above 0, 1 among them"
        )


def _candidates(
    name: str, described: Mapping[str, Any], fitted: str, control: Control | None, seed: int
) -> tuple[Method, ...]:
    settings = {key: value for key, value in described.items() if key not in OF_THE_RUN}
    if not fitted:
        if settings:
            raise WorkbenchError(
                f"the settings {', '.join(settings)} of {name!r}", "kind none alone"
            )
        return ()
    try:
        return tuple(candidates(settings, fitted, seed, control.settings if control else {}))
    except WorkbenchError as error:
        came = f"the method {name!r}: {error.came}"
        raise WorkbenchError(came, error.expected, error.mend) from error
    except TypeError as error:
        raise WorkbenchError(
            f"the method {name!r}: {error}", "settings of the kinds that they have"
        ) from error
