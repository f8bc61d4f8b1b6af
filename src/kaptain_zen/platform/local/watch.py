"""Waits for something to happen in a folder, without asking again and again where possible."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

_IN_MODIFY, _IN_CLOSE_WRITE, _IN_MOVED_TO = 0x2, 0x8, 0x80
_IN_CREATE, _IN_DELETE_SELF, _IN_MOVE_SELF = 0x100, 0x400, 0x800
_EVENTS = _IN_MODIFY | _IN_CLOSE_WRITE | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE_SELF | _IN_MOVE_SELF
_EVENT = struct.Struct("iIII")
_LOOK_AGAIN = 1.0
_NEXT_LOOK, _LOOKS = 0.01, 50
"""A process that dies closes its files a moment before it is seen to be dead."""
_POLL = 0.05


class FolderWatch:
    """Notices that a file of a folder was changed, replaced, or let go of by its last writer.

    The last is what tells that a process died: a file that it held open for writing is closed by
    the kernel. Works by inotify. Where there is none (not Linux, or the user's watches are used up)
    `wait` returns after a short while, and the caller looks for itself.
    """

    def __init__(self, folder: Path, *, lock: str) -> None:
        """Begin to watch; what happens from now on is not missed.

        Args:
            folder: The folder.
            lock: Name of the file that somebody holds open for writing as long as he lives.
        """
        self._descriptor = _watch(folder)
        self._lock = lock
        self._looks = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def wait(self, timeout: float | None) -> None:
        """Wait until something happened since the last call.

        Args:
            timeout: Seconds at most. It may return earlier for no reason, and does so within a
                second: inotify does not tell what other machines do on a shared file system.
        """
        timeout = _LOOK_AGAIN if timeout is None else min(timeout, _LOOK_AGAIN)
        if self._descriptor is None:
            select.select([], [], [], min(timeout, _POLL))
            return
        if self._looks:
            self._looks -= 1
            timeout = min(timeout, _NEXT_LOOK)
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        if poll.poll(timeout * 1000):
            with suppress(BlockingIOError):
                if self._lock in _closed(os.read(self._descriptor, 1 << 16)):
                    self._looks = _LOOKS


def _closed(events: bytes) -> set[str]:
    """Names of the files that events (inotify(7)) say were closed after writing."""
    names = set()
    while events:
        _, mask, _, length = _EVENT.unpack_from(events)
        name = events[_EVENT.size : _EVENT.size + length].rstrip(b"\0")
        if mask & _IN_CLOSE_WRITE:
            names.add(os.fsdecode(name))
        events = events[_EVENT.size + length :]
    return names


def _watch(folder: Path) -> int | None:
    if not sys.platform.startswith("linux"):
        return None
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = int(libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        if descriptor >= 0:
            if libc.inotify_add_watch(descriptor, os.fsencode(folder), _EVENTS) >= 0:
                return descriptor
            os.close(descriptor)
    return None
