"""The Go module that Kubernetes and etcd are built from, and the commands built of it."""

from __future__ import annotations

from devcluster.golang import Command, Module
from devcluster.paths import PACKAGE

_FOLDER = PACKAGE / "go" / "kubernetes"
_KUBERNETES = "k8s.io/kubernetes"


def version_stamps(version: str) -> dict[str, str]:
    """Go variables by which programs of Kubernetes know their version.

    A build of the plain module calls itself v0.0.0-master, and clients and operators look at it.

    Args:
        version: Such as v1.34.4.
    """
    major, minor, _ = version.removeprefix("v").split(".", 2)
    return {
        f"k8s.io/{package}.{variable}": value
        for package in ("component-base/version", "client-go/pkg/version")
        for variable, value in {
            "gitVersion": version,
            "gitMajor": major,
            "gitMinor": minor,
            # What the project's own scripts say of sources without a git repository.
            "gitTreeState": "archive",
            "gitCommit": "unknown",
        }.items()
    }


MODULE = Module(_FOLDER, version_stamps(Module(_FOLDER).version(_KUBERNETES)))

_ETCD = "go.etcd.io/etcd/server/v3"
ETCD = Command("etcd", _ETCD, _ETCD)


def kubernetes_command(name: str) -> Command:
    """A command of Kubernetes, such as kubectl."""
    return Command(name, f"{_KUBERNETES}/cmd/{name}", _KUBERNETES)
