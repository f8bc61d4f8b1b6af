"""When a process started, by a clock that nobody sets; what tells it from a later one of its id.

Standard library only on Linux: this is loaded by the processes that run trainings, which must start
within milliseconds.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def started(pid: int) -> float:
    """When a process started.

    The time of day at which a process started is computed from the boot time, which moves when the
    clock is set; Linux tells the ticks since boot themselves (proc(5), field 22 of `stat`).

    Args:
        pid: Process id.

    Returns:
        Ticks since boot on Linux, seconds since the epoch elsewhere.

    Raises:
        ProcessLookupError: There is no such process.
    """
    if not sys.platform.startswith("linux"):
        return _started_elsewhere(pid)
    try:
        return float(_stat(pid)[19])
    except FileNotFoundError:
        raise ProcessLookupError(f"process {pid} does not exist") from None


def _started_elsewhere(pid: int) -> float:
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        raise ProcessLookupError(f"process {pid} does not exist") from None


def _stat(pid: int) -> list[bytes]:
    """The fields of proc(5) `stat` after the command's name, which may hold anything."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()


@cache
def boot_id() -> str:
    """Tells one start of the machine from the next; blank where the system has no such thing."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def alive(pid: int, since: float) -> bool:
    """Whether a process that started then still runs; a zombie does not."""
    try:
        if started(pid) != since:
            return False
        return not sys.platform.startswith("linux") or _stat(pid)[0] not in (b"Z", b"X")
    except OSError:
        return False


def kill_session(leader: int, *, since: float = 0.0) -> None:
    """Kill a process that leads a session, its process group, and all else in the session.

    Args:
        leader: Its process id, which is also the id of the group and of the session. They are left
            alone when the id belongs to another process by now.
        since: When it started.
    """
    with suppress(ProcessLookupError):
        if since and started(leader) != since:
            return
    for pid in of_session(leader):
        with suppress(ProcessLookupError, PermissionError):
            if started(pid) >= since:
                os.kill(pid, signal.SIGKILL)
    if not sys.platform.startswith("linux"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)


def kill_descendants(patience: float) -> None:
    """Kill and reap whatever is below this process, however far it got away.

    Args:
        patience: Seconds for that at most: what belongs to another user, or waits for a broken
            disk, cannot be killed.
    """
    give_up_at = time.monotonic() + patience
    while (below := descendants(os.getpid())) and time.monotonic() < give_up_at:
        for pid in below:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        # Nothing tells when a grandchild is gone; it is a matter of microseconds.
        time.sleep(0.001)


def descendants(pid: int) -> set[int]:
    """Processes below a process, without it; empty where there is no /proc."""
    parents = {child: int(fields[1]) for child, fields in _all()}
    found: set[int] = set()
    wanted = {pid}
    while wanted:
        wanted = {child for child, parent in parents.items() if parent in wanted} - found
        found |= wanted
    return found


def of_session(session: int) -> set[int]:
    """Processes of a session, zombies left out; empty where there is no /proc."""
    return {
        pid for pid, fields in _all() if int(fields[3]) == session and fields[0] not in (b"Z", b"X")
    }


def _all() -> list[tuple[int, list[bytes]]]:
    found = []
    with suppress(FileNotFoundError):
        for name in os.listdir("/proc"):  # noqa: PTH208 - names, a hundred times a second at worst
            if name.isdigit():
                with suppress(OSError):
                    found.append((int(name), _stat(int(name))))
    return found
