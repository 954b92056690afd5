"""A model's weights as transformers saves them, with biases for what an edit adds everywhere."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench import storage
from workbench.errors import WorkbenchError, kind_of
from workbench.models.identity import Model, tokenizer_of
from workbench.models.passes import Place
from workbench.models.unwrapping import runner

SWITCHES: Mapping[str, str] = {"z": "attention_bias", "resid_post": "mlp_bias"}
"""What gives a projection its bias, in configurations of architectures that have it either way."""

LIKE_LLAMA = ("mistral", "qwen2")
"""Kinds that compute what Llama does, without a window, and have no switch for biases."""
OF_ITS_OWN = ("model_type", "architectures", "transformers_version", "layer_types")
"""Entries of a configuration that another kind does not take over."""


class InexactError(WorkbenchError):
    """Plain weights that would not do exactly what the edit does."""


def plain_model(model: Model) -> Any:
    """The Hugging Face model as it was before TransformerLens wrapped it.

    Raises:
        WorkbenchError: its modules cannot be put together again, or have hooks of one's own.
    """
    plain = runner(model)
    if any("_original_component" in name for name in plain.state_dict()):
        raise WorkbenchError(
            f"{kind_of(plain)} that cannot be separated from its hook points",
            "a model without hooks of one's own, of an architecture whose modules can be unwrapped",
        )
    return plain


def with_shifts(
    model: Model, plain: Any, shifts: Mapping[Place, Tensor]
) -> tuple[dict[str, Tensor], Any]:
    """Biases that add what an edit adds, by the names of weights, and the configuration for them.

    Args:
        model: the bridge.
        plain: its plain model.
        shifts: what is added to z [head, d_head] or to the residual stream [d_model], by place.

    Raises:
        WorkbenchError: a place, or an architecture, that has no bias there.
    """
    config = copy.deepcopy(plain.config)
    found: dict[str, Tensor] = {}
    for (point, layer), shift in shifts.items():
        module = _projection(model, point, layer)
        name = module_name(plain, module)
        bias = getattr(module, "bias", None)
        if bias is None:
            if not hasattr(config, SWITCHES[point]):
                config = _as_llama(config)
            if not hasattr(config, SWITCHES[point]):
                raise InexactError(
                    f"{kind_of(plain)}, whose {name.rsplit('.', 1)[-1]} has no bias and "
                    f"whose configuration has no `{SWITCHES[point]}`",
                    "an architecture that can hold what the edit adds, such as Llama's or GPT-2's",
                    "Save the edit instead, and attach it with wb.edited.",
                )
            setattr(config, SWITCHES[point], True)
        added = _through(module, shift) if point == "z" else shift
        key = f"{name}.bias"
        before = found.get(key, 0.0 if bias is None else bias.detach().cpu().double())
        found[key] = before + added.cpu().double()
    return found, config


def _as_llama(config: Any) -> Any:
    """Llama's configuration of the same computation, which may have biases, or the given one."""
    windowed = getattr(config, "sliding_window", None) is not None
    if config.model_type not in LIKE_LLAMA or windowed:
        return config
    from transformers import LlamaConfig

    kept = {key: value for key, value in config.to_dict().items() if key not in OF_ITS_OWN}
    return LlamaConfig(**kept)


def module_name(plain: Any, module: Any) -> str:
    """A module's name in the plain model: it is there itself, or as a copy that shares weights.

    Raises:
        WorkbenchError: it is neither.
    """
    weight = getattr(module, "weight", None)
    for name, own in plain.named_modules():
        shared = weight is not None and getattr(own, "weight", None) is weight
        if own is module or (shared and type(own) is type(module)):
            return str(name)
    raise WorkbenchError(
        f"{kind_of(plain)} without the {type(module).__name__} that is edited",
        "an architecture whose modules can be unwrapped",
    )


def _projection(model: Model, point: str, layer: int) -> Any:
    """The last linear map before the residual stream behind a point."""
    block = model.blocks[layer]
    if point == "z":
        return block.attn.o.original_component
    if point == "resid_post" and hasattr(getattr(block, "mlp", None), "out"):
        return block.mlp.out.original_component
    raise InexactError(f"an edit at {point}", "one of z or resid_post, which biases can hold")


def _through(module: Any, shift: Float[Tensor, "head d_head"]) -> Float[Tensor, " d_model"]:
    """What a projection makes of a constant, without its bias, in float64."""
    exact = copy.deepcopy(module).cpu().double()
    rows = torch.stack([shift.flatten().double(), torch.zeros(shift.numel(), dtype=torch.float64)])
    with torch.no_grad():
        made = exact(rows)
    moved: Tensor = made[0] - made[1]
    return moved


def write_model(
    model: Model, plain: Any, changes: Mapping[str, Tensor], config: Any, place: Path
) -> None:
    """Save weights, configuration, tokenizer and generation settings.

    Args:
        model: the bridge.
        plain: its plain model.
        changes: weights that are other than its own, by name.
        config: the configuration.
        place: the folder.

    Raises:
        WorkbenchError: the configuration's model has weights that there are none for.
    """
    config = copy.deepcopy(config)
    config.output_attentions = False  # TransformerLens' wish
    from transformers import AutoModelForCausalLM

    made: Any = AutoModelForCausalLM
    own = {name: value.detach().cpu() for name, value in plain.state_dict().items()}
    dtype = next(plain.parameters()).dtype
    with torch.device("meta"):
        fresh: Any = made.from_config(config, dtype=dtype)
    state: dict[str, Tensor] = {}
    for name, wanted in fresh.state_dict().items():
        if name in changes:
            state[name] = changes[name].to(own[name].dtype if name in own else dtype)
        elif name in own:
            state[name] = own[name]
        elif name.endswith(".bias"):
            state[name] = torch.zeros(wanted.shape, dtype=dtype)
        else:
            raise WorkbenchError(f"a model without the weights {name!r}", "all of its architecture")
    lost = [name for name in {**own, **changes} if name not in state]
    if any(bool(changes.get(name, own.get(name)).any()) for name in lost):  # type: ignore[union-attr]
        raise WorkbenchError(
            f"{kind_of(plain)} that has no {lost[0]!r}", "an architecture that has it",
            "Save the edit instead, and attach it with wb.edited.",
        )  # fmt: skip
    fresh.save_pretrained(place, state_dict=state)
    # As it is: some that models are shipped with transformers would not save again.
    settings = plain.generation_config.to_json_string(use_diff=True)
    storage.write_text(place / "generation_config.json", settings)
    tokenizer_of(model).save_pretrained(place)
