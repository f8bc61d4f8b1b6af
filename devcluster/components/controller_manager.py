"""kube-controller-manager: garbage collection, namespaces, service accounts, jobs, and the like."""

from __future__ import annotations

from contextlib import suppress

from devcluster.component import Context, GoComponent, flags
from devcluster.components.apiserver import AUTHORITY, SERVICE_ACCOUNTS, access_for
from devcluster.components.kubernetes import MODULE, kubernetes_command
from devcluster.errors import ApiError

_KUBECONFIG = "controller-manager.kubeconfig"
_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"
_GIVEN = "/api/v1/namespaces/default/configmaps/kube-root-ca.crt"


class ControllerManager(GoComponent):
    """The controllers, each with a service account of its own, as in any real cluster."""

    name = "kube-controller-manager"
    module = MODULE
    command = kubernetes_command("kube-controller-manager")

    def prepare(self, context: Context) -> None:
        """Its user."""
        access = access_for(context, "system:kube-controller-manager")
        access.write(context.folder.etc / _KUBECONFIG)

    def start(self, context: Context) -> None:
        """Start it. There is one only, so it needs no election."""
        pki = context.folder.pki
        with suppress(ApiError):  # which a new cluster does not have; see `ready`
            context.api().request("DELETE", _GIVEN)
        context.spawn(
            self.name,
            self.binary,
            *flags(
                kubeconfig=context.folder.etc / _KUBECONFIG,
                leader_elect="false",
                # Nobody asks it for anything, so it needs no port.
                secure_port=0,
                use_service_account_credentials="true",
                # Its default, 20 requests a second, makes it take 5 s to start.
                kube_api_qps=400,
                kube_api_burst=800,
                # It makes that folder, by default below /usr.
                flex_volume_plugin_dir=context.folder.data / "flexvolumes",
                service_account_private_key_file=pki / f"{SERVICE_ACCOUNTS}.key",
                root_ca_file=pki / f"{AUTHORITY}.crt",
            ),
        )

    def ready(self, context: Context) -> str | None:
        """Whether it has given the namespace `default` what every namespace gets."""
        api = context.api()
        for path in (_ACCOUNT, _GIVEN):
            api.request("GET", path, seconds=5.0)
        return None
