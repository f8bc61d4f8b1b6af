"""A real Kubernetes API for tests: the control plane of devcluster, or a cluster that is named.

Loaded by `tests/conftest.py` as a pytest plugin. Nothing is started before a test asks for it.

`KAPTAIN_ZEN_TEST_CLUSTER=external` and `KUBECONFIG` name a cluster to use instead of an own one.
`KAPTAIN_ZEN_REQUIRE_TIERS`, a list separated by commas that holds `apiserver`, makes what cannot
run fail instead of being skipped.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from http import HTTPStatus
from itertools import count
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

import pytest
from devcluster import kubeconfig
from devcluster.access import Rule, service_account
from devcluster.api import Api
from devcluster.audit import AuditLog
from devcluster.cluster import Cluster
from devcluster.doctor import obstacles
from devcluster.errors import ApiError, DevclusterError
from devcluster.kubeconfig import Access
from devcluster.locks import locked
from devcluster.paths import STATE_ROOT
from devcluster.progress import Progress
from devcluster.proxy import FaultProxy
from devcluster.status import tail

_SIZE = "control-plane"
_TIER = "apiserver"
_LOG_LINES = 40
_NOT_A_TESTS = ("kube-apiserver/", "kube-controller-manager/", "devcluster")
_FURNISHED_SECONDS = 30.0


def _unavailable(reason: str) -> NoReturn:
    if _TIER in os.environ.get("KAPTAIN_ZEN_REQUIRE_TIERS", "").split(","):
        pytest.fail(f"KAPTAIN_ZEN_REQUIRE_TIERS wants the tier {_TIER}, but: {reason}")
    pytest.skip(reason)


def require_devcluster() -> None:
    """Skip a test, or fail it if its tier is required, where no control plane can be started."""
    if lacking := obstacles(_SIZE):
        _unavailable(" ".join(lacking))


def _is_external() -> bool:
    return os.environ.get("KAPTAIN_ZEN_TEST_CLUSTER") == "external"


class KubernetesApi:
    """An API server and a namespace of a test's own in it.

    Attributes:
        namespace: The namespace; it is deleted after the test.
        admin: Who may do everything.
        audit: What the API server has answered since the test began.
    """

    def __init__(
        self, admin: Access, cluster: Cluster | None, folder: Path, resources: ExitStack
    ) -> None:
        self.namespace = f"test-{uuid4().hex[:12]}"
        self.admin = replace(admin, namespace=self.namespace)
        self._cluster = cluster
        self._folder = folder
        self._resources = resources
        self._audit = AuditLog(cluster.audit_log, Api(admin)) if cluster else None
        self._log_sizes = {log: log.stat().st_size for log in self._logs()}

    @property
    def is_own(self) -> bool:
        """Whether it belongs to this test session: can be killed, and has an audit log."""
        return self._cluster is not None

    @property
    def audit(self) -> AuditLog:
        """What the API server has answered since the test began."""
        if self._audit is None:
            _unavailable("the audit log of an external cluster cannot be read")
        return self._audit

    def access_for(self, rules: Iterable[Rule], *, cluster_rules: Iterable[Rule] = ()) -> Access:
        """A new user who may do exactly this in the namespace, and that in the whole cluster.

        Args:
            rules: Rules of a Role.
            cluster_rules: Rules of a ClusterRole.
        """
        name = f"user-{uuid4().hex[:8]}"
        return service_account(
            Api(self.admin), self.namespace, name, rules, cluster_rules=cluster_rules
        )

    def kubeconfig(self, access: Access | None = None) -> Path:
        """A kubeconfig for a user; for the administrator unless one is given."""
        return (access or self.admin).write(self._folder / f"kubeconfig-{uuid4().hex[:8]}")

    def client(self, access: Access | None = None, *, user_agent: str = "") -> Any:
        """A `kubernetes.client.ApiClient` for a user; for the administrator unless one is given.

        Args:
            access: The user.
            user_agent: What it calls itself, such as to be found in the audit log.
        """
        from kubernetes.config import new_client_from_config_dict

        client = new_client_from_config_dict((access or self.admin).document())
        if user_agent:
            client.user_agent = user_agent
        self._resources.callback(client.close)
        return client

    def proxy(self, *, seed: int = 0) -> FaultProxy:
        """A proxy in front of the API server that does wrong what it is told to.

        Args:
            seed: Of the chance by which it befalls a share of the requests.
        """
        return self._resources.enter_context(FaultProxy(self.admin, seed=seed))

    def kill_apiserver(self) -> None:
        """Kill the API server with SIGKILL. It stays away until `start_apiserver`."""
        self._own().stop("kube-apiserver", at_once=True)

    def start_apiserver(self) -> None:
        """Start the API server again, with the data that it had, and wait until it is ready."""
        self._own().start("kube-apiserver")

    def restart_apiserver(self) -> None:
        """Stop the API server as an upgrade does, and start it again."""
        self._own().stop("kube-apiserver")
        self.start_apiserver()

    def log_tails(self) -> Iterator[tuple[str, str]]:
        """The end of what each component has logged since the test began, by its name."""
        for log in self._logs():
            if lines := tail(log, self._log_sizes.get(log, 0), _LOG_LINES):
                yield f"log of {log.stem}", "\n".join(lines)
        if self._audit:
            lines = [
                f"{event.verb} {event.uri} {event.code} {event.user_agent}"
                for event in self._audit
                if not event.user_agent.startswith(_NOT_A_TESTS)
            ]
            yield "requests", "\n".join(lines[-_LOG_LINES:])

    def _logs(self) -> list[Path]:
        if self._cluster is None:
            return []
        logs = self._cluster.folder.logs.glob("*.log")
        return sorted(log for log in logs if log != self._cluster.audit_log)

    def _own(self) -> Cluster:
        if self._cluster is None:
            _unavailable("the API server of an external cluster cannot be killed")
        return self._cluster


@contextmanager
def _own_folder() -> Iterator[Path]:
    """A folder for a cluster that no other test session uses at the same time.

    They have fixed names, so that what a killed session has left is found by the next one.
    """
    STATE_ROOT.mkdir(mode=0o700, exist_ok=True)
    for number in count():
        folder = STATE_ROOT / f"tests-{number}"
        with ExitStack() as held:
            lock = folder.with_suffix(".lock")
            try:
                held.enter_context(locked(lock))
            except DevclusterError:
                continue
            try:
                yield folder
            finally:
                lock.unlink(missing_ok=True)
                with suppress(OSError):  # others are in it
                    STATE_ROOT.rmdir()
            return


@pytest.fixture(scope="session")
def kubernetes_cluster() -> Iterator[Cluster | None]:
    """A control plane of this session's own; None where an external cluster is to be used."""
    if _is_external():
        yield None
        return
    require_devcluster()
    with _own_folder() as folder:
        cluster = Cluster(folder)
        cluster.down()
        cluster.up(_SIZE)
        try:
            yield cluster
        finally:
            cluster.down()


