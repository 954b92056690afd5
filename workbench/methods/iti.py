"""Inference-Time Intervention (Li et al. 2023): TAE's own code with the last token and s = 1."""

from __future__ import annotations

from typing import Any

from workbench.doors import door
from workbench.methods.registry import METHODS
from workbench.methods.token_aware import TokenAware


@METHODS.register(
    "iti", about="inference-time intervention: truth directions of heads, one strength for all"
)
@door
def inference_time(**settings: Any) -> TokenAware:
    """ITI's settings: the feature is z at the answer's last token, the strength is constant.

    Args:
        settings: any other setting of `TokenAware`, such as `heads` and `alpha`.

    Example:
        >>> iti = wb.methods.inference_time(heads=4, alpha=15)
        >>> iti.depth, iti.strength
        ('last', 'constant')
    """
    return TokenAware.preset("corrected", **{"depth": "last", "strength": "constant", **settings})
