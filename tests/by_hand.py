"""What the workbench computes in batches, computed the obvious way."""

from collections.abc import Sequence

import torch

from workbench.models.passes import forward


def logits_of(model, tokens, mask):
    """Of a pass of the model, with whatever is attached to it."""
    return forward(model, tokens, mask)[0]


def nats_from(model, row: Sequence[int], begin: int) -> torch.Tensor:
    """Log-probabilities of a row's tokens from a place on, in a pass of its own."""
    tokens = torch.tensor([list(row)])
    nats = logits_of(model, tokens, torch.ones_like(tokens))[0].log_softmax(dim=-1)
    return nats[begin - 1 : -1].gather(1, tokens[0, begin:, None])[:, 0]
