"""From the configuration of a stack component to the platform that it stands for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kaptain_zen import __version__
from kaptain_zen.config import Config
from kaptain_zen.platform.local.home import LocalHome
from kaptain_zen.platform.platform import Platform, PlatformSettings, from_active_stack, local

if TYPE_CHECKING:
    from zenml.stack import StackComponent

    from kaptain_zen.flavors.local import LocalPlatformConfig

REQUIREMENTS = frozenset({f"kaptain-zen[local]=={__version__}"})
"""What an image needs in which our components are used; ZenML knows those of its own only."""


def settings_of(config: LocalPlatformConfig) -> PlatformSettings:
    """What a component's configuration says about the local platform."""
    return PlatformSettings(
        kind="local",
        home=str(LocalHome.resolve(config.home).root) if config.home else None,
        storage_uri=config.storage_uri,
        warm_start=getattr(config, "warm_start", None),
    )


def platform_of(component: StackComponent) -> Platform:
    """The platform of a component: its stack's, when that is active, else by itself.

    Raises:
        ConfigurationError: The components of the stack contradict each other.
    """
    from zenml.client import Client

    if any(c.id == component.id for c in Client().active_stack.all_components):
        return from_active_stack()
    # Components of this package, and no others, come here.
    settings: PlatformSettings = component.platform_settings()  # type: ignore[attr-defined]
    return local_platform(settings.home, settings.storage_uri)


def home_of(component: StackComponent) -> LocalHome:
    """The folder of a component's platform; see `platform_of`."""
    from zenml.client import Client

    ours = [c for c in Client().active_stack.all_components if hasattr(c, "platform_settings")]
    if all(c.id != component.id for c in ours):
        ours = [component]
    homes = [c.platform_settings().home for c in ours]
    return LocalHome.resolve(next(filter(None, homes), None))


def local_platform(home: str | None = None, storage_uri: str | None = None) -> Platform:
    """The local platform without a stack.

    Args:
        home: Its folder; the usual one if None.
        storage_uri: Folder in the storage for all models; below the home if None. For S3, the
            standard AWS variables are read when they are set.

    Raises:
        ConfigurationError: The storage URI is wrong.
    """
    if storage_uri is None:
        return local(home=home)
    provider = None
    if storage_uri.startswith("s3://") and os.environ.get("AWS_ACCESS_KEY_ID"):
        from kaptain_zen.platform.config.s3 import S3ConfigurationProvider

        provider = S3ConfigurationProvider.from_env()
    config = Config(base_model_storage_uri=storage_uri, storage_config_provider=provider)
    return local(config, home=home)
