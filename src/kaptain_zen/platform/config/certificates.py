"""Certificate of a private registry's own authority."""

from __future__ import annotations

import os
import ssl
from typing import Self

from kaptain_zen.exceptions import ConfigurationError
from kaptain_zen.platform.config.defaults import REGISTRY_CERTIFICATE_PATH
from kaptain_zen.platform.config.provider import FileBasedConfigurationProvider, read_file


class DockerRegistryCertificateProvider(FileBasedConfigurationProvider):
    """The certificate that a registry with its own authority is checked against."""

    def __init__(self, certificate_body: str, certificate_path: str | None = None) -> None:
        """Hold a certificate.

        Args:
            certificate_body: One or more certificates in PEM.
            certificate_path: Where they were read from.

        Raises:
            ConfigurationError: There is no certificate in it.
        """
        if not _holds_certificate(certificate_body):
            where = f" at {certificate_path}" if certificate_path else ""
            raise ConfigurationError(
                f"The registry certificate{where} is not a certificate in PEM "
                f"(-----BEGIN CERTIFICATE-----)."
            )
        self._certificate_body = certificate_body
        self.certificate_path = certificate_path

    @classmethod
    def from_file(cls, path: str | os.PathLike[str] | None = None) -> Self:
        """Read a certificate; `~/.tls/certificate.crt` if no path is given."""
        chosen = path or REGISTRY_CERTIFICATE_PATH
        return cls(read_file(chosen, "registry certificate"), os.fspath(chosen))

    def get_secret_body(self) -> dict[str, str]:
        """The certificate under `certificate.crt`."""
        return {"certificate.crt": self._certificate_body}


def _holds_certificate(text: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError, TypeError):
        return False
    # DER would be taken too, but whoever mounts the file expects PEM.
    return isinstance(text, str)
