"""How a run is, seen from outside: its progress, its log, and its end if nobody was left to say."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from kaptain_zen.platform.local import reasons
from kaptain_zen.platform.local.pids import alive, boot_id, kill_session
from kaptain_zen.platform.local.runs import Progress, RunFolder
from kaptain_zen.platform.local.watch import FolderWatch

_CHUNK = 1 << 20


def current(folder: RunFolder) -> Progress | None:
    """How far a run is; None as long as it has not started.

    A run that nobody looks after any more is brought to its end here: what is left of its workers
    is killed, and that it failed is written down.
    """
    progress = folder.progress()
    if (progress is not None and progress.final) or not _abandoned(folder, progress):
        return progress
    # Its supervisor may have written the end between the two looks.
    progress = folder.progress()
    if progress is not None and progress.final:
        return progress
    return _settle(folder, progress)


def watched(folder: RunFolder) -> FolderWatch:
    """Notice whatever happens to a run, even that its supervisor dies."""
    return FolderWatch(folder.path, lock=folder.lock.name)


def _abandoned(folder: RunFolder, progress: Progress | None) -> bool:
    """Whether nobody is responsible for a run whose end is not written down."""
    if progress is not None and progress.supervisor is not None:
        here = progress.boot == boot_id()
        return not (here and alive(progress.supervisor.pid, progress.supervisor.started))
    lock = folder.take_over()
    if lock is None:
        return False
    os.close(lock)
    return True


def _settle(folder: RunFolder, progress: Progress | None) -> Progress:
    known = progress or Progress()
    if known.boot == boot_id():
        for worker in known.workers.values():
            kill_session(worker.pid, since=worker.started)
    started = progress is not None
    if folder.asked_to_stop:
        end = known.ended("cancelled", "It was cancelled.")
    else:
        end = known.ended("failed", reasons.supervisor_gone(started))
    # The run may have been deleted; whoever asked wants an answer all the same.
    with suppress(OSError):
        folder.write_progress(end)
    return end


def signal_supervisor(progress: Progress, number: signal.Signals) -> None:
    """Send a signal to a run's supervisor, unless it has ended."""
    supervisor = progress.supervisor
    if (
        supervisor is not None
        and progress.boot == boot_id()
        and alive(supervisor.pid, supervisor.started)
    ):
        with suppress(ProcessLookupError):
            os.kill(supervisor.pid, number)


@dataclass
class LogReader:
    """Reads a run's log from where it stopped the last time.

    Attributes:
        folder: The run's folder.
    """

    folder: RunFolder
    _offset: int = 0
    _rest: bytes = b""

    def lines(self, *, last: bool = False) -> Iterator[tuple[str, str]]:
        """Lines that were added since the last call.

        Args:
            last: Whether the run has ended, so that half a line at the end is all there will be.

        Yields:
            Worker and text.
        """
        try:
            file = self.folder.log.open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(self._offset)
            while data := file.read(_CHUNK):
                self._offset += len(data)
                *complete, self._rest = (self._rest + data).split(b"\n")
                for line in complete:
                    yield _parsed(line)
        if last and self._rest:
            rest, self._rest = self._rest, b""
            yield _parsed(rest)


def _parsed(line: bytes) -> tuple[str, str]:
    source, _, text = line.decode("utf-8", "replace").partition("\t")
    return source, text
