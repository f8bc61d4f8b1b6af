"""The services of one local platform in ZenML's database: found, registered, kept up to date.

What a service is, its platform knows; ZenML's rows mirror it. Nothing here ever looks at a row of
another kind of service, because loading one imports its class and asks its backend.
"""

from __future__ import annotations

import logging
import platform as machine
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from zenml.enums import ServiceState
from zenml.models import ServiceFilter, ServiceRequest, ServiceResponse, ServiceUpdate

from kaptain_zen.components.services.local import (
    KaptainLocalDeploymentConfig,
    KaptainLocalDeploymentService,
    KaptainLocalDeploymentStatus,
)
from kaptain_zen.platform.local.home import LocalHome, locked

if TYPE_CHECKING:
    from zenml.client import Client

    from kaptain_zen.model.ports import Service

SERVICE_SOURCE = (
    f"{KaptainLocalDeploymentService.__module__}.{KaptainLocalDeploymentService.__qualname__}"
)
_PAGE = 100
_log = logging.getLogger("kaptain_zen")


@dataclass(frozen=True)
class Query:
    """What to look for; None matches everything.

    Attributes:
        config: Values that the configuration must have.
        service_name: Of the service.
        model_name: Of the ZenML model, or the id of ours.
        model_version: Of the ZenML model: its name or number.
        pipeline_name: Of the pipeline that deployed it last.
        pipeline_step_name: Of the step that deployed it last.
        pipeline_run_id: Of the run that deployed it last, or the beginning of it.
    """

    config: dict[str, Any] = field(default_factory=dict)
    service_name: str | None = None
    model_name: str | None = None
    model_version: str | None = None
    pipeline_name: str | None = None
    pipeline_step_name: str | None = None
    pipeline_run_id: str | None = None

    def matches(self, config: KaptainLocalDeploymentConfig, row: ServiceResponse) -> bool:
        """Whether a service is one of those that are looked for."""
        versions = {config.model_version}
        # A link to a version cannot be undone, so an older one may be left.
        if row.model_version and row.model_version.name == config.model_version:
            versions.add(str(row.model_version.number))
        equal = (
            (self.service_name, {config.service_name}),
            (self.model_name, {config.model_name, config.model_id}),
            (self.model_version, versions),
            (self.pipeline_name, {config.pipeline_name}),
            (self.pipeline_step_name, {config.pipeline_step_name}),
        )
        if any(wanted is not None and str(wanted) not in found for wanted, found in equal):
            return False
        run = self.pipeline_run_id
        if run and not _hex(config.pipeline_run_id).startswith(_hex(run)):
            return False
        present = config.model_dump(mode="json")
        return all(present.get(key) == value for key, value in self.config.items())


