"""What a deployment through ZenML's interface asks for, and whether it is there already."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from kaptain_zen.components.services.local import (
    KaptainLocalDeploymentConfig,
    KaptainLocalDeploymentService,
    ModelServerError,
)
from kaptain_zen.exceptions import ModelNotFoundError
from kaptain_zen.model.models import Model
from kaptain_zen.model.record import DeploymentPhase
from kaptain_zen.model.spec import ModelSpec

if TYPE_CHECKING:
    from zenml.client import Client
    from zenml.models import ModelVersionResponse
    from zenml.models.v2.misc.service import ServiceType
    from zenml.services.service import ServiceConfig

    from kaptain_zen.model.ports import Service
    from kaptain_zen.platform.platform import Platform

_TYPE = KaptainLocalDeploymentService.SERVICE_TYPE
_IMPORTED = "imported"
"""Stands for the files and images of a model that was not made here."""


def checked_config(
    config: ServiceConfig, service_type: ServiceType, *, deployer: str
) -> KaptainLocalDeploymentConfig:
    """Refuse configurations and types of other deployers.

    Raises:
        ModelServerError: It is one.
    """
    if (service_type.type, service_type.flavor) != (_TYPE.type, _TYPE.flavor):
        raise ModelServerError(
            f"Model deployer {deployer!r} deploys services of type {_TYPE.type!r} and flavor "
            f"{_TYPE.flavor!r}, not {service_type.type!r} and {service_type.flavor!r}."
        )
    if not isinstance(config, KaptainLocalDeploymentConfig):
        raise ModelServerError(
            f"Model deployer {deployer!r} needs a KaptainLocalDeploymentConfig, not "
            f"{config.__class__.__name__}."
        )
    return config


def model_of(config: KaptainLocalDeploymentConfig, platform: Platform) -> Model:
    """The model that a configuration means: one that is known, or one that only has files.

    Raises:
        ModelServerError: Nothing is known of it, and its files or framework are not given.
    """
    try:
        return Model.load(config.model_id, platform=platform)
    except ModelNotFoundError as error:
        if not (config.model_uri and config.framework):
            raise ModelServerError(
                f"{error} To deploy a model that was not made here, give its model_uri and its "
                f"framework."
            ) from error
    spec = ModelSpec(
        id=config.model_id,
        name=config.model_name,
        description=config.description or f"Imported from {config.model_uri}",
        version=config.model_version or _IMPORTED,
        framework=config.framework,
        framework_version=config.framework_version or _IMPORTED,
        main_file=_IMPORTED,
        image_name=_IMPORTED,
        base_image=_IMPORTED,
        serving_config=config.serving_config,
    )
    return Model.from_spec(spec, platform=platform)


def model_version_of(
    client: Client, config: KaptainLocalDeploymentConfig
) -> ModelVersionResponse | None:
    """ZenML's model version that a configuration names, if there is one."""
    if config.model_version:
        with suppress(KeyError):
            return client.get_model_version(config.model_name, config.model_version)
    return None


def version_name(version: ModelVersionResponse) -> str:
    """The name of a model version; its number where it has none."""
    return version.name or str(version.number)


def serves(service: Service, model: Model, wanted: KaptainLocalDeploymentConfig) -> bool:
    """Whether a service is already what a deployment would make of it."""
    deployment = service.record.deployment
    served, artifact = deployment.baseline, model.record.artifact
    if served is None or deployment.phase is not DeploymentPhase.SERVING:
        return False
    if wanted.model_uri:
        same_model = served.source is None and served.uri == wanted.model_uri
    else:
        same_model = artifact is not None and served.source == artifact.revision
    return (
        same_model
        and served.resources == wanted.resources
        and served.autoscale == wanted.autoscale
        and served.serving_config == {**model.serving_config, **wanted.serving_config}
    )


def describe(service: KaptainLocalDeploymentService) -> dict[str, str | None]:
    """What to show to people about a service."""
    status, config = service.status, service.config
    info: dict[str, str | None] = {
        "PREDICTION_URL": service.prediction_url,
        "HEALTH_URL": service.healthcheck_url,
        "MODEL_ID": config.model_id,
        "MODEL_NAME": config.model_name,
        "MODEL_VERSION": config.model_version,
        "MODEL_URI": status.uri,
        "FRAMEWORK": f"{config.framework} {config.framework_version}".strip(),
        "REVISION": status.revision,
    }
    if status.canary_revision:
        info |= {
            "CANARY_REVISION": status.canary_revision,
            "CANARY_URI": status.canary_uri,
            "CANARY_PERCENTAGE": str(status.canary_percentage),
        }
    return info
