"""Edits that were saved in format 2, as format 3 has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

OLDER = 2
BEFORE: Mapping[str, str] = {
    "workbench.edits.Edit": "heads",
    "workbench.methods.caa.AddedVector": "added_vector",
    "workbench.methods.destein.HeadFusion": "head_fusion",
    "workbench.methods.re_control.ValueAscent": "value_ascent",
    "workbench.methods.sea.SpectralEdit": "spectral",
    "workbench.methods.truthx.TruthfulShift": "truthful_shift",
}
"""What edits that were saved before kinds had short names call theirs."""

OF_ESTIMATORS = ("coefficient", "intercept", "threshold")


def modernised(
    record: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A record and tensors of format 2, in which edits of heads had no parts, as of format 3.

    Drawn strengths were a mode of these, `resampled`, and are a kind of their own now.

    Raises:
        KeyError: the record of an edit of heads lacks a part of its strength.
    """
    named = record.get("kind")
    new = {**record, "kind": BEFORE.get(str(named), named)}
    if new["kind"] != "heads":
        return new, dict(tensors)
    if new["strength"] == "resampled":
        new["kind"] = "drawn_heads"
    new["strength"] = {
        "kind": new["strength"], "beta": new["beta"], "uncertainty": new["uncertainty"],
    }  # fmt: skip
    new["estimators"] = {}
    placed = {
        f"estimators.{name}" if name in OF_ESTIMATORS else name: value
        for name, value in tensors.items()
    }
    return new, placed
