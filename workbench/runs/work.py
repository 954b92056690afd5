"""The work of a run: fits and measurements, each by itself and in any process."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import pandas as pd

from workbench import storage
from workbench.editing.interventions import OTHER_STYLE, Intervention
from workbench.errors import WorkbenchError
from workbench.evaluation.choosing import choose
from workbench.evaluation.evaluate import evaluate
from workbench.methods.memo import Memo
from workbench.models.fingerprints import weights_stay
from workbench.runs.identity import digest, environment
from workbench.runs.jobs import Fit, Job, Piece
from workbench.runs.loaded_run import LoadedRun
from workbench.runs.run_data import judges_for


class Work(LoadedRun):
    """A loaded run that is carried out.

    Attributes:
        captures: where activations are kept while fits are made; None for memory.
    """

    captures: Path | None = None

    @cached_property
    def memos(self) -> dict[tuple[str, int], Memo]:
        """The stages of a fold, by capability and number."""
        return {}

    def make(self, fit: Fit) -> tuple[Intervention, float]:
        """Choose a fit's settings on the inner split, and fit them on all training questions.

        Returns:
            The edit, and the seconds that the fit takes by itself, without the choosing.
        """
        split = self.split_of(fit)
        memo = self._memo(fit)
        method = choose(
            self.model, self.candidates(fit), split, judges=judges_for(split, self.judges),
            memo=memo, progress=self.progress, **self.settings_of(split),
        )  # fmt: skip
        with memo.timed() as seconds:
            edit = method.fit(
                self.model, split.train, everything=split.everything if method.leaks else None,
                memo=memo, progress=self.progress,
            )  # fmt: skip
        return edit, seconds[0]

    def _memo(self, fit: Fit) -> Memo:
        """The stages of a fit's fold; those of others are let go, which take much memory."""
        key = (fit.capability, fit.number)
        if key not in self.memos:
            self.memos = {key: Memo(self.captures)}
        return self.memos[key]

    def measure(self, pieces: Sequence[Piece], folder: Path) -> dict[Piece, pd.DataFrame]:
        """Tables of pieces of one fold, which share what can be shared."""
        self.memos.clear()
        split = self.splits[pieces[0].capability][pieces[0].number]
        asked = [
            (piece, multiple)
            for piece in pieces
            for multiple in self.config.plans[piece.method].multiples
        ]
        edits = {str(n): self.edits(piece, folder, by) for n, (piece, by) in enumerate(asked)}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=OTHER_STYLE)  # the run says both
            table = evaluate(
                self.model, split.test, edits, fold=split.number, progress=self.progress,
                judges=judges_for(split, self.judges), texts=self.texts[split.number],
                **self.settings_of(split),
            )  # fmt: skip
        parts: dict[Piece, list[pd.DataFrame]] = {piece: [] for piece in pieces}
        for number, own in table.groupby("method", sort=False):
            piece, multiple = asked[int(str(number))]
            parts[piece].append(own.assign(method=piece.method, multiple=multiple))
        return {piece: pd.concat(own, ignore_index=True) for piece, own in parts.items()}

    def do(self, job: Job) -> dict[str, str]:
        """Carry a job out; what could not be computed is told, by the keys of fits and pieces.

        What was computed and cannot be written is an error of the whole run.
        """
        folder = Path(job.folder)
        captures = Path(job.captures) if job.captures else None
        if captures != self.captures:
            self.captures, self.memos = captures, {}
        failed: dict[str, str] = {}
        for fit in job.fits:
            try:
                with weights_stay(self.model, self.identity["weights"]):
                    edit, seconds = self.make(fit)
            except Exception as error:
                failed[fit.key] = _told(error)
                continue
            with storage.whole_folder(folder / "edits" / fit.key) as place:
                edit.save(place)
                made = {"seconds": seconds, "made with": environment()}
                storage.write_json(place / "fit.json", made)
        tables, errors = self._measured(job.pieces, folder)
        for piece, table in tables.items():
            file = folder / "parts" / piece.file
            if not file.exists():
                table.attrs = {"piece": piece.key, "made with": environment()}
                storage.write_table(file, table)
        return failed | errors

    def _measured(
        self, pieces: Sequence[Piece], folder: Path
    ) -> tuple[dict[Piece, pd.DataFrame], dict[str, str]]:
        """Tables, and errors by key: where pieces fail together, each is measured by itself."""
        if not pieces:
            return {}, {}
        try:
            return self.measure(pieces, folder), {}
        except Exception as error:
            if len(pieces) == 1:
                return {}, {pieces[0].key: _told(error)}
        tables: dict[Piece, pd.DataFrame] = {}
        errors: dict[str, str] = {}
        for piece in pieces:
            table, error_of = self._measured([piece], folder)
            tables |= table
            errors |= error_of
        return tables, errors


_LOADED: dict[str, Work] = {}


def do(job: Job) -> dict[str, str]:
    """Carry a job out in a worker process, which loads a run's model and data once.

    Raises:
        WorkbenchError: the worker finds another model or other data than the coordinator.
    """
    if job.identity not in _LOADED:
        _LOADED.clear()
        work = Work(job.config)
        found = digest(work.identity)
        if found != job.identity:
            raise WorkbenchError(
                "a worker whose model or data differ from the coordinator's",
                "the same files and versions on all machines",
                "A model that is given as an object is not what its name loads: give the name.",
            )
        _LOADED[job.identity] = work
    return _LOADED[job.identity].do(job)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
