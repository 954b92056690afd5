"""All of TAE's fitting on hearsay, from captured activations to directions and estimators.

The published procedure, written for this benchmark: pairwise histograms in loops for each answer
and layer, a scikit-learn fit for each head's probe and for each head's estimator.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from benchmarks.case import Result, once, report, require
from benchmarks.mutual_information import pair_loop
from workbench.data.questions import QuestionSet
from workbench.data.sources import load_questions
from workbench.models.loading import load_model
from workbench.stages.activations import TokenActivations
from workbench.stages.aggregation import aggregate
from workbench.stages.capture import capture
from workbench.stages.directions import fit_directions
from workbench.stages.misalignment import fit_estimators, incorrect_answers, label_answers


def published_features(activations: TokenActivations) -> np.ndarray:
    """Softmax-weighted propagation over pairwise mutual information, answer by answer."""
    found = []
    for answer in activations:
        z = answer.own.flatten(start_dim=2).numpy()
        rows = []
        for layer in range(z.shape[1]):
            scores = pair_loop(z[:, layer])
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            weights /= weights.sum(axis=1, keepdims=True)
            rows.append((weights @ z[:, layer]).mean(axis=0))
        found.append(rows)
    return np.array(found)


def loop_over_heads(z: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Probabilities [row, layer, head] of a scikit-learn fit for every head."""
    rows, layers, heads, _ = z.shape
    found = np.zeros((rows, layers, heads))
    for layer in range(layers):
        for head in range(heads):
            model = LogisticRegression(max_iter=1000).fit(z[:, layer, head], label)
            found[:, layer, head] = model.predict_proba(z[:, layer, head])[:, 1]
    return found


def main() -> None:
    """Forty training questions, 400 answers, 5 layers x 8 heads."""
    model = load_model("hearsay", device="cpu")
    questions: QuestionSet = load_questions("hearsay").folds(2)[0].train.choose(range(40))
    activations = capture(model, questions, progress=False)
    shape = activations.z.shape
    held = torch.tensor(questions.validation_mask(0.2, 0))[activations.question]
    kept: dict[str, Any] = {}

    def published() -> None:
        kept["features"] = published_features(activations)
        z = kept["features"].reshape(len(activations), *shape[1:]).astype(np.float32)
        kept["probes"] = loop_over_heads(z[~held.numpy()], activations.label[~held].numpy())
        answers = incorrect_answers(activations, range(len(questions)))
        labelled = label_answers(activations, answers)
        tokens = torch.cat([activations[answer].preceding for answer in answers])
        kept["tokens"] = tokens
        kept["estimators"] = loop_over_heads(tokens.numpy(), labelled.label.numpy())

    def workbench() -> None:
        features = aggregate(activations, depth=1)
        kept["mine"] = features.values
        directions = fit_directions(features, questions)
        kept["my probes"] = directions.probes.probability(features.values[~held])
        kept["my estimators"] = fit_estimators(activations).probability(kept["tokens"])

    with threadpool_limits(1, user_api="blas"):
        slow = once(published)
    fast = min(once(workbench) for _ in range(3))
    features = np.abs(kept["features"].reshape(kept["mine"].shape) - kept["mine"].numpy()).max()
    probes = np.abs(kept["probes"] - kept["my probes"].numpy()).max()
    estimators = np.abs(kept["estimators"] - kept["my estimators"].numpy()).max()
    require(features < 1e-3, f"features by {features:.1e}")
    report(
        Result(
            "all of TAE's fitting, 400 answers, 5 layers x 8 heads (hearsay)",
            "pairwise loops, a scikit-learn fit for each head",
            slow, fast, f"{len(activations)} answers, {shape[0]:,} positions", float("nan"),
            f"features {features:.0e}; probabilities {max(probes, estimators):.0e}, "
            "scikit-learn's own tolerance",
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
