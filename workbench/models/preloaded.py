"""TransformerLens, imported at once: for a process from which workers are forked."""

from transformer_lens import model_bridge

__all__ = ["model_bridge"]
