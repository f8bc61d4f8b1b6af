"""Trainings as processes of this machine."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from kaptain_zen.exceptions import (
    ModelValidationException,
    RunNotFoundError,
    WorkloadDeploymentError,
    WorkloadTimeoutError,
)
from kaptain_zen.model.ports import LogLine, RunStatus, TrainRequest
from kaptain_zen.model.record import RunHandle
from kaptain_zen.model.resources import Resources
from kaptain_zen.model.spec import ModelSpec
from kaptain_zen.platform.local import files
from kaptain_zen.platform.local.follow import LogReader, current, signal_supervisor, watched
from kaptain_zen.platform.local.home import LocalHome
from kaptain_zen.platform.local.planning import make_plan
from kaptain_zen.platform.local.reporting import Reporter
from kaptain_zen.platform.local.runs import Plan, Progress, RunFolder
from kaptain_zen.platform.local.starting import Script, Starter
from kaptain_zen.platform.local.supervisor import GRACE

_log = logging.getLogger("kaptain_zen")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
_LAST_WORD = 5.0
"""Seconds that a supervisor gets, beyond its workers' grace, to write down how a run ended."""
_DRAFT_AGE = 60.0


class LocalTrainer:
    """Runs trainings as subprocesses; each has a supervisor that needs no client."""

    backend = "local"

    def __init__(
        self, home: LocalHome, *, environment: Mapping[str, str], warm_start: bool = True
    ) -> None:
        """Prepare; nothing is started or made.

        Args:
            home: Where runs are kept.
            environment: The storage's credentials, as environment variables of the workers.
            warm_start: Whether trainings fork from a process that has imported what they import.
        """
        self._home = home
        self._storage = dict(environment)
        self._starter = Starter(environment, warm_start=warm_start)
        self._reporter = Reporter(home.root, self.backend)
        self._said: set[str] = set()

    def submit(self, request: TrainRequest) -> RunHandle:
        """Start a run and return at once; the run does not need this process any more.

        Args:
            request: What to run. Whoever submits the same name again gets the same run.

        Returns:
            What any process can find the run with.

        Raises:
            ModelValidationException: The request is wrong; nothing was started.
            WorkloadDeploymentError: It cannot be started.
            ConfigurationError: The home cannot be written to.
        """
        folder = self._folder(request.name)
        existing = folder.plan()
        if existing is not None:
            return self._reporter.handle(existing)
        found = files.model_files(request.spec, request.base_dir)
        plan = make_plan(request, found[0], self._storage)
        self._mention_workers(request, plan)
        self._home.ensure(self._home.runs)
        draft = RunFolder(self._home.runs / f".new-{plan.uid}")
        lock = -1
        try:
            draft.path.mkdir(mode=0o700)
            lock = draft.make_lock()
            for rank in range(plan.workers):
                draft.worker(rank).mkdir()
                files.lay_out(found, draft.worker(rank))
            draft.write_plan(plan)
            # In one step, and only one of several clients can do it.
            if not _moved(draft.path, folder.path):
                return self._found_again(folder)
            try:
                script = Script(
                    found[0].source, request.base_dir, request.resources, request.upload_uri
                )
                self._starter.start(script, folder=folder.path, lock=lock, uid=plan.uid)
            except BaseException:
                self.delete(self._reporter.handle(plan))
                raise
        except OSError as error:
            raise WorkloadDeploymentError(
                f"Run {plan.name} cannot be made in {self._home.runs}: {error.strerror}."
            ) from error
        finally:
            if lock >= 0:
                os.close(lock)
            shutil.rmtree(draft.path, ignore_errors=True)
        return self._reporter.handle(plan)

    def status(self, handle: RunHandle) -> RunStatus:
        """Look at a run.

        Raises:
            RunNotFoundError: There is no such run.
        """
        folder, plan = self._find(handle)
        return self._reporter.status(folder, plan, current(folder))

    def wait(
        self,
        handle: RunHandle,
        *,
        timeout: float | None = None,
        on_log: Callable[[LogLine], None] | None = None,
    ) -> RunStatus:
        """Wait until a run ends, in any process.

        Args:
            handle: The run.
            timeout: Seconds to wait; for ever if None.
            on_log: Gets every line that the run prints, from its first, once.

        Returns:
            How it ended.

        Raises:
            RunNotFoundError: There is no such run, or it was deleted meanwhile.
            WorkloadTimeoutError: It did not end in time; it goes on.
        """
        folder, plan = self._find(handle)
        identity = _identity(folder)
        give_up_at = None if timeout is None else time.monotonic() + timeout
        reader = LogReader(folder)
        with watched(folder) as watch:
            while True:
                if _identity(folder) != identity:
                    raise _not_found(handle)
                progress = current(folder)
                final = progress is not None and progress.final
                if on_log is not None:
                    for source, text in reader.lines(last=final):
                        on_log(LogLine(source=f"{plan.name}/{source}", text=text))
                if final:
                    return self._reporter.status(folder, plan, progress)
                left = None if give_up_at is None else give_up_at - time.monotonic()
                if left is not None and left <= 0:
                    raise WorkloadTimeoutError(
                        f"Run {plan.name} did not end within {timeout:g} s; it goes on. Wait "
                        f"again with its handle, or cancel it."
                    )
                watch.wait(left)

    def cancel(self, handle: RunHandle) -> None:
        """Stop a run and all its processes; nothing happens when it has ended already.

        Raises:
            RunNotFoundError: There is no such run.
        """
        folder, _ = self._find(handle)
        progress = current(folder)
        if progress is not None and progress.final:
            return
        folder.ask_to_stop()
        # Whoever claims a run is the only one who may start its workers.
        with suppress(FileNotFoundError):
            if folder.claim():
                folder.write_progress(
                    Progress().ended("cancelled", "It was cancelled before it started.")
                )
                return
        self._end(folder, signal.SIGTERM, GRACE + _LAST_WORD)
        self._end(folder, signal.SIGKILL, _LAST_WORD)

    def delete(self, handle: RunHandle) -> None:
        """Cancel a run and remove its folder; nothing happens when there is none."""
        try:
            self.cancel(handle)
            folder, plan = self._find(handle)
        except RunNotFoundError:
            return
        trash = self._home.runs / f".trash-{uuid.uuid4().hex}"
        # In one step, so that nobody finds half a run.
        if _moved(folder.path, trash):
            shutil.rmtree(trash, ignore_errors=True)
        self._reporter.forget(plan)
        self._sweep()

    def runs(self) -> list[RunStatus]:
        """All runs of this home, the oldest first."""
        found = []
        for path in self._home.runs.glob("[!.]*"):
            folder = RunFolder(path)
            plan = folder.plan()
            if plan is not None:
                found.append(self._reporter.status(folder, plan, current(folder)))
        return sorted(found, key=lambda status: (str(status.submitted_at), status.handle.name))

    def prepare(
        self,
        spec: ModelSpec,
        *,
        base_dir: Path,
        resources: Resources | None = None,
        upload_uri: str = "",
    ) -> None:
        """Begin the imports of trainings to come, and return at once.

        Nothing happens when warm starts are off, or when there is nothing worth importing. Whatever
        is wrong with the model is said when it is trained.

        Args:
            spec: The model.
            base_dir: Folder that its files are relative to.
            resources: What each worker will have.
            upload_uri: Where the models will go, or any folder there.
        """
        with suppress(ModelValidationException):
            main = files.main_file(spec, base_dir).source
            self._starter.prepare(Script(main, base_dir, resources or Resources(), upload_uri))

    def _mention_workers(self, request: TrainRequest, plan: Plan) -> None:
        if plan.workers != request.workers and request.spec.id not in self._said:
            self._said.add(request.spec.id)
            _log.info(
                "Trainings of model %s have one worker instead of %d: %s does not train in "
                "several processes.",
                request.spec.id,
                request.workers,
                request.spec.framework.value,
            )

    def _end(self, folder: RunFolder, number: signal.Signals, patience: float) -> None:
        """Signal a run's supervisor as soon as there is one, and wait for the end."""
        give_up_at = time.monotonic() + patience
        signalled = False
        with watched(folder) as watch:
            while folder.path.exists() and (left := give_up_at - time.monotonic()) > 0:
                progress = current(folder)
                if progress is not None and progress.final:
                    return
                if progress is not None and not signalled:
                    signal_supervisor(progress, number)
                    signalled = True
                watch.wait(left)

    def _sweep(self) -> None:
        """Remove what a client that was killed while it submitted or deleted left behind."""
        for path in self._home.runs.glob(".trash-*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in self._home.runs.glob(".new-*"):
            with suppress(FileNotFoundError):
                # A younger one may be about to be locked.
                if time.time() - path.stat().st_mtime < _DRAFT_AGE:
                    continue
            lock = RunFolder(path).take_over()
            if lock is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)

    def _folder(self, name: str) -> RunFolder:
        if not _NAME.fullmatch(name):
            raise ModelValidationException(
                f"{name!r} cannot be the name of a run. Use up to 200 letters, digits, hyphens, "
                f"dots and underscores, beginning with a letter or digit."
            )
        return RunFolder(self._home.runs / name)

    def _find(self, handle: RunHandle) -> tuple[RunFolder, Plan]:
        if handle.backend == self.backend and handle.kind == "train":
            with suppress(ModelValidationException):
                folder = self._folder(handle.name)
                plan = folder.plan()
                if plan is not None and handle.uid in ("", plan.uid):
                    return folder, plan
        raise _not_found(handle)

    def _found_again(self, folder: RunFolder) -> RunHandle:
        plan = folder.plan()
        if plan is None:
            raise ModelValidationException(
                f"{folder.path} exists and is no training. Choose another name for the run."
            )
        return self._reporter.handle(plan)


def _moved(source: Path, target: Path) -> bool:
    """Move a folder to a place where there is none; whether that worked."""
    try:
        source.rename(target)
    except OSError:
        return False
    return True


def _identity(folder: RunFolder) -> tuple[int, int] | None:
    try:
        found = folder.path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _not_found(handle: RunHandle) -> RunNotFoundError:
    return RunNotFoundError(
        f"There is no training {handle.name!r} in {handle.namespace}. It was deleted, or the "
        f"handle belongs to another platform."
    )
