"""What a model is: its sizes, its identity and its tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakKeyDictionary

import torch

from workbench.checks import require_whole
from workbench.doors import door
from workbench.errors import WorkbenchError
from workbench.models.shipped import shipped_name

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    Model: TypeAlias = TransformerBridge
else:  # importing TransformerLens takes seconds
    Model = Any

_TOKENIZERS: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
_ORIGINS: WeakKeyDictionary[Any, Origin] = WeakKeyDictionary()


@dataclass(frozen=True)
class ModelShape:
    """Sizes that an edit must fit."""

    layers: int
    heads: int
    d_head: int
    d_model: int
    vocabulary: int
    context: int


@dataclass(frozen=True)
class Origin:
    """What a file says of the weights in it.

    Attributes:
        name: what the model was asked for by.
        quantisation: such as `Q4_1`, "" where nothing is known of any.
        licence: "" where none is told.
    """

    name: str
    quantisation: str = ""
    licence: str = ""


@dataclass(frozen=True)
class ModelIdentity:
    """What an artefact remembers of its model: its name, shape and what else tells it from others.

    Attributes:
        name: what it was loaded by.
        fingerprint: of its config.
        shape: its sizes.
        quantisation: of a GGUF file, such as `Q4_1`; "" for others.
        licence: of the weights, where the file tells it; "" otherwise.
    """

    name: str
    fingerprint: str
    shape: ModelShape
    quantisation: str = ""
    licence: str = ""

    @property
    def label(self) -> str:
        """The name as tables show it: quantised weights are told, with their licence."""
        if not self.quantisation:
            return self.name
        return f"{self.name} ({', '.join(filter(None, (self.quantisation, self.licence)))})"


def remember(model: Model, tokenizer: Any = None, origin: Origin | None = None) -> None:
    """Keep what a bridge does not: the tokenizer that it was given, and what a file says of it."""
    if tokenizer is not None:
        _TOKENIZERS[model] = tokenizer
    if origin is not None:
        _ORIGINS[model] = origin


@door
def shape_of(model: Model) -> ModelShape:
    """Layers, query heads, d_head, d_model, vocabulary and context length of a model.

    Raises:
        WorkbenchError: something else than a model that `load_model` gives.

    Example:
        >>> wb.models.shape_of(model)
        ModelShape(layers=5, heads=8, d_head=20, d_model=160, vocabulary=2048, context=512)
    """
    if not hasattr(model, "cfg"):
        raise WorkbenchError(f"{model!r:.60} as a model", "what load_model gives")
    cfg = model.cfg
    values = getattr(model.original_model.config, "v_head_dim", None)
    return ModelShape(
        layers=int(cfg.n_layers),
        heads=int(cfg.n_heads),
        d_head=int(values or cfg.d_head),
        d_model=int(cfg.d_model),
        vocabulary=int(cfg.d_vocab),
        context=int(cfg.n_ctx),
    )


@door
def identify(model: Model) -> ModelIdentity:
    """The model's name, shape and a fingerprint of its config (not of its weights or place).

    Example:
        >>> identity = wb.models.identify(model)
        >>> identity.name, identity.shape == edit.model.shape
        ('hearsay', True)
    """
    origin = _ORIGINS.get(model) or Origin(shipped_name(str(model.cfg.model_name)))
    return ModelIdentity(
        name=origin.name,
        fingerprint=fingerprint_of_config(model.original_model.config),
        shape=shape_of(model),
        quantisation=origin.quantisation,
        licence=origin.licence,
    )


def fingerprint_of_config(config: Any) -> str:
    """Of all of a Hugging Face config but where and how it was loaded."""
    text = json.dumps(_without_place(config.to_dict()), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without_place(config: Mapping[Any, Any]) -> dict[Any, Any]:
    """A config, and those inside it, without what depends on where and how it was loaded."""
    skipped = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache")
    return {
        key: _without_place(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in skipped and not str(key).startswith("output_")
    }


def identity_from(record: Mapping[str, Any]) -> ModelIdentity:
    """The inverse of `dataclasses.asdict` for an identity.

    Raises:
        WorkbenchError: a record of other things than texts and sizes; `KeyError` where one lacks.
    """
    texts = {name: record[name] for name in ("name", "fingerprint")}
    texts |= {name: record.get(name, "") for name in ("quantisation", "licence")}
    for name, value in texts.items():
        if not isinstance(value, str) or not value.isprintable():
            raise WorkbenchError(f"a model's {name} {value!r:.60}", "a text of one line")
    for name, value in record["shape"].items():
        require_whole(f"a model's {name}", value, 1)
    return ModelIdentity(shape=ModelShape(**record["shape"]), **texts)


def require_same_shape(model: Model, expected: ModelShape, what: str) -> None:
    """Refuse to use something fitted on another shape of model; both shapes are named."""
    found = shape_of(model)
    wanted, came = asdict(expected), asdict(found)
    differing = [k for k in ("layers", "heads", "d_head", "d_model") if wanted[k] != came[k]]
    if differing:

        def sizes(shape: ModelShape) -> str:
            return (
                f"{shape.layers} layers x {shape.heads} heads x d_head {shape.d_head}, "
                f"d_model {shape.d_model}"
            )

        raise WorkbenchError(
            f"{what} of a model with {sizes(expected)} on {identify(model).name} with "
            f"{sizes(found)}",
            "the same shape of model",
            f"{', '.join(differing)} differ; fit it on this model.",
        )


def tokenizer_of(model: Model) -> Any:
    """The tokenizer that the model was given, as it was given."""
    return _TOKENIZERS.get(model, model.tokenizer)


def device_of(model: Model) -> torch.device:
    """Where token ids must be put."""
    device: torch.device = model.original_model.get_input_embeddings().weight.device
    return device
