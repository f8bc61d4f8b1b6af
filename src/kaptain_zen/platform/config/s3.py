"""Credentials and address of an S3-speaking storage."""

from __future__ import annotations

import configparser
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Self
from urllib.parse import urlsplit

from kaptain_zen.exceptions import ConfigurationError
from kaptain_zen.platform.config.defaults import AWS_CREDENTIALS_PATH, AWS_REGION
from kaptain_zen.platform.config.provider import (
    EnvironmentVariableConfigurationProvider,
    FileBasedConfigurationProvider,
    read_file,
)


class S3ConfigurationProvider(
    FileBasedConfigurationProvider, EnvironmentVariableConfigurationProvider
):
    """Access to S3, MinIO, or anything else that speaks its protocol.

    The same variables that `get_secret_body` gives are read by `from_env`: a container that gets
    them from a Secret has the same configuration as the client that made it.
    """

    def __init__(
        self,
        aws_access_key_id: str,
        aws_secret_access_key: str,
        aws_session_token: str | None = None,
        region_name: str = AWS_REGION,
        s3_endpoint: str | None = None,
        s3_signature_version: str | None = None,
        s3_force_path_style: bool = False,
    ) -> None:
        """Hold a configuration.

        Args:
            aws_access_key_id: Access key.
            aws_secret_access_key: Secret key.
            aws_session_token: Token of temporary credentials.
            region_name: AWS region.
            s3_endpoint: Complete URL of the server; AWS's own if None.
            s3_signature_version: For example `s3v4`; botocore's choice if None.
            s3_force_path_style: Put the bucket into the path instead of the host name.

        Raises:
            ConfigurationError: A key is blank or cannot be one, or the endpoint is no http(s) URL.
        """
        self._access_key_id = _key("aws_access_key_id", aws_access_key_id)
        self._secret_access_key = _key("aws_secret_access_key", aws_secret_access_key)
        has_token = bool(aws_session_token and aws_session_token.strip())
        self._session_token = _key("aws_session_token", aws_session_token) if has_token else None
        self.region_name = (region_name or "").strip() or AWS_REGION
        self.s3_endpoint = _endpoint(s3_endpoint)
        self.s3_signature_version = (s3_signature_version or "").strip() or None
        self.s3_force_path_style = bool(s3_force_path_style)

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str] | None = None, profile: str = "default"
    ) -> Self:
        """Read a file in the format of `~/.aws/credentials`.

        Args:
            path: The file; `~/.aws/credentials` if None.
            profile: The section to read.

        Raises:
            ConfigurationError: There is no such file or section, or a key is missing.
        """
        chosen = path or AWS_CREDENTIALS_PATH
        place = f"The AWS credentials file {os.fspath(chosen)}"
        parser = configparser.ConfigParser(interpolation=None, default_section="\0")
        # The error's text holds lines of the file, so it must not even be a context.
        broken = ""
        try:
            parser.read_string(read_file(chosen, "AWS credentials file"))
        except configparser.Error as error:
            broken = type(error).__name__
        if broken:
            raise ConfigurationError(
                f"{place} is broken ({broken}). It should look like `[default]` and `key = value`."
            )
        section = next((s for s in (profile, f"profile {profile}") if parser.has_section(s)), None)
        if section is None:
            raise ConfigurationError(f"{place} has no section [{profile}].")
        values = parser[section]
        with _told_where(f"{place}, section [{section}]"):
            return cls(
                aws_access_key_id=values.get("aws_access_key_id", ""),
                aws_secret_access_key=values.get("aws_secret_access_key", ""),
                aws_session_token=values.get("aws_session_token"),
                region_name=values.get("region", AWS_REGION),
                s3_endpoint=values.get("endpoint_url") or values.get("s3_endpoint"),
                s3_signature_version=values.get("s3_signature_version"),
                s3_force_path_style=_flag(values.get("s3_force_path_style", "")),
            )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read the standard AWS variables, and two of ours for what those cannot say.

        `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION` or
        `AWS_DEFAULT_REGION`, `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`,
        `KAPTAIN_S3_SIGNATURE_VERSION`, `KAPTAIN_S3_FORCE_PATH_STYLE`.

        Raises:
            ConfigurationError: The keys are not set.
        """
        env = os.environ if environ is None else environ
        with _told_where("The variables AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and so on"):
            return cls(
                aws_access_key_id=env.get("AWS_ACCESS_KEY_ID", ""),
                aws_secret_access_key=env.get("AWS_SECRET_ACCESS_KEY", ""),
                aws_session_token=env.get("AWS_SESSION_TOKEN"),
                region_name=env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or AWS_REGION,
                s3_endpoint=env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL"),
                s3_signature_version=env.get("KAPTAIN_S3_SIGNATURE_VERSION"),
                s3_force_path_style=_flag(env.get("KAPTAIN_S3_FORCE_PATH_STYLE", "")),
            )

    def get_secret_body(self) -> dict[str, str]:
        """The configuration as environment variables for containers and subprocesses."""
        body = {
            "AWS_ACCESS_KEY_ID": self._access_key_id,
            "AWS_SECRET_ACCESS_KEY": self._secret_access_key,
            "AWS_REGION": self.region_name,
            "AWS_DEFAULT_REGION": self.region_name,
        }
        optional = {
            "AWS_SESSION_TOKEN": self._session_token,
            "AWS_ENDPOINT_URL_S3": self.s3_endpoint,
            "KAPTAIN_S3_SIGNATURE_VERSION": self.s3_signature_version,
            "KAPTAIN_S3_FORCE_PATH_STYLE": "true" if self.s3_force_path_style else None,
        }
        return body | {key: value for key, value in optional.items() if value}

    def __repr__(self) -> str:
        """The address and nothing secret."""
        return (
            f"S3ConfigurationProvider(endpoint={self.s3_endpoint!r}, region={self.region_name!r})"
        )


def _key(name: str, value: str | None) -> str:
    """A key as it can be sent, whatever blanks somebody has copied around it."""
    key = value.strip() if isinstance(value, str) else ""
    if not key:
        raise ConfigurationError(f"{name} is missing or blank.")
    if not all("!" <= character <= "~" for character in key):
        raise ConfigurationError(
            f"{name} holds a blank, a line end or another character that a key cannot hold. Copy "
            f"it again."
        )
    return key


def _endpoint(url: str | None) -> str | None:
    if url is None or not url.strip():
        return None
    try:
        parts = urlsplit(url.strip())
        complete = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        complete = False
    if "@" in url:
        raise ConfigurationError(
            "The S3 endpoint has a user name or password in it. Write the address alone, such as "
            "http://minio.kubeflow:9000, and give the keys by themselves."
        )
    if not complete or " " in url.strip():
        raise ConfigurationError(
            f"The S3 endpoint {url!r} is not a complete URL such as http://minio.kubeflow:9000."
        )
    return url.strip()


def _flag(text: str) -> bool:
    return text.strip().lower() in ("true", "1", "yes", "on")


@contextmanager
def _told_where(place: str) -> Iterator[None]:
    """Say in an error where the values were read from."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"{place}: {error}") from None
