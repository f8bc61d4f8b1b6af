"""Trainings and tunings from request to record, in whichever process finishes them.

A run is announced in the stored record before it is submitted and settled in it afterwards. In
between, the client may die: any other process finishes the run from the record alone.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from kaptain_zen import console
from kaptain_zen.exceptions import (
    KaptainError,
    ObjectNotFoundError,
    RunNotFoundError,
)
from kaptain_zen.model import states
from kaptain_zen.model.interrupts import terminable, undisturbed
from kaptain_zen.model.metrics import Metric
from kaptain_zen.model.ports import (
    RunState,
    RunStatus,
    TrainRequest,
    TuneRequest,
    TuneStatus,
)
from kaptain_zen.model.record import (
    Artifact,
    ModelRecord,
    PendingRun,
    RunHandle,
)
from kaptain_zen.model.repository import RecordRepository

if TYPE_CHECKING:
    from kaptain_zen.platform.platform import Platform

DEFAULT_TIMEOUT = 7 * 24 * 3600.0
"""Seconds that a training or tuning may take when the caller sets no limit: a week."""

METRICS_FILE = "metrics.json"
_log = logging.getLogger("kaptain_zen")

OnSubmit = Callable[[RunHandle], None]


class RunOutcome:
    """How a run ended.

    Attributes:
        record: The model's record afterwards.
        status: The run's last status.
        error: Why there is no new model; None if there is one.
    """

    def __init__(self, record: ModelRecord, status: RunStatus, error: str | None) -> None:
        """Keep the three."""
        self.record, self.status, self.error = record, status, error


def run(
    platform: Platform,
    record: ModelRecord,
    action: Literal["train", "tune"],
    request: TrainRequest | TuneRequest,
    *,
    revision: str,
    verbose: bool,
    on_submit: OnSubmit | None,
    keep: bool,
) -> RunOutcome:
    """Submit a run, wait for it, and settle the record.

    Args:
        platform: Where.
        record: Of the model, before.
        action: `train` or `tune`.
        request: What to run; its annotation is filled in here.
        revision: What the model's revision will be.
        verbose: Whether to print what the workers print.
        on_submit: Called with the handle as soon as there is one.
        keep: Whether to leave the ended run on the platform to look at.

    Returns:
        How it ended. On an exception, Ctrl-C and SIGTERM included, the run is removed first.
    """
    adapter = platform.trainer if action == "train" else platform.tuner
    repository = RecordRepository(platform.store)
    pending = PendingRun(
        action=action,
        revision=revision,
        handle=RunHandle(backend=adapter.backend, kind=action, namespace="", name=request.name),
        upload_uri=request.upload_uri,
        hyperparameters=request.hyperparameters if isinstance(request, TrainRequest) else {},
        objectives=request.objectives if isinstance(request, TuneRequest) else (),
        submitted_at=datetime.now(UTC),
    )
    record = states.submitted(record, pending)
    request = request.model_copy(update={"annotation": record.to_annotation()})
    with terminable():
        try:
            record = repository.save(record)
            _log.info("Submitting %s %s.", _NOUNS[action], request.name)
            # The two adapters take two kinds of request; `action` has chosen both.
            handle = adapter.submit(request)  # type: ignore[arg-type]
            pending = pending.model_copy(update={"handle": handle})
            record = repository.save(states.submitted(record, pending))
            if on_submit:
                on_submit(handle)
            status = wait(platform, pending, verbose=verbose)
        except BaseException as error:
            with undisturbed():
                _abandon(platform, record, pending, cause=error)
            raise
        return settle(platform, record, pending, status, keep=keep)


def wait(platform: Platform, pending: PendingRun, *, verbose: bool) -> RunStatus:
    """Wait for a run, showing what a person wants to see meanwhile."""
    on_log = console.print_line if verbose else None
    if pending.action == "train":
        _log.info("Waiting for training %s to end.", pending.handle.name)
        return platform.trainer.wait(pending.handle, on_log=on_log)
    with console.search_bar(pending.objectives[0]) as bar:
        return platform.tuner.wait(pending.handle, on_progress=bar.update, on_log=on_log)


def settle(
    platform: Platform,
    record: ModelRecord,
    pending: PendingRun,
    status: RunStatus,
    *,
    keep: bool,
) -> RunOutcome:
    """Bring a run that ended into the record, once, whoever does it."""
    repository = RecordRepository(platform.store)
    noun = _NOUNS[pending.action]
    pending = pending.model_copy(update={"handle": status.handle})
    stored = repository.load(record.spec.id)
    if stored is not None and stored.run is not None and stored.run == pending.handle:
        _log.info("The %s %s has been settled already.", noun, pending.handle.name)
        return RunOutcome(stored, status, None)
    error = _failure(status, noun)
    artifact = None
    if error is None:
        artifact, error = _artifact(platform, pending, noun)
    if artifact is None:
        platform.store.delete(pending.upload_uri)
        record = repository.save(states.ended_without_model(record))
        _log.error("%s", error)
    else:
        metrics = _deliberate(platform, pending, status.metrics)
        record = repository.save(_succeeded(record, pending, status, artifact, metrics))
        _log.info("The %s is completed; the model is at %s.", noun, artifact.uri)
    if not keep:
        (platform.trainer if pending.action == "train" else platform.tuner).delete(pending.handle)
    return RunOutcome(record, status, error)


def _deliberate(
    platform: Platform, pending: PendingRun, metrics: Mapping[str, Metric]
) -> dict[str, Metric]:
    """Leave out what only looks like a metric, such as the `C=1.0` of a printed estimator.

    A search is about its objectives. A training that has recorded metrics, in the file that
    `MetadataUtil` writes, is about those; of one that just prints, all is taken.
    """
    wanted = set(pending.objectives)
    if pending.action == "train":
        try:
            data, _ = platform.store.read(f"{pending.upload_uri}/{METRICS_FILE}")
            wanted = set(json.loads(data))
        except (ObjectNotFoundError, ValueError, TypeError):
            wanted = set(metrics)
    return {name: metric for name, metric in metrics.items() if name in wanted}


def _succeeded(
    record: ModelRecord,
    pending: PendingRun,
    status: RunStatus,
    artifact: Artifact,
    metrics: Mapping[str, Metric],
) -> ModelRecord:
    now = datetime.now(UTC)
    if isinstance(status, TuneStatus):
        _log.info("Best trial %s: %s", status.best, status.hyperparameters)
        return states.tuned(
            record,
            artifact=artifact,
            hyperparameters=status.hyperparameters,
            metrics=metrics,
            run=pending.handle,
            trials=status.trials,
            now=now,
        )
    return states.trained(
        record,
        artifact=artifact,
        hyperparameters=pending.hyperparameters,
        metrics=metrics,
        run=pending.handle,
        now=now,
    )


def _failure(status: RunStatus, noun: str) -> str | None:
    if status.state is RunState.SUCCEEDED:
        return None
    verb = "was cancelled" if status.state is RunState.CANCELLED else "failed"
    return f"The {noun} {status.handle.name} {verb}{f': {status.reason}' if status.reason else '.'}"


def _artifact(
    platform: Platform, pending: PendingRun, noun: str
) -> tuple[Artifact | None, str | None]:
    try:
        size, sha256 = platform.store.fingerprint(pending.upload_uri, exclude=(METRICS_FILE,))
    except ObjectNotFoundError:
        return None, (
            f"The {noun} {pending.handle.name} ended well but left no model at "
            f"{pending.upload_uri}. The script must call ModelExportUtil().upload_model(path)."
        )
    artifact = Artifact(uri=pending.upload_uri, revision=pending.revision, size=size, sha256=sha256)
    return artifact, None


def _abandon(
    platform: Platform,
    record: ModelRecord,
    pending: PendingRun,
    *,
    cause: BaseException,
) -> None:
    """Remove what an interrupted call has created; the newest thing first."""
    noun, name = _NOUNS[pending.action], pending.handle.name
    adapter = platform.trainer if pending.action == "train" else platform.tuner
    interrupted = not isinstance(cause, Exception)
    verb = "was interrupted" if interrupted else "did not get through"
    _log.warning("The %s %s %s (%s): removing it.", noun, name, verb, type(cause).__name__)
    # By name, because a call that was interrupted while it submitted has no handle yet.
    with _reported(f"the {noun} {name} could not be removed"):
        adapter.delete(pending.handle)
    with _reported(f"{pending.upload_uri} could not be emptied"):
        platform.store.delete(pending.upload_uri)
    with _reported("the model's record could not be updated"):
        RecordRepository(platform.store).save(states.ended_without_model(record))


class _reported(suppress):  # noqa: N801 - used like a function
    """Say what went wrong while cleaning up, so that the first error is the one that is raised."""

    def __init__(self, what: str) -> None:
        super().__init__(KaptainError, OSError)
        self._what = what

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool:
        suppressed = bool(super().__exit__(kind, error, traceback))
        if suppressed and error is not None:
            _log.warning("While cleaning up, %s: %s", self._what, error)
        return suppressed


def find_pending(platform: Platform, target: RunHandle | str) -> tuple[ModelRecord, PendingRun]:
    """Find the record of a run under way, or of one that ended while nobody waited.

    Args:
        platform: Where.
        target: The handle of a run, or the id of a model.

    Raises:
        RunNotFoundError: There is no such run.
    """
    repository = RecordRepository(platform.store)
    if isinstance(target, str):
        record = repository.load(target)
        if record is None or record.pending is None:
            raise RunNotFoundError(
                f"Model {target!r} has no training or tuning under way. Model.load() gives its "
                f"last state."
            )
        return record, record.pending
    adapter = platform.tuner if target.kind == "tune" else platform.trainer
    status = adapter.status(target)
    annotated = ModelRecord.from_json(status.annotation, where=f"run {target.name}")
    if annotated.pending is None:
        raise RunNotFoundError(f"Run {target.name} carries no record of a training or tuning.")
    stored = repository.load(annotated.spec.id)
    return stored or annotated, annotated.pending.model_copy(update={"handle": target})


def forget(platform: Platform, record: ModelRecord) -> ModelRecord:
    """Clear a pending run that the platform does not know."""
    return RecordRepository(platform.store).save(states.ended_without_model(record))


_NOUNS = {"train": "training", "tune": "tuning"}
