"""Credentials of container registries, in the format of Docker's `config.json`."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any, Self

from kaptain_zen.exceptions import ConfigurationError
from kaptain_zen.platform.config.defaults import DOCKER_CONFIG_PATH
from kaptain_zen.platform.config.provider import FileBasedConfigurationProvider, read_file


class DockerConfigurationProvider(FileBasedConfigurationProvider):
    """Registry credentials for pushing and pulling training images.

    Example:
        >>> DockerConfigurationProvider('{"auths": {}}').get_secret_body()
        {'config.json': '{"auths": {}}'}
    """

    def __init__(self, config_json: str) -> None:
        """Hold a configuration.

        Args:
            config_json: The text of a `config.json` with an `auths` object.

        Raises:
            ConfigurationError: It is not such a text.
        """
        parsed: Any = None
        # The text may hold a password: neither it nor the parser's excerpt of it is shown.
        with suppress(TypeError, ValueError, RecursionError):
            parsed = json.loads(config_json)
        if (
            not isinstance(config_json, str)
            or not isinstance(parsed, dict)
            or not isinstance(parsed.get("auths"), dict)
        ):
            raise ConfigurationError(
                "The Docker configuration is not a JSON object with an 'auths' object in it. "
                "`docker login` writes such a file."
            )
        self._config_json = config_json

    @classmethod
    def from_file(cls, path: str | os.PathLike[str] | None = None) -> Self:
        """Read a `config.json`; `~/.docker/config.json` if no path is given."""
        return cls(read_file(path or DOCKER_CONFIG_PATH, "Docker configuration"))

    def get_secret_body(self) -> dict[str, str]:
        """The configuration under `config.json`."""
        return {"config.json": self._config_json}
