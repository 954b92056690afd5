"""An edit that follows the token, as tensors and a script that `generate` runs without us."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench import storage
from workbench.editing.exports.plain_weights import module_name
from workbench.editing.head_edits import Edit
from workbench.errors import WorkbenchError
from workbench.models.identity import Model
from workbench.models.logit_lens import own_scale, unembedding
from workbench.stages.uncertainty import published_amplification

SCRIPT = "generate_alone.py"
FAINT = 1e-4
"""A logit at which a soft cap does nothing, to read a factor off."""


def write_script(edit: Edit, model: Model, plain: Any, place: Path) -> None:
    """Write `edit.json`, `edit.safetensors` and `custom_generate/generate.py`.

    Args:
        edit: an edit of heads.
        model: the bridge.
        plain: its plain model, whose modules are named.
        place: the folder, with the model's weights.

    Raises:
        WorkbenchError: goals that share a head, or modules that the plain model does not have.
    """
    if edit.shares_heads:
        raise WorkbenchError("an edit with goals that share heads", "one strength a head")
    rows: dict[int, list[int]] = {layer: [] for layer in edit.layers}
    for row, (layer, _) in enumerate(edit.heads):
        rows[layer].append(row)
    layers = {
        str(layer): {
            "rows": own,
            "heads": [edit.heads[row][1] for row in own],
            "output": module_name(plain, model.blocks[layer].attn.o.original_component),
            "block": _name_of_block(plain, model, layer),
        }
        for layer, own in rows.items()
    }
    tensors = _tensors(edit)
    known = [name for name in tensors if not name.startswith("words")]
    told = {
        "format": 1,
        "edited": len(edit.heads),
        "tensors": known,
        "alpha": float(edit.alpha),
        "of_risk": edit.factors[0],
        "of_doubt": edit.factors[1],
        "heads": edit.model.shape.heads,
        "first": edit.positions.first,
        "every": edit.positions.every,
        "layers": layers,
        "uncertainty": _reading(edit, model, plain),
    }
    storage.write_tensors(place / "edit.safetensors", tensors)
    storage.write_json(place / "edit.json", told)
    script = storage.read_text(storage.package_path("editing", "exports", SCRIPT))
    storage.write_text(place / "custom_generate" / "generate.py", script)


def _tensors(edit: Edit) -> dict[str, Tensor]:
    """A row an edited head; and the words of layers whose u is read off some alone."""
    found = {"direction": edit.direction, "spread": edit.spread}
    if edit.reads_misalignment and edit.estimators is not None:
        own = edit.estimators
        found |= {"coefficient": own.coefficient, "intercept": own.intercept}
        if own.threshold is not None:
            found["threshold"] = own.threshold
    made = {name: value.detach().float().cpu().contiguous() for name, value in found.items()}
    reading = edit.reads_uncertainty
    if reading is not None and reading.shortlists is not None:
        for layer in edit.layers:
            words = reading.shortlists.of(layer)
            if words is not None:
                made[f"words.{layer}"] = words.to(torch.int32).cpu().contiguous()
    return made


def _reading(edit: Edit, model: Model, plain: Any) -> dict[str, Any] | None:
    """How u is read; None where the strength is without it."""
    reading = edit.reads_uncertainty
    if reading is None:
        return None
    norm = model.ln_final.original_component if hasattr(model, "ln_final") else None
    cap = getattr(model.adapter.cfg, "output_logits_soft_cap", None)
    scale = float(own_scale(model, torch.full((1, 1), FAINT, dtype=torch.float32))) / FAINT
    return {
        "kind": reading.kind,
        "norm": None if norm is None else module_name(plain, norm),
        "head": module_name(plain, plain.get_output_embeddings()),
        "scale": round(scale, 6),
        "cap": float(cap) if cap and cap > 0 else None,
        "vocabulary": len(unembedding(model)[0]),
        "amplification": published_amplification(),
    }


def _name_of_block(plain: Any, model: Model, layer: int) -> str:
    """The layer whose module holds the output projection."""
    output = module_name(plain, model.blocks[layer].attn.o.original_component).split(".")
    place = max(n for n, part in enumerate(output) if part == str(layer))
    return ".".join(output[: place + 1])
