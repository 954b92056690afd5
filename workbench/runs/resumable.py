"""Runs: an evaluation described in a file, carried out piece by piece, resumable at any moment.

First the fits are made, those together that share their stages; as soon as all is fitted that they
need, pieces are measured behind them, those of a fold together as the run's plan says. Each fit and
each piece is written whole or not at all; a run that was killed goes on at the first that is
missing and ends with the same table as one that was not.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from workbench import storage
from workbench.doors import door
from workbench.errors import WorkbenchError
from workbench.evaluation.evaluate import both_limits, constancy
from workbench.evaluation.tables import compare, summary
from workbench.models.identity import Model
from workbench.runs.execution import carry_out, carry_out_in_processes
from workbench.runs.identity import SHOWN, digest, require_same_run
from workbench.runs.jobs import Job, Piece, read_part
from workbench.runs.order import (
    failed_fits,
    fits_together,
    groups_of,
    missing_fits,
    needed_fits,
    planned,
    unfinished,
)
from workbench.runs.run_config import RunConfig
from workbench.runs.run_data import judges_for
from workbench.runs.summary import as_markdown
from workbench.runs.work import Work, do

ALONE = "alone.parquet"
"""Controls that no edit and no question plays a part in."""


@door
def run(
    config: RunConfig,
    folder: storage.PathLike,
    *,
    name: str = "",
    model: Model | None = None,
    executor: Any = None,
    workers: int = 1,
    threads: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    r"""Carry a run out, or what is missing of it, in a folder.

    What cannot be computed is told in a warning, in the manifest and in the summary, and does not
    stop the rest; the same run tries it again.

    Args:
        config: what to evaluate.
        folder: receives `edits/` and `parts/`, which several runs may share; and, while fits are
            made, the activations of their training questions (of TruthfulQA on SmolLM2-135M about
            6 MB a question), so that no process holds them in memory.
        name: of a folder within it for the run's own files, for several runs in one folder:
            `run.json` (the description, fingerprints of data, model and texts, and the plan), and
            in the end `results.parquet`, `sweep.parquet` where there are several multiples,
            `alone.parquet` (of multiple choice, what answers' words and lengths say without the
            question), `comparison.parquet` where there is something to compare with, `summary.md`
            and `manifest.json` (all of `run.json`, what failed, and the versions and commits that
            the parts were made with).
        model: the model, if it is loaded already; the work is then done here.
        executor: where to work: anything with `submit`, such as a Dask client's `get_executor()`.
        workers: otherwise how many processes; 1 works here.
        threads: of each process; by default the cores are shared out.
        progress: show a bar over the whole run.

    Returns:
        The whole table, as `evaluate` gives it; `attrs["limits"]` where judges have limits.

    Raises:
        WorkbenchError: a folder of another run, a part that cannot be read (the file is named), or
            workers that die.

    Example:
        >>> import json
        >>> from dataclasses import asdict
        >>> from pathlib import Path
        >>> few = [json.dumps(asdict(question)) for question in questions.choose(range(4))]
        >>> _ = Path("few.jsonl").write_text("\n".join(few))
        >>> config = wb.runs.RunConfig(
        ...     data={"truthfulness": "few.jsonl"}, methods={"no edit": {"kind": "none"}}
        ... )
        >>> table = wb.runs.run(config, "run", model=model, progress=False)
        >>> sorted(path.name for path in Path("run").iterdir())
        ['alone.parquet', 'manifest.json', 'parts', 'results.parquet', 'run.json', 'summary.md']
    """
    _require_processes(executor)
    storage.require_plain_name(name, "a run")
    place = storage.make_folder(folder)
    own = storage.make_folder(place / name)
    work = Work(config, model, progress=progress)
    identity = work.identity
    pieces = work.pieces()
    present = {piece.key for piece in pieces if (place / "parts" / piece.file).exists()}
    plan = require_same_run(own, identity, planned(pieces, present, config.together))
    _require_no_fewer(own, config)
    made = {(capability, one.number) for capability in config.capabilities
            for one in work.made(capability)}  # fmt: skip
    groups = [
        now
        for group in groups_of(plan, pieces, place, own)
        if (now := tuple(piece for piece in group if (piece.capability, piece.number) in made))
    ]
    pieces = [piece for piece in pieces if (piece.capability, piece.number) in made]

    def job(**what: Any) -> Job:
        return Job(config, digest(identity), str(place), **what)

    def carried_out(jobs: Sequence[Job]) -> Iterator[tuple[Job, dict[str, str]]]:
        if executor is not None:
            return carry_out(do, jobs, executor, _lost)
        most = min(workers, len(together) + groups_left)
        if most > 1 and model is None:
            return carry_out_in_processes(do, jobs, most, threads, lost=_lost)
        return carry_out(work.do, jobs)

    fits = missing_fits(work, groups, place)
    together = fits_together(work, fits)
    todo = [(group, needed_fits(work, group)) for group in groups if unfinished(group, place)]
    groups_left = len(todo)
    failed: dict[str, str] = {}
    total = len(fits) + sum(len(unfinished(group, place)) for group, _ in todo)
    with (
        tqdm(total=total, desc="fits and pieces", disable=not progress) as bar,
        ExitStack() as held,
    ):
        captures = str(held.enter_context(storage.scratch_of_this_process(own, "captures")))
        jobs = [job(fits=one, captures=captures) for one in together]
        unfitted = {fit.key for fit in fits}

        def release() -> None:
            """Give out the groups whose fits have all been made, or have failed."""
            if not unfitted:
                held.close()
            for one in [one for one in todo if not one[1] & unfitted]:
                todo.remove(one)
                group = one[0]
                ready = tuple(p for p in group if not failed_fits(work, p, failed))
                failed.update(
                    {p.key: failed_fits(work, p, failed) for p in group if p not in ready}
                )
                bar.update(len(group) - len(ready))
                if ready:
                    jobs.append(job(pieces=ready))

        release()
        for done, errors in carried_out(jobs):
            failed |= errors
            unfitted -= {fit.key for fit in done.fits}
            bar.update(len(done.fits) + len(done.pieces))
            release()
    missing = {piece: failed[piece.key] for piece in pieces if piece.key in failed}
    files = {p: place / "parts" / p.file for p in pieces if p not in missing}
    parts = {
        p: work.told_of_refit(read_part(storage.awaited(file), p), p.capability, p.number)
        for p, file in files.items()
    }
    _finish(own, parts, missing, work)
    return _finished(own, missing)


def _require_processes(executor: Any) -> None:
    if isinstance(executor, ThreadPoolExecutor):
        raise WorkbenchError(
            "an executor of threads", "one of processes, such as ProcessPoolExecutor, or workers=",
            "Threads would share one model, whose hooks are of one thread at a time.",
        )  # fmt: skip


def _require_no_fewer(own: Path, config: RunConfig) -> None:
    """Refuse to tell of fewer refits where more were told of: their tables would be lost."""
    manifest = own / "manifest.json"
    if not manifest.exists() or not (own / "results.parquet").exists():
        return
    before = storage.read_json(manifest).get("shown", {}).get("refits_now") or config.refits
    if before > config.refits_made:
        raise WorkbenchError(
            f"refits_now={config.refits_made} in a folder whose tables are of {before}",
            f"refits_now={before} or more" if before < config.refits else "all of them",
            "The first refits alone are table[table.refit < n] of results.parquet; another name= "
            "makes tables of its own.",
        )


def _lost(job: Job, error: Exception) -> dict[str, str]:
    """Errors by key of a job whose worker died."""
    keys = [fit.key for fit in job.fits] + [piece.key for piece in job.pieces]
    return dict.fromkeys(keys, f"{type(error).__name__}: {error}")


def _finished(folder: Path, missing: Mapping[Piece, str]) -> pd.DataFrame:
    if missing:
        piece, error = next(iter(missing.items()))
        warnings.warn(
            f"{len(missing)} pieces failed (first: {piece.method}, {piece.capability}, fold "
            f"{piece.number}: {error}); see {folder / 'manifest.json'}",
            stacklevel=3,
        )
    return storage.read_table(folder / "results.parquet")


def _limits(work: Work, table: pd.DataFrame) -> dict[str, dict[str, str]]:
    """By capability, what judges cannot tell, and which of them told nothing apart."""
    found = {}
    for capability in work.config.capabilities:
        judges = judges_for(work.splits[capability][0], work.judges)
        constant = constancy(table, capability, judges)
        found[capability] = both_limits(work.limits.get(capability, {}), constant)
    return {capability: own for capability, own in found.items() if own}


def _finish(
    folder: Path,
    parts: Mapping[Piece, pd.DataFrame],
    missing: Mapping[Piece, str],
    work: Work,
) -> None:
    """Write what is derived from all parts."""
    config = work.config
    made_with = [part.attrs["made with"] for part in parts.values()]
    failures = [
        {"method": p.method, "capability": p.capability, "fold": p.number, "error": error}
        for p, error in missing.items()
    ]
    if not parts:
        raise WorkbenchError(
            f"{len(failures)} pieces that all failed (first: {failures[0]})", "at least one result"
        )
    sweep = pd.concat(parts.values(), ignore_index=True)
    sweep.attrs = {}
    table = sweep[sweep["multiple"] == 1.0].drop(columns="multiple").reset_index(drop=True)
    limits = _limits(work, table)
    if limits:
        table.attrs["limits"] = limits
    for derived in ("sweep.parquet", "comparison.parquet", ALONE):
        (folder / derived).unlink(missing_ok=True)  # an earlier one may have had more
    storage.write_table(folder / "results.parquet", table)
    if len(config.multiples) > 1:
        storage.write_table(folder / "sweep.parquet", sweep)
    compared = None
    whole = table[~table["method"].isin([piece.method for piece in missing])]
    if config.against in set(whole["method"]) and len(set(whole["method"])) > 1:
        compared = compare(whole, str(config.against), primary=config.primary, seed=config.seed)
        storage.write_table(folder / "comparison.parquet", compared)
    found = summary(table, seed=config.seed)
    alone = work.alone()
    if alone is not None:
        alone = alone[alone["metric"].isin(set(table["metric"]))]
        storage.write_table(folder / ALONE, alone)
        found = pd.concat([found, summary(alone, seed=config.seed)], ignore_index=True)
    text = as_markdown(
        found, compared, config.metrics, failures, limits, config.refits_made, config.refits
    )
    storage.write_text(folder / "summary.md", text)
    storage.write_json(
        folder / "manifest.json",
        {
            "seed": config.seed,
            "run": work.identity,
            "shown": {key: getattr(config, key) for key in SHOWN},
            "made with": [e for n, e in enumerate(made_with) if e not in made_with[:n]],
            "failed": failures,
            "limits": limits,
            "edits": work.edits_of(parts),
            "results": storage.fingerprint(folder / "results.parquet"),
            "sweep": digest([sweep.to_json(orient="split", double_precision=15)]),
        },
    )
