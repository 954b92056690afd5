"""What methods cost: seconds to fit, milliseconds a token written, numbers stored."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from workbench import storage
from workbench.editing.generation import generate
from workbench.editing.head_edits import HeadEdit
from workbench.editing.interventions import Intervention
from workbench.models.identity import Model
from workbench.models.prompts import encode, prompt_format
from workbench.runs.loaded_run import LoadedRun
from workbench.runs.run_config import RunConfig


def costs_of(config: RunConfig, folder: Path, model: Model | None = None) -> pd.DataFrame:
    """Seconds to fit, milliseconds a token, and numbers stored, of every method in fold 0.

    Milliseconds are those of writing greedy answers to 32 questions in one batch, the median
    of three times; the fit's are by itself, with nothing shared with other methods.
    """
    work = LoadedRun(config, model)
    split = work.splits["truthfulness"][0]
    chosen = prompt_format(split.style)
    asked = [encode(work.model, q.question, None, chosen) for q in list(split.train)[:32]]
    pieces = work.pieces()
    rows = []
    for name in config.methods:
        fits = work.fits(name, "truthfulness", 0)
        place = folder / "edits"
        if any(not (place / fit.key / "fit.json").exists() for fit in fits):
            continue
        made = [storage.read_json(place / fit.key / "fit.json") for fit in fits]
        piece = next(p for p in pieces if (p.method, p.number) == (name, 0))
        edits = work.edits(piece, folder)
        edit = edits if edits is None or isinstance(edits, Intervention) else edits[0]
        seconds = sum(float(one["seconds"]) for one in made)
        rows.append((name, seconds, _milliseconds(work.model, asked, edit), stored(edit)))
    return pd.DataFrame(rows, columns=["method", "fit_seconds", "ms_per_token", "stored"])


def _milliseconds(model: Model, asked: Sequence[Any], edit: Intervention | None) -> float:
    spent = []
    for _ in range(3):
        begin = time.perf_counter()
        written = generate(model, asked, edit=edit, max_new_tokens=24, stop=("\n",))
        tokens = sum(len(one.tokens) for one in written)
        spent.append(1000 * (time.perf_counter() - begin) / tokens)
    return median(spent)


def stored(edit: Intervention | None) -> int:
    """How many numbers an edit holds that it uses."""
    if edit is None:
        return 0
    if isinstance(edit, HeadEdit) and not edit.reads_misalignment:
        edit = replace(edit, estimators=None)
    return sum(value.numel() for value in edit.tensors().values())
