"""From a fork of the supervisor to a worker: what happens before the script's first line.

There are two ways on from there: replace this process by a fresh interpreter (`exec`), or run the
script in this one, which has imported what the script imports already (`script.py`). All before
that is the same.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from kaptain_zen.platform.local import limits
from kaptain_zen.platform.local.reasons import NOT_STARTED

Continuation = Callable[[], "Continuation | None"]
"""What a forked process goes on with, once all frames of its parent are off the stack."""


@dataclass(frozen=True)
class Worker:
    """One worker, about to be made.

    Attributes:
        command: Interpreter, script and arguments.
        environment: All of its environment variables.
        folder: Its working folder.
        output: Descriptor that its standard output and error go to.
        memory: Bytes of data at most.
        cpus: CPUs that it may use.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    output: int
    memory: int | None
    cpus: Sequence[int] | None


def become(worker: Worker, *, parent: int) -> None:
    """Turn this fork of the supervisor into the worker, up to its descriptors.

    Args:
        worker: What to become.
        parent: The supervisor.
    """
    os.setsid()
    limits.die_with_parent(parent)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(worker.output, 1)
    os.dup2(worker.output, 2)
    os.chdir(worker.folder)
    limits.apply(memory=worker.memory, cpus=worker.cpus)


def execute(worker: Worker) -> NoReturn:
    """Replace this process by a fresh interpreter that runs the script."""
    reset_signals()
    close_others(keep=())
    os.execve(worker.command[0], list(worker.command), dict(worker.environment))  # noqa: S606
    raise AssertionError("execve returned")  # pragma: no cover


def give_up(error: BaseException) -> NoReturn:
    """End a process that could not become the worker; its output says why."""
    message = f"The worker could not be started: {error}\n".encode(errors="replace")
    with suppress(OSError):
        os.write(2, message)
    os._exit(NOT_STARTED)


def reset_signals() -> None:
    """Give all signals the meaning that they have in a fresh interpreter."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        # Some numbers belong to the C library.
        with suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def catch_children() -> int:
    """Turn signals into bytes on a pipe, and have the end of a child be a signal.

    Returns:
        The pipe's end to read from; it does not block.
    """
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return reading


def open_descriptors() -> set[int]:
    """Descriptors that this process has open."""
    listing = "/proc/self/fd" if sys.platform.startswith("linux") else "/dev/fd"
    found = {int(name) for name in os.listdir(listing)}  # noqa: PTH208 - numbers, not paths
    return {number for number in found if _is_open(number)}


def _is_open(number: int) -> bool:
    # The descriptor that listed the others is closed by now.
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def close_others(*, keep: Collection[int]) -> None:
    """Close all descriptors but the standard ones and some more."""
    for number in open_descriptors() - {0, 1, 2} - set(keep):
        with suppress(OSError):
            os.close(number)
