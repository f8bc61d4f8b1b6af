"""Drives one search: asks for trials, runs them, learns from them, keeps the best one's model.

One process at a time drives a search. Everything that another one would need to go on is on disk
before it is acted upon, so a driver may be killed anywhere: a trial's run has a name that follows
from the search's, and submitting a name again finds its run instead of starting a second one; how a
search ended is written down before anything is copied or removed.

All decisions are made, and all callbacks called, in the thread that drives.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from kaptain_zen.exceptions import (
    ModelValidationException,
    RunNotFoundError,
    WorkloadDeploymentError,
    WorkloadTimeoutError,
)
from kaptain_zen.hyperparameter.algorithms import Algorithm
from kaptain_zen.model.ports import (
    LogLine,
    RunState,
    RunStatus,
    Store,
    Trainer,
    TrainRequest,
    TuneStatus,
)
from kaptain_zen.model.record import RunHandle
from kaptain_zen.platform.local import search_rules as rules
from kaptain_zen.platform.local.search_folder import SearchFolder
from kaptain_zen.platform.local.search_rules import Asked, Ended, Ending, Verdict
from kaptain_zen.platform.local.search_study import SearchStudy, quiet
from kaptain_zen.platform.local.trial_threads import (
    Broken,
    Event,
    Over,
    Printed,
    Refused,
    Submitted,
    TrialThreads,
    at_once,
)

METRICS_FILE = "metrics.json"
"""What a training writes beside its model; it is no part of the model."""
_PATIENCE, _LAST_PATIENCE = 60.0, 5.0
"""Seconds for submissions to end: before trials are stopped; and when everything is given up."""

logger = logging.getLogger(__name__)


class SearchDriver:
    """The one driver of a search; whoever makes one holds the search's lock."""

    def __init__(
        self,
        folder: SearchFolder,
        *,
        trainer: Trainer,
        store: Store,
        on_progress: Callable[[TuneStatus], None] | None = None,
        on_log: Callable[[LogLine], None] | None = None,
    ) -> None:
        """Open the search's study and find what an earlier driver left."""
        self._folder = folder
        self._request = folder.request
        self._trainer = trainer
        self._store = store
        self._on_progress = on_progress
        self._on_log = on_log
        self._prunes = self._request.algorithm is Algorithm.HYPERBAND
        self._threads = TrialThreads(trainer, listen=self._prunes or on_log is not None)
        self._total = rules.total(self._request)
        with quiet():
            self._study = SearchStudy(folder.journal, self._request)
            self._ended = self._study.ended()
            self._running = {asked.number: asked for asked in self._study.unfinished()}
        # Their driver was killed while it submitted them.
        self._half_submitted = {n for n, asked in self._running.items() if asked.handle is None}
        self._refusal: str | None = None
        self._changed = True

    def drive(self, *, until: float | None) -> TuneStatus:
        """Search to the end.

        Args:
            until: When to give up waiting, by `time.monotonic`; the search can be gone on with.

        Returns:
            The last status.

        Raises:
            WorkloadTimeoutError: It did not end in time.
            StorageError: The best model could not be copied; a later call tries again.
        """
        with quiet():
            try:
                verdict = self._folder.verdict()
                if verdict is None:
                    verdict = self._search(until)
                    self._folder.write_verdict(verdict)
                return self._finish(verdict)
            except BaseException:
                # So that whoever cancels the search now knows of everything that runs.
                self._settle(_LAST_PATIENCE)
                raise

    def cancel(self) -> TuneStatus:
        """Stop the search, whatever it was doing, and leave nothing of it in the storage."""
        with quiet():
            self._folder.write_verdict(rules.CANCELLED)
            return self._finish(rules.CANCELLED)

    def _search(self, until: float | None) -> Verdict:
        left_over = list(self._running.values())
        while True:
            verdict = self._verdict()
            if verdict is not None:
                return verdict
            if left_over or self._room():
                self._begin(left_over.pop(0) if left_over else None, until)
            else:
                if self._changed:
                    self._publish()
                self._handle(self._next(until), until)

    def _verdict(self) -> Verdict | None:
        if self._refusal is not None:
            return Verdict(state=RunState.FAILED, reason=self._refusal)
        left = self._seconds_left()
        return rules.decide(
            self._request,
            self._ended,
            total=self._total,
            cancelled=self._folder.asked_to_stop,
            overdue=left is not None and left <= 0,
        )

    def _room(self) -> bool:
        begun = len(self._ended) + len(self._running)
        return len(self._running) < self._request.parallel_trials and begun < self._total

    def _seconds_left(self) -> float | None:
        """Until the search's own timeout, which counts from its submission in any process."""
        if self._request.timeout is None:
            return None
        passed = (datetime.now(UTC) - self._folder.search.submitted_at).total_seconds()
        return self._request.timeout - passed

    def _next(self, until: float | None) -> Event | None:
        """What happens next; None when the search's time is over instead.

        Raises:
            WorkloadTimeoutError: The wait's time is over.
        """
        waiting = None if until is None else until - time.monotonic()
        limits = [limit for limit in (waiting, self._seconds_left()) if limit is not None]
        event = self._threads.next(min(limits) if limits else None)
        if event is None and until is not None and time.monotonic() >= until:
            raise WorkloadTimeoutError(
                f"The search {self._folder.handle.name!r} did not end in time: "
                f"{len(self._ended)} of {self._total} trials have ended, {len(self._running)} "
                f"run on. Wait for it again to go on, or cancel it."
            )
        return event

    def _begin(self, asked: Asked | None, until: float | None) -> None:
        """Begin a new trial, or go on with one that an earlier driver began."""
        try:
            self._start(self._study.completed(asked) if asked else self._study.ask(), until)
        except WorkloadDeploymentError as error:
            self._refusal = str(error)

    def _start(self, asked: Asked, until: float | None) -> None:
        self._running[asked.number] = asked
        self._changed = True
        self._threads.start(
            asked.number,
            self._train_request(asked),
            handle=asked.handle,
            timeout=None if until is None else max(0.001, until - time.monotonic()),
        )

    def _train_request(self, asked: Asked) -> TrainRequest:
        left = self._seconds_left()
        return rules.train_request(
            self._request,
            asked.number,
            asked.parameters,
            timeout=None if left is None else max(0.001, left),
        )

    def _handle(self, event: Event | None, until: float | None) -> None:
        match event:
            case Submitted():
                self._submitted(event.number, event.handle)
            case Refused():
                if isinstance(event.error, ModelValidationException):
                    # Every other trial would be refused for the same reason.
                    self._refusal = str(event.error)
                reason = str(event.error)
                self._end(self._running[event.number], Ending(state="failed", reason=reason))
            case Printed():
                if self._on_log is not None:
                    self._on_log(event.line)
                handle = self._running[event.number].handle
                if handle and self._prunes and self._study.observe(event.number, event.line):
                    self._threads.stop(event.number, handle)
            case Over():
                self._over(self._running[event.number], event.status, until)
            case Broken():
                raise event.error

    def _submitted(self, number: int, handle: RunHandle) -> None:
        self._study.submitted(number, handle)
        self._running[number] = self._running[number].model_copy(update={"handle": handle})

    def _over(self, asked: Asked, status: RunStatus | None, until: float | None) -> None:
        if status is None:
            self._end(asked, Ending(state="killed"))
            return
        never_ran = status.state is RunState.FAILED and status.started_at is None
        if never_ran and asked.handle is not None and asked.number in self._half_submitted:
            # That is the fault of the driver that was killed, not the trial's.
            self._half_submitted.discard(asked.number)
            self._trainer.delete(asked.handle)
            self._start(asked.model_copy(update={"handle": None}), until)
            return
        pruned = asked.number in self._study.pruned
        self._end(asked, rules.judge(status, self._request, pruned=pruned))

    def _end(self, asked: Asked, ending: Ending) -> None:
        ended = self._study.end(asked, ending)
        self._ended = sorted([*self._ended, ended], key=lambda e: e.asked.number)
        del self._running[asked.number]
        self._changed = True
        if ending.state == "failed":
            name = rules.trial_name(self._request, asked.number)
            logger.warning("Trial %s failed: %s", name, ending.reason)

    def _finish(self, verdict: Verdict) -> TuneStatus:
        """Do what the verdict asks for; every step may be repeated after a kill."""
        self._stop_trials(keep_successes=verdict.state is RunState.SUCCEEDED)
        best = rules.best(self._ended, self._request)
        if verdict.state is RunState.SUCCEEDED and best is not None:
            verdict = self._deliver(best, verdict)
        if verdict.state is not RunState.SUCCEEDED:
            self._store.delete(self._request.upload_uri)
        self._store.delete(self._request.trials_uri)
        if verdict.state is RunState.SUCCEEDED:
            runs = [ended.asked.handle for ended in self._ended if ended.asked.handle]
            at_once(self._trainer.delete, runs)
        return self._publish(verdict)

    def _stop_trials(self, *, keep_successes: bool) -> None:
        """Stop what runs; what succeeded before it could be stopped may still be the best."""
        self._settle(_PATIENCE)
        for asked in list(self._running.values()):
            if asked.handle is None and asked.complete(self._request):
                # A run that nobody has noted down yet is found by submitting its name again.
                with suppress(ModelValidationException, WorkloadDeploymentError):
                    handle = self._trainer.submit(self._train_request(asked))
                    self._submitted(asked.number, handle)
        running = list(self._running.values())
        self._threads.stop_and_wait(asked.handle for asked in running if asked.handle)
        for asked in running:
            ending = Ending(state="killed")
            if keep_successes and asked.handle:
                with suppress(RunNotFoundError):
                    status = self._trainer.status(asked.handle)
                    judged = rules.judge(status, self._request, pruned=False)
                    ending = judged if judged.state == "succeeded" else ending
            self._end(asked, ending)

    def _settle(self, patience: float) -> None:
        """Let submissions that are under way come to their end, and note down their runs."""
        until = time.monotonic() + patience
        while self._threads.submitting and (left := until - time.monotonic()) > 0:
            event = self._threads.next(left)
            if isinstance(event, Submitted) and event.number in self._running:
                self._submitted(event.number, event.handle)

    def _deliver(self, best: Ended, verdict: Verdict) -> Verdict:
        """Copy the best trial's model to where the search's model belongs."""
        if self._study.copied:
            return verdict
        name = rules.trial_name(self._request, best.asked.number)
        source = rules.trial_uri(self._request, best.asked.number)
        if all(item.uri == f"{source}/{METRICS_FILE}" for item in self._store.list(source)):
            reason = (
                f"The best trial, {name}, uploaded no model. Call "
                f"ModelExportUtil().upload_model(path) in the training script."
            )
            verdict = Verdict(state=RunState.FAILED, reason=reason)
            self._folder.write_verdict(verdict)
            return verdict
        logger.info("Copying the model of the best trial, %s.", name)
        self._store.copy(source, self._request.upload_uri, exclude=(METRICS_FILE,))
        self._study.note_copied()
        return verdict

    def _publish(self, verdict: Verdict | None = None) -> TuneStatus:
        status = rules.describe(
            self._folder.handle,
            self._request,
            self._ended,
            total=self._total,
            running=len(self._running),
            submitted_at=self._folder.search.submitted_at,
            started_at=self._study.started_at,
            ended_at=datetime.now(UTC) if verdict else None,
            verdict=verdict,
        )
        self._changed = False
        self._folder.write_status(status)
        if self._on_progress is not None:
            self._on_progress(status)
        return status
