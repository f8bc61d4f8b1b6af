"""kube-apiserver, with roles and an audit log."""

from __future__ import annotations

import json
from pathlib import Path

from devcluster.component import ADDRESS, Context, GoComponent, flags
from devcluster.components import etcd
from devcluster.components.kubernetes import MODULE, kubernetes_command
from devcluster.kubeconfig import Access
from devcluster.paths import write_private
from devcluster.state import Folder
from devcluster.tls import Authority, signing_key

PORT = "apiserver"
AUTHORITY = "ca"
SERVICE_ACCOUNTS = "service-accounts"
_SERVER = "apiserver"
_SERVICES = "10.96.0.0/16"
_FIRST_SERVICE = "10.96.0.1"
_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc")
# Who, what, when, with which outcome, of every request; no bodies, so no secrets either.
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


def audit_log(folder: Folder) -> Path:
    """Path of the audit log."""
    return folder.logs / "audit.log"


def access_for(context: Context, name: str, groups: tuple[str, ...] = ()) -> Access:
    """A user whom the API server knows by a certificate.

    Args:
        context: The cluster.
        name: Of the user.
        groups: Of the user; `system:masters` may do everything.
    """
    authority = Authority.read(context.folder.pki, AUTHORITY)
    return Access(
        server=f"https://{ADDRESS}:{context.port(PORT)}",
        authority=authority.pair.certificate,
        pair=authority.issue(name, groups=groups),
    )


class ApiServer(GoComponent):
    """The API server, on loopback only."""

    name = "kube-apiserver"
    module = MODULE
    command = kubernetes_command("kube-apiserver")
    ports = (PORT,)

    def prepare(self, context: Context) -> None:
        """The cluster's authority and keys, the audit policy, the administrator's kubeconfig."""
        folder = context.folder
        authority = Authority.create("devcluster")
        authority.pair.write(folder.pki, AUTHORITY)
        hosts = [ADDRESS, "localhost", _FIRST_SERVICE, *_NAMES]
        authority.issue("kube-apiserver", hosts=hosts).write(folder.pki, _SERVER)
        private, public = signing_key()
        write_private(folder.pki / f"{SERVICE_ACCOUNTS}.key", private)
        write_private(folder.pki / f"{SERVICE_ACCOUNTS}.pub", public)
        write_private(folder.etc / "audit-policy.json", json.dumps(_AUDIT_POLICY))
        access_for(context, "admin", ("system:masters",)).write(folder.kubeconfig)

    def start(self, context: Context) -> None:
        """Start it on what etcd holds."""
        pki = context.folder.pki
        issuer = "https://kubernetes.default.svc.cluster.local"
        context.spawn(
            self.name,
            self.binary,
            *flags(
                etcd_servers=f"https://{ADDRESS}:{context.port(etcd.PORT)}",
                etcd_cafile=pki / f"{etcd.AUTHORITY}.crt",
                etcd_certfile=pki / f"{etcd.CLIENT}.crt",
                etcd_keyfile=pki / f"{etcd.CLIENT}.key",
                bind_address=ADDRESS,
                advertise_address=ADDRESS,
                secure_port=context.port(PORT),
                # It would publish its own address as that of the service `kubernetes`, and
                # endpoints on loopback are refused.
                endpoint_reconciler_type="none",
                tls_cert_file=pki / f"{_SERVER}.crt",
                tls_private_key_file=pki / f"{_SERVER}.key",
                client_ca_file=pki / f"{AUTHORITY}.crt",
                service_account_issuer=issuer,
                service_account_key_file=pki / f"{SERVICE_ACCOUNTS}.pub",
                service_account_signing_key_file=pki / f"{SERVICE_ACCOUNTS}.key",
                service_cluster_ip_range=_SERVICES,
                authorization_mode="Node,RBAC",
                shutdown_watch_termination_grace_period="1s",
                allow_privileged="true",
                audit_policy_file=context.folder.etc / "audit-policy.json",
                audit_log_path=audit_log(context.folder),
                # Written before the answer, and to one file: tests count what is in it.
                audit_log_mode="blocking",
                audit_log_maxsize=1024,
            ),
        )

    def ready(self, context: Context) -> str | None:
        """Whether it serves, and has made the roles that every cluster has."""
        context.api().request("GET", "/readyz", seconds=5.0)
        return None
