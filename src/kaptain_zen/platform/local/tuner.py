"""Searches on this machine: Optuna asks, a trainer runs the trials.

A search is driven by whoever waits for it. Its state is on disk, so that another process can go on
where one was killed; while nobody waits, trials that run come to their end, and no further ones
begin.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from kaptain_zen.exceptions import RunNotFoundError, WorkloadTimeoutError
from kaptain_zen.model.ports import LogLine, RunState, Store, Trainer, TuneRequest, TuneStatus
from kaptain_zen.model.record import RunHandle
from kaptain_zen.platform.local.home import LocalHome
from kaptain_zen.platform.local.search_folder import BACKEND, SearchFolder
from kaptain_zen.platform.local.search_settings import check_search

if TYPE_CHECKING:
    from kaptain_zen.platform.local.search_driver import SearchDriver

_CANCEL_PATIENCE = 60.0
"""Seconds that another process gets to stop the search that it drives."""


class OptunaTuner:
    """Searches with Optuna, whatever runs the trials."""

    backend = BACKEND

    def __init__(self, home: LocalHome, *, trainer: Trainer, store: Store) -> None:
        """Put the tuner together; nothing is made or started.

        Args:
            home: Where searches are kept.
            trainer: Runs the trials.
            store: Where the trials' models are.
        """
        self._home = home
        self._trainer = trainer
        self._store = store

    def check(self, request: TuneRequest) -> None:
        """Say whether the search can be run here.

        Raises:
            UnsupportedAlgorithmException: The algorithm is not available here.
            ModelValidationException: A setting, a domain or the goal is wrong.
        """
        check_search(request)

    def submit(self, request: TuneRequest) -> RunHandle:
        """Write a search down; it begins when it is waited for.

        Args:
            request: The search; one that was submitted under this name before is kept.

        Returns:
            Its handle.

        Raises:
            UnsupportedAlgorithmException: The algorithm is not available here.
            ModelValidationException: The request is wrong.
            ConfigurationError: The home cannot be written to.
        """
        self.check(request)
        # Importing Optuna takes as long as a small trial, and something is left to do before that.
        threading.Thread(
            target=importlib.import_module,
            args=("kaptain_zen.platform.local.search_driver",),
            daemon=True,
        ).start()
        return SearchFolder.create(self._home, request).handle

    def status(self, handle: RunHandle) -> TuneStatus:
        """Look at a search.

        Raises:
            RunNotFoundError: There is no such search.
        """
        folder = SearchFolder.open(self._home, handle)
        status = folder.status()
        if status.state.finished:
            return status
        if not folder.idle:
            return status
        return status.model_copy(
            update={
                "reason": f"Nobody waits for this search, so no further trials begin; "
                f"{len(status.trials)} of {status.total} have ended. Wait for it to go on, or "
                f"cancel it."
            }
        )

    def wait(
        self,
        handle: RunHandle,
        *,
        timeout: float | None = None,
        on_progress: Callable[[TuneStatus], None] | None = None,
        on_log: Callable[[LogLine], None] | None = None,
    ) -> TuneStatus:
        """Drive a search to its end, or watch another process do so and take over when it dies.

        Args:
            handle: Of the search.
            timeout: Seconds to wait at most; None for no limit.
            on_progress: Gets the status at every change, in this thread.
            on_log: Gets the lines of the trials that run while this process drives the search.

        Returns:
            The last status. When it succeeded, the best trial's model is under the request's
            `upload_uri`; nothing is left under its `trials_uri` in any case.

        Raises:
            RunNotFoundError: There is no such search, or it was deleted meanwhile.
            WorkloadTimeoutError: It did not end in time; it can be waited for again.
            StorageError: The best model could not be copied; waiting again tries again.
        """
        until = None if timeout is None else time.monotonic() + timeout
        folder = SearchFolder.open(self._home, handle)
        shown: TuneStatus | None = None
        with folder.watch() as watch:
            while True:
                with folder.driving() as ours:
                    status = folder.status()
                    if ours and not status.state.finished:
                        return self._driver(folder, on_progress, on_log).drive(until=until)
                if status != shown and on_progress is not None:
                    on_progress(status)
                shown = status
                if status.state.finished:
                    return status
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    raise WorkloadTimeoutError(
                        f"The search {handle.name!r}, which another process drives, did not end "
                        f"within {timeout:g} s: {len(status.trials)} of {status.total} trials "
                        f"have ended. It goes on; wait for it again, or cancel it."
                    )
                watch.wait(left)

    def cancel(self, handle: RunHandle) -> None:
        """Stop a search and its trials, from any process; nothing happens when it has ended.

        Raises:
            RunNotFoundError: There is no such search.
            WorkloadTimeoutError: The process that drives it does not let go of it.
            StorageError: Its trials are stopped, but what they uploaded could not be removed.
        """
        folder = SearchFolder.open(self._home, handle)
        if folder.status().state.finished:
            return
        folder.ask_to_stop()
        with self._alone(folder):
            if not folder.status().state.finished:
                self._driver(folder).cancel()

    def delete(self, handle: RunHandle) -> None:
        """Cancel a search and remove it and its trials; nothing happens when there is nothing.

        A model that it delivered stays where it is.

        Raises:
            WorkloadTimeoutError: The process that drives it does not let go of it.
            StorageError: What its trials uploaded could not be removed.
        """
        try:
            self.cancel(handle)
            folder = SearchFolder.open(self._home, handle)
            with self._alone(folder):
                # A search that succeeded has deleted its runs already.
                if folder.status().state is not RunState.SUCCEEDED:
                    from kaptain_zen.platform.local.search_study import submitted_runs
                    from kaptain_zen.platform.local.trial_threads import at_once

                    runs = submitted_runs(folder.journal, folder.request, ended=True)
                    at_once(self._trainer.delete, runs)
                folder.remove()
        except RunNotFoundError:
            SearchFolder.clear(self._home, handle)

    @contextmanager
    def _alone(self, folder: SearchFolder) -> Iterator[None]:
        """Become the only one who drives a search, which was asked to stop.

        Raises:
            WorkloadTimeoutError: The process that drives it does not let go of it.
        """
        until = time.monotonic() + _CANCEL_PATIENCE
        with folder.watch() as watch:
            while True:
                with folder.driving() as ours:
                    if ours:
                        yield
                        return
                if not folder.status().state.finished:
                    self._stop_runs(folder)
                if time.monotonic() >= until:
                    raise WorkloadTimeoutError(
                        f"The search {folder.handle.name!r} was asked to stop, but the process "
                        f"that drives it has not done so within {_CANCEL_PATIENCE:g} s. End that "
                        f"process and try again."
                    )
                watch.wait(until - time.monotonic())

    def _stop_runs(self, folder: SearchFolder) -> None:
        """End the trials: their driver looks for wishes whenever one of them ends."""
        from kaptain_zen.platform.local.search_study import submitted_runs

        for run in submitted_runs(folder.journal, folder.request, ended=False):
            with suppress(RunNotFoundError):
                self._trainer.cancel(run)

    def _driver(
        self,
        folder: SearchFolder,
        on_progress: Callable[[TuneStatus], None] | None = None,
        on_log: Callable[[LogLine], None] | None = None,
    ) -> SearchDriver:
        from kaptain_zen.platform.local.search_driver import SearchDriver

        return SearchDriver(
            folder,
            trainer=self._trainer,
            store=self._store,
            on_progress=on_progress,
            on_log=on_log,
        )
