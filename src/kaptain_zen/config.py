"""Platform-specific configuration of a model: where things are, and what opens them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from kaptain_zen.exceptions import ConfigurationError
from kaptain_zen.platform.config.defaults import BASE_MODEL_STORAGE_URI
from kaptain_zen.platform.config.provider import ConfigurationProvider
from kaptain_zen.training.uris import parse, trimmed


@dataclass(frozen=True)
class Config:
    """What a `Model` needs to know of its surroundings.

    Attributes:
        docker_config_provider: Registry credentials; None for a platform without images.
        storage_config_provider: Storage credentials; None for `file://`, or to let boto3 find its
            own.
        docker_registry_url: Private registry.
        docker_registry_certificate_provider: The private registry's certificate.
        base_dir: Folder that the model's files are relative to; the working directory if empty.
        base_model_storage_uri: Folder in the storage that holds all models, `s3://` or `file://`.
    """

    docker_config_provider: ConfigurationProvider | None = None
    storage_config_provider: ConfigurationProvider | None = None
    docker_registry_url: str | None = None
    docker_registry_certificate_provider: ConfigurationProvider | None = None
    # The Kaptain SDK took the working directory once, when its module was imported. Here it is
    # read when the configuration is made, so that a notebook may change it first.
    base_dir: str = field(default_factory=os.getcwd)
    base_model_storage_uri: str = BASE_MODEL_STORAGE_URI

    def __post_init__(self) -> None:
        """Check what was given.

        Raises:
            ConfigurationError: A provider is none, or the storage URI or base_dir is not usable.
        """
        for name in (
            "docker_config_provider",
            "storage_config_provider",
            "docker_registry_certificate_provider",
        ):
            value = getattr(self, name)
            if value is not None and not isinstance(value, ConfigurationProvider):
                raise ConfigurationError(
                    f"Config.{name} must be a ConfigurationProvider, not {type(value).__name__}."
                )
        object.__setattr__(self, "base_model_storage_uri", _folder(self.base_model_storage_uri))
        object.__setattr__(self, "base_dir", _absolute(self.base_dir))

    def storage_environment(self) -> dict[str, str]:
        """The storage's credentials as environment variables; empty if there are none."""
        provider = self.storage_config_provider
        return provider.get_secret_body() if provider else {}


def _folder(uri: str) -> str:
    try:
        location = parse(uri)
    except ConfigurationError as error:
        raise ConfigurationError(f"Config.base_model_storage_uri: {error}") from None
    if not (location.bucket or location.path.strip("/")):
        raise ConfigurationError(
            f"Config.base_model_storage_uri is {uri!r}; it must name a folder, such as "
            f"file:///var/models."
        )
    return trimmed(uri)


def _absolute(folder: str) -> str:
    try:
        return str(Path(folder).expanduser().absolute())
    except (TypeError, RuntimeError, OSError) as error:
        raise ConfigurationError(
            f"Config.base_dir is {folder!r}, which is no folder ({error})."
        ) from error
