"""One command at a time: a file lock that the kernel lets go of when its holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from devcluster.errors import DevclusterError

_LOOK_AGAIN = 0.1


@contextmanager
def locked(
    path: Path, *, seconds: float = 0.0, waiting: Callable[[str], None] = lambda _: None
) -> Iterator[None]:
    """Hold a lock.

    Args:
        path: The lock's file; it and its folder are made if needed. The holder may delete them,
            as the last thing that it does: from then on, another may hold the lock.
        seconds: How long to wait for another holder.
        waiting: Told once, in words, whom this waits for.

    Raises:
        DevclusterError: Another process holds it for longer than that.
    """
    deadline = time.monotonic() + seconds
    told = False
    while (descriptor := _try(path)) is None:
        holder = _holder(path)
        if time.monotonic() >= deadline:
            raise DevclusterError(
                f"{holder} is at work on {path.parent}. Wait until it has ended, or end it."
            )
        if not told:
            waiting(f"waiting for {holder}, which is at work on {path.parent}")
            told = True
        # flock has no deadline of its own, short of a signal or a thread.
        time.sleep(_LOOK_AGAIN)
    try:
        yield
    finally:
        os.close(descriptor)


def _try(path: Path) -> int | None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:  # its folder was deleted again
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The last holder may have deleted the file while this one waited: then it locks nothing.
        if path.stat().st_ino == os.fstat(descriptor).st_ino:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _holder(path: Path) -> str:
    with suppress(OSError):
        if pid := path.read_text(encoding="ascii"):
            return f"process {pid}"
    return "another process"
