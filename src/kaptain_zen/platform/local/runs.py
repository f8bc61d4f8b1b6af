"""The folder of one run: what is to be done, how far it is, what was printed.

    run.json       the plan, written once, before anybody can see the folder
    lock           held (`flock`) by whoever is responsible for the run: first the client that
                   submits it, then its supervisor; free means that nobody is
    claimed        made by the supervisor, so that there is never a second one
    cancel         made by whoever wants the run to stop
    status.json    replaced by the supervisor at every change
    log            what the workers printed, a line each: `worker-0<TAB>text`
    worker-<n>/    working folder of a worker

Standard library only: the supervisor loads this, and must start within milliseconds. Nothing secret
is ever in a plan; it names the environment variables that hold secrets.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from kaptain_zen.platform.local.home import read_json, write_json
from kaptain_zen.platform.local.pids import boot_id, started

Rendezvous = Literal["none", "pytorch", "tensorflow"]
State = Literal["running", "succeeded", "failed", "cancelled"]


def now() -> str:
    """This moment, as it is written down."""
    return datetime.now(UTC).isoformat()


def worker_name(rank: int) -> str:
    """How a worker is called in logs and exit codes."""
    return f"worker-{rank}"


@dataclass(frozen=True)
class Plan:
    """Everything that a supervisor needs but the environment.

    Attributes:
        name: Of the run.
        uid: Tells it from an earlier run of the same name.
        submitted_at: When.
        python: The interpreter.
        script: The main file, relative to a worker's folder.
        arguments: Of the script.
        import_path: Folder that the script may import from, besides its own.
        workers: How many.
        rendezvous: How they find each other.
        upload_uri: Where the model goes.
        timeout: Seconds for the whole run.
        cpus: CPUs per worker.
        memory: Bytes of data per worker.
        secrets: Names of the environment variables whose values must not be written down.
        annotation: The model's record.
        labels: As in the request.
    """

    name: str
    uid: str
    submitted_at: str
    python: str
    script: str
    arguments: tuple[str, ...]
    import_path: str
    workers: int
    rendezvous: Rendezvous
    upload_uri: str
    timeout: float | None = None
    cpus: int | None = None
    memory: int | None = None
    secrets: tuple[str, ...] = ()
    annotation: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    kind: str = "train"


@dataclass(frozen=True)
class Process:
    """A process of a run.

    Attributes:
        pid: Its id.
        started: What tells it from a later one of the same id.
    """

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> Process:
        """Refer to a process that runs now, or is a zombie."""
        return cls(pid, started(pid))


@dataclass(frozen=True)
class Progress:
    """How far a run is, in its supervisor's words.

    Attributes:
        state: Where it is in its life.
        reason: Why it failed or was cancelled.
        supervisor: Who writes this.
        workers: Those that were started, by name.
        exit_codes: Of those that ended; negative for signals.
        started_at: When the first worker started.
        ended_at: When the run ended.
        start: Whether the workers are fresh interpreters or forks of one.
        boot: The start of the machine that the processes belong to.
    """

    state: State = "running"
    reason: str = ""
    supervisor: Process | None = None
    workers: Mapping[str, Process] = field(default_factory=dict)
    exit_codes: Mapping[str, int] = field(default_factory=dict)
    started_at: str | None = None
    ended_at: str | None = None
    start: Literal["exec", "fork"] = "exec"
    boot: str = field(default_factory=boot_id)

    @property
    def final(self) -> bool:
        """Whether it will not change any more."""
        return self.state != "running"

    def ended(self, state: State, reason: str = "") -> Progress:
        """The last one."""
        return replace(self, state=state, reason=reason, ended_at=now())


@dataclass(frozen=True)
class RunFolder:
    """One run's folder.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def log(self) -> Path:
        """What the workers printed."""
        return self.path / "log"

    @property
    def lock(self) -> Path:
        """What whoever is responsible for the run holds."""
        return self.path / "lock"

    def worker(self, rank: int) -> Path:
        """Working folder of a worker."""
        return self.path / worker_name(rank)

    def write_plan(self, plan: Plan) -> None:
        """Write the plan."""
        write_json(self.path / "run.json", asdict(plan))

    def plan(self) -> Plan | None:
        """The plan; None when there is none, as when the run was deleted, or is no training."""
        values = _read(self.path / "run.json", Plan)
        if values is None or values.get("kind") != "train":
            return None
        for key in ("arguments", "secrets"):
            values[key] = tuple(values.get(key, ()))
        with suppress(TypeError):  # of another version, or edited by hand
            return Plan(**values)
        return None

    def write_progress(self, progress: Progress) -> None:
        """Replace the progress."""
        write_json(self.path / "status.json", asdict(progress))

    def progress(self) -> Progress | None:
        """The progress; None as long as no supervisor has reported."""
        values = _read(self.path / "status.json", Progress)
        if values is None:
            return None
        supervisor = values.get("supervisor")
        values["supervisor"] = Process(**supervisor) if supervisor else None
        workers = values.get("workers", {})
        values["workers"] = {name: Process(**process) for name, process in workers.items()}
        return Progress(**values)

    def claim(self) -> bool:
        """Become the one supervisor of this run; False when there was one already."""
        try:
            os.close(os.open(self.path / "claimed", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return False
        return True

    def ask_to_stop(self) -> None:
        """Leave the wish that the run stops."""
        with suppress(FileNotFoundError):
            (self.path / "cancel").touch(mode=0o600)

    @property
    def asked_to_stop(self) -> bool:
        """Whether somebody wants the run to stop."""
        return (self.path / "cancel").exists()

    def make_lock(self) -> int:
        """Make the lock and hold it; whoever inherits the descriptor holds it too.

        Returns:
            The descriptor.
        """
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return descriptor

    def owns(self, descriptor: int) -> bool:
        """Whether a lock's descriptor belongs to this folder, not to a deleted one of its name."""
        try:
            return os.path.samestat(os.fstat(descriptor), self.lock.stat())
        except FileNotFoundError:
            return False

    def take_over(self) -> int | None:
        """Take the lock of a run that nobody is responsible for.

        Returns:
            The descriptor, to be closed; None when somebody is responsible, or the run is gone.
        """
        # Opened for reading: closing a file that was open for writing would wake those who watch
        # the folder for exactly that.
        try:
            descriptor = os.open(self.lock, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor


def _read(path: Path, kind: type[Any]) -> dict[str, Any] | None:
    """What a file says of the fields of a kind; None when it says nothing."""
    try:
        data = read_json(path)
    except ValueError:
        return None  # the machine lost power while it was written
    if not isinstance(data, dict):
        return None
    return {key: value for key, value in data.items() if key in kind.__dataclass_fields__}
