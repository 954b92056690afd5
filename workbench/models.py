"""Models: any Hugging Face causal language model as a TransformerBridge in raw mode.

The only module that knows TransformerLens. The rest of the workbench sees a model through
`load_model`, `shape_of`, `forward`, `attached`, `vocabulary_logits` and the position clock.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args
from weakref import WeakKeyDictionary

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench import storage
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    Model: TypeAlias = TransformerBridge
else:
    Model = Any

Site = Literal["hook_z", "projection"]
ZHook = Callable[[Float[Tensor, "batch position head d_head"]], Tensor | None]
ResidualHook = Callable[[Float[Tensor, "batch position d_model"]], None]


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
class ModelIdentity:
    """What an artefact remembers of its model: name, shape and a fingerprint of its config."""

    name: str
    fingerprint: str
    shape: ModelShape


def load_model(
    source: Any,
    tokenizer: Any = None,
    *,
    dtype: torch.dtype | str = torch.float32,
    device: str | torch.device | None = None,
    device_map: Any = None,
) -> Model:
    """Load a causal language model as a TransformerBridge in raw mode.

    Args:
        source: `"hearsay"`, a folder in Hugging Face format, a hub name, a loaded Hugging Face
            model (wrapped in place, attention switched to eager; its dtype and device stay), or a
            TransformerBridge, which is returned.
        tokenizer: the tokenizer of a loaded model; for a name or folder, one to use instead of
            its own.
        dtype: a floating-point dtype or its name (`"bfloat16"`); for names and folders.
        device: where to put the model; the default is a GPU if there is one.
        device_map: Hugging Face's placement over several devices, instead of `device`.

    Returns:
        The bridge, in evaluation mode, without gradients for its parameters.

    Raises:
        WorkbenchError: no such model, not a decoder-only language model, no attention heads to
            edit, no tokenizer, or a dtype that is not floating-point.
    """
    from transformer_lens.model_bridge import TransformerBridge

    if isinstance(source, TransformerBridge):
        return source
    if isinstance(source, str | Path):
        own = _boot_from_name(str(source), tokenizer, _floating(dtype), device, device_map)
    else:
        own = _boot_from_loaded(source, tokenizer)
    model, chosen = own
    _TOKENIZERS[model] = chosen
    if not chosen.is_fast:
        raise WorkbenchError(
            f"the tokenizer of {identify(model).name} is a slow one, without character offsets",
            "a fast tokenizer, whose offsets tell where an answer begins",
        )
    if "blocks.0.attn.hook_z" not in model.hook_dict:
        raise WorkbenchError(
            f"{identify(model).name} has no attention heads at blocks.0.attn.hook_z",
            "a transformer whose layers have attention heads",
        )
    model.eval()
    for parameter in model.original_model.parameters():
        parameter.requires_grad_(False)
    clock(model)
    return model


def _floating(dtype: torch.dtype | str) -> torch.dtype:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise WorkbenchError(f"dtype {dtype!r}", "float32, bfloat16, float16 or float64")
    return found


def _boot_from_name(
    name: str, tokenizer: Any, dtype: torch.dtype, device: Any, device_map: Any
) -> tuple[Model, Any]:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoConfig, AutoTokenizer

    if device is not None and device_map is not None:
        raise WorkbenchError(
            f"both device={device!r} and device_map={device_map!r}", "one of the two"
        )
    place = str(storage.package_path("hearsay", "model")) if name == "hearsay" else name
    if looks_like_folder(place):
        storage.existing(Path(place) / "config.json", "model config")
    try:
        _require_decoder(AutoConfig.from_pretrained(place), name)
        own = tokenizer or AutoTokenizer.from_pretrained(place)
        with _quiet():
            model = TransformerBridge.boot_transformers(
                place, dtype=dtype, device=device, device_map=device_map,
                tokenizer=_unaltered(own, place),
            )  # fmt: skip
    except (OSError, ValueError) as error:
        if isinstance(error, WorkbenchError):
            raise
        raise WorkbenchError(
            f"the model {name!r} could not be loaded ({str(error).strip().splitlines()[0]})",
            "'hearsay', a folder in Hugging Face format or a hub name",
        ) from error
    return model, own


def _unaltered(tokenizer: Any, name: str) -> Any:
    """A copy that TransformerLens keeps as it is.

    It would otherwise load the tokenizer again by its name, with a beginning-of-sequence token
    forced on; models that were trained without one must not see it.
    """
    kept = copy.deepcopy(tokenizer)
    kept.init_kwargs = {"name_or_path": name, **kept.init_kwargs, "add_bos_token": True}
    return kept


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bar that transformers shows while it loads weights."""
    from transformers.utils import logging as untyped

    logging: Any = untyped
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def looks_like_folder(place: str) -> bool:
    """Whether a model's or data set's name is meant as a path on this machine."""
    return place.startswith(("/", "./", "../", "~")) or Path(place).exists()


