"""Trials under way, each in a thread of its own; what happens to them comes out of one queue.

A thread starts its trial and waits for its end, so that a slow start holds nobody up, and neither
does a trainer that can only be waited for. The threads are daemons: they never keep a program from
ending, and what they were waiting for goes on without them.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from kaptain_zen.exceptions import (
    ModelValidationException,
    RunNotFoundError,
    WorkloadDeploymentError,
    WorkloadTimeoutError,
)
from kaptain_zen.model.ports import LogLine, RunStatus, Trainer, TrainRequest
from kaptain_zen.model.record import RunHandle

_AT_ONCE = 8


@dataclass(frozen=True)
class Submitted:
    """A trial has a run now."""

    number: int
    handle: RunHandle


@dataclass(frozen=True)
class Refused:
    """A trial could not be started."""

    number: int
    error: ModelValidationException | WorkloadDeploymentError


@dataclass(frozen=True)
class Printed:
    """A trial printed a line."""

    number: int
    line: LogLine


@dataclass(frozen=True)
class Over:
    """A trial's run ended; the status is None when there is no such run any more."""

    number: int
    status: RunStatus | None


@dataclass(frozen=True)
class Broken:
    """Something went wrong that says nothing about a trial, such as a lost connection."""

    number: int
    error: BaseException


Event = Submitted | Refused | Printed | Over | Broken


class TrialThreads:
    """Starts, follows and stops the runs of trials.

    Attributes:
        submitting: Trials that are being started, as far as events that were taken tell.
    """

    def __init__(self, trainer: Trainer, *, listen: bool) -> None:
        """Prepare.

        Args:
            trainer: Runs the trials.
            listen: Whether lines that trials print are wanted.
        """
        self._trainer = trainer
        self._listen = listen
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.submitting: set[int] = set()

    def next(self, timeout: float | None) -> Event | None:
        """Wait for something to happen.

        Args:
            timeout: Seconds; no limit if None.

        Returns:
            What happened; None when nothing did.
        """
        try:
            event = self._events.get(timeout=None if timeout is None else max(0.0, timeout))
        except queue.Empty:
            return None
        if isinstance(event, (Submitted, Refused, Broken)):
            self.submitting.discard(event.number)
        return event

    def start(
        self,
        number: int,
        request: TrainRequest,
        *,
        handle: RunHandle | None = None,
        timeout: float | None = None,
    ) -> None:
        """Start a trial, or follow its run if it has one already.

        Args:
            number: Of the trial.
            request: The trial.
            handle: Its run, if it is known.
            timeout: Seconds after which nobody will ask for events any more.
        """
        if handle is None:
            self.submitting.add(number)
        self._in_background(number, lambda: self._follow(number, request, handle, timeout))

    def stop(self, number: int, handle: RunHandle) -> None:
        """Stop a trial's run; its end comes as an event."""
        self._in_background(number, lambda: self.stop_and_wait([handle]))

    def stop_and_wait(self, handles: Iterable[RunHandle]) -> None:
        """Stop several runs; all of them have ended afterwards."""

        def stop(handle: RunHandle) -> None:
            with suppress(RunNotFoundError):
                self._trainer.cancel(handle)

        at_once(stop, handles)

    def _follow(
        self,
        number: int,
        request: TrainRequest,
        handle: RunHandle | None,
        timeout: float | None,
    ) -> None:
        if handle is None:
            try:
                handle = self._trainer.submit(request)
            except (ModelValidationException, WorkloadDeploymentError) as error:
                self._events.put(Refused(number, error))
                return
            self._events.put(Submitted(number, handle))
        on_log = (lambda line: self._events.put(Printed(number, line))) if self._listen else None
        try:
            status = self._trainer.wait(handle, timeout=timeout, on_log=on_log)
        except RunNotFoundError:
            self._events.put(Over(number, None))
        except WorkloadTimeoutError:
            # Whoever waits for the search gives up at the same moment, by a clock of its own.
            return
        else:
            self._events.put(Over(number, status))

    def _in_background(self, number: int, action: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                action()
            except BaseException as error:  # noqa: BLE001 - raised again by whoever gets the event
                self._events.put(Broken(number, error))

        threading.Thread(target=guarded, daemon=True).start()


def at_once(action: Callable[[RunHandle], None], runs: Iterable[RunHandle]) -> None:
    """Do something slow to several runs, some at a time; then raise the first error, if any."""
    left = list(runs)
    turns = iter(left)
    turn = threading.Lock()
    errors: list[BaseException] = []

    def work() -> None:
        while True:
            with turn:
                run = next(turns, None)
            if run is None:
                return
            try:
                action(run)
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                errors.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(_AT_ONCE, len(left)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
