"""What of a run is still to be done, and in which order.

A plan says which pieces of a fold are measured together; fits are made together that share their
stages, and a group of pieces needs those of its methods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError
from workbench.runs.jobs import Fit, Piece
from workbench.runs.work import Work


def planned(pieces: Sequence[Piece], present: set[str], together: int) -> list[list[str]]:
    """Which pieces are measured together: those of one fold that no earlier run has left.

    The numbers of a piece depend in their last digits on its company, so this is decided once.
    """
    folds: dict[tuple[str, int], list[str]] = {}
    for piece in pieces:
        if piece.key not in present:
            folds.setdefault((piece.capability, piece.number), []).append(piece.key)
    return [own[i : i + together] for own in folds.values() for i in range(0, len(own), together)]


def groups_of(
    plan: Sequence[Sequence[str]], pieces: Sequence[Piece], place: Path, own: Path
) -> list[tuple[Piece, ...]]:
    """The pieces of a plan, and behind them those that it lacks and that are not there."""
    known = {piece.key: piece for piece in pieces}
    planned = [key for group in plan for key in group]
    strange = [key for key in planned if key not in known]
    if strange:
        raise WorkbenchError(
            f"{own / 'run.json'}, whose plan has the piece {strange[0]!r:.60}", "pieces of this run"
        )
    groups = [tuple(known[key] for key in group) for group in plan]
    rest = [p for p in pieces if p.key not in planned and unfinished([p], place)]
    return groups + [(piece,) for piece in rest]


def missing_fits(work: Work, groups: Sequence[Sequence[Piece]], place: Path) -> list[Fit]:
    """The fits that unfinished pieces need and that are not there, each once."""
    wanted = {
        fit.key: fit
        for group in groups
        for piece in unfinished(group, place)
        for fit in work.fits(piece.method, piece.capability, piece.number)
    }
    return [
        fit for fit in wanted.values() if not (place / "edits" / fit.key / "edit.json").exists()
    ]


def fits_together(work: Work, fits: Sequence[Fit]) -> list[tuple[Fit, ...]]:
    """Fits that share stages in one job, in an order in which each stage is needed once."""
    groups: dict[Any, list[tuple[str, Fit]]] = {}
    for fit in fits:
        method = work.candidates(fit)[0]
        order = method.stage_order
        size = work.config.plans[fit.method].train_size
        shared = type(method).__name__ if order else fit.key
        groups.setdefault((fit.capability, fit.number, shared, size), []).append((order, fit))
    return [tuple(fit for _, fit in sorted(own, key=lambda one: one[0])) for own in groups.values()]


def unfinished(group: Sequence[Piece], place: Path) -> list[Piece]:
    """The pieces of a group that are not there."""
    return [piece for piece in group if not (place / "parts" / piece.file).exists()]


def needed_fits(work: Work, group: Sequence[Piece]) -> set[str]:
    """The keys of the fits that a group's pieces need."""
    return {fit.key for p in group for fit in work.fits(p.method, p.capability, p.number)}


def failed_fits(work: Work, piece: Piece, failed: Mapping[str, str]) -> str:
    """Why a piece cannot be measured, "" where it can."""
    needed = work.fits(piece.method, piece.capability, piece.number)
    return next((failed[fit.key] for fit in needed if fit.key in failed), "")
