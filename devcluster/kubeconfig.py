"""How one user reaches one API server: read from and written as a kubeconfig."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devcluster.errors import DevclusterError
from devcluster.paths import write_private
from devcluster.tls import Pair


@dataclass(frozen=True)
class Access:
    """A server, and who asks it.

    Attributes:
        server: Its address, `https://host:port`.
        authority: Whom its certificate is checked against, in PEM; None means whom the system
            trusts.
        pair: The user's certificate and key.
        token: The user's bearer token.
        namespace: What a client takes where none is named.
    """

    server: str
    authority: bytes | None
    pair: Pair | None = None
    token: str | None = None
    namespace: str = "default"

    def __repr__(self) -> str:
        return f"Access({self.server!r}, namespace={self.namespace!r})"

    def document(self) -> dict[str, Any]:
        """The kubeconfig, nothing of which lies in other files."""
        cluster: dict[str, Any] = {"server": self.server}
        if self.authority:
            cluster["certificate-authority-data"] = _encoded(self.authority)
        user: dict[str, Any] = {}
        if self.pair:
            user["client-certificate-data"] = _encoded(self.pair.certificate)
            user["client-key-data"] = _encoded(self.pair.key)
        if self.token:
            user["token"] = self.token
        context = {"cluster": "devcluster", "user": "devcluster", "namespace": self.namespace}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "devcluster", "cluster": cluster}],
            "users": [{"name": "devcluster", "user": user}],
            "contexts": [{"name": "devcluster", "context": context}],
            "current-context": "devcluster",
        }

    def write(self, path: Path) -> Path:
        """Keep it in a file, readable by the owner only.

        Returns:
            The path.
        """
        # JSON is YAML.
        write_private(path, json.dumps(self.document(), indent=2) + "\n")
        return path


def read(path: Path) -> Access:
    """The current context of a kubeconfig.

    Args:
        path: The file; paths in it are relative to its folder.

    Raises:
        DevclusterError: It cannot be read, or its user is known by other means than a certificate
            or a token.
    """
    import yaml  # type: ignore[import-untyped]  # PyYAML comes without types

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        return _read(document, path.parent)
    except OSError as error:
        raise DevclusterError(f"The kubeconfig {path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DevclusterError(f"{path} is no usable kubeconfig: {error!r}.") from None


def _read(document: Mapping[str, Any], folder: Path) -> Access:
    context = _named(document, "context", document["current-context"])
    cluster = _named(document, "cluster", context["cluster"])
    user = _named(document, "user", context["user"])
    if unknown := {"exec", "auth-provider", "username"} & user.keys():
        raise ValueError(f"its user needs {unknown.pop()!r}; a certificate or a token is supported")
    if not str(cluster["server"]).startswith("https://"):
        raise ValueError(f"its server is {cluster['server']}; only https is supported")
    certificate = _content(user, "client-certificate", folder)
    key = _content(user, "client-key", folder)
    token = user.get("token")
    if token is None and "tokenFile" in user:
        token = (folder / user["tokenFile"]).read_text(encoding="ascii").strip()
    return Access(
        server=cluster["server"],
        authority=_content(cluster, "certificate-authority", folder),
        pair=Pair(certificate, key) if certificate and key else None,
        token=token,
        namespace=context.get("namespace") or "default",
    )


def _named(document: Mapping[str, Any], kind: str, name: str) -> Mapping[str, Any]:
    for entry in document[f"{kind}s"]:
        if entry["name"] == name:
            found: Mapping[str, Any] = entry.get(kind) or {}
            return found
    raise KeyError(f"{kind} {name}")


def _content(entry: Mapping[str, Any], key: str, folder: Path) -> bytes | None:
    if inline := entry.get(f"{key}-data"):
        return base64.b64decode(inline, validate=True)
    if path := entry.get(key):
        return Path(folder, path).read_bytes()
    return None


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
