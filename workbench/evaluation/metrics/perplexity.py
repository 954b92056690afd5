"""Perplexity of documents as lm-evaluation-harness has it: nats in all over words or bytes."""

from __future__ import annotations

import math

import numpy as np

from workbench.evaluation.metrics.registry import METRICS, Metric, measured

measured(
    0,
    nats="surprise of a whole document, the sum over its tokens, in nats",
    words="words of a document",
    bytes="bytes of a document in UTF-8",
)
METRICS.add(
    "word_perplexity",
    Metric(("nats", "words"), lambda means: np.exp(means[..., 0] / means[..., 1]), -1),
    about="exponential of the nats a word",
)
METRICS.add(
    "byte_perplexity",
    Metric(("nats", "bytes"), lambda means: np.exp(means[..., 0] / means[..., 1]), -1),
    about="exponential of the nats a byte",
)
METRICS.add(
    "bits_per_byte",
    Metric(("nats", "bytes"), lambda means: means[..., 0] / means[..., 1] / math.log(2), -1),
    about="bits a byte",
)
