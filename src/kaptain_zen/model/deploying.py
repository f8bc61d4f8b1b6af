"""Every change of what is deployed: read the service, decide, apply, and decide again on a race."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

from kaptain_zen import console
from kaptain_zen.exceptions import (
    ConflictError,
    KaptainError,
    ModelDeploymentException,
    StorageError,
)
from kaptain_zen.model import states
from kaptain_zen.model.interrupts import terminable, undisturbed
from kaptain_zen.model.ports import Service
from kaptain_zen.model.record import Deployment, DeploymentPhase, ModelRecord, Served
from kaptain_zen.model.repository import RecordRepository
from kaptain_zen.model.running import METRICS_FILE

if TYPE_CHECKING:
    from kaptain_zen.platform.platform import Platform

DEFAULT_TIMEOUT = 300.0
"""Seconds that a service may take to answer."""
_ATTEMPTS = 5
_log = logging.getLogger("kaptain_zen")

Transition = Callable[[ModelRecord, str, datetime], ModelRecord]
"""(observed record, new revision, now) -> wanted record, or an error of the table of states."""


def observe(platform: Platform, record: ModelRecord) -> tuple[ModelRecord, Service | None]:
    """Take over into a record what its service says is deployed."""
    service = platform.server.get(record.spec.id)
    deployment = service.record.deployment if service else Deployment()
    return states.observed(record, deployment), service


def change(
    platform: Platform,
    record: ModelRecord,
    transition: Transition,
    *,
    timeout: float = DEFAULT_TIMEOUT,
) -> tuple[ModelRecord, Service | None]:
    """Change what is deployed.

    Args:
        platform: Where.
        record: Of the model.
        transition: What to do; called again with what is there when another client was faster.
        timeout: Seconds for everything to answer.

    Returns:
        The record afterwards, and the service, unless it is gone.

    Raises:
        ModelDeploymentException: The action is not allowed, or other clients keep changing the
            service.
        WorkloadDeploymentError: What was to be deployed did not start; all is as it was before.
    """
    for _ in range(_ATTEMPTS):
        observed, service = observe(platform, record)
        wanted = transition(observed, uuid4().hex, datetime.now(UTC))
        try:
            changed = _apply(platform, observed.deployment, wanted, service, timeout)
        except ConflictError as conflict:
            _log.info("Deciding again: %s", conflict)
            continue
        wanted = _kept(platform, wanted)
        _remove_bundles(platform, observed.deployment, wanted.deployment)
        return wanted, changed
    raise ModelDeploymentException(
        f"The service of model {record.spec.id!r} was changed by other clients {_ATTEMPTS} times "
        f"in a row. Nothing of this call was done; try again when they are finished."
    )


def _kept(platform: Platform, record: ModelRecord) -> ModelRecord:
    """Write the record to the storage too; the service, which is the truth, has it already."""
    try:
        return RecordRepository(platform.store).save(record)
    except StorageError as error:
        _log.warning(
            "The service of %s is changed, but the storage does not know yet; the next action "
            "tells it: %s",
            record.spec.id,
            error,
        )
        return record


def bundles(platform: Platform, model_id: str) -> str:
    """URI of the folder of what is deployed of a model."""
    return f"{RecordRepository(platform.store).folder(model_id)}/deploy"


def _apply(
    platform: Platform,
    before: Deployment,
    wanted: ModelRecord,
    service: Service | None,
    timeout: float,
) -> Service | None:
    version = service.resource_version if service else None
    model_id = wanted.spec.id
    if wanted.deployment.phase is DeploymentPhase.NONE:
        with terminable():
            platform.server.delete(model_id, resource_version=version, timeout=timeout)
        return None
    platform.server.check(wanted)
    with terminable():
        try:
            _make_bundles(platform, before, wanted)
            with console.watch_table() as table:
                return platform.server.apply(
                    wanted, resource_version=version, timeout=timeout, on_progress=table.update
                )
        except BaseException as error:
            if not isinstance(error, Exception):
                _log.warning(
                    "The deployment of %s was interrupted (%s): what served before serves on.",
                    model_id,
                    type(error).__name__,
                )
            with undisturbed():
                _remove_bundles(platform, wanted.deployment, before)
            raise


def _make_bundles(platform: Platform, before: Deployment, wanted: ModelRecord) -> None:
    """Copy a newly deployed artifact to where it is served from; nothing else changes it there."""
    known = {served.revision for served in _revisions(before)}
    for served in _revisions(wanted.deployment):
        if served.revision in known:
            continue
        if served.source is None:
            # Fails with the URI in the message when there is nothing to serve.
            platform.store.fingerprint(served.uri)
        elif wanted.artifact is not None:
            _log.info("Copying the model from %s to %s.", wanted.artifact.uri, served.uri)
            platform.store.copy(wanted.artifact.uri, served.uri, exclude=(METRICS_FILE,))


def _remove_bundles(platform: Platform, before: Deployment, after: Deployment) -> None:
    """Remove copies that nothing serves any more; the artifacts themselves stay."""
    kept = {served.uri for served in _revisions(after)}
    for served in _revisions(before):
        if served.source is not None and served.uri not in kept:
            try:
                platform.store.delete(served.uri)
            except KaptainError as error:
                _log.warning(
                    "%s is no longer served but could not be removed: %s", served.uri, error
                )


def _revisions(deployment: Deployment) -> list[Served]:
    return [s for s in (deployment.baseline, deployment.canary) if s is not None]
