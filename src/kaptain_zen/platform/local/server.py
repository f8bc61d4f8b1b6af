"""Serving models on this machine: one MLServer process per revision, a router in front of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence

from kaptain_zen.exceptions import (
    ConflictError,
    KaptainError,
    ModelDeploymentException,
    ModelValidationException,
    RecordFormatError,
    WorkloadTimeoutError,
)
from kaptain_zen.model.frameworks import ModelFramework
from kaptain_zen.model.ports import LogLine, Service, ServiceProgress, Store
from kaptain_zen.model.record import DeploymentPhase, ModelRecord
from kaptain_zen.platform.local import orphans
from kaptain_zen.platform.local.home import LocalHome
from kaptain_zen.platform.local.mlserver_settings import check_config, runtime_for
from kaptain_zen.platform.local.rollout import Rollout
from kaptain_zen.platform.local.service_condition import condition
from kaptain_zen.platform.local.service_logs import read_logs
from kaptain_zen.platform.local.service_state import ServiceFolder, ServiceState, names, new_version
from kaptain_zen.platform.local.serving_process import SPARES
from kaptain_zen.platform.local.settling import close, revisions, settle

_log = logging.getLogger("kaptain_zen")
_RECOVERY_DRAIN = 5.0

# The class below has a method of the name `list`.
Removed = list[str]


class LocalServer:
    """Implements `kaptain_zen.model.ports.Server` on this machine.

    A service outlives the process that deployed it. Its URL is `http://127.0.0.1:<port>` of its
    router, from its first deployment until it is deleted. What one revision's `resources` mean
    here: `cpu` is how many threads BLAS and OpenMP get, rounded up to whole cores; `memory` limits
    what the process may allocate (Linux); `autoscale` and GPUs mean nothing, there is one process
    per revision.
    """

    backend = "local"

    def __init__(self, home: LocalHome, *, store: Store) -> None:
        """Serve from a home.

        Args:
            home: The local platform's folder.
            store: Where models are downloaded from.
        """
        self._home = home
        self._store = store

    def check(self, record: ModelRecord) -> None:
        """See `Server.check`."""
        for warning in _checked(record):
            _log.warning("%s", warning)

    def prepare(
        self, framework: str | ModelFramework | None, *, modules: Sequence[str] = ()
    ) -> bool:
        """Start importing what serves a framework's models, in a process in the background.

        The next server that is started for such a model takes the process over and answers seconds
        sooner. A process that is not taken ends with this one, and with `delete` and `cleanup`.

        Args:
            framework: The framework.
            modules: What to import besides, for example what the training script imports.

        Returns:
            Whether there is such a process now; False where the framework cannot be served.
        """
        try:
            chosen = ModelFramework.of(framework)
            runtime = runtime_for(chosen) if chosen else None
            if runtime is None:
                return False
            SPARES.prepare(runtime, home=self._home.root, modules=modules)
        except KaptainError as error:
            _log.debug("No server was prepared: %s", error)
            return False
        return True

    def get(self, model_id: str) -> Service | None:
        """See `Server.get`."""
        folder = self._folder(model_id)
        self._recover(folder)
        state = folder.read()
        return self._service(folder, state) if state else None

    def list(self) -> list[Service]:
        """See `Server.list`."""
        services = []
        for name in names(self._home):
            folder = ServiceFolder(self._home, name)
            try:
                self._recover(folder)
                state = folder.read()
                if state:
                    services.append(self._service(folder, state))
            except RecordFormatError as error:
                _log.warning("Service %s is left out: %s", name, error)
        return services

    def apply(
        self,
        record: ModelRecord,
        *,
        resource_version: str | None,
        timeout: float = 300,
        on_progress: Callable[[ServiceProgress], None] | None = None,
    ) -> Service:
        """See `Server.apply`."""
        if record.deployment.phase is DeploymentPhase.NONE:
            raise ModelValidationException(
                f"The record of model {record.spec.id!r} asks for nothing to be served. Deploy it "
                f"first, or delete its service."
            )
        _checked(record)
        folder = self._folder(record.spec.id)
        began = time.monotonic()
        with folder.changing(timeout=timeout):
            before = self._held(folder, resource_version)
            rollout = Rollout(
                folder, self._store, timeout=timeout, began=began, on_progress=on_progress
            )
            state = rollout.run(record, before)
            return self._service(folder, state)

    def delete(
        self, model_id: str, *, resource_version: str | None = None, timeout: float = 60
    ) -> None:
        """See `Server.delete`."""
        SPARES.discard()
        folder = self._folder(model_id)
        with folder.changing(timeout=timeout):
            state = self._recovered_state(folder)
            if resource_version is not None and (
                state is None or state.resource_version != resource_version
            ):
                raise _conflict(folder, state)
            if state is None:
                return
            # The journal takes the processes over before the state is gone, so that they are known
            # at every moment.
            servers = (*state.servers, *state.retiring)
            folder.note(*(s.ref for s in servers), state.router.ref)
            close(folder, state, timeout=timeout)
            folder.file.unlink()
            settle(folder, timeout=timeout)

    def stop(self, model_id: str, *, timeout: float = 60) -> Service:
        """See `Server.stop`; the router stays, and tells clients that the service is stopped.

        Raises:
            ModelDeploymentException: There is no such service.
        """
        folder = self._folder(model_id)
        with folder.changing(timeout=timeout):
            state = self._existing(folder, model_id)
            if not state.stopped:
                folder.note()
                folder.write(
                    state.model_copy(
                        update={
                            "resource_version": new_version(),
                            "servers": (),
                            "retiring": (*state.retiring, *state.servers),
                            "stopped": True,
                        }
                    )
                )
                settle(folder, timeout=timeout)
            return self._service(folder, self._existing(folder, model_id))

    def start(self, model_id: str, *, timeout: float = 300) -> Service:
        """See `Server.start`; processes that have ended are started again as well.

        Raises:
            ModelDeploymentException: There is no such service.
            WorkloadDeploymentError: It did not start.
        """
        folder = self._folder(model_id)
        with folder.changing(timeout=timeout):
            state = self._existing(folder, model_id)
            record = state.record(folder.file)
            _checked(record)
            return self._service(
                folder, Rollout(folder, self._store, timeout=timeout).run(record, state)
            )

    def logs(
        self, model_id: str, *, tail: int | None = None, follow: bool = False
    ) -> Iterator[LogLine]:
        """See `Server.logs`.

        Raises:
            ModelDeploymentException: There is no such service.
        """
        folder = self._folder(model_id)
        if not folder.file.exists():
            raise _missing(model_id)
        return read_logs(folder, tail=tail, follow=follow)

    def cleanup(self, *, dry_run: bool = False) -> Removed:
        """Remove what changes that were broken off, and services that are gone, have left.

        Args:
            dry_run: Whether to only say what would be removed.

        Returns:
            What was removed, one sentence each.
        """
        if not dry_run:
            SPARES.discard()
        return orphans.cleanup(self._home, dry_run=dry_run)

    def _folder(self, model_id: str) -> ServiceFolder:
        return ServiceFolder.of(self._home, model_id)

    def _recover(self, folder: ServiceFolder) -> None:
        """Bring to an end what a client that was killed has begun."""
        if folder.unsettled:
            try:
                with folder.changing(timeout=0):
                    self._recovered_state(folder)
            except WorkloadTimeoutError:
                pass  # not killed: somebody is at it

    def _recovered_state(self, folder: ServiceFolder) -> ServiceState | None:
        if folder.unsettled:
            _log.info("Service %s: bringing an interrupted change to its end.", folder.name)
            settle(folder, timeout=_RECOVERY_DRAIN)
        return folder.read()

    def _held(self, folder: ServiceFolder, resource_version: str | None) -> ServiceState | None:
        """The state of a service that is held, if it is the one that the caller knows.

        Raises:
            ConflictError: It is not.
            RecordFormatError: It cannot be read; it must not be overwritten.
        """
        state = self._recovered_state(folder)
        if state is not None:
            state.record(folder.file)
        if resource_version != (state.resource_version if state else None):
            raise _conflict(folder, state)
        return state

    def _existing(self, folder: ServiceFolder, model_id: str) -> ServiceState:
        state = self._recovered_state(folder)
        if state is None:
            raise _missing(model_id)
        return state

    def _service(self, folder: ServiceFolder, state: ServiceState) -> Service:
        record = state.record(folder.file)
        message, answered = condition(folder, state, record)
        return Service(
            model_id=state.model_id,
            name=folder.name,
            backend=self.backend,
            url=state.url,
            record=record,
            resource_version=state.resource_version,
            ready=not message,
            stopped=state.stopped,
            message=message,
            requests=answered,
        )


def _conflict(folder: ServiceFolder, state: ServiceState | None) -> ConflictError:
    happened = "is gone" if state is None else "was changed, or made, by another client"
    return ConflictError(f"Service {folder.name!r} {happened} since it was read. Read it again.")


def _checked(record: ModelRecord) -> list[str]:
    """Check what a record asks for; what will not have an effect here, as sentences."""
    runtime_for(record.spec.framework)
    return [
        warning
        for served in revisions(record.deployment)
        for warning in check_config(
            served.serving_config, where=f"Model {record.spec.id!r}, {served.revision[:8]}"
        )
    ]


def _missing(model_id: str) -> ModelDeploymentException:
    return ModelDeploymentException(
        f"Model {model_id!r} has no service on this machine. Deploy it first."
    )
