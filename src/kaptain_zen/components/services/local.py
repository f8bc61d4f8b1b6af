"""A service of the local platform as ZenML sees it.

ZenML stores the paths of these classes, and their fields, with every service that it knows: the
module and the classes keep their names, and fields are only ever added.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from pydantic import Field, PrivateAttr, field_validator, model_validator
from zenml.enums import ServiceState
from zenml.models.v2.misc.service import ServiceType
from zenml.services.service import BaseDeploymentService, ServiceConfig
from zenml.services.service_status import ServiceStatus

from kaptain_zen.exceptions import KaptainError, ModelDeploymentException
from kaptain_zen.flavors.local import LOCAL_MODEL_DEPLOYER_FLAVOR
from kaptain_zen.model.ports import Service
from kaptain_zen.model.resources import Resources

if TYPE_CHECKING:
    from kaptain_zen.platform.platform import Platform

DEFAULT_TIMEOUT = 300


class ModelServerError(ModelDeploymentException, RuntimeError):
    """A model server is not there, or does not do as it was told.

    ZenML's interface promises a RuntimeError.
    """


class KaptainLocalDeploymentConfig(ServiceConfig):
    """What is deployed, and on whose behalf.

    Attributes:
        model_id: Of the model; `model_name`, else `name`, if blank.
        model_uri: Folder of a saved model; the model's newest artifact if blank.
        framework: Needed only for a model that nothing is known of.
        framework_version: Of the framework.
        resources: What a server gets.
        autoscale: Target of requests under way per server.
        serving_config: How it is served.
        pipeline_run_id: The pipeline run that deployed it.
        home: The local platform's folder; filled in by the deployer, like what follows.
        storage_uri: Folder in the storage for all models.
        host: The machine.
        project: The ZenML project.
    """

    model_id: str = ""
    model_uri: str = ""
    framework: str = ""
    framework_version: str = ""
    resources: Resources = Resources()
    autoscale: int = Field(default=2, ge=1)
    serving_config: dict[str, Any] = Field(default_factory=dict)
    pipeline_run_id: str = ""
    home: str = ""
    storage_uri: str = ""
    host: str = ""
    project: str = ""

    @field_validator("pipeline_run_id")
    @classmethod
    def _uuid(cls, value: str) -> str:
        return str(UUID(value)) if value else ""

    def __init__(self, **data: Any) -> None:
        """Let a model's id stand for its name, and its name for its id."""
        name = data.get("model_id") or data.get("model_name") or data.get("name")
        if name:
            data = {
                **data,
                "model_id": name,
                "model_name": data.get("model_name") or name,
                "name": data.get("name") or name,
            }
        super().__init__(**data)


class KaptainLocalDeploymentStatus(ServiceStatus):
    """What of a service changes during its life.

    Attributes:
        applied: The configuration that it has now; ZenML cannot change the one that it was
            registered with.
        predictions: Where predictions are asked for.
        health: Where a server says whether it is ready.
        revision: What serves.
        uri: Folder that it was loaded from.
        canary_revision: What is tried beside it.
        canary_uri: Folder that the canary was loaded from.
        canary_percentage: The canary's share of the requests.
    """

    applied: dict[str, Any] = Field(default_factory=dict)
    predictions: str = ""
    health: str = ""
    revision: str = ""
    uri: str = ""
    canary_revision: str = ""
    canary_uri: str = ""
    canary_percentage: int = 0


