"""Edits that were saved in formats 2 and 3, as format 4 has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

OLDER = (2, 3)
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
    """A record and tensors of an older format, as of format 4.

    In format 2 edits of heads had no parts, and drawn strengths were a mode of these, `resampled`.
    In format 3 all words were read for u.

    Raises:
        KeyError: the record of an edit of heads lacks a part of its strength.
    """
    named = record.get("kind")
    new = {**record, "kind": BEFORE.get(str(named), named), "shortlists": None}
    if record["format"] == 3 or new["kind"] != "heads":
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
