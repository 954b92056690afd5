"""Which models can be edited: decoders that TransformerLens has an adapter for."""

from __future__ import annotations

from typing import Any

from workbench.errors import WorkbenchError, with_article


def require_decoder(config: Any, name: str, classes: list[str] | None = None) -> None:
    """Refuse configs (or loaded classes) of encoders and encoder-decoders."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    architectures = classes or config.architectures or []
    causal = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    decoder = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and (
        not architectures or any(a in causal for a in architectures)
    )
    if "OptimizedModule" in architectures:
        raise WorkbenchError(
            "a model that torch.compile has wrapped",
            "the model itself",
            "Load the one that was compiled: hooks are not told of what a compiled graph does.",
        )
    if any(own.startswith("Peft") for own in architectures):
        raise WorkbenchError(
            f"a {architectures[0]}, which wraps a model",
            "the model itself, with its adapters in it",
            "model.merge_and_unload() gives it, or peft.inject_adapter_in_model puts adapters in.",
        )
    if config.is_encoder_decoder or not decoder:
        raise WorkbenchError(
            _kind_of(name, architectures or [config.model_type]),
            "a decoder-only (causal) language model such as Llama, Qwen, GPT-2 or OPT",
        )


def require_adapter(config: Any, name: str) -> None:
    """Refuse architectures for which TransformerLens has no adapter."""
    from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES

    architectures = config.architectures or []
    if architectures and not any(own in SUPPORTED_ARCHITECTURES for own in architectures):
        raise WorkbenchError(
            f"{_kind_of(name, architectures)}, for which TransformerLens has no adapter",
            f"one of its {len(SUPPORTED_ARCHITECTURES)} architectures, such as LlamaForCausalLM",
        )


def _kind_of(name: str, architectures: list[str]) -> str:
    kind = ", ".join(architectures)
    return with_article(kind) if name == kind else f"{name} is {with_article(kind)}"
