"""The folder of one search: what is to be searched, how far it is, who drives it.

    search.json    the request, written once
    journal.log    Optuna's storage: every trial that was asked for, and how it ended
    verdict.json   how the search ended, from the moment that this is known
    progress.json  what `status` says; derived from the others, replaced at every change
    stop           made by whoever wants the search to stop
    driver.lock    held (`flock`) by the process that drives the search

Nothing in it is secret.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from kaptain_zen.exceptions import ModelValidationException, RunNotFoundError
from kaptain_zen.model.base import Frozen
from kaptain_zen.model.names import MAX_NAME, is_name
from kaptain_zen.model.ports import TuneRequest, TuneStatus
from kaptain_zen.model.record import Moment, RunHandle
from kaptain_zen.platform.local.home import LocalHome, read_json, write_atomically
from kaptain_zen.platform.local.search_rules import Verdict, describe, total
from kaptain_zen.platform.local.watch import FolderWatch

BACKEND = "local"
KIND = "tune"
_LOCK = "driver.lock"
_TRACES = (_LOCK, "journal.log", "verdict.json", "progress.json", "stop")


class Search(Frozen):
    """A search as it was submitted.

    Attributes:
        uid: Tells it from an earlier one of the same name.
        submitted_at: When.
        request: What is searched.
    """

    uid: str
    submitted_at: Moment
    request: TuneRequest


class SearchFolder:
    """One search's folder.

    Attributes:
        path: The folder.
        handle: Of the search.
        search: The search.
    """

    def __init__(self, path: Path, handle: RunHandle, search: Search) -> None:
        self.path = path
        self.handle = handle
        self.search = search

    @classmethod
    def create(cls, home: LocalHome, request: TuneRequest) -> SearchFolder:
        """Write a search down; the one that was submitted under this name before is kept.

        Raises:
            ModelValidationException: The name is not legal, or a training has it.
            ConfigurationError: The home cannot be written to.
        """
        if not is_name(request.name):
            raise ModelValidationException(
                f"{request.name!r} cannot name a search: use lower-case letters, digits and "
                f"hyphens, beginning with a letter, {MAX_NAME} at most."
            )
        path = home.ensure(home.runs) / request.name
        if (path / "run.json").exists():
            raise ModelValidationException(
                f"There is a training of the name {request.name!r} already. Give the search "
                f"another name, or delete the training."
            )
        _clear_remains(path)
        home.ensure(path)
        search = Search(uid=uuid4().hex, submitted_at=datetime.now(UTC), request=request)
        descriptor, temporary = tempfile.mkstemp(dir=path, prefix=".search.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(search.model_dump_json().encode())
        # Of two who submit at the same time, one makes the link.
        with suppress(FileExistsError):
            os.link(temporary, path / "search.json")
        Path(temporary).unlink()
        return cls._read(home, path)

    @classmethod
    def open(cls, home: LocalHome, handle: RunHandle) -> SearchFolder:
        """Find a search.

        Raises:
            RunNotFoundError: There is none of this handle.
        """
        if (handle.backend, handle.kind, handle.namespace) != (BACKEND, KIND, str(home.root)):
            raise RunNotFoundError(
                f"{handle.name!r} is no search of the local platform in {home.root}: its backend "
                f"is {handle.backend!r}, its kind {handle.kind!r}, its place {handle.namespace}."
            )
        folder = cls._read(home, home.runs / handle.name)
        if handle.uid and folder.search.uid != handle.uid:
            raise RunNotFoundError(
                f"The search {handle.name!r} was deleted; another one has its name now."
            )
        return folder

    @staticmethod
    def clear(home: LocalHome, handle: RunHandle) -> None:
        """Remove what is left of a search whose removal was begun by a process that was killed."""
        if handle.namespace == str(home.root) and is_name(handle.name):
            _clear_remains(home.runs / handle.name)

    @classmethod
    def _read(cls, home: LocalHome, path: Path) -> SearchFolder:
        data = read_json(path / "search.json")
        if data is None:
            raise RunNotFoundError(f"There is no search {path.name!r} in {home.root}.")
        search = Search.model_validate(data)
        handle = RunHandle(
            backend=BACKEND, kind=KIND, namespace=str(home.root), name=path.name, uid=search.uid
        )
        return cls(path, handle, search)

    @property
    def request(self) -> TuneRequest:
        """What is searched."""
        return self.search.request

    @property
    def journal(self) -> Path:
        """Optuna's storage."""
        return self.path / "journal.log"

    @contextmanager
    def driving(self) -> Iterator[bool]:
        """Try to be the one process (and thread) that drives the search, for a block.

        Yields:
            Whether it is.

        Raises:
            RunNotFoundError: The search was deleted.
        """
        lock = self._try_lock()
        if lock is None:
            yield False
            return
        held = [lock]
        try:
            # Whoever watches the folder is woken when a file that was open for writing is closed,
            # be it by a kill. The lock comes first, so that it is free by then.
            held.append(self._open(os.O_RDWR))
            yield True
        finally:
            for descriptor in held:
                os.close(descriptor)

    def watch(self) -> FolderWatch:
        """Watch for changes of the search, and for the end of its driver."""
        return FolderWatch(self.path, lock=_LOCK)

    @property
    def idle(self) -> bool:
        """Whether nobody drives the search."""
        lock = self._try_lock()
        if lock is not None:
            os.close(lock)
        return lock is not None

    def _try_lock(self) -> int | None:
        lock = self._open(os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        if not self._exists():
            os.close(lock)
            raise self._gone()
        return lock

    def _open(self, mode: int) -> int:
        try:
            return os.open(self.path / _LOCK, mode | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise self._gone() from None

    def status(self) -> TuneStatus:
        """What was last known of it."""
        try:
            data = (self.path / "progress.json").read_bytes()
        except FileNotFoundError:
            return describe(
                self.handle,
                self.request,
                (),
                total=total(self.request),
                running=0,
                submitted_at=self.search.submitted_at,
            )
        status = TuneStatus.model_validate_json(data)
        return status.model_copy(update={"annotation": self.request.annotation})

    def write_status(self, status: TuneStatus) -> None:
        """Replace what is known of it."""
        # The annotation may be large, and is in the request.
        data = status.model_copy(update={"annotation": ""}).model_dump_json()
        write_atomically(self.path / "progress.json", data.encode())

    def verdict(self) -> Verdict | None:
        """How it ended; None when it goes on."""
        data = read_json(self.path / "verdict.json")
        return None if data is None else Verdict.model_validate(data)

    def write_verdict(self, verdict: Verdict) -> None:
        """Note down that it is over, so that whoever comes next only tidies up."""
        write_atomically(self.path / "verdict.json", verdict.model_dump_json().encode())

    def ask_to_stop(self) -> None:
        """Leave the wish that it stops."""
        with suppress(FileNotFoundError):
            (self.path / "stop").touch(mode=0o600)

    @property
    def asked_to_stop(self) -> bool:
        """Whether somebody wants it to stop."""
        return (self.path / "stop").exists()

    def remove(self) -> None:
        """Remove the folder, first of all what makes it a search, for fear of being killed."""
        with suppress(FileNotFoundError):
            (self.path / "search.json").unlink()
        _clear_remains(self.path)

    def _exists(self) -> bool:
        data = read_json(self.path / "search.json")
        return data is not None and data.get("uid") == self.search.uid

    def _gone(self) -> RunNotFoundError:
        return RunNotFoundError(f"The search {self.handle.name!r} was deleted.")


def _clear_remains(path: Path) -> None:
    """Remove what is left of a search whose removal was begun."""
    if not (path / "search.json").exists() and any((path / name).exists() for name in _TRACES):
        shutil.rmtree(path, ignore_errors=True)
