"""Exporting an edit into a folder that is used without the workbench.

An edit that adds the same to every token becomes weights: what it adds to z, through the output
projection, is a bias of it. A vector in the residual stream becomes a control vector as well. An
edit that follows the token becomes the model's own weights with a script that `generate` runs.
Nothing is left behind unless the folder, loaded again, does what the attached edit does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench import storage
from workbench.doors import door
from workbench.editing.attaching import edited
from workbench.editing.exports.card import card
from workbench.editing.exports.control_vector import write_control_vector
from workbench.editing.exports.plain_weights import (
    InexactError,
    plain_model,
    with_shifts,
    write_model,
)
from workbench.editing.exports.scripted import write_script
from workbench.editing.head_edits import Edit
from workbench.editing.interventions import Intervention, Positions
from workbench.errors import WorkbenchError
from workbench.models.identity import Model, require_same_shape
from workbench.models.passes import forward

CHECKED = 24
"""Tokens of the text and of the continuation by which a folder is checked."""
WITHIN = 1e-4
"""Most that logits of a float32 model may differ; of others, see `_allowed`."""


@door
def export(edit: Intervention, folder: storage.PathLike, model: Model) -> Path:
    """Write a folder that plain transformers loads, and that does what the edit does.

    Of an edit that adds the same at every token (ITI, LoFiT's offsets, even strengths, CAA) the
    folder is the model with biases: `AutoModelForCausalLM.from_pretrained(folder)`. It edits every
    token, those of prompts too, as `edited(model, edit, start=0)` does. CAA at `resid_post` is
    written as `control_vector.gguf` beside it, or alone where the architecture has no bias there.

    Of an edit whose strength follows the token (TAE) the folder is the model as it is and a script:
    loaded with `trust_remote_code=True`, its `generate` is edited from the last prompt token on.
    Other passes are not.

    Args:
        edit: what to export.
        folder: a new one.
        model: the bridge that it was fitted on, or one of the same shape.

    Returns:
        The folder.

    Raises:
        WorkbenchError: an edit that cannot be exported exactly, with the reason; a folder that is
            there; or one that, loaded again, does not do what the edit does.

    Example:
        >>> from transformers import AutoModelForCausalLM
        >>> iti = wb.methods.inference_time(heads=4, alpha=5).fit(model, fold.train, progress=False)
        >>> folder = iti.export("truthful", model)
        >>> AutoModelForCausalLM.from_pretrained(folder).model.layers[1].self_attn.o_proj.bias.shape
        torch.Size([160])
    """
    require_same_shape(model, edit.model.shape, "an edit")
    target = Path(storage.expanded(folder))
    if target.exists():
        raise WorkbenchError(f"{target}, which is there already", "a new folder")
    constant = edit.constant()
    everywhere = edit.positions == Positions()
    left_out = ""
    with storage.whole_folder(target) as place:
        if constant is not None and everywhere:
            left_out = _write_static(edit, model, place)
        elif isinstance(edit, Edit):
            plain = plain_model(model)
            write_model(model, plain, {}, plain.config, place)
            write_script(edit, model, plain, place)
            _require_same_text(edit, model, place)
        else:
            raise WorkbenchError(
                f"{edit!r}, which changes states by more than a constant",
                "an edit that adds the same everywhere, or one of heads",
                "Its states depend on a computation that plain transformers does not have.",
            )
        told = card(edit, model, sorted(_names(place)), left_out)
        storage.write_text(place / "README.md", told)
    return target


def _write_static(edit: Intervention, model: Model, place: Path) -> str:
    """Weights with biases, and a control vector where the edit is one; why there are no weights."""
    shifts = edit.constant() or {}
    plain = plain_model(model)
    vector = {layer for point, layer in shifts if point == "resid_post"}
    is_vector = len(vector) == len(shifts)
    try:
        weights, config = with_shifts(model, plain, shifts)
        write_model(model, plain, weights, config, place)
        _require_same_biases(weights, place)
        _require_same_logits(edit, model, place)
        reason = ""
    except InexactError as inexact:
        if not is_vector or 0 in vector:
            raise
        reason = inexact.came
        for name in _names(place):
            (place / name).unlink()
    if is_vector and 0 not in vector:
        write_control_vector(shifts, model, place / "control_vector.gguf")
    return reason


def _require_same_biases(weights: Mapping[str, Tensor], place: Path) -> None:
    """Refuse a folder whose biases are not those that were computed, in its dtype."""
    stored = {
        name: value
        for file in place.glob("*.safetensors")
        for name, value in storage.read_tensors(file).items()
    }
    for name, value in weights.items():
        if not torch.equal(stored[name].cpu(), value.to(stored[name].dtype)):
            raise InexactError(f"a folder whose {name} is not the edit's", "the edit's own biases")


def _names(place: Path) -> set[str]:
    return {file.name for file in place.iterdir() if file.is_file()}


def _text(model: Model) -> Int[Tensor, "1 position"]:
    """Some tokens of the vocabulary, the same ones every time."""
    words = model.original_model.config.get_text_config().vocab_size
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, words, (1, CHECKED), generator=generator)


def _allowed(logits: Float[Tensor, "*position word"]) -> float:
    """Most that logits may differ: rounding of the model's own dtype."""
    if torch.finfo(logits.dtype).eps < 1e-6:
        return WITHIN
    return 16 * torch.finfo(logits.dtype).eps * float(logits.abs().max())


def _require_same_logits(edit: Intervention, model: Model, place: Path) -> None:
    """Refuse a folder whose logits are not those of the attached edit from position 0 on."""
    tokens = _text(model)
    device = next(model.original_model.parameters()).device
    with edited(model, edit, start=0, site="module", record=False):
        expected, _ = forward(model, tokens.to(device), torch.ones_like(tokens).to(device))
    with torch.no_grad():
        found = _loaded(model, place)(input_ids=tokens).logits
    _require_near(expected.cpu(), found)


def _require_same_text(edit: Intervention, model: Model, place: Path) -> None:
    """Refuse a folder that does not generate what the attached edit does."""
    tokens = _text(model)
    device = next(model.original_model.parameters()).device
    how: dict[str, Any] = {
        "max_new_tokens": CHECKED, "do_sample": False, "output_logits": True, "pad_token_id": 0,
        "return_dict_in_generate": True, "eos_token_id": -1,
    }  # fmt: skip
    with edited(model, edit, site="module", record=False):
        expected = model.original_model.generate(tokens.to(device), **how)
    found = _loaded(model, place, scripted=True).generate(tokens, **how)
    own = _alike(expected.sequences.cpu(), found.sequences) + 1
    _require_near(torch.stack(expected.logits[:own]).cpu(), torch.stack(found.logits[:own]))


def _alike(one: Int[Tensor, "1 position"], other: Int[Tensor, "1 position"]) -> int:
    """How many tokens are written alike; the next may be a tie, of equal logits."""
    new = (one != other)[0, CHECKED:].tolist()
    return new.index(True) if any(new) else len(new)


def _require_near(expected: Tensor, found: Tensor) -> None:
    apart = float((expected.float() - found.float()).abs().max())
    if not apart <= _allowed(expected):
        raise InexactError(
            f"a folder whose logits differ from the edit's by {apart:.3g}",
            f"at most {_allowed(expected):.3g}",
            "This architecture computes something between the edit and the bias: not exported.",
        )


def _loaded(model: Model, place: Path, *, scripted: bool = False) -> Any:
    """The folder as a user loads it, in the model's dtype, on the CPU."""
    from transformers import AutoModelForCausalLM

    dtype = next(model.original_model.parameters()).dtype
    found: Any = AutoModelForCausalLM.from_pretrained(
        place, dtype=dtype, trust_remote_code=scripted, local_files_only=True
    )
    return found.eval()