def _boot_from_loaded(model: Any, tokenizer: Any) -> tuple[Model, Any]:
    from transformer_lens.model_bridge import TransformerBridge

    if not hasattr(model, "config"):
        raise WorkbenchError(
            f"a {type(model).__name__}", "a name, a folder or a loaded Hugging Face model"
        )
    _require_decoder(model.config, type(model).__name__, [type(model).__name__])
    if tokenizer is None:
        raise WorkbenchError(
            "a loaded model without its tokenizer",
            "load_model(model, tokenizer)",
        )
    name = getattr(model.config, "_name_or_path", "") or type(model).__name__
    bridge = TransformerBridge.boot_transformers(
        name,
        hf_model=model,
        tokenizer=_unaltered(tokenizer, name),
        dtype=model.dtype,
        device=None if hasattr(model, "hf_device_map") else model.device,
    )
    return bridge, tokenizer


def _require_decoder(config: Any, name: str, classes: list[str] | None = None) -> None:
    """Refuse configs (or loaded classes) of encoders and encoder-decoders."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    architectures = classes or config.architectures or []
    causal = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    decoder = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and (
        not architectures or any(a in causal for a in architectures)
    )
    if config.is_encoder_decoder or not decoder:
        kind = ", ".join(architectures) or config.model_type
        raise WorkbenchError(
            f"{name} is a {kind}",
            "a decoder-only (causal) language model such as Llama, Qwen, GPT-2 or OPT",
        )


def shape_of(model: Model) -> ModelShape:
    """Layers, query heads, d_head, d_model, vocabulary and context length of a model."""
    cfg = model.cfg
    return ModelShape(
        layers=int(cfg.n_layers),
        heads=int(cfg.n_heads),
        d_head=int(cfg.d_head),
        d_model=int(cfg.d_model),
        vocabulary=int(cfg.d_vocab),
        context=int(cfg.n_ctx),
    )


def identify(model: Model) -> ModelIdentity:
    """The model's name, shape and a fingerprint of its config (not of its weights or place)."""
    config = model.original_model.config.to_dict()
    skipped = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache")
    kept = {k: v for k, v in config.items() if k not in skipped and not k.startswith("output_")}
    text = json.dumps(kept, sort_keys=True, default=str)
    place = str(model.cfg.model_name)
    shipped = place == str(storage.package_path("hearsay", "model"))
    return ModelIdentity(
        name="hearsay" if shipped else place,
        fingerprint=hashlib.sha256(text.encode()).hexdigest()[:16],
        shape=shape_of(model),
    )


def identity_from(record: Mapping[str, Any]) -> ModelIdentity:
    """The inverse of `dataclasses.asdict` for an identity."""
    return ModelIdentity(
        name=record["name"],
        fingerprint=record["fingerprint"],
        shape=ModelShape(**record["shape"]),
    )


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


# ---------------------------------------------------------------------------- the position clock


@dataclass(frozen=True)
class Pass:
    """One forward pass: real positions of its tokens, which of them are no padding, their ids."""

    positions: Int[Tensor, "batch position"]
    real: Bool[Tensor, "batch position"]
    tokens: Int[Tensor, "batch position"] | None
    fresh: bool

    def last_real(self) -> Int[Tensor, " batch"]:
        """The position of every row's last token that is no padding."""
        return torch.where(self.real, self.positions, -1).amax(dim=1)


