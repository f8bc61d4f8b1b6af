"""What is on disk of a service, and who may change it.

    <home>/services/<name>.lock           held while the service is changed
    <home>/services/<name>/service.json   what is deployed, and the processes that serve it
                          /journal.json   processes that were started and are not in there yet
                          /router/        the router's token and log
                          /revisions/<revision>/   files, settings and log of one revision

The record in `service.json` is the truth about what is deployed. A journal that nobody holds the
lock for was left by a client that was killed.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from kaptain_zen.exceptions import RecordFormatError, WorkloadTimeoutError
from kaptain_zen.model.base import Frozen
from kaptain_zen.model.names import slug
from kaptain_zen.model.record import ANNOTATION, ModelRecord
from kaptain_zen.platform.local.home import LocalHome, read_json, write_atomically, write_json
from kaptain_zen.platform.local.processes import ProcessRef

_LOCK_POLL = 0.03


class ServerProcess(Frozen):
    """The MLServer of one revision."""

    revision: str
    ref: ProcessRef
    port: int


class RouterProcess(Frozen):
    """The router."""

    ref: ProcessRef
    port: int


class ServiceState(Frozen):
    """What `service.json` holds.

    Attributes:
        schema_version: Of this format.
        model_id: Whose service it is.
        resource_version: New at every change.
        annotations: The model's record, under `record.ANNOTATION`.
        router: The router's process, or the last one; its port is kept for ever.
        servers: The revisions' processes, or the last ones.
        retiring: Processes that get no new requests and are about to be stopped.
        stopped: Whether the service was stopped on purpose.
    """

    schema_version: Literal[1] = 1
    model_id: str
    resource_version: str
    annotations: dict[str, str]
    router: RouterProcess
    servers: tuple[ServerProcess, ...] = ()
    retiring: tuple[ServerProcess, ...] = ()
    stopped: bool = False

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self.router.port}"

    def record(self, where: Path) -> ModelRecord:
        """The record in the annotation.

        Raises:
            RecordFormatError: There is none, or it cannot be read.
        """
        text = self.annotations.get(ANNOTATION)
        if text is None:
            raise RecordFormatError(
                f"{where} has no annotation {ANNOTATION}. It was left as it is; repair or remove "
                f"it by hand."
            )
        return ModelRecord.from_json(text, where=str(where))


class Journal(Frozen):
    """Processes that a change under way has started."""

    started: tuple[ProcessRef, ...] = Field(default=())


@dataclass(frozen=True)
class ServiceFolder:
    """The folder of one service.

    Attributes:
        home: The local platform's folder.
        name: Of the service.
    """

    home: LocalHome
    name: str

    @classmethod
    def of(cls, home: LocalHome, model_id: str) -> ServiceFolder:
        """The folder of a model's service, whether it exists or not."""
        return cls(home, slug(model_id))

    @property
    def path(self) -> Path:
        """The folder."""
        return self.home.services / self.name

    @property
    def file(self) -> Path:
        """`service.json`."""
        return self.path / "service.json"

    @property
    def router(self) -> Path:
        """The router's folder."""
        return self.path / "router"

    @property
    def router_log(self) -> Path:
        """What the router printed."""
        return self.router / "router.log"

    @property
    def revisions(self) -> Path:
        """Folder of the revisions' folders."""
        return self.path / "revisions"

    def revision(self, revision: str) -> Path:
        """One revision's folder."""
        return self.revisions / revision

    def log(self, revision: str) -> Path:
        """What a revision's server printed."""
        return self.revision(revision) / "server.log"

    def read(self) -> ServiceState | None:
        """Read the state; None if there is no service.

        Raises:
            RecordFormatError: It cannot be read.
        """
        try:
            data = read_json(self.file)
            return None if data is None else ServiceState.model_validate(data)
        except (ValueError, ValidationError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise RecordFormatError(
                f"The state of service {self.name!r} in {self.file} cannot be read: {reason}. It "
                f"was left as it is; repair or remove it by hand."
            ) from error

    def write(self, state: ServiceState) -> None:
        """Replace the state in one step."""
        write_atomically(self.file, state.model_dump_json(indent=1).encode())

    @property
    def unsettled(self) -> bool:
        """Whether a change is under way, or was broken off."""
        return self._journal.exists()

    def journal(self) -> Journal:
        """What a change has started; a broken journal counts as an empty one."""
        with suppress(ValueError, ValidationError):
            return Journal.model_validate(read_json(self._journal) or {})
        return Journal()

    def note(self, *started: ProcessRef) -> None:
        """Write down that processes were started, before they are told to do anything."""
        self.home.ensure(self.path)
        write_json(self._journal, Journal(started=started).model_dump(mode="json"))

    def settle(self) -> None:
        """The change is complete: forget the journal."""
        self._journal.unlink(missing_ok=True)

    @property
    def _journal(self) -> Path:
        return self.path / "journal.json"

    def token(self) -> str:
        """The secret that the router's owner knows it by; made when there is none."""
        file = self.router / "token"
        with suppress(FileNotFoundError):
            return file.read_text(encoding="ascii")
        self.home.ensure(self.router)
        # mkstemp, which this uses, makes files that only their owner can read.
        write_atomically(file, secrets.token_urlsafe(32).encode())
        return file.read_text(encoding="ascii")

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        # What marks it as a service goes first, so that half of a folder is not taken for one.
        self.file.unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)

    def remove_revisions(self, *, keep: set[str]) -> None:
        """Remove the folders of all other revisions."""
        with suppress(FileNotFoundError):
            for folder in self.revisions.iterdir():
                if folder.name not in keep:
                    shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def changing(self, *, timeout: float) -> Iterator[None]:
        """Hold the service for the length of a block: nobody else changes it meanwhile.

        Args:
            timeout: Seconds to wait for somebody else to finish.

        Raises:
            WorkloadTimeoutError: Somebody else did not.
        """
        self.home.ensure(self.home.services)
        deadline = time.monotonic() + timeout
        while (descriptor := self._try_lock()) is None:
            if time.monotonic() >= deadline:
                raise WorkloadTimeoutError(
                    f"Another process is changing service {self.name!r} and did not finish within "
                    f"{timeout:g} s. Try again, or find it with: fuser {self._lock}"
                )
            # The kernel's locks can be waited for, but not with a deadline.
            time.sleep(_LOCK_POLL)
        try:
            yield
        finally:
            if not self.path.exists():
                self._lock.unlink(missing_ok=True)
            os.close(descriptor)

    @property
    def _lock(self) -> Path:
        return self.home.services / f"{self.name}.lock"

    def _try_lock(self) -> int | None:
        """The lock's descriptor, or None while somebody else has it."""
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever removed the service removed the file that was just locked.
            current = self._lock.stat()
            if os.path.samestat(current, os.fstat(descriptor)):
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(descriptor)
        return None


def new_version() -> str:
    """A resource version that no service had before."""
    return uuid.uuid4().hex


def names(home: LocalHome) -> list[str]:
    """Of all services that there may be."""
    with suppress(FileNotFoundError):
        return sorted(path.name for path in home.services.iterdir() if path.is_dir())
    return []
