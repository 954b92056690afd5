"""Edits: what is added to which heads at which positions, applied and traced.

An edit is a pure function of z and of positions: z ← z + α·σ·s·θ at every position from the last
prompt token on. `edited` attaches it to a model for the length of a block and records what it did.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench import storage
from workbench.errors import WorkbenchError
from workbench.misalignment import require_beta, strengths
from workbench.models import Model, ModelIdentity, identity_from, require_same_shape
from workbench.positions import clock
from workbench.prompts import AnswerStart
from workbench.running import Site, attached
from workbench.trace import LayerChange, Trace
from workbench.uncertainty import UncertaintyKind, entropy_of_layer, require_kind

StrengthKind = Literal["adaptive", "constant"]
FORMAT = 1


@dataclass(frozen=True)
class Edit:
    """A fitted edit of some heads of a model.

    Attributes:
        heads: (layer, head) pairs, best first; the tensors below have a row for each.
        direction: unit vectors θ.
        spread: σ, in the units of z.
        alpha: the strength's common factor, in units of σ.
        beta: weight of p̂ against u.
        strength: `adaptive`, s = 1 + β·p̂ + (1 − β)·u; `constant`, s = 1 (ITI).
        uncertainty: how u is read off the residual stream.
        coefficient, intercept: the misalignment estimators; unused where strength is constant.
        answer_start: how scoring finds the answer's first token, before which the edit begins.
        model: the model it was fitted on.
        settings: how it was fitted, for the record.
    """

    heads: tuple[tuple[int, int], ...]
    direction: Float[Tensor, "edited d_head"]
    spread: Float[Tensor, " edited"]
    coefficient: Float[Tensor, "edited d_head"]
    intercept: Float[Tensor, " edited"]
    alpha: float
    beta: float
    strength: StrengthKind
    uncertainty: UncertaintyKind
    answer_start: AnswerStart
    model: ModelIdentity
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_alpha(self.alpha)
        require_beta(self.beta)
        require_kind(self.uncertainty)
        if self.strength not in get_args(StrengthKind):
            raise WorkbenchError(
                f"strength={self.strength!r}", f"one of {', '.join(get_args(StrengthKind))}"
            )
        rows = {len(self.heads), len(self.direction), len(self.spread), len(self.coefficient)}
        if rows != {len(self.intercept)} or not self.heads:
            raise WorkbenchError(
                f"{len(self.heads)} heads with {len(self.direction)} directions",
                "one direction, spread and estimator for every edited head",
            )

    @property
    def layers(self) -> tuple[int, ...]:
        """The edited layers, ascending."""
        return tuple(sorted({layer for layer, _ in self.heads}))

    def scaled(self, alpha: float) -> Edit:
        """The same edit with another α."""
        return replace(self, alpha=alpha)

    def save(self, folder: storage.PathLike) -> Path:
        """Write `edit.safetensors` and `edit.json` into a folder; see `load_edit`."""
        target = Path(folder)
        tensors = {name: getattr(self, name).cpu() for name in TENSORS}
        weights = storage.write_tensors(target / "edit.safetensors", tensors)
        record = {
            "format": FORMAT,
            "heads": [list(pair) for pair in self.heads],
            "alpha": self.alpha,
            "beta": self.beta,
            "strength": self.strength,
            "uncertainty": self.uncertainty,
            "answer_start": self.answer_start,
            "model": asdict(self.model),
            "settings": dict(self.settings),
            "tensors": storage.fingerprint(weights),
        }
        storage.write_json(target / "edit.json", record)
        return target


TENSORS = ("direction", "spread", "coefficient", "intercept")


def load_edit(folder: storage.PathLike, model: Model | None = None) -> Edit:
    """Read an edit that `Edit.save` wrote.

    Args:
        folder: where it was saved.
        model: check at once that the edit fits this model's shape.

    Raises:
        WorkbenchError: a file is missing, truncated or of another edit, or the model has another
            shape; both shapes are named.
    """
    place = storage.existing(folder, "folder")
    record = storage.read_json(storage.existing(place / "edit.json"))
    tensors = storage.read_tensors(place / "edit.safetensors")
    if storage.fingerprint(place / "edit.safetensors") != record.get("tensors"):
        raise WorkbenchError(
            f"{place / 'edit.safetensors'} is not the file that edit.json was written with",
            "the two files of one save",
            "One of them was replaced or damaged: copy both again.",
        )
    try:
        edit = Edit(
            heads=tuple((int(layer), int(head)) for layer, head in record["heads"]),
            alpha=record["alpha"],
            beta=record["beta"],
            strength=record["strength"],
            uncertainty=record["uncertainty"],
            answer_start=record["answer_start"],
            model=identity_from(record["model"]),
            settings=record["settings"],
            **{name: tensors[name] for name in TENSORS},
        )
    except (KeyError, TypeError) as error:
        raise WorkbenchError(
            f"{place} lacks {error} of an edit", f"an edit saved in format {FORMAT}"
        ) from error
    if model is not None:
        require_same_shape(model, edit.model.shape, "an edit")
    return edit


def require_alpha(alpha: float) -> None:
    """Refuse an α that is not finite."""
    if not math.isfinite(alpha):
        raise WorkbenchError(f"alpha={alpha}", "a finite number")


def edit_layer(
    edit: Edit,
    layer: int,
    z: Float[Tensor, "batch position head d_head"],
    where: Bool[Tensor, "batch position"],
    uncertainty: Float[Tensor, "batch position"] | None = None,
    alpha: Float[Tensor, " batch"] | None = None,
) -> LayerChange:
    """Z + α·σ·s·θ at the edited heads of a layer (TAE, eq. 8): pure, out of place, in float32.

    Args:
        edit: the edit.
        layer: one of its layers.
        z: head outputs of all heads.
        where: the positions to edit.
        uncertainty: u; 0 where it is left out.
        alpha: an α a row, instead of the edit's own.
    """
    rows = [row for row, pair in enumerate(edit.heads) if pair[0] == layer]
    heads = [edit.heads[row][1] for row in rows]

    def of_layer(values: Tensor) -> Tensor:
        return values[rows].to(device=z.device, dtype=torch.float32)

    chosen = z[:, :, heads].float()
    misalignment, strength = None, torch.ones(chosen.shape[:-1], device=z.device)
    if edit.strength == "adaptive":
        logit = (chosen * of_layer(edit.coefficient)).sum(dim=-1) + of_layer(edit.intercept)
        misalignment = logit.sigmoid()
        doubt = torch.zeros_like(where, dtype=torch.float32) if uncertainty is None else uncertainty
        strength = strengths(misalignment, doubt, edit.beta)
    factor = torch.full((len(z),), edit.alpha) if alpha is None else alpha.float()
    step = factor.to(z.device)[:, None, None] * of_layer(edit.spread) * strength
    step = step * where[..., None]
    result = z.clone()
    result[:, :, heads] = (chosen + step[..., None] * of_layer(edit.direction)).to(z.dtype)
    return LayerChange(result, misalignment, strength, step)


@contextmanager
def edited(
    model: Model,
    edit: Edit | None,
    *,
    site: Site = "hook_z",
    start: int | Int[Tensor, " batch"] | None = None,
    alpha: Float[Tensor, " batch"] | None = None,
    record: bool = True,
) -> Iterator[Trace]:
    """Apply an edit to every forward pass of the block.

    Args:
        model: the bridge.
        edit: what to apply; None applies nothing.
        site: `hook_z` or `projection`; both give the same result.
        start: position of the first edited token, one for all rows or one a row. By default the
            workbench's own `generate` and `score` set it to the last prompt token; in a plain
            forward pass it is the last token given to a pass without cache, and passes that
            extend a cache go on from there. Give it for teacher forcing and for generation
            without cache.
        alpha: an α for every row of the batch, instead of the edit's own.
        record: keep p̂, u, strength and change of every position in the trace.

    Yields:
        The trace, which fills as the model runs.

    Raises:
        WorkbenchError: the edit is of another shape of model, or no such site.
    """
    trace = Trace.of(model, () if edit is None else edit.heads)
    if edit is None:
        with attached(model, {}, site=site):
            yield trace
        return
    require_same_shape(model, edit.model.shape, "an edit")
    if alpha is not None and not bool(torch.isfinite(alpha).all()):
        raise WorkbenchError(f"alpha={alpha.tolist()}", "finite numbers")
    timer = clock(model)
    uncertain: dict[int, Tensor] = {}

    def where(device: torch.device) -> Bool[Tensor, "batch position"]:
        """Which positions of the running pass are edited: real ones from the start on."""
        now = timer.now
        if now is None:
            raise WorkbenchError("an edit outside any forward pass", "a forward pass of its model")
        first = timer.starts if start is None else torch.as_tensor(start).to(now.positions.device)
        return (now.real & (now.positions >= first.reshape(-1, 1))).to(device)

    def measure(layer: int) -> Any:
        def look(residual: Tensor) -> None:
            here = where(residual.device)
            values = torch.zeros(here.shape, device=residual.device)
            entropy = entropy_of_layer(model, residual[here], edit.uncertainty)
            values[here] = entropy.to(residual.device)
            uncertain[layer] = values

        return look

    def change(layer: int) -> Any:
        def replace_z(z: Tensor) -> Tensor:
            here, doubt = where(z.device), uncertain.get(layer)
            made = edit_layer(edit, layer, z, here, doubt, alpha)
            if record and timer.now is not None:
                trace.add(timer.sequences, layer, timer.now, here, doubt, made)
            return made.z

        return replace_z

    reads = edit.layers if edit.strength == "adaptive" and edit.beta < 1 else ()
    z_hooks = {layer: change(layer) for layer in edit.layers}
    with attached(model, z_hooks, {layer: measure(layer) for layer in reads}, site):
        yield trace
