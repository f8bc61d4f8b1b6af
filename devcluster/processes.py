"""Processes that outlive their starter: recorded before they run, and never mistaken for others.

A process id alone may belong to somebody else by the time it is used, so a `ProcessRef` holds the
start time and the start of the machine as well.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from devcluster.errors import DevclusterError

# The child waits for a line before it becomes the program. When the starter dies before it has
# recorded the child, the pipe closes and the child ends: there is never an unrecorded program.
# What the program writes is its owner's alone.
_HOLD = 'read -r _ && umask 077 && cd -- "$0" && exec "$@" </dev/null'
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LOOK_AGAIN = 0.02


@dataclass(frozen=True)
class ProcessRef:
    """A process in a session of its own.

    Attributes:
        pid: Process id, which is its group's as well.
        started: When it started: ticks since boot on Linux, seconds since the epoch elsewhere.
        boot: Tells one start of the machine from the next; blank where there is no such thing.
    """

    pid: int
    started: float
    boot: str

    @property
    def alive(self) -> bool:
        """Whether it runs; a zombie does not."""
        if self.boot != _boot():
            return False
        try:
            state, started = _look(self.pid)
        except ProcessLookupError:
            return False
        return started == self.started and state not in "ZX"

    def signal(self, number: int) -> None:
        """Send a signal to the process and its group, if it runs."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def stop(self, *, grace: float) -> None:
        """End it and its group: SIGTERM, and SIGKILL after the grace. Return when it has ended.

        Args:
            grace: Seconds that it gets to end by itself; none means SIGKILL at once.

        Raises:
            DevclusterError: It does not end.
        """
        if not self.alive:
            self._reap()
            return
        if grace > 0:
            self.signal(signal.SIGTERM)
            self.wait(grace)
        self.signal(signal.SIGKILL)
        if not self.wait(10.0):
            raise DevclusterError(f"Process {self.pid} does not end, even of SIGKILL.")
        self._reap()

    def wait(self, seconds: float) -> bool:
        """Wait until it has ended.

        Args:
            seconds: For how long.

        Returns:
            Whether it has.
        """
        deadline = time.monotonic() + seconds
        if hasattr(os, "pidfd_open"):
            with suppress(ProcessLookupError):
                descriptor = os.pidfd_open(self.pid)
                try:
                    poll = select.poll()
                    poll.register(descriptor, select.POLLIN)
                    # Looked at after the descriptor was opened: the id is not another's by then.
                    while self.alive and (left := deadline - time.monotonic()) > 0:
                        poll.poll(left * 1000)
                finally:
                    os.close(descriptor)
            return not self.alive
        while self.alive and time.monotonic() < deadline:
            # Only Linux tells of the end of a process that is not a child.
            time.sleep(_LOOK_AGAIN)
        return not self.alive

    def _reap(self) -> None:
        """Take leave of it if it is a child of this process."""
        with suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)


def spawn(
    arguments: Sequence[str],
    *,
    log: Path,
    folder: Path,
    environment: Mapping[str, str],
    record: Callable[[ProcessRef], None],
) -> ProcessRef:
    """Start a program that goes on when this process ends, whose output goes to a file.

    Args:
        arguments: The program's path and its arguments.
        log: Where its output is added.
        folder: Its working folder.
        environment: All of its environment.
        record: Writes down the process; called before the program runs.
    """
    reading, writing = os.pipe()
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    try:
        # Not a Popen: that wants to be waited for by whoever made it.
        pid = os.posix_spawn(
            "/bin/sh",
            ["/bin/sh", "-c", _HOLD, str(folder), *arguments],
            dict(environment),
            file_actions=[
                (os.POSIX_SPAWN_DUP2, reading, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            # Python ignores it, and an ignored signal stays ignored in the program.
            setsigdef=[signal.SIGPIPE],
        )
        ref = ProcessRef(pid, _look(pid)[1], _boot())
        record(ref)
        os.write(writing, b"\n")
    finally:
        os.close(reading)
        os.close(writing)
    return ref


def _look(pid: int) -> tuple[str, float]:
    """State and start of a process."""
    if not sys.platform.startswith("linux"):
        return _look_elsewhere(pid)
    try:
        # The command's name, in parentheses, may hold anything; see proc(5).
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"process {pid} does not exist") from None
    return fields[0].decode(), float(fields[19])


def _look_elsewhere(pid: int) -> tuple[str, float]:
    import psutil

    try:
        process = psutil.Process(pid)
        state = "Z" if process.status() == psutil.STATUS_ZOMBIE else "R"
        return state, float(process.create_time())
    except psutil.NoSuchProcess:
        raise ProcessLookupError(f"process {pid} does not exist") from None


def _boot() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
