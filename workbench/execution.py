"""Execution: jobs on any executor, in this process or in others, as they finish.

Anything with `submit(function, *arguments)` will do whose futures have `done()` and `result()`:
`concurrent.futures`, Dask's `client.get_executor()`, submitit's executors on SLURM.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from workbench.errors import WorkbenchError

PATIENCE = 0.05
RESTARTS = 3


def carry_out(
    function: Callable[[Any], Any], jobs: Sequence[Any], executor: Any = None
) -> Iterator[tuple[Any, Any]]:
    """Run a function on every job.

    Args:
        function: importable by name, where the executor's workers are other processes.
        jobs: its arguments.
        executor: where to run; None runs them one after another, here.

    Yields:
        Every job and its result, as they finish.

    Raises:
        Exception: what the function raised, or the executor, whose worker may have died; jobs that
            have not begun are cancelled.
    """
    if executor is None:
        for job in jobs:
            yield job, function(job)
        return
    waiting = {}
    try:
        for job in jobs:
            waiting[executor.submit(function, job)] = job
        while waiting:
            finished = [future for future in waiting if future.done()]
            if not finished:
                time.sleep(PATIENCE)
            for future in finished:
                job = waiting.pop(future)
                yield job, future.result()
    finally:
        for future in waiting:
            future.cancel()


def carry_out_in_processes(
    function: Callable[[Any], Any], jobs: Sequence[Any], workers: int, threads: int | None = None
) -> Iterator[tuple[Any, Any]]:
    """The same in processes of one's own; a pool whose worker died is replaced, up to three times.

    Jobs that were running then are run again.

    Args:
        function: importable by name.
        jobs: its arguments.
        workers: how many processes.
        threads: of each; by default the cores are shared out.

    Raises:
        WorkbenchError: a worker died four times.
    """
    left = list(jobs)
    for attempt in range(RESTARTS + 1):
        try:
            with processes(min(workers, len(left)), threads) as pool:
                for job, result in carry_out(function, left, pool):
                    left.remove(job)
                    yield job, result
        except BrokenExecutor as error:
            if attempt == RESTARTS:
                raise WorkbenchError(
                    f"worker processes that died {attempt + 1} times, with {len(left)} jobs left",
                    "workers that live until their job is done",
                    "They were perhaps killed for want of memory: take fewer workers. What is "
                    "finished is kept; run the same again.",
                ) from error
        else:
            return


@contextmanager
def processes(workers: int, threads: int | None = None) -> Iterator[ProcessPoolExecutor]:
    """A pool of fresh processes that share out the cores.

    Args:
        workers: how many.
        threads: of each; by default the cores divided by the workers.
    """
    own = threads or max(1, (os.cpu_count() or 1) // workers)
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=limit_threads, initargs=(own,)
    )
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def limit_threads(count: int) -> None:
    """Let torch and the numerical libraries of a worker use so many threads.

    The worker also ends when its coordinator does, whatever killed that.
    """
    import torch
    from threadpoolctl import threadpool_limits

    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(count)
    threadpool_limits(count)


def _end_with(parent: int) -> None:
    """End this process when it has lost its parent."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
