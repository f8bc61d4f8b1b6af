"""Starting a server's processes: never two by accident, never one that nobody knows of.

A new process is a dependant of this one (see `control`): it ends when this one is killed. Only when
it answers, and is written down, is it freed.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from kaptain_zen.exceptions import WorkloadDeploymentError
from kaptain_zen.platform.local.control import ADOPT, CONTROL_FD, Channel
from kaptain_zen.platform.local.limits import thread_variables
from kaptain_zen.platform.local.mlserver_settings import Runtime
from kaptain_zen.platform.local.processes import ProcessRef

LAUNCHER = "kaptain_zen.platform.local.mlserver_launcher"
ROUTER = "kaptain_zen.platform.local.router"
ANSWER_TIMEOUT = 600.0
_TAIL_BYTES = 64 * 1024
_ABOVE_STANDARD = 10


class Child:
    """A process that has been started and not been freed yet.

    Attributes:
        ref: The process.
        channel: The line to it.
    """

    def __init__(self, ref: ProcessRef, channel: Channel) -> None:
        self.ref = ref
        self.channel = channel

    def adopt(self) -> None:
        """Free it: from here on it lives until it is stopped.

        Raises:
            WorkloadDeploymentError: It has ended.
        """
        freed = self.channel.send({ADOPT: True})
        self.channel.close()
        if not freed:
            raise WorkloadDeploymentError(f"Process {self.ref.pid} ended before it was needed.")

    def stop(self) -> None:
        """End it."""
        self.channel.close()
        # It ends by itself now; this waits, and helps where it does not.
        self.ref.stop()

    def ended(self) -> str:
        """How it ended, in words; it has ended, or is about to."""
        with suppress(psutil.Error):
            code = psutil.Process(self.ref.pid).wait(timeout=2)
            if code is not None and code < 0:
                return f"it was killed by {signal.Signals(-code).name}"
            return f"it ended with exit code {code}"
        return "it ended"


def start_launcher(
    runtime: Runtime, *, home: Path, threads: int, preload: Sequence[str] = ()
) -> Child:
    """Start a process that imports MLServer and waits to be told what to serve.

    Args:
        runtime: What it is to serve with.
        home: The local platform's folder.
        threads: How many threads BLAS and OpenMP get.
        preload: Modules that it imports besides.
    """
    return _start(
        LAUNCHER,
        "--runtime",
        runtime.module,
        *(f"--preload={module}" for module in preload),
        home=home,
        environment=thread_variables(threads),
        log=None,
    )


def start_router(
    folder: Path, *, home: Path, port: int, log: Path, answer_timeout: float = ANSWER_TIMEOUT
) -> Child:
    """Start a router.

    Args:
        folder: Where its token is.
        home: The local platform's folder.
        port: That it serves on; any if 0.
        log: What it prints goes here.
        answer_timeout: Seconds that a server may take to begin an answer.
    """
    return _start(
        ROUTER,
        "--folder",
        str(folder),
        "--port",
        str(port),
        "--answer-timeout",
        str(answer_timeout),
        home=home,
        environment={},
        log=log,
    )


def tail(log: Path, lines: int) -> list[str]:
    """The last lines of a log; none if there is no log."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            data = file.read()
    except FileNotFoundError:
        return []
    return data.decode("utf-8", "replace").splitlines()[-lines:] if lines else []


def _start(
    module: str, *options: str, home: Path, environment: dict[str, str], log: Path | None
) -> Child:
    ours, theirs = socket.socketpair()
    # Above the descriptors that it is given its place among.
    end = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, _ABOVE_STANDARD)
    theirs.close()
    output = os.devnull if log is None else str(log)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions: list[tuple[Any, ...]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, output, flags, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
        (os.POSIX_SPAWN_DUP2, end, CONTROL_FD),
    ]
    # -P: a file of the working directory must not be taken for a module.
    command = [sys.executable, "-P", "-m", module, "--home", str(home), *options]
    command += ["--client", str(os.getpid())]
    try:
        pid = os.posix_spawn(
            sys.executable,
            command,
            _environment(environment),
            file_actions=actions,
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP],
        )
    except OSError as error:
        ours.close()
        raise WorkloadDeploymentError(
            f"{sys.executable} could not be started: {error.strerror}."
        ) from error
    finally:
        os.close(end)
    return Child(ProcessRef.of(pid), Channel(ours))


def _environment(extra: dict[str, str]) -> dict[str, str]:
    """This process's environment, without what would change how MLServer is set up."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("MLSERVER_")
    }
    return {**inherited, "PYTHONUNBUFFERED": "1", **extra}


def dependants(home: Path) -> list[tuple[ProcessRef, bool]]:
    """Processes of a home, told by the whole of their command: our module, and the home.

    Returns:
        Each, and whether the client that started it still runs.
    """
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            command = process.cmdline()
            if (
                any(module in command for module in (LAUNCHER, ROUTER))
                and _option(command, "--home") == str(home)
                and process.uids().real == os.getuid()
            ):
                client = _option(command, "--client")
                found.append((ProcessRef.of(process.pid), str(process.ppid()) == client))
    return found


def _option(command: list[str], name: str) -> str:
    index = command.index(name) + 1 if name in command else len(command)
    return command[index] if index < len(command) else ""


class Spares:
    """Processes that have imported MLServer and wait for a model, one per runtime."""

    def __init__(self) -> None:
        """Begin with none."""
        self._lock = threading.Lock()
        self._spares: dict[tuple[str, Path], Child] = {}

    def prepare(self, runtime: Runtime, *, home: Path, modules: Sequence[str] = ()) -> None:
        """Start one, unless one waits already; return at once."""
        with self._lock:
            spare = self._spares.get((runtime.module, home))
            if spare is None or not spare.ref.alive:
                self._spares[runtime.module, home] = start_launcher(
                    runtime, home=home, threads=1, preload=(*runtime.preload, *modules)
                )

    def take(self, runtime: Runtime, *, home: Path) -> Child | None:
        """Take one out, if one waits."""
        with self._lock:
            spare = self._spares.pop((runtime.module, home), None)
        if spare is None or spare.ref.alive:
            return spare
        spare.channel.close()
        return None

    def discard(self) -> None:
        """End all that wait."""
        with self._lock:
            waiting, self._spares = list(self._spares.values()), {}
        for spare in waiting:
            spare.stop()


SPARES = Spares()
"""Those of this process; they end with it."""
