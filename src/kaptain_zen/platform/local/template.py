"""The process that trainings are forked from: it has imported what they import, and does no more.

A fork copies one thread and all of memory, so it is safe only for a process in which nothing else
goes on. After the imports this process looks at itself, and if anything speaks against forking (a
thread that stays, a child, a connection, an open GPU) it says so and ends; runs are then started
the slow way.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import select
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from kaptain_zen.platform.local import wire
from kaptain_zen.platform.local.pids import descendants
from kaptain_zen.platform.local.runs import Plan, RunFolder
from kaptain_zen.platform.local.script import run_script
from kaptain_zen.platform.local.supervisor import Supervisor, supervise
from kaptain_zen.platform.local.worker import (
    Continuation,
    Worker,
    catch_children,
    close_others,
    open_descriptors,
)

_OWN_SIGNALS = (
    signal.SIGCHLD,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGPIPE,
)
"""Those that this process and its supervisors give a meaning of their own."""


@dataclass(frozen=True)
class Imported:
    """What the imports have made of this process, which every worker begins with.

    Attributes:
        descriptors: Those that modules hold open.
        signals: Handlers of the signals that supervisors use for themselves.
        search_path: `sys.path` without a script's own folder.
        variables: Environment variables that were changed; None for removed ones.
    """

    descriptors: frozenset[int]
    signals: Mapping[int, Any]
    search_path: tuple[str, ...]
    variables: Mapping[str, str | None]


class ForkingSupervisor(Supervisor):
    """Makes workers that go on in a fork of this process, with all that it has imported."""

    start = "fork"

    def __init__(
        self, folder: RunFolder, plan: Plan, environment: Mapping[str, str], *, imported: Imported
    ) -> None:
        """Prepare.

        Args:
            folder: The run's folder.
            plan: Its plan.
            environment: What all workers get.
            imported: What each of them begins with.
        """
        super().__init__(folder, plan, environment)
        self._imported = imported

    def _go_on(self, worker: Worker) -> Continuation:
        imported = self._imported
        close_others(keep=imported.descriptors)
        signal.set_wakeup_fd(-1)
        for number, handler in imported.signals.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        changed = {**worker.environment, **imported.variables}
        environment = {name: value for name, value in changed.items() if value is not None}
        return partial(run_script, worker.command, environment, imported.search_path)


def run(connection: socket.socket, statements: Sequence[str]) -> Continuation | None:
    """Import, then fork a supervisor for every request until the other side goes away.

    Args:
        connection: To the warm server. It gets `ready` or `unsafe` once, then `started` for every
            request.
        statements: What to import.

    Returns:
        In a fork, what to go on with.
    """
    descriptors = open_descriptors()
    variables = dict(os.environ)
    if not sys.flags.safe_path:
        del sys.path[0]  # what `-c` put there
    spared: dict[str, ModuleType] = {}
    # The first to be registered, so the last to be called.
    atexit.register(_spare, spared)
    preload(statements)
    reason = what_speaks_against_forking(descriptors)
    try:
        if reason:
            wire.send(connection, {"unsafe": reason})
            return None
        wire.send(connection, {"ready": True})
    except OSError:
        return None
    imported = Imported(
        descriptors=frozenset(open_descriptors() - descriptors),
        signals={number: signal.getsignal(number) for number in _OWN_SIGNALS},
        search_path=tuple(sys.path),
        variables={
            name: os.environ.get(name)
            for name in {*variables, *os.environ}
            if os.environ.get(name) != variables.get(name)
        },
    )
    # What is there now is never garbage; leaving it alone keeps its memory shared.
    gc.collect()
    gc.freeze()
    spared.update(sys.modules)
    for name in ("__main__", "sys", "builtins"):
        del spared[name]
    # Never let go of, not even by the interpreter's end.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(spared))
    return _serve(connection, imported)


def _spare(modules: Mapping[str, ModuleType]) -> None:
    """At the very end of a worker, keep the interpreter from taking apart what the imports made.

    That would take longer than many a training. What the script itself made, and imported beyond
    this, is taken apart as always.
    """
    for name in modules:
        sys.modules.pop(name, None)


def preload(statements: Sequence[str]) -> None:
    """Import what can be imported; the run itself will say what cannot."""
    for statement in statements:
        # An import may even call sys.exit().
        with suppress(BaseException):
            exec(statement, {"__name__": "__preload__"})  # noqa: S102 - an import of the script


def what_speaks_against_forking(before: Collection[int]) -> str | None:
    """Look for whatever a fork of this process would break.

    Args:
        before: Descriptors that were open before the imports.

    Returns:
        What was found, or None.
    """
    threads = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
    if threads:
        return f"the imports left Python threads running: {', '.join(threads)}"
    if descendants(os.getpid()):
        return "the imports started a process"
    for number in open_descriptors() - set(before):
        with suppress(OSError):
            target = str(Path(f"/proc/self/fd/{number}").readlink())
            if target.startswith("socket:"):
                return "the imports opened a network connection"
            if target.startswith("/dev/nvidia"):
                return f"the imports opened {target}"
    if "libcuda.so" in Path("/proc/self/maps").read_text(errors="replace"):
        return "the imports loaded CUDA's driver"
    # OpenBLAS, for one, ends its threads at a fork and starts them again when needed. Whatever
    # still runs after one does not know of forks.
    _fork_once()
    native = len(os.listdir("/proc/self/task"))  # noqa: PTH208 - a count
    return f"the imports left {native - 1} native threads running" if native > 1 else None


def _fork_once() -> None:
    with warnings.catch_warnings():
        # Python 3.12 warns of threads at a fork, here with PYTHONWARNINGS=error by an exception.
        warnings.simplefilter("ignore")
        pid = os.fork()
        if pid == 0:
            os._exit(0)
    os.waitpid(pid, 0)


def _serve(connection: socket.socket, imported: Imported) -> Continuation | None:
    wakeup = catch_children()
    children: set[int] = set()
    poll = select.poll()
    poll.register(wakeup, select.POLLIN)
    poll.register(connection, select.POLLIN)
    connected = True
    while connected or children:
        for descriptor, _ in poll.poll():
            if descriptor == wakeup:
                with suppress(BlockingIOError):
                    os.read(wakeup, 4096)
                continue
            request = wire.receive(connection)
            if request is None or request[1] is None:
                poll.unregister(connection)
                connected = False
                continue
            message, lock = request[0], request[1]
            pid = os.fork()
            if pid == 0:
                connection.close()
                os.close(wakeup)
                return partial(_supervise, message, lock, imported)
            children.add(pid)
            os.close(lock)
            with suppress(OSError):
                wire.send(connection, {"started": message["id"]})
        children = {pid for pid in children if not _has_ended(pid)}
    return None


def _has_ended(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG)[0] == pid


def _supervise(message: dict[str, Any], lock: int, imported: Imported) -> Continuation | None:
    kind = partial(ForkingSupervisor, imported=imported)
    try:
        os.setsid()
        return supervise(Path(message["folder"]), lock, message["environment"], kind=kind)
    except BaseException:  # noqa: BLE001 - the lock that this process leaves says that it failed
        os._exit(1)