class KaptainLocalDeploymentService(BaseDeploymentService):
    """One deployed model behind its stable URL, with one or two revisions."""

    SERVICE_TYPE: ClassVar[ServiceType] = ServiceType(
        name="kaptain-local-deployment",
        type="model-serving",
        flavor=LOCAL_MODEL_DEPLOYER_FLAVOR,
        description="A model behind kaptain-zen's local router",
    )

    config: KaptainLocalDeploymentConfig
    status: KaptainLocalDeploymentStatus = Field(default_factory=KaptainLocalDeploymentStatus)
    _platform: Any = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _current_config(cls, data: Any) -> Any:
        """What was applied last counts, not what the service was registered with."""
        if isinstance(data, dict) and isinstance(data.get("status"), dict):
            applied = data["status"].get("applied") or {}
            if applied and isinstance(data.get("config"), dict):
                return {**data, "config": {**data["config"], **applied}}
        return data

    @property
    def platform(self) -> Platform:
        """The platform that serves it."""
        if self._platform is None:
            from kaptain_zen.components.platforms import local_platform

            self._platform = local_platform(
                self.config.home or None, self.config.storage_uri or None
            )
        platform: Platform = self._platform
        return platform

    def use(self, platform: Platform) -> None:
        """Use a platform that knows more than the service does: the storage's credentials."""
        self._platform = platform

    @property
    def prediction_url(self) -> str | None:
        """Where predictions are asked for; known without asking anybody."""
        return self.status.predictions or None

    @property
    def healthcheck_url(self) -> str | None:
        """Where a server says whether it is ready."""
        return self.status.health or None

    def get_healthcheck_url(self) -> str | None:
        """Where a server says whether it is ready; ZenML's own looks at endpoints only."""
        return self.healthcheck_url

    def observe(self, service: Service | None) -> tuple[ServiceState, str]:
        """Take over what the platform says of the service.

        Args:
            service: As the platform sees it; None if there is none.

        Returns:
            Its state, and why it is in it.
        """
        self.status.clear_error()
        if service is None:
            return ServiceState.INACTIVE, (
                f"Model {self.config.model_id!r} is not deployed any more. Deploy it again, or "
                f"remove this service with `zenml model-deployer models delete {self.uuid}`."
            )
        deployment = service.record.deployment
        baseline, canary = deployment.baseline, deployment.canary
        self.status.predictions = service.prediction_url
        self.status.health = service.prediction_url.removesuffix("infer") + "ready"
        self.status.revision = baseline.revision if baseline else ""
        self.status.uri = baseline.uri if baseline else ""
        self.status.canary_revision = canary.revision if canary else ""
        self.status.canary_uri = canary.uri if canary else ""
        self.status.canary_percentage = deployment.canary_percentage or 0
        # Somebody may have stopped or started it without ZenML.
        self.admin_state = ServiceState.INACTIVE if service.stopped else ServiceState.ACTIVE
        if service.stopped:
            return ServiceState.INACTIVE, service.message
        if service.ready:
            return ServiceState.ACTIVE, ""
        return ServiceState.ERROR, service.message or "It does not answer."

    def check_status(self) -> tuple[ServiceState, str]:
        """Ask the platform for the service's state."""
        try:
            return self.observe(self.platform.server.get(self.config.model_id))
        except KaptainError as error:
            return ServiceState.ERROR, str(error)

    def start(self, timeout: int = DEFAULT_TIMEOUT) -> None:
        """Start a stopped service and wait until it answers.

        Args:
            timeout: Seconds that it may take; 0 means the default of 300, because a service that
                was started and not waited for could not say why it failed.

        Raises:
            ModelServerError: It does not answer.
        """
        try:
            service = self.platform.server.start(
                self.config.model_id, timeout=timeout or DEFAULT_TIMEOUT
            )
        except KaptainError as error:
            self.status.update_state(ServiceState.ERROR, str(error))
            raise ModelServerError(
                f"Model server {self.config.service_name} was not started: {error}"
            ) from error
        self.status.update_state(*self.observe(service))

    def stop(self, timeout: int = DEFAULT_TIMEOUT, force: bool = False) -> None:
        """Stop the service and keep its URL; requests under way are answered first.

        Args:
            timeout: Seconds that it may take; 0 means the default of 300.
            force: Whether to give requests under way one second only.

        Raises:
            ModelServerError: It could not be stopped.
        """
        try:
            service = self.platform.server.stop(
                self.config.model_id, timeout=1 if force else timeout or DEFAULT_TIMEOUT
            )
        except KaptainError as error:
            raise ModelServerError(
                f"Model server {self.config.service_name} was not stopped: {error}"
            ) from error
        self.status.update_state(*self.observe(service))

    def provision(self) -> None:
        """Start the service."""
        self.start()

    def deprovision(self, force: bool = False) -> None:
        """Stop the service."""
        self.stop(force=force)

    def get_logs(self, follow: bool = False, tail: int | None = None) -> Generator[str, bool, None]:
        """What its servers printed, baseline and canary told apart at the beginning of each line.

        Args:
            follow: Whether to wait for more.
            tail: How many lines from the end; all if None.

        Yields:
            Lines without their ends.
        """
        for line in self.platform.server.logs(self.config.model_id, tail=tail, follow=follow):
            yield f"{line.source} | {line.text}"

    def predict(self, inputs: Any, *, timeout: float = 30.0) -> Any:
        """Ask for predictions; see `Model.predict`.

        Raises:
            ModelServerError: The model is not deployed.
            PredictionError: It did not answer with a prediction.
        """
        platform = self.platform
        service = platform.server.get(self.config.model_id)
        if service is None:
            raise ModelServerError(f"Model {self.config.model_id!r} is not deployed.")
        return platform.predict(service, inputs, timeout=timeout)