@pytest.fixture
def kubernetes_api(
    kubernetes_cluster: Cluster | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KubernetesApi]:
    """An API server, a namespace in it, and means to make both suffer."""
    if kubernetes_cluster:
        kubernetes_cluster.up(_SIZE)  # a test before this one may have left it without a part
        path = kubernetes_cluster.kubeconfig
    elif not (named := os.environ.get("KUBECONFIG")):
        _unavailable("KAPTAIN_ZEN_TEST_CLUSTER is external, but KUBECONFIG names no cluster")
    else:
        path = Path(named)
    admin = kubeconfig.read(path)
    with ExitStack() as resources:
        folder = tmp_path_factory.mktemp("kubernetes-api")
        api = KubernetesApi(admin, kubernetes_cluster, folder, resources)
        namespaces = "/api/v1/namespaces"
        Api(admin).request("POST", namespaces, {"metadata": {"name": api.namespace}})
        _await_furnished(Api(admin), f"{namespaces}/{api.namespace}")
        yield api
        if kubernetes_cluster:
            kubernetes_cluster.up(_SIZE)
        with suppress(ApiError):  # the test may have deleted it
            Api(admin).request("DELETE", f"{namespaces}/{api.namespace}")


def _await_furnished(api: Api, namespace: str) -> None:
    """Wait until the controllers have given a namespace what every namespace gets."""
    for path in ("serviceaccounts/default", "configmaps/kube-root-ca.crt"):
        deadline = time.monotonic() + _FURNISHED_SECONDS
        while True:
            try:
                api.request("GET", f"{namespace}/{path}")
                break
            except ApiError as error:
                if error.status != HTTPStatus.NOT_FOUND or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what is missing before the first test begins: no test's timeout is made for that."""
    wanted = any(_TIER in item.path.parts for item in session.items)
    if wanted and not (session.config.option.collectonly or _is_external() or obstacles(_SIZE)):
        Cluster(STATE_ROOT / "tests", Progress(sys.__stderr__)).build(_SIZE)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show with a failure what the components had to say."""
    report = yield
    api = getattr(item, "funcargs", {}).get("kubernetes_api")
    if report.failed and api is not None:
        report.sections.extend(api.log_tails())
    return report
