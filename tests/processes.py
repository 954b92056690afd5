"""Processes that tests start and kill, and jobs that die in them; nothing heavy is imported."""

import os
import signal
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

SECONDS = 600
"""After which a process that does not do what is waited for is called stuck."""


def forked(work: Callable[..., object], *given: object) -> int:
    """A copy of this process that does some work and ends; what is loaded here is loaded there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads that the work never uses
        number = os.fork()
    if number:
        return number
    status = 1
    try:
        os.setsid()
        status = int(work(*given) or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def ended(number: int) -> int:
    """A forked process' exit status, negative the signal that killed it, as of `subprocess`."""
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def kill_self() -> None:
    """Die at once, without a word to anyone."""
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for(holds: Callable[[], object], what: str, process: int | None = None) -> None:
    """Until something holds, which a forked process is to bring about."""
    until = time.monotonic() + SECONDS
    while not holds():
        assert process is None or os.waitpid(process, os.WNOHANG) == (0, 0), f"{what}: it ended"
        assert time.monotonic() < until, f"{what}: not after {SECONDS} s"
        time.sleep(0.02)


def die_writing(what: str, number: int, moment: str) -> None:
    """Let this process die at its nth table or folder.

    Args:
        what: the function of `storage` that writes it, `write_table` or `whole_folder`.
        number: which one, from 1.
        moment: `before` it, when `half` of it is written, or `after` it.
    """
    from workbench import storage

    original, written = getattr(storage, what), []

    def write(path, *table):
        written.append(path)
        if len(written) < number:
            return original(path, *table)
        if moment == "half" and what == "write_table":
            with storage.replacing(path) as temporary:
                temporary.write_bytes(b"half a ta")
                kill_self()
        if moment == "half":
            with original(path) as folder:
                (folder / "edit.json").write_text("{half")
                kill_self()
        if moment == "after":
            original(path, *table)
        return kill_self()

    setattr(storage, what, write)


def dies_once(job: str) -> int:
    """How often this job was run; at first it kills its process, and one called `never` always."""
    place = Path(job)
    runs = 1 + (len(place.read_text()) if place.exists() else 0)
    place.write_text("x" * runs)
    if runs == 1 or place.name == "never":
        kill_self()
    return runs


def dies(_job: str) -> None:
    """A job that kills its process."""
    kill_self()


def tells_its_number(place: str) -> None:
    """A job that writes down its process and never ends."""
    Path(f"{place}.new").write_text(str(os.getpid()))
    Path(f"{place}.new").replace(place)
    time.sleep(SECONDS)
