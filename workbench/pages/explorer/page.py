"""The explorer as one HTML page: its data, its script and its style in a single file.

Texts travel as JSON, in which no character that could end or begin an element is left, and reach
the page as text nodes alone. Graphs take one byte a value and p̂ and u two; each answer is an
element of its own, which is decoded when it is chosen. What an edit of states does is told in
rounded numbers.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench import storage
from workbench.editing.head_edits import Edit
from workbench.pages.explorer.kinds import column_names, edit_kind, what_it_lacks
from workbench.pages.explorer.record import Exploration, ExploredAnswer

SCRIPTS = (
    "decoding.js", "drawing.js", "explorer.js", "states.js", "comparing.js", "listening.js",
)  # fmt: skip
NOTHING = 0xFFFF
"""Stands for NaN among p̂ and u; 0xFFFE is 1."""


def page(record: Exploration, title: str = "Token explorer") -> str:
    """One self-contained page; it asks for nothing from any network, and its policy forbids it.

    Args:
        record: from `explore`.
        title: shown as typed.
    """
    script = "\n".join(_part(name) for name in SCRIPTS)
    style = _part("explorer.css")
    data = [_element("about", about(record, title))]
    for number, answer in enumerate(record.answers):
        data.append(_element(f"answer-{number}", packed(answer)))
        data += [
            _element(f"answer-{number}-edit-{place}", packed_under(one.answers[number]))
            for place, one in enumerate(record.every)
        ]
    parts = {
        "policy": f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; "
        f"script-src '{_hash(script)}'",
        "title": html.escape(title),
        "style": style,
        "data": "\n".join(data),
        "script": script,
    }
    pieces = _part("page.html").split("{{")
    rest = [piece.split("}}", 1) for piece in pieces[1:]]
    return pieces[0] + "".join(parts[name] + after for name, after in rest)


def about(record: Exploration, title: str) -> dict[str, Any]:
    """What all answers share, as JSON has it."""
    shape = record.edit.model.shape
    bits = record.settings.similarity == "mutual_information"
    return {
        "title": title,
        "model": record.edit.model.label,
        "layers": shape.layers,
        "heads": shape.heads,
        "depth": len(record.answers[0].graphs) - 1,
        "similarity": "mutual information" if bits else record.settings.similarity,
        "unit": "bits" if bits else "",
        "answers": [[a.question, a.answer, a.kind] for a in record.answers],
        "edits": [about_edit(one) for one in record.every],
    }


def about_edit(record: Exploration) -> dict[str, Any]:
    """What all answers under one of the edits share; `edited` has a pair a column of its values."""
    edit = record.edit
    return {
        "name": record.name,
        "edit": edit.label,
        "kind": edit_kind(edit),
        "lacks": what_it_lacks(edit),
        "alpha": edit.alpha,
        "alphas": list(record.alphas),
        **(_about_heads(edit) if isinstance(edit, Edit) else _about_columns(record)),
    }


def _about_heads(edit: Edit) -> dict[str, Any]:
    """What strengths are made of."""
    return {
        "edited": [list(pair) for pair in edit.heads],
        "spread": _rounded(edit.spread),
        "threshold": None if edit.threshold is None else _rounded(edit.threshold),
        "beta": edit.strength.beta,
        "parts": [
            edit.strength.kind in ("adaptive", part) for part in ("misalignment", "uncertainty")
        ],
    }


def _about_columns(record: Exploration) -> dict[str, Any]:
    """The edited layers with their names, and nothing that strengths are made of."""
    columns = zip(record.edit.layers, column_names(record.edit), strict=True)
    return {
        "edited": [list(pair) for pair in columns],
        "gated": record.gated,
        "beta": 0.0,
        "parts": [False, False],
    }


def packed(answer: ExploredAnswer) -> dict[str, Any]:
    """What one answer is without an edit as JSON has it, its graphs in base64."""
    rows, columns = torch.triu_indices(len(answer.strings), len(answer.strings))
    upper = answer.graphs[..., rows, columns].numpy()
    low, high = upper.min(axis=-1), upper.max(axis=-1)
    step = np.where(high > low, high - low, 1.0)[..., None]
    levels = np.rint((upper - low[..., None]) / step * 255).astype(np.uint8)
    return {
        "prompt": answer.prompt,
        "tokens": answer.strings,
        "low": _rounded(torch.from_numpy(low)),
        "high": _rounded(torch.from_numpy(high)),
        "graphs": base64.b64encode(levels.tobytes()).decode(),
    }


def packed_under(answer: ExploredAnswer) -> dict[str, Any]:
    """What one answer is under an edit, its tensors in base64; attention in 255ths."""
    looks = answer.attention
    states = {"moved": answer.moved, "gate": answer.gate}
    edited = answer.misalignment.shape[-1]  # heads; without any there is no u either
    return {
        "risk": _shares(answer.misalignment),
        "doubt": _shares(answer.uncertainty) if edited else "",
        "reached": answer.reached.tolist(),
        "nats": _rounded(answer.nats),
        "written": answer.written,
        "attention": ""
        if looks is None
        else base64.b64encode((looks * 255).round().byte().numpy().tobytes()).decode(),
        **{name: _rounded(value) for name, value in states.items() if value is not None},
    }


def _shares(values: Float[Tensor, "*value"]) -> str:
    """Values from 0 to 1, or NaN, as little-endian 16-bit numbers in base64."""
    exact = values.double().numpy()
    levels = np.where(np.isnan(exact), NOTHING, np.rint(np.nan_to_num(exact) * (NOTHING - 1)))
    return base64.b64encode(levels.astype("<u2").tobytes()).decode()


def _rounded(values: Float[Tensor, "*value"]) -> Any:
    """Numbers with seven significant digits, nested as they are; None where not finite."""
    if values.ndim:
        return [_rounded(value) for value in values]
    value = float(values)
    return float(f"{value:.7g}") if np.isfinite(value) else None


def _element(name: str, value: Any) -> str:
    """A value as an element of data: plain ASCII, without `<`, `>` or `&`."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return f'<script type="application/json" id="{name}">{text}</script>'


def _part(name: str) -> str:
    """A file of the page."""
    return storage.read_text(storage.package_path("pages", "explorer", name))


def _hash(text: str) -> str:
    """By which a content security policy knows an inline element."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
