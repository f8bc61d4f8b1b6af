"""etcd: where the API server keeps everything."""

from __future__ import annotations

from devcluster.api import Api
from devcluster.component import ADDRESS, Context, GoComponent, flags
from devcluster.components.kubernetes import ETCD, MODULE
from devcluster.kubeconfig import Access
from devcluster.tls import Authority, Pair

PORT = "etcd"
AUTHORITY = "etcd-ca"
CLIENT = "etcd-client"
_SERVER = "etcd"


class Etcd(GoComponent):
    """One member that trusts an authority of its own.

    Whoever may write to etcd is above all roles, so a certificate of the cluster does not open it.
    """

    name = "etcd"
    module = MODULE
    command = ETCD
    ports = (PORT,)

    def prepare(self, context: Context) -> None:
        """An authority, its server, and one client."""
        pki = context.folder.pki
        authority = Authority.create("devcluster etcd")
        authority.pair.write(pki, AUTHORITY)
        # etcd's server is a client of itself as well.
        authority.issue("etcd", hosts=[ADDRESS, "localhost"]).write(pki, _SERVER)
        authority.issue("kube-apiserver").write(pki, CLIENT)

    def start(self, context: Context) -> None:
        """Start the member, with the data of the last time."""
        pki = context.folder.pki
        url = f"https://{ADDRESS}:{context.port(PORT)}"
        # There is no peer, but etcd listens for one; port 0 has the system choose.
        peer = f"https://{ADDRESS}:0"
        tls = {
            "trusted_ca_file": pki / f"{AUTHORITY}.crt",
            "cert_file": pki / f"{_SERVER}.crt",
            "key_file": pki / f"{_SERVER}.key",
        }
        context.spawn(
            self.name,
            self.binary,
            *flags(
                name="devcluster",
                data_dir=context.folder.data / "etcd",
                listen_client_urls=url,
                advertise_client_urls=url,
                listen_peer_urls=peer,
                initial_advertise_peer_urls=peer,
                initial_cluster=f"devcluster={peer}",
                **tls,
                **{f"peer_{name}": path for name, path in tls.items()},
                client_cert_auth="true",
                peer_client_cert_auth="true",
                log_level="warn",
                # A killed process loses nothing by it; only a machine that crashes does.
                unsafe_no_fsync="true",
            ),
        )

    def ready(self, context: Context) -> str | None:
        """Whether it has elected itself and serves."""
        pki = context.folder.pki
        pair = Pair((pki / f"{CLIENT}.crt").read_bytes(), (pki / f"{CLIENT}.key").read_bytes())
        authority = (pki / f"{AUTHORITY}.crt").read_bytes()
        url = f"https://{ADDRESS}:{context.port(PORT)}"
        Api(Access(url, authority, pair)).request("GET", "/readyz", seconds=2.0)
        return None
