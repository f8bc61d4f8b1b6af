"""The process that looks after one run: starts the workers, writes down what they print, ends them.

It has a session of its own and no tie to the client. It is a plain loop over descriptors in one
thread, because workers are forked from it.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from kaptain_zen.platform.local import limits, reasons
from kaptain_zen.platform.local.command import worker_environment
from kaptain_zen.platform.local.output import LineSplitter, Redactor, Tail
from kaptain_zen.platform.local.pids import kill_descendants, kill_session
from kaptain_zen.platform.local.rendezvous import Reservations
from kaptain_zen.platform.local.runs import (
    Plan,
    Process,
    Progress,
    RunFolder,
    State,
    now,
    worker_name,
)
from kaptain_zen.platform.local.worker import (
    Continuation,
    Worker,
    become,
    catch_children,
    execute,
    give_up,
)

GRACE = 5.0
"""Seconds that workers get to end by themselves when the run is stopped."""
_DRAIN = 1.0
"""Seconds to read what a worker printed after it has ended and all of its processes were killed."""
_CHUNK = 1 << 18
RESERVATIONS = ".reservations"


@dataclass
class _Running:
    """A worker, from its fork to the end of its output."""

    rank: int
    process: Process
    output: int
    open: bool = True
    splitter: LineSplitter = field(default_factory=LineSplitter)
    tail: Tail = field(default_factory=Tail)
    exit_code: int | None = None
    drain_until: float | None = None

    @property
    def name(self) -> str:
        return worker_name(self.rank)

    def kill(self) -> None:
        """Kill it, or what it left in its session."""
        kill_session(self.process.pid, since=self.process.started)


class Supervisor:
    """Looks after one run.

    `run` returns None in the supervisor when the run has ended; in a worker that goes on in a fork
    of this process, it returns what to go on with.
    """

    start: Literal["exec", "fork"] = "exec"

    def __init__(self, folder: RunFolder, plan: Plan, environment: Mapping[str, str]) -> None:
        """Prepare.

        Args:
            folder: The run's folder.
            plan: Its plan.
            environment: What all workers get.
        """
        self._folder = folder
        self._plan = plan
        self._environment = environment
        self._redact = Redactor(environment.get(name, "") for name in plan.secrets)
        self._progress = Progress(supervisor=Process.of(os.getpid()), start=self.start)
        self._workers: list[_Running] = []
        self._asked: str | None = None
        self._ending: tuple[State, str] | None = None
        self._failed: _Running | None = None
        self._kill_at: float | None = None
        self._deadline: float | None = None
        self._log = -1

    def run(self) -> Continuation | None:
        """Start the workers and stay until all of them have ended."""
        wakeup = self._catch_signals()
        limits.adopt_orphans()
        self._folder.write_progress(self._progress)
        # Whoever cancels leaves the wish first and looks for a supervisor second; the supervisor
        # does the opposite, so one of the two sees the other.
        if self._folder.asked_to_stop:
            self._finish("cancelled", "It was cancelled before it started.")
            return None
        try:
            self._log = os.open(
                self._folder.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            continuation = self._start()
            if continuation is not None:
                return continuation
            self._deadline = (
                time.monotonic() + self._plan.timeout if self._plan.timeout is not None else None
            )
            self._progress = replace(
                self._progress,
                started_at=now(),
                workers={w.name: w.process for w in self._workers},
            )
            self._folder.write_progress(self._progress)
            self._follow(wakeup)
            self._finish(*self._outcome())
        except Exception as error:  # noqa: BLE001 - whatever it is, the run must not hang
            for worker in self._workers:
                worker.kill()
            kill_descendants(_DRAIN)
            self._finish("failed", f"The run could not go on: {type(error).__name__}: {error}.")
        return None

    def _catch_signals(self) -> int:
        """Turn signals into bytes on a pipe; returns its end to read from."""
        reading = catch_children()
        signal.signal(signal.SIGTERM, self._on_stop)
        for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(ignored, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return reading

    def _on_stop(self, *_: object) -> None:
        self._asked = (
            "It was cancelled." if self._folder.asked_to_stop else "Its supervisor got SIGTERM."
        )

    def _start(self) -> Continuation | None:
        plan = self._plan
        reservations = Reservations(self._folder.path.parent / RESERVATIONS)
        ports = reservations.ports(plan.workers) if plan.rendezvous != "none" else [0]
        available = limits.available_cpus()
        for rank in range(plan.workers):
            folder = self._folder.worker(rank)
            reading, writing = os.pipe()
            worker = Worker(
                command=(plan.python, str(folder / plan.script), *plan.arguments),
                environment=worker_environment(self._environment, plan, rank, ports),
                folder=folder,
                output=writing,
                memory=plan.memory,
                cpus=reservations.cpus(plan.cpus, available) if plan.cpus else None,
            )
            continuation = self._fork(worker, rank, reading)
            if continuation is not None:
                return continuation
            os.close(writing)
            os.set_blocking(reading, False)
        return None

    def _fork(self, worker: Worker, rank: int, reading: int) -> Continuation | None:
        supervisor = os.getpid()
        # A worker that is told to stop before it is one would take it for its parent's business.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            self._workers.append(_Running(rank, Process.of(pid), reading))
            return None
        try:
            become(worker, parent=supervisor)
            return self._go_on(worker)
        except BaseException as error:  # noqa: BLE001 - a fork must never run its parent's code
            give_up(error)

    def _go_on(self, worker: Worker) -> Continuation | None:
        execute(worker)

    def _follow(self, wakeup: int) -> None:
        """Read, reap and stop until all workers and their output have ended."""
        poll = select.poll()
        poll.register(wakeup, select.POLLIN)
        for worker in self._workers:
            poll.register(worker.output, select.POLLIN)
        while any(worker.open or worker.exit_code is None for worker in self._workers):
            poll.poll(self._patience())
            with suppress(BlockingIOError):
                os.read(wakeup, 4096)
            self._reap()
            lines: list[bytes] = []
            for worker in self._workers:
                if worker.open:
                    self._read(worker, lines)
                    if not worker.open:
                        poll.unregister(worker.output)
                        os.close(worker.output)
            if lines:
                _write_all(self._log, b"".join(lines))
            self._judge()

    def _patience(self) -> int | None:
        """Milliseconds until something must be done though nothing happens."""
        moments = [self._deadline if self._ending is None else None, self._kill_at]
        moments += [worker.drain_until for worker in self._workers if worker.open]
        left = [moment - time.monotonic() for moment in moments if moment is not None]
        return max(0, int(min(left) * 1000) + 1) if left else None

    def _reap(self) -> None:
        """Take note of processes that ended: our workers, and orphans that we adopted."""
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                for worker in self._workers:
                    if worker.process.pid == pid:
                        self._ended(worker, os.waitstatus_to_exitcode(status))

    def _ended(self, worker: _Running, exit_code: int) -> None:
        worker.exit_code = exit_code
        worker.drain_until = time.monotonic() + _DRAIN
        if exit_code and self._failed is None:
            self._failed = worker
        self._clear_up(worker)

    def _clear_up(self, worker: _Running) -> None:
        """Kill what a worker that ended has left behind."""
        # Nothing that a worker started outlives it, as in a container. Until the last worker ends,
        # a process that left its session cannot be told from another worker's.
        if any(other.exit_code is None for other in self._workers):
            worker.kill()
        else:
            kill_descendants(_DRAIN)

    def _read(self, worker: _Running, lines: list[bytes]) -> None:
        """Add what a worker printed, and note when there will be no more."""
        found: list[bytes] = []
        with suppress(BlockingIOError):
            data = os.read(worker.output, _CHUNK)
            worker.open = bool(data)
            found = worker.splitter.feed(data)
        if worker.drain_until is not None and time.monotonic() > worker.drain_until:
            worker.open = False
        if not worker.open:
            found += worker.splitter.close()
        prefix = f"{worker.name}\t".encode()
        for line in found:
            clean = self._redact(line)
            worker.tail.add(clean)
            lines.append(prefix + clean + b"\n")

    def _judge(self) -> None:
        """Decide whether the run must be stopped, and stop it."""
        running = [worker for worker in self._workers if worker.exit_code is None]
        if self._ending is None:
            if self._asked is not None:
                self._stop("cancelled", self._asked)
            elif self._failed is not None:
                self._stop("failed", "")
            elif self._deadline is not None and time.monotonic() >= self._deadline and running:
                names = [worker.name for worker in running]
                self._stop("failed", reasons.timed_out(self._plan.timeout or 0, names))
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._kill_at = None
            for worker in running:
                worker.kill()

    def _stop(self, state: State, reason: str) -> None:
        self._ending = (state, reason)
        self._kill_at = time.monotonic() + GRACE
        for worker in self._workers:
            if worker.exit_code is None:
                with suppress(ProcessLookupError):
                    os.kill(worker.process.pid, signal.SIGTERM)

    def _outcome(self) -> tuple[State, str]:
        if self._ending is None:
            return "succeeded", ""
        state, reason = self._ending
        if not reason and self._failed is not None:
            reason = reasons.worker_failed(
                self._failed.name,
                self._failed.exit_code or 0,
                self._failed.tail.text(),
                self._plan.memory,
            )
        return state, reason

    def _finish(self, state: State, reason: str) -> None:
        codes = {w.name: w.exit_code for w in self._workers if w.exit_code is not None}
        self._progress = replace(self._progress, exit_codes=codes).ended(state, reason)
        # When even this fails (a full disk), the lock that this process leaves behind says it.
        with suppress(OSError):
            self._folder.write_progress(self._progress)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def supervise(
    path: Path,
    lock: int,
    environment: Mapping[str, str],
    *,
    kind: Callable[[RunFolder, Plan, Mapping[str, str]], Supervisor] = Supervisor,
) -> Continuation | None:
    """Look after a run until it ends.

    Args:
        path: The run's folder.
        lock: Descriptor of its lock, which this process holds as long as it lives.
        environment: What all workers get.
        kind: How workers are made.

    Returns:
        In a worker that goes on in a fork of this process, what to go on with.
    """
    folder = RunFolder(path)
    try:
        plan = folder.plan()
        # Deleted in the meantime, perhaps submitted anew; or somebody else was faster.
        if plan is None or not folder.owns(lock) or not folder.claim():
            return None
    except OSError:
        return None
    return kind(folder, plan, environment).run()
