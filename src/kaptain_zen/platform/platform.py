"""A platform is a bundle of five adapters. This is the one place where they are put together."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kaptain_zen.config import Config
from kaptain_zen.exceptions import ConfigurationError
from kaptain_zen.platform.config.defaults import BASE_MODEL_STORAGE_URI

if TYPE_CHECKING:
    from kaptain_zen.model.ports import Builder, Server, Service, Store, Trainer, Tuner


@dataclass(frozen=True)
class Platform:
    """Where models are built, trained, tuned, served and stored.

    Attributes:
        name: `local` or `kubernetes`.
        config: What the adapters were made from.
        builder: Makes training images.
        trainer: Runs trainings.
        tuner: Runs searches.
        server: Serves models.
        store: Keeps artifacts and records.
    """

    name: str
    config: Config
    builder: Builder
    trainer: Trainer
    tuner: Tuner
    server: Server
    store: Store

    def predict(self, service: Service, inputs: Any, *, timeout: float) -> Any:
        """Ask a service for predictions; see `Model.predict`."""
        from kaptain_zen.platform.prediction import predict

        return predict(service, inputs, timeout=timeout)


@dataclass(frozen=True)
class PlatformSettings:
    """What one component of a ZenML stack says about the platform that the stack stands for.

    None means that the component has no opinion; two components with different ones are an error.

    Attributes:
        kind: The platform.
        home: Folder of the local platform.
        storage_uri: Folder in the storage for all models.
        warm_start: Whether trainings fork from a process that has imported what they import.
    """

    kind: Literal["local"] = "local"
    home: str | None = None
    storage_uri: str | None = None
    warm_start: bool | None = None


def local(
    config: Config | None = None,
    *,
    home: str | None = None,
    base_dir: str | os.PathLike[str] | None = None,
    warm_start: bool = True,
) -> Platform:
    """The laptop: subprocesses, Optuna, MLServer behind a router.

    Args:
        config: Configuration; unless it names a storage, models are stored below the home.
        home: Folder for runs and services; `KAPTAIN_ZEN_HOME`, else `~/.kaptain-zen`, if None.
        base_dir: Folder that a model's files are relative to, in place of the configuration's.
        warm_start: Whether trainings fork from a process that has imported what they import.

    Returns:
        The platform. Nothing is started and no folder is made until it is used.
    """
    from kaptain_zen.platform.local.builder import LocalBuilder
    from kaptain_zen.platform.local.home import LocalHome
    from kaptain_zen.platform.local.server import LocalServer
    from kaptain_zen.platform.local.trainer import LocalTrainer
    from kaptain_zen.platform.local.tuner import OptunaTuner
    from kaptain_zen.storage.store import open_store

    place = LocalHome.resolve(home)
    chosen = config or Config()
    if (
        chosen.base_model_storage_uri == BASE_MODEL_STORAGE_URI
        and chosen.storage_config_provider is None
    ):
        # Nobody chose a storage: a cluster's is of no use here.
        chosen = replace(chosen, base_model_storage_uri=place.models_uri)
    if base_dir is not None:
        chosen = replace(chosen, base_dir=os.fspath(base_dir))
    store = open_store(chosen)
    trainer = LocalTrainer(place, environment=chosen.storage_environment(), warm_start=warm_start)
    return Platform(
        name="local",
        config=chosen,
        builder=LocalBuilder(place),
        trainer=trainer,
        tuner=OptunaTuner(place, trainer=trainer, store=store),
        server=LocalServer(place, store=store),
        store=store,
    )


def from_active_stack(base_dir: str | None = None) -> Platform:
    """The platform that the active ZenML stack stands for.

    Args:
        base_dir: Folder that a model's files are relative to; the working directory if None.

    Returns:
        The platform that the stack's components agree on.

    Raises:
        ConfigurationError: No component of the stack is ours, or two of them contradict each other.
    """
    from zenml.client import Client

    stack = Client().active_stack
    components: dict[str, Any] = {}
    for component in [
        *(stack.step_operators or {}).values(),
        *([stack.model_deployer] if stack.model_deployer else []),
    ]:
        if hasattr(component, "platform_settings"):
            components[component.name] = component
    if not components:
        raise ConfigurationError(
            f"The active stack {stack.name!r} has no component of a kaptain flavor. Register one "
            f"with `kaptain-zen stack register local --activate`."
        )
    settings = _agreed({name: c.platform_settings() for name, c in components.items()})
    config = Config(
        base_dir=base_dir or str(Path.cwd()),
        base_model_storage_uri=settings.storage_uri
        or _storage_of(stack.artifact_store, settings.home),
        storage_config_provider=_credentials_of(stack.artifact_store, settings.storage_uri),
    )
    warm_start = True if settings.warm_start is None else settings.warm_start
    return local(config, home=settings.home, warm_start=warm_start)


def _agreed(all_settings: dict[str, PlatformSettings]) -> PlatformSettings:
    """Bring the settings of several components to one."""
    agreed = PlatformSettings()
    owner: dict[str, str] = {}
    for name, settings in all_settings.items():
        for key in ("kind", "home", "storage_uri", "warm_start"):
            value = getattr(settings, key)
            if value is None:
                continue
            if key in owner and getattr(agreed, key) != value:
                raise ConfigurationError(
                    f"Components {owner[key]!r} and {name!r} of the active stack do not agree on "
                    f"{key}: {getattr(agreed, key)!r} and {value!r}. Give both the same."
                )
            owner[key] = name
            agreed = replace(agreed, **{key: value})
    return agreed


def _storage_of(artifact_store: Any, home: str | None) -> str:
    """Models beside the stack's other artifacts in S3; else where a plain `Model` has them too."""
    from kaptain_zen.platform.local.home import LocalHome

    path = str(artifact_store.path).rstrip("/")
    return (
        f"{path}/kaptain-models" if path.startswith("s3://") else LocalHome.resolve(home).models_uri
    )


def _credentials_of(artifact_store: Any, storage_uri: str | None) -> Any:
    """The artifact store's S3 credentials, when models go to S3 and it has some."""
    get_credentials = getattr(artifact_store, "get_credentials", None)
    if get_credentials is None or not (storage_uri or str(artifact_store.path)).startswith("s3://"):
        return None
    key, secret, token, region = get_credentials()
    if not key or not secret:
        return None
    from kaptain_zen.platform.config.defaults import AWS_REGION
    from kaptain_zen.platform.config.s3 import S3ConfigurationProvider

    client_kwargs = getattr(artifact_store.config, "client_kwargs", None) or {}
    return S3ConfigurationProvider(
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token,
        region_name=region or client_kwargs.get("region_name") or AWS_REGION,
        s3_endpoint=client_kwargs.get("endpoint_url"),
        s3_force_path_style=client_kwargs.get("endpoint_url") is not None,
    )
