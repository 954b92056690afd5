"""What the workbench computes in batches, computed the obvious way."""

from collections import namedtuple
from collections.abc import Sequence

import numpy as np
import torch

from workbench.evaluation.metrics.fairness import icat, term_scores
from workbench.models.passes import forward


def logits_of(model, tokens, mask):
    """Of a pass of the model, with whatever is attached to it."""
    return forward(model, tokens, mask)[0]


def nats_from(model, row: Sequence[int], begin: int) -> torch.Tensor:
    """Log-probabilities of a row's tokens from a place on, in a pass of its own."""
    tokens = torch.tensor([list(row)])
    nats = logits_of(model, tokens, torch.ones_like(tokens))[0].log_softmax(dim=-1)
    return nats[begin - 1 : -1].gather(1, tokens[0, begin:, None])[:, 0]


StereotypeScores = namedtuple("StereotypeScores", "lms ss icat terms")


def stereotype_scores(targets, stereotype, anti_stereotype, unrelated):
    """LMS, SS and ICAT of the averages over target terms, in percent."""
    found = term_scores(targets, stereotype, anti_stereotype, unrelated)
    lms, ss = np.mean(list(found.values()), axis=0)
    return StereotypeScores(float(lms), float(ss), icat(float(lms), float(ss)), len(found))
