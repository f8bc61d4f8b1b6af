"""Processes that outlive whoever started them: recorded, found again, stopped, never confused.

A process id alone may belong to somebody else by the time it is used. A `ProcessRef` holds the time
at which the process was created as well, and everything here checks it.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Sequence
from contextlib import suppress

import psutil

from kaptain_zen.model.base import Frozen
from kaptain_zen.platform.local.pids import started


def _started(pid: int) -> float:
    """When a process started, see `pids.started`; its absence in psutil's words."""
    try:
        return started(pid)
    except ProcessLookupError:
        raise psutil.NoSuchProcess(pid) from None


class ProcessRef(Frozen):
    """A process of ours, in its own session.

    Attributes:
        pid: Process id, and id of its process group.
        started: When it started: ticks since boot on Linux, seconds since the epoch elsewhere.
    """

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> ProcessRef:
        """Refer to a process that runs now.

        Raises:
            psutil.NoSuchProcess: It does not.
        """
        return cls(pid=pid, started=_started(pid))

    def process(self) -> psutil.Process | None:
        """The process, or None when it has ended (a zombie has ended)."""
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            if _started(self.pid) == self.started and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process() is not None

    def stop(self, *, grace: float = 5.0) -> None:
        """End the process and everything in its group: SIGTERM, then SIGKILL after the grace.

        Args:
            grace: Seconds that it gets to end by itself.
        """
        process = self.process()
        members = group_members(self)
        if process is not None:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGTERM)
        for member in members:
            with suppress(psutil.NoSuchProcess):
                member.send_signal(signal.SIGTERM)
        watched = [p for p in (process, *members) if p is not None]
        left = _wait(watched, grace)
        # What was started during the grace is found by looking again.
        for member in {*left, *group_members(self)}:
            with suppress(psutil.NoSuchProcess):
                member.send_signal(signal.SIGKILL)
        _wait(left, grace)


def _wait(processes: Sequence[psutil.Process], timeout: float) -> list[psutil.Process]:
    """Wait until processes have ended.

    psutil waits until a process id is free, and the id of a zombie is not: a process whose parent
    is alive and does not look after it would be waited for in vain. A pidfd tells of the end itself
    (Linux).

    Args:
        processes: Which.
        timeout: Seconds for all of them.

    Returns:
        Those that have not ended.
    """
    if not hasattr(os, "pidfd_open"):
        return list(psutil.wait_procs(processes, timeout=timeout)[1])
    deadline = time.monotonic() + timeout
    left = []
    for process in processes:
        try:
            descriptor = os.pidfd_open(process.pid)
        except ProcessLookupError:
            continue
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                left.append(process)
                continue
        finally:
            os.close(descriptor)
        # Takes leave of a child of this process; of others there is nothing to take leave of.
        with suppress(psutil.Error):
            process.wait(0)
    return left


def group_members(ref: ProcessRef) -> list[psutil.Process]:
    """Processes of the group that a process of ours leads or led, without the leader itself.

    A group id is not given to a new process as long as the group has a member, so members that are
    younger than the leader are ours even when the leader is gone. When the leader's id belongs to
    another process by now, so does the group.
    """
    with suppress(psutil.NoSuchProcess):
        if _started(ref.pid) != ref.started:
            return []
    members = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError, PermissionError):
            if (
                process.pid != ref.pid
                and os.getpgid(process.pid) == ref.pid
                and _started(process.pid) >= ref.started
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                members.append(process)
    return members
