"""Models: what runs — loading, prompts, positions, forward passes and hooks beneath them."""

from workbench.models.fetching import fetch, fetched
from workbench.models.identity import Model, identify, shape_of
from workbench.models.loading import load_model
from workbench.models.prompts import Encoded, PromptFormat, encode, prompt_format

__all__ = [
    "Encoded",
    "Model",
    "PromptFormat",
    "encode",
    "fetch",
    "fetched",
    "identify",
    "load_model",
    "prompt_format",
    "shape_of",
]
