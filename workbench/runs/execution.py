"""Execution: jobs on any executor, in this process or in others, as they finish.

Anything with `submit(function, *arguments)` will do whose futures have `done()` and `result()`:
`concurrent.futures`, Dask's `client.get_executor()`, submitit's executors on SLURM.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from workbench.errors import WorkbenchError

PATIENCE = 0.05
IMPORTED_IN = os.getpid()
"""A fork of this process has another number."""
PRELOADED = ("torch", "pandas", "sklearn.linear_model", "workbench.models.preloaded")
"""What takes seconds to import: done once, in the process from which workers are forked."""


def carry_out(
    function: Callable[[Any], Any],
    jobs: Sequence[Any],
    executor: Any = None,
    lost: Callable[[Any, Exception], Any] | None = None,
) -> Iterator[tuple[Any, Any]]:
    """Run a function on every job.

    Args:
        function: importable by name, where the executor's workers are other processes.
        jobs: its arguments. What is appended while the results are taken is run too: jobs that
            others were needed for.
        executor: where to run; None runs them one after another, here.
        lost: the result of a job that the executor gave up (Dask after several dead workers, for
            example), from its error; by default that is raised.

    Yields:
        Every job and its result, as they finish.

    Raises:
        Exception: what the function raised, or the executor itself where it is broken; jobs that
            have not begun are cancelled.
    """
    if executor is None:
        for job in jobs:
            yield job, function(job)
        return
    waiting: dict[Any, Any] = {}
    begun = 0
    try:
        while waiting or begun < len(jobs):
            for job in jobs[begun:]:
                waiting[executor.submit(function, job)] = job
            begun = len(jobs)
            finished = [future for future in waiting if future.done()]
            if not finished:
                time.sleep(PATIENCE)
            for future in finished:
                job = waiting.pop(future)
                yield job, _result(future, job, lost)
    finally:
        for future in waiting:
            future.cancel()


def _result(future: Any, job: Any, lost: Callable[[Any, Exception], Any] | None) -> Any:
    try:
        return future.result()
    except Exception as error:
        connection = isinstance(error, ConnectionError | TimeoutError)
        disk = isinstance(error, OSError) and error.errno is not None and not connection
        if lost is None or disk or isinstance(error, WorkbenchError | BrokenExecutor):
            raise
        return lost(job, error)


def carry_out_in_processes(
    function: Callable[[Any], Any],
    jobs: Sequence[Any],
    workers: int,
    threads: int | None = None,
    *,
    lost: Callable[[Any, Exception], Any] | None = None,
) -> Iterator[tuple[Any, Any]]:
    """The same in processes of one's own; a pool whose worker died is replaced.

    The jobs that were running then are run again, each in a process of its own: two that had not
    enough memory together have it alone, and one that kills its worker again is known.

    Args:
        function: importable by name.
        jobs: its arguments; as of `carry_out` they may become more.
        workers: how many processes.
        threads: of each; by default the cores are shared out.
        lost: the result of a job that killed a process of its own; by default that is an error.

    Raises:
        WorkbenchError: a job killed a process of its own.
    """
    left, known = list(jobs), len(jobs)
    while left:
        given = list(left)
        try:
            with processes(workers, threads) as pool:
                for job, result in carry_out(function, given, pool, lost):
                    left.remove(job)
                    yield job, result
                    given += jobs[known:]
                    left += jobs[known:]
                    known = len(jobs)
        except BrokenExecutor:
            suspects = left[:workers]
        else:
            return
        for job in suspects:
            yield job, _alone(function, job, threads, lost)
            left.remove(job)
            left += jobs[known:]
            known = len(jobs)


def _alone(
    function: Callable[[Any], Any],
    job: Any,
    threads: int | None,
    lost: Callable[[Any, Exception], Any] | None,
) -> Any:
    """The result of a job in a process of its own."""
    try:
        with processes(1, threads) as pool:
            return next(carry_out(function, [job], pool, lost))[1]
    except BrokenExecutor as error:
        died = WorkbenchError(
            "a job that kills its worker process, by itself too",
            "workers that live until their job is done",
            "It was perhaps killed for want of memory. What is finished is kept; run the same "
            "again on a larger machine, or with smaller batches.",
        )
        if lost is None:
            raise died from error
        return lost(job, died)


@contextmanager
def processes(workers: int, threads: int | None = None) -> Iterator[ProcessPoolExecutor]:
    """A pool of fresh processes that share out the cores.

    Args:
        workers: how many.
        threads: of each; by default the cores divided by the workers.
    """
    own = threads or max(1, (os.cpu_count() or 1) // workers)
    start: Any = multiprocessing.get_context(_way_to_start())
    if start.get_start_method() == "forkserver":
        start.set_forkserver_preload(PRELOADED)
    pool = ProcessPoolExecutor(
        workers, start, initializer=begin_worker, initargs=(own, dict(os.environ))
    )
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _way_to_start() -> str:
    """Forked from a process that has imported and done nothing else, where that is safe."""
    import torch

    copied = os.getpid() != IMPORTED_IN  # a fork of ours, which has no such process of its own
    unsafe = copied or sys.platform != "linux" or torch.cuda.is_available()
    return "spawn" if unsafe else "forkserver"


def begin_worker(threads: int, environment: Mapping[str, str]) -> None:
    """Let torch and the numerical libraries of a worker use so many threads.

    The worker has the environment of its coordinator as it is now, and ends when it does, whatever
    killed it.
    """
    import torch
    from threadpoolctl import threadpool_limits

    threading.Thread(target=_end_with_coordinator, daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(threads)
    threadpool_limits(threads)


def _end_with_coordinator() -> None:
    """End this process when it has lost the one that made the pool.

    That is not its parent where it was forked from a server, which lives as long as it does.
    """
    coordinator = multiprocessing.parent_process()
    if coordinator is not None:
        coordinator.join()
        os._exit(1)
