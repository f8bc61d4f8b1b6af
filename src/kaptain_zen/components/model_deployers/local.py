"""Model deployer of the local platform.

ZenML's own `deploy_model` and `find_model_server` delete rows, mix up models and look into the
services of other deployers. They are replaced here by ones in which a model has one service, found
by its id and changed in place.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, ClassVar, cast
from uuid import UUID

from zenml.client import Client
from zenml.model_deployers.base_model_deployer import (
    BaseModelDeployer,
    BaseModelDeployerFlavor,
)
from zenml.models.v2.misc.service import ServiceType
from zenml.services.service import BaseService, ServiceConfig

from kaptain_zen.components.model_deployers.requests import (
    checked_config,
    describe,
    model_of,
    model_version_of,
    serves,
    version_name,
)
from kaptain_zen.components.platforms import REQUIREMENTS, home_of, platform_of, settings_of
from kaptain_zen.components.services.local import (
    DEFAULT_TIMEOUT,
    KaptainLocalDeploymentConfig,
    KaptainLocalDeploymentService,
    ModelServerError,
)
from kaptain_zen.components.services.rows import Query, ServiceRows
from kaptain_zen.exceptions import KaptainError
from kaptain_zen.flavors.local import (
    KaptainLocalModelDeployerConfig,
    KaptainLocalModelDeployerFlavor,
)
from kaptain_zen.model.models import Model

if TYPE_CHECKING:
    from zenml.models import ModelVersionResponse

    from kaptain_zen.model.ports import Service
    from kaptain_zen.platform.platform import Platform, PlatformSettings

_TYPE = KaptainLocalDeploymentService.SERVICE_TYPE
_log = logging.getLogger("kaptain_zen")


class KaptainLocalModelDeployer(BaseModelDeployer):
    """Serves models with MLServer behind a router on this machine."""

    NAME: ClassVar[str] = "Kaptain local"
    FLAVOR: ClassVar[type[BaseModelDeployerFlavor]] = KaptainLocalModelDeployerFlavor

    @property
    def config(self) -> KaptainLocalModelDeployerConfig:
        """The component's configuration."""
        return cast(KaptainLocalModelDeployerConfig, self._config)

    @property
    def requirements(self) -> set[str]:
        """What an image needs in which this component is used."""
        return set(REQUIREMENTS)

    def platform_settings(self) -> PlatformSettings:
        """What this component says about the platform of its stack."""
        return settings_of(self.config)

    @property
    def platform(self) -> Platform:
        """The platform that it deploys to."""
        return platform_of(self)

    @property
    def _rows(self) -> ServiceRows:
        return ServiceRows(Client(), home_of(self))

    def deploy_model(
        self,
        config: ServiceConfig,
        service_type: ServiceType = _TYPE,
        replace: bool = False,
        continuous_deployment_mode: bool = False,
        timeout: int = DEFAULT_TIMEOUT,
    ) -> BaseService:
        """Deploy a model; a model has one service, whatever pipeline or step deploys it.

        Args:
            config: A `KaptainLocalDeploymentConfig`.
            service_type: That of this deployer.
            replace: Whether the model's service may be changed. It keeps its URL and its id, and no
                request is dropped. An artifact of the model that serves already is not restarted;
                what is under a URI is read again.
            continuous_deployment_mode: The same as `replace`.
            timeout: Seconds until it must answer.

        Returns:
            The service.

        Raises:
            ModelServerError: The model serves something else and may not be replaced, it did not
                start, nothing is known of it, or the request is wrong.
        """
        wanted = checked_config(config, service_type, deployer=self.name)
        try:
            service = self._deployed(
                wanted,
                may_replace=replace or continuous_deployment_mode,
                timeout=timeout or DEFAULT_TIMEOUT,
            )
        except ModelServerError:
            raise
        except KaptainError as error:
            raise ModelServerError(
                f"Model {wanted.model_id!r} was not deployed: {error}"
            ) from error
        return self.publish_service(
            service, wanted, model_version=model_version_of(Client(), wanted)
        )

    def _deployed(
        self, wanted: KaptainLocalDeploymentConfig, *, may_replace: bool, timeout: int
    ) -> Service:
        model = model_of(wanted, self.platform)
        service = model.service()
        # What is under a URI may have changed; an artifact of the model never does.
        unchanged = service is not None and serves(service, model, wanted)
        if service is None or not unchanged or (may_replace and wanted.model_uri):
            if service is not None and not may_replace:
                raise ModelServerError(
                    f"Model {wanted.model_id!r} serves something else already at {service.url}. "
                    f"Deploy with replace=True to replace it in place, or delete the service first."
                )
            model.serving_config = {**model.serving_config, **wanted.serving_config}
            deployed = model.deploy(
                wanted.model_uri or None,
                autoscale=wanted.autoscale,
                resources=wanted.resources,
                replace=service is not None,
                timeout=timeout,
            )
            if not deployed:
                raise ModelServerError(
                    f"Model {wanted.model_id!r} was not deployed: {model.last_error}"
                )
            service = model.service()
        elif service.stopped:
            service = self.platform.server.start(wanted.model_id, timeout=timeout)
        if service is None:
            raise ModelServerError(
                f"Model {wanted.model_id!r} was undeployed by somebody else while it was deployed."
            )
        return service

    def perform_deploy_model(
        self, id: UUID, config: ServiceConfig, timeout: int = DEFAULT_TIMEOUT
    ) -> BaseService:
        """Deploy a model onto the service with an id; see `deploy_model`."""
        service = self.deploy_model(config, replace=True, timeout=timeout)
        if service.uuid != id:
            _log.info("The model is served by service %s instead of %s.", service.uuid, id)
        return service

    def publish_service(
        self,
        service: Service,
        config: KaptainLocalDeploymentConfig | None = None,
        *,
        model_version: ModelVersionResponse | None = None,
    ) -> KaptainLocalDeploymentService:
        """Make ZenML know a service of the platform, or what has become of it.

        Args:
            service: As the platform sees it.
            config: On whose behalf it was deployed; as it was before if None.
            model_version: ZenML's model version that it belongs to; as it was before if None.
        """
        rows = self._rows
        if config is None:
            known = rows.of_model(service.model_id)
            config = (
                known.config if known else KaptainLocalDeploymentConfig(model_id=service.model_id)
            )
        spec, baseline = service.record.spec, service.record.deployment.baseline
        config = config.model_copy(
            update={
                "model_id": service.model_id,
                "framework": spec.framework.value,
                "framework_version": spec.framework_version,
                "storage_uri": self.platform.store.base_uri,
            }
        )
        if baseline:
            config.resources = baseline.resources
            config.autoscale = baseline.autoscale
            config.serving_config = dict(baseline.serving_config)
        if model_version:
            config.model_name = model_version.model.name
            config.model_version = version_name(model_version)
        return rows.publish(
            service,
            config,
            model_version_id=model_version.id if model_version else None,
            pipeline_run_id=UUID(config.pipeline_run_id) if config.pipeline_run_id else None,
        )

    def forget_service(self, model_id: str) -> None:
        """Make ZenML forget a service that was undeployed."""
        service = self._rows.of_model(model_id)
        if service is not None:
            self._rows.remove(service.uuid)

    def find_model_server(
        self,
        config: dict[str, Any] | None = None,
        running: bool | None = None,
        service_uuid: UUID | None = None,
        pipeline_name: str | None = None,
        pipeline_step_name: str | None = None,
        service_name: str | None = None,
        model_name: str | None = None,
        model_version: str | None = None,
        service_type: ServiceType | None = None,
        type: str | None = None,
        flavor: str | None = None,
        pipeline_run_id: str | None = None,
    ) -> list[BaseService]:
        """Find services of this deployer, newest first; services of others are never touched.

        Services that were deployed without ZenML, by a `Model` in a notebook, are found too.

        Args:
            config: Values that the configuration must have.
            running: Whether to leave out what does not answer.
            service_uuid: ZenML's id of the service.
            pipeline_name: Of the pipeline that deployed it last.
            pipeline_step_name: Of the step that deployed it last.
            service_name: Of the service.
            model_name: Of the ZenML model, or the id of the model here.
            model_version: Of the ZenML model.
            service_type: Only that of this deployer finds anything.
            type: Only `model-serving` finds anything.
            flavor: Only `kaptain_local` finds anything.
            pipeline_run_id: Of the run that deployed it last.

        Returns:
            The services, with their state as it is now.
        """
        kinds = [
            (service_type.type if service_type else None, _TYPE.type),
            (service_type.flavor if service_type else None, _TYPE.flavor),
            (type, _TYPE.type),
            (flavor, _TYPE.flavor),
        ]
        if any(asked is not None and asked != ours for asked, ours in kinds):
            return []
        rows = self._rows
        if service_uuid is None:
            self._adopt(rows)
        query = Query(
            config=dict(config or {}),
            service_name=service_name,
            model_name=model_name,
            model_version=model_version,
            pipeline_name=pipeline_name,
            pipeline_step_name=pipeline_step_name,
            pipeline_run_id=pipeline_run_id,
        )
        platform = self.platform
        services: list[BaseService] = []
        for row, service in rows.find(query, uuid=service_uuid):
            service.use(platform)
            rows.refresh(row, service)
            if not running or service.status.state.value == "active":
                services.append(service)
        return services

    def start_model_server(self, uuid: UUID, timeout: int = DEFAULT_TIMEOUT) -> None:
        """Start a stopped service and wait until it answers.

        Raises:
            ModelServerError: There is no such service, or it does not answer.
        """
        self.perform_start_model(self._service(uuid), timeout)

    def perform_start_model(
        self, service: BaseService, timeout: int = DEFAULT_TIMEOUT
    ) -> BaseService:
        """Start a stopped service and wait until it answers."""
        return self._switch(service, "start", timeout=timeout)

    def stop_model_server(
        self, uuid: UUID, timeout: int = DEFAULT_TIMEOUT, force: bool = False
    ) -> None:
        """Stop a service; it keeps its URL and can be started again.

        Raises:
            ModelServerError: There is no such service, or it could not be stopped.
        """
        self.perform_stop_model(self._service(uuid), timeout, force)

    def perform_stop_model(
        self, service: BaseService, timeout: int = DEFAULT_TIMEOUT, force: bool = False
    ) -> BaseService:
        """Stop a service; it keeps its URL and can be started again."""
        return self._switch(service, "stop", timeout=timeout, force=force)

    def delete_model_server(
        self, uuid: UUID, timeout: int = DEFAULT_TIMEOUT, force: bool = False
    ) -> None:
        """Undeploy a model and forget its service.

        Raises:
            ModelServerError: There is no such service, or it could not be removed.
        """
        service = self._service(uuid)
        self.perform_delete_model(service, timeout, force)
        self._rows.remove(uuid)

    def perform_delete_model(
        self, service: BaseService, timeout: int = DEFAULT_TIMEOUT, force: bool = False
    ) -> None:
        """Undeploy a model; with `force`, even when its record cannot be read or written."""
        local = _ours(service)
        platform, model_id = self.platform, local.config.model_id
        try:
            if force:
                platform.server.delete(model_id, timeout=timeout or DEFAULT_TIMEOUT)
            elif platform.server.get(model_id) is not None:
                Model.load(model_id, platform=platform).undeploy()
        except KaptainError as error:
            raise ModelServerError(
                f"Model server {local.config.service_name} was not removed: {error}"
            ) from error

    def get_model_server_logs(
        self, uuid: UUID, follow: bool = False, tail: int | None = None
    ) -> Generator[str, bool, None]:
        """What a service's servers printed.

        Raises:
            ModelServerError: There is no such service.
        """
        return self._service(uuid).get_logs(follow=follow, tail=tail)

    @staticmethod
    def get_model_server_info(service: BaseService) -> dict[str, str | None]:
        """What to show to people about a service."""
        return describe(_ours(service))

    def _service(self, uuid: UUID) -> KaptainLocalDeploymentService:
        for _, service in self._rows.find(uuid=uuid):
            service.use(self.platform)
            return service
        raise ModelServerError(
            f"Model deployer {self.name!r} has no model server with UUID {uuid}. `zenml "
            f"model-deployer models list` shows those that it has."
        )

    def _switch(
        self, service: BaseService, action: str, **options: Any
    ) -> KaptainLocalDeploymentService:
        """Start or stop a service, and note how it is afterwards, whether that went well or not."""
        local = _ours(service)
        try:
            getattr(local, action)(**options)
        finally:
            self._rows.note(local)
        return local

    def _adopt(self, rows: ServiceRows) -> None:
        """Register services that ZenML does not know yet."""
        known = {service.config.model_id for _, service in rows.find()}
        for service in self.platform.server.list():
            if service.model_id not in known:
                self.publish_service(service)


def _ours(service: BaseService) -> KaptainLocalDeploymentService:
    if not isinstance(service, KaptainLocalDeploymentService):
        raise ModelServerError(
            f"Service {service.uuid} is a {service.__class__.__name__} of another deployer."
        )
    return service