class PositionClock:
    """Tells hooks which positions a pass holds, on every path: cached or not, padded or not.

    `starts` are the positions from which edits apply, a number a row. Who knows the prompt's
    length sets them with `starting_at`; otherwise the last token of the pass that began with an
    empty cache counts as the last prompt token.
    """

    def __init__(self) -> None:
        self.now: Pass | None = None
        self._given: Tensor | None = None
        self._found: Tensor | None = None
        self.sequences = 0

    def tick(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The forward pre-hook: reads positions off the arguments of the pass."""
        tokens = kwargs.get("input_ids", args[0] if args else None)
        shaped = tokens if tokens is not None else kwargs["inputs_embeds"]
        batch, length = shaped.shape[:2]
        cache = kwargs.get("past_key_values")
        past = int(cache.get_seq_length()) if cache is not None else 0
        mask = kwargs.get("attention_mask")
        if mask is None:
            real = torch.ones(batch, length, dtype=torch.bool, device=shaped.device)
            positions = torch.arange(past, past + length, device=shaped.device)
            positions = positions.expand(batch, length)
        else:
            if mask.ndim != 2 or mask.shape[1] != past + length:
                raise WorkbenchError(
                    f"an attention mask of shape {tuple(mask.shape)} for {past} cached and "
                    f"{length} new tokens",
                    f"shape ({batch}, {past + length})",
                )
            real = mask[:, past:].bool()
            positions = (mask.long().cumsum(dim=1) - 1)[:, past:].clamp(min=0)
        self.now = Pass(positions, real, tokens, fresh=past == 0)
        if past == 0:
            self._found = self.now.last_real()
            self.sequences += self._given is None

    @property
    def starts(self) -> Int[Tensor, " batch"]:
        """The position from which edits apply, for every row of the running pass."""
        starts = self._given if self._given is not None else self._found
        if starts is None or self.now is None:
            raise WorkbenchError("an edit outside any forward pass", "a forward pass of its model")
        rows = self.now.positions.shape[0]
        if starts.shape[0] != rows:
            raise WorkbenchError(
                f"{starts.shape[0]} start positions for a batch of {rows}", "one start a row"
            )
        return starts.to(self.now.positions.device)

    @contextmanager
    def starting_at(self, starts: Int[Tensor, " batch"]) -> Iterator[None]:
        """Fix the edit's first positions for all passes of the block: one set of sequences."""
        before = self._given
        self._given = starts
        self.sequences += 1
        try:
            yield
        finally:
            self._given = before


_TOKENIZERS: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
_CLOCKS: WeakKeyDictionary[Any, PositionClock] = WeakKeyDictionary()


def clock(model: Model) -> PositionClock:
    """The model's position clock; attached to it on first use."""
    found = _CLOCKS.get(model)
    if found is None:
        found = PositionClock()
        model.original_model.register_forward_pre_hook(found.tick, with_kwargs=True)
        _CLOCKS[model] = found
    return found


# --------------------------------------------------------------------------------- running, hooks


def forward(
    model: Model,
    tokens: Int[Tensor, "batch position"],
    mask: Int[Tensor, "batch all_position"],
    cache: Any = None,
) -> tuple[Float[Tensor, "batch position vocabulary"], Any]:
    """One pass with explicit positions, right for left- and right-padded batches.

    Args:
        model: the bridge.
        tokens: token ids of the new positions.
        mask: 1 for real tokens, 0 for padding, over cached and new positions.
        cache: a Hugging Face cache to read and extend, or None for a pass without cache.

    Returns:
        Logits in the model's dtype, and the cache.
    """
    arguments: dict[str, Any] = {"attention_mask": mask, "use_cache": cache is not None}
    if cache is not None:
        arguments["past_key_values"] = cache
    inner = model.original_model
    if "position_ids" in inspect.signature(type(inner).forward).parameters:
        positions = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
        arguments["position_ids"] = positions[:, -tokens.shape[1] :]
    with torch.no_grad():
        output = inner(input_ids=tokens, **arguments)
    return output.logits, output.past_key_values if cache is not None else None


def new_cache(model: Model) -> Any:
    """An empty key-value cache."""
    from transformers import DynamicCache

    return DynamicCache(config=model.original_model.config)


@contextmanager
def attached(
    model: Model,
    z_hooks: Mapping[int, ZHook],
    residual_hooks: Mapping[int, ResidualHook] | None = None,
    site: Site = "hook_z",
) -> Iterator[None]:
    """Hooks by layer for the length of a block; removed after exceptions too.

    Args:
        model: the bridge.
        z_hooks: functions of z [batch, position, head, d_head]; what one returns replaces z.
        residual_hooks: functions of the residual stream before the layer, which only look.
        site: `"hook_z"`, TransformerLens' hook point, or `"projection"`, a plain torch hook at the
            input of the attention's output projection. Both edit the same tensor.

    Raises:
        WorkbenchError: no such site.
    """
    if site not in get_args(Site):
        raise WorkbenchError(f"the site {site!r}", f"one of {', '.join(get_args(Site))}")
    residual_hooks = residual_hooks or {}
    with ExitStack() as stack:
        if site == "hook_z":
            named: list[tuple[str, Callable[..., Any]]] = [
                (f"blocks.{layer}.hook_resid_pre", _looking(hook))
                for layer, hook in residual_hooks.items()
            ]
            named += [
                (f"blocks.{layer}.attn.hook_z", _editing(hook)) for layer, hook in z_hooks.items()
            ]
            stack.enter_context(model.hooks(fwd_hooks=named))
        else:
            for layer, hook in residual_hooks.items():
                block = model.blocks[layer].original_component
                stack.callback(_pre_hook(block, _block_input(hook)).remove)
            for layer, edit in z_hooks.items():
                projection = model.blocks[layer].attn.o.original_component
                heads = shape_of(model).heads
                stack.callback(_pre_hook(projection, _projection_input(edit, heads)).remove)
        yield


def _looking(hook: ResidualHook) -> Callable[..., None]:
    def look(residual: Tensor, hook: Any, _look: ResidualHook = hook) -> None:  # noqa: ARG001
        _look(residual)

    return look


def _editing(hook: ZHook) -> Callable[..., Tensor | None]:
    def edit(z: Tensor, hook: Any, _edit: ZHook = hook) -> Tensor | None:  # noqa: ARG001
        return _edit(z)

    return edit


def _pre_hook(module: Any, hook: Callable[..., Any]) -> Any:
    return module.register_forward_pre_hook(hook, with_kwargs=True)


def _block_input(look: ResidualHook) -> Callable[..., None]:
    def pre_hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        look(args[0] if args else kwargs["hidden_states"])

    return pre_hook


def _projection_input(edit: ZHook, heads: int) -> Callable[..., Any]:
    def pre_hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        flat = args[0]
        z = edit(rearrange(flat, "... (head d_head) -> ... head d_head", head=heads))
        if z is None:
            return None
        return (z.reshape(flat.shape), *args[1:]), kwargs

    return pre_hook


def vocabulary_logits(
    model: Model, residual: Float[Tensor, "*row d_model"], *, final_norm: bool = True
) -> Float[Tensor, "*row vocabulary"]:
    """Read a residual stream through the unembedding (the logit lens), in float32.

    Args:
        model: the bridge.
        residual: residual stream of any layer.
        final_norm: apply the final norm first; of the last layer's output this gives the model's
            own logits, soft-capping included.
    """
    unembed = model.unembed.original_component
    device = unembed.weight.device
    with torch.no_grad():
        hidden = residual.to(device)
        if final_norm and hasattr(model, "ln_final"):
            hidden = model.ln_final.original_component(hidden)
        logits: Tensor = unembed(hidden).float()
    cap = getattr(model.original_model.config, "final_logit_softcapping", None)
    return logits if cap is None or not final_norm else cap * torch.tanh(logits / cap)
