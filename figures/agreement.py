"""How far directions agree: aggregations, estimators of a direction, folds, and a control."""

from __future__ import annotations

from typing import Any

import workbench as wb
from figures.fitted import fitted
from workbench import plots
from workbench.analysis.agreements import agreement


def figure() -> Any:
    """Mean cosine over all heads."""
    made = fitted()
    train, acts = made.fold.train, made.activations
    features = wb.aggregate(acts)
    other = wb.load_questions("hearsay").folds(2, seed=0)[1].train
    theirs = wb.aggregate(wb.capture(made.model, other, progress=False))
    return plots.agreement(
        agreement({
            "graph, depth 1": made.directions,
            "plain mean": wb.fit_directions(wb.aggregate(acts, 0), train),
            "last token (ITI)": wb.fit_directions(wb.aggregate(acts, "last"), train),
            "probe": wb.fit_directions(features, train, kind="probe"),
            "other half": wb.fit_directions(theirs, other),
            "shuffled labels": wb.fit_directions(features, train, shuffle_labels=True),
        })
    )  # fmt: skip