class ServiceRows:
    """The rows that belong to one local platform."""

    def __init__(self, client: Client, home: LocalHome) -> None:
        """Use a client; nothing is read yet.

        Args:
            client: Of the ZenML store.
            home: Of the local platform.
        """
        self._client = client
        self._home = home

    def find(
        self, query: Query | None = None, *, uuid: UUID | None = None
    ) -> list[tuple[ServiceResponse, KaptainLocalDeploymentService]]:
        """Rows that match, newest first, with the services that they describe.

        Args:
            query: What to look for; everything if None.
            uuid: ZenML's id of the service.
        """
        found = []
        for row in self._rows(uuid):
            service = _loaded(row)
            if service is None or not self._ours(service.config):
                continue
            if query is None or query.matches(service.config, row):
                found.append((row, service))
        return found

    def of_model(self, model_id: str) -> KaptainLocalDeploymentService | None:
        """The service of a model, by our id of it."""
        for _, service in self.find():
            if service.config.model_id == model_id:
                return service
        return None

    def publish(
        self,
        service: Service,
        config: KaptainLocalDeploymentConfig,
        *,
        model_version_id: UUID | None = None,
        pipeline_run_id: UUID | None = None,
    ) -> KaptainLocalDeploymentService:
        """Register a service, or bring its row up to date; its id stays the same for ever.

        Args:
            service: As the platform sees it.
            config: What it was deployed with.
            model_version_id: Of ZenML's model version.
            pipeline_run_id: Of the run that deployed it.
        """
        with self._locked():
            known = self.of_model(service.model_id)
            mirrored = self._mirror(service, config, known)
            if known is None:
                row = self._client.zen_store.create_service(
                    ServiceRequest(
                        **_columns(mirrored, service),
                        project=self._client.active_project.id,
                        service_type=KaptainLocalDeploymentService.SERVICE_TYPE,
                        service_source=SERVICE_SOURCE,
                        config=mirrored.config.model_dump(mode="json"),
                        model_version_id=model_version_id,
                        pipeline_run_id=pipeline_run_id,
                    )
                )
                return mirrored.model_copy(update={"uuid": row.id})
            update = ServiceUpdate(
                **_columns(mirrored, service),
                **({"model_version_id": model_version_id} if model_version_id else {}),
            )
            self._client.zen_store.update_service(known.uuid, update)
            return mirrored

    def refresh(self, row: ServiceResponse, service: KaptainLocalDeploymentService) -> None:
        """Ask the platform how a service is, and note it when that is news."""
        service.update_status()
        if service.status.model_dump(mode="json") != row.status:
            self.note(service)

    def note(self, service: KaptainLocalDeploymentService) -> None:
        """Write a service's state to its row; nothing happens when there is none any more."""
        with self._locked(), suppress(KeyError):
            # Somebody may have deployed something else since the service was read.
            current = self._client.zen_store.get_service(service.uuid).status or {}
            service.status.applied = current.get("applied", service.status.applied)
            self._client.zen_store.update_service(
                service.uuid,
                ServiceUpdate(
                    admin_state=service.admin_state,
                    status=service.status.model_dump(mode="json"),
                    prediction_url=service.prediction_url,
                    health_check_url=service.healthcheck_url,
                ),
            )

    def remove(self, uuid: UUID) -> None:
        """Remove a row; nothing happens when there is none."""
        with suppress(KeyError):
            self._client.zen_store.delete_service(uuid)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other clients on this machine from writing rows of this home for a block's length.

        Otherwise two could register the same service, or one overwrite what the other has written.
        """
        with locked(self._home.ensure(self._home.root) / "zenml.lock"):
            yield

    def _mirror(
        self,
        service: Service,
        config: KaptainLocalDeploymentConfig,
        known: KaptainLocalDeploymentService | None,
    ) -> KaptainLocalDeploymentService:
        """The service with its row's id and what the platform says of it."""
        complete = config.model_copy(
            update={
                "service_name": service.name,
                "home": str(self._home.root),
                "host": machine.node(),
                "project": self._client.active_project.name,
            }
        )
        mirrored = KaptainLocalDeploymentService(
            uuid=known.uuid if known else UUID(int=0),
            config=complete,
            status=KaptainLocalDeploymentStatus(
                applied=complete.model_dump(mode="json", exclude={"type"})
            ),
        )
        mirrored.status.update_state(*mirrored.observe(service))
        return mirrored

    def _rows(self, uuid: UUID | None) -> Iterator[ServiceResponse]:
        kind = KaptainLocalDeploymentService.SERVICE_TYPE
        number = 1
        while True:
            page = self._client.zen_store.list_services(
                ServiceFilter(
                    sort_by="desc:created",
                    page=number,
                    size=_PAGE,
                    project=self._client.active_project.id,
                    type=f"equals:{kind.type}",
                    flavor=f"equals:{kind.flavor}",
                    **({"id": uuid} if uuid else {}),
                ),
                hydrate=True,
            )
            yield from page.items
            if number >= page.total_pages:
                return
            number += 1

    def _ours(self, config: KaptainLocalDeploymentConfig) -> bool:
        """Whether a service is of this platform: several may share one ZenML server."""
        return config.home == str(self._home.root) and (
            config.host == machine.node() or self._client.zen_store.is_local_store()
        )


def _loaded(row: ServiceResponse) -> KaptainLocalDeploymentService | None:
    """The service that a row describes; one that cannot be read must not hide the others."""
    if row.service_source != SERVICE_SOURCE:
        return None
    try:
        return KaptainLocalDeploymentService(
            uuid=row.id,
            admin_state=row.admin_state or ServiceState.INACTIVE,
            config=row.config,
            status=row.status or {},
        )
    except ValueError as error:
        _log.warning(
            "Service %s cannot be read by this release and is left out: %s",
            row.id,
            str(error).splitlines()[0],
        )
        return None


def _columns(mirrored: KaptainLocalDeploymentService, service: Service) -> dict[str, Any]:
    """What a new row and an updated one have in common."""
    return {
        "name": mirrored.config.service_name,
        "admin_state": mirrored.admin_state,
        "status": mirrored.status.model_dump(mode="json"),
        "labels": {
            "kaptain-zen.io/model-id": service.model_id,
            "kaptain-zen.io/revision": service.record.revision,
            "kaptain-zen.io/state": service.record.state.value,
        },
        "prediction_url": mirrored.prediction_url,
        "health_check_url": mirrored.healthcheck_url,
    }


def _hex(uuid: str) -> str:
    return str(uuid).replace("-", "").lower()
