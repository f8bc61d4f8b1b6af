"""Every fault of the proxy, as the official client meets it; and that nothing else is changed."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from devcluster.api import Api
from devcluster.faults import Answer, CutWatch, Delay, Drop, ExpireWatch
from devcluster.proxy import FaultProxy
from devcluster.tls import client_context
from kubernetes import client, watch
from kubernetes.client import ApiException
from tests.kubernetes_api import KubernetesApi
from tests.processes import eventually
from urllib3.exceptions import HTTPError

_READ_CONFIG = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}


@pytest.fixture
def proxy(kubernetes_api: KubernetesApi) -> FaultProxy:
    return kubernetes_api.proxy()


@pytest.fixture
def core(kubernetes_api: KubernetesApi, proxy: FaultProxy) -> client.CoreV1Api:
    """The API through the proxy, without the retries that would hide a fault."""
    return client.CoreV1Api(_without_retries(kubernetes_api.client(proxy.access())))


def _without_retries(api_client: Any) -> Any:
    from urllib3.util.retry import Retry

    api_client.rest_client.pool_manager.connection_pool_kw["retries"] = Retry(0)
    return api_client


def _body(name: str, data: str = "") -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": {"key": data}}


def _watch(core: client.CoreV1Api, namespace: str, **arguments: Any) -> Iterator[tuple[str, str]]:
    """Types and names of what one watch request brings: no reconnecting."""
    response = core.list_namespaced_config_map(
        namespace,
        watch=True,
        resource_version="0",
        _preload_content=False,
        _request_timeout=20,
        **arguments,
    )
    for line in response:
        event = json.loads(line)
        item = event["object"]
        yield event["type"], item["metadata"].get("name") or item.get("reason")


def test_without_rules_everything_passes_unchanged(
    kubernetes_api: KubernetesApi, proxy: FaultProxy, core: client.CoreV1Api
) -> None:
    namespace = kubernetes_api.namespace
    direct = client.CoreV1Api(kubernetes_api.client())
    large = "x" * 700_000
    core.create_namespaced_config_map(namespace, _body("large", large))
    assert direct.read_namespaced_config_map("large", namespace).data["key"] == large
    assert core.read_namespaced_config_map("large", namespace).data["key"] == large
    core.patch_namespaced_config_map("large", namespace, {"data": {"key": "small"}})
    core.delete_namespaced_config_map("large", namespace)
    with pytest.raises(ApiException) as caught:
        core.read_namespaced_config_map("large", namespace)
    assert caught.value.status == 404
    assert [(e.request.method, e.status) for e in proxy.exchanges] == [
        ("POST", 201),
        ("GET", 200),
        ("PATCH", 200),
        ("DELETE", 200),
        ("GET", 404),
    ]


def test_a_large_answer_is_whole_though_its_connection_ends_with_it(
    kubernetes_api: KubernetesApi, proxy: FaultProxy
) -> None:
    namespace = kubernetes_api.namespace
    direct = client.CoreV1Api(kubernetes_api.client())
    for number in range(12):
        direct.create_namespaced_config_map(namespace, _body(f"n{number}", "x" * 900_000))
    access = proxy.access()
    address = urlsplit(access.server)
    headers = {"Authorization": f"Bearer {access.token}", "Connection": "close"}
    plain = socket.socket()
    # So little that the proxy still has to send when it has received all.
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.settimeout(60)
    plain.connect((address.hostname, address.port))
    connection = http.client.HTTPSConnection(address.netloc)
    context = client_context(access.authority)
    connection.sock = context.wrap_socket(plain, server_hostname=address.hostname)
    connection.request("GET", f"/api/v1/namespaces/{namespace}/configmaps", headers=headers)
    content = connection.getresponse().read()
    connection.close()
    assert len(json.loads(content)["items"]) == 13


def test_a_user_with_a_token_stays_that_user(
    kubernetes_api: KubernetesApi, proxy: FaultProxy
) -> None:
    namespace = kubernetes_api.namespace
    access = kubernetes_api.access_for([_READ_CONFIG])
    core = client.CoreV1Api(kubernetes_api.client(proxy.access(access)))
    core.list_namespaced_config_map(namespace)
    with pytest.raises(ApiException) as caught:
        core.create_namespaced_config_map(namespace, _body("a"))
    assert caught.value.status == 403


def test_nobody_becomes_administrator_by_the_proxy(
    kubernetes_api: KubernetesApi, proxy: FaultProxy
) -> None:
    for token, status in ((None, 403), ("guessed", 401)):
        stranger = replace(proxy.access(), token=token)
        with pytest.raises(ApiException) as caught:
            client.CoreV1Api(kubernetes_api.client(stranger)).list_namespace()
        assert caught.value.status == status
    with pytest.raises(ValueError, match="only a user with a token"):
        proxy.access(kubernetes_api.admin)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (409, "Conflict"),
        (429, "TooManyRequests"),
        (500, "InternalError"),
        (503, "ServiceUnavailable"),
    ],
)
def test_a_request_is_answered_with_an_error_that_the_server_never_sees(
    kubernetes_api: KubernetesApi,
    proxy: FaultProxy,
    core: client.CoreV1Api,
    status: int,
    reason: str,
) -> None:
    namespace = kubernetes_api.namespace
    agent = f"agent-{uuid4().hex}"
    core.api_client.user_agent = agent
    rule = proxy.add(Answer(status), methods=["POST"], path="/configmaps", times=1)
    with pytest.raises(ApiException) as caught:
        core.create_namespaced_config_map(namespace, _body("a"))
    assert caught.value.status == status
    assert json.loads(caught.value.body)["reason"] == reason
    core.read_namespaced_config_map("kube-root-ca.crt", namespace)
    core.create_namespaced_config_map(namespace, _body("a"))
    assert (rule.matched, rule.applied) == (2, 1)
    if kubernetes_api.is_own:
        seen = kubernetes_api.audit.requests(agent)
        assert [(r.verb, r.code) for r in seen] == [("get", 200), ("create", 201)]


def test_too_many_requests_say_when_to_come_back(
    kubernetes_api: KubernetesApi, proxy: FaultProxy
) -> None:
    proxy.add(Answer(429, retry_after=1), times=2)
    # The official client keeps to Retry-After by itself.
    patient = client.CoreV1Api(kubernetes_api.client(proxy.access()))
    before = time.monotonic()
    patient.list_namespaced_config_map(kubernetes_api.namespace)
    assert 2 <= time.monotonic() - before < 10
    assert [e.status for e in proxy.exchanges] == [429, 429, 200]


def test_a_share_of_the_requests_fails_and_the_same_seed_fails_the_same(
    kubernetes_api: KubernetesApi,
) -> None:
    def run(seed: int) -> list[int | None]:
        proxy = kubernetes_api.proxy(seed=seed)
        proxy.add(Answer(500), share=0.3)
        core = client.CoreV1Api(_without_retries(kubernetes_api.client(proxy.access())))
        for _ in range(40):
            with suppress(ApiException):
                core.read_namespace(kubernetes_api.namespace)
        return [exchange.status for exchange in proxy.exchanges]

    first = run(1)
    assert set(first) == {200, 500}
    assert first == run(1)
    assert first != run(2)


def test_a_request_is_late(
    kubernetes_api: KubernetesApi, proxy: FaultProxy, core: client.CoreV1Api
) -> None:
    proxy.add(Delay(0.7), path="/secrets")
    before = time.monotonic()
    core.list_namespaced_config_map(kubernetes_api.namespace)
    quick = time.monotonic() - before
    core.list_namespaced_secret(kubernetes_api.namespace)
    assert time.monotonic() - before - quick >= 0.7
    assert quick < 0.7


def test_a_dropped_request_never_reaches_the_server(
    kubernetes_api: KubernetesApi, proxy: FaultProxy, core: client.CoreV1Api
) -> None:
    namespace = kubernetes_api.namespace
    proxy.add(Drop("request"), methods=["POST"], times=1)
    with pytest.raises(HTTPError):
        core.create_namespaced_config_map(namespace, _body("a"))
    with pytest.raises(ApiException) as caught:
        core.read_namespaced_config_map("a", namespace)
    assert caught.value.status == 404
    core.create_namespaced_config_map(namespace, _body("a"))


def test_a_dropped_answer_leaves_the_request_done(
    kubernetes_api: KubernetesApi, proxy: FaultProxy, core: client.CoreV1Api
) -> None:
    namespace = kubernetes_api.namespace
    proxy.add(Drop("answer"), methods=["POST"], times=1)
    with pytest.raises(HTTPError):
        core.create_namespaced_config_map(namespace, _body("a"))
    assert core.read_namespaced_config_map("a", namespace).metadata.name == "a"
    with pytest.raises(ApiException) as caught:
        core.create_namespaced_config_map(namespace, _body("a"))
    assert json.loads(caught.value.body)["reason"] == "AlreadyExists"


def test_events_of_a_watch_come_at_once(
    kubernetes_api: KubernetesApi, core: client.CoreV1Api
) -> None:
    namespace = kubernetes_api.namespace
    direct = client.CoreV1Api(kubernetes_api.client())
    came: dict[str, float] = {}
    sent: dict[str, float] = {}
    ready, done = threading.Event(), threading.Event()

    def follow() -> None:
        for _, name in _watch(core, namespace):
            came[name] = time.monotonic()
            ready.set()
            if name == "n9":
                break
        done.set()

    thread = threading.Thread(target=follow)
    thread.start()
    assert ready.wait(20)
    for number in range(10):
        name = f"n{number}"
        direct.create_namespaced_config_map(namespace, _body(name))
        sent[name] = time.monotonic()
        eventually(lambda name=name: name in came)
    thread.join(20)
    late = [came[name] - sent[name] for name in sent]
    assert sorted(late)[len(late) // 2] < 0.1


@pytest.mark.parametrize("cleanly", [True, False], ids=["cleanly", "broken"])
def test_a_watch_is_cut(
    kubernetes_api: KubernetesApi, proxy: FaultProxy, core: client.CoreV1Api, cleanly: bool
) -> None:
    namespace = kubernetes_api.namespace
    rule = proxy.add(CutWatch(after=0.5, cleanly=cleanly))
    before = time.monotonic()
    events = []
    try:
        events.extend(_watch(core, namespace))
        ended_cleanly = True
    except HTTPError:
        ended_cleanly = False
    assert ended_cleanly is cleanly
    assert 0.5 <= time.monotonic() - before < 5
    assert ("ADDED", "kube-root-ca.crt") in events
    core.list_namespaced_config_map(namespace)
    assert (rule.matched, rule.applied) == (1, 1)


def test_a_busy_watch_is_cut_between_two_events(
    kubernetes_api: KubernetesApi, proxy: FaultProxy, core: client.CoreV1Api
) -> None:
    namespace = kubernetes_api.namespace
    direct = client.CoreV1Api(kubernetes_api.client())
    direct.create_namespaced_config_map(namespace, _body("busy"))
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            direct.patch_namespaced_config_map("busy", namespace, {"data": {"k": "x" * 20_000}})
            direct.patch_namespaced_config_map("busy", namespace, {"data": {"k": "y" * 20_000}})

    writer = threading.Thread(target=write)
    writer.start()
    try:
        proxy.add(CutWatch(after=0.5, cleanly=True))
        # Every line is whole, or this could not be read.
        seen = list(_watch(core, namespace))
    finally:
        stop.set()
        writer.join(20)
    assert len(seen) > 10


def test_a_watch_is_refused_with_410(
    kubernetes_api: KubernetesApi, proxy: FaultProxy, core: client.CoreV1Api
) -> None:
    proxy.add(ExpireWatch(), path="resourceVersion=0")
    with pytest.raises(ApiException) as caught:
        list(_watch(core, kubernetes_api.namespace))
    assert caught.value.status == 410
    assert json.loads(caught.value.body)["reason"] == "Expired"


def test_a_watch_is_told_in_the_middle_that_its_version_is_too_old(
    kubernetes_api: KubernetesApi, proxy: FaultProxy, core: client.CoreV1Api
) -> None:
    namespace = kubernetes_api.namespace
    proxy.add(ExpireWatch(after=0.3), times=1)
    events = list(_watch(core, namespace))
    assert events[0] == ("ADDED", "kube-root-ca.crt")
    assert events[-1] == ("ERROR", "Expired")
    # The client's own watch makes an exception of it.
    proxy.add(ExpireWatch(after=0.3))
    with pytest.raises(ApiException) as caught:
        for _ in watch.Watch().stream(
            core.list_namespaced_config_map, namespace, resource_version="1", _request_timeout=20
        ):
            pass
    assert caught.value.status == 410


def test_all_connections_break_at_once(
    kubernetes_api: KubernetesApi, proxy: FaultProxy, core: client.CoreV1Api
) -> None:
    stream = _watch(core, kubernetes_api.namespace)
    next(stream)
    proxy.break_connections()
    with pytest.raises(HTTPError):
        list(stream)
    core.list_namespaced_config_map(kubernetes_api.namespace)


def test_a_client_that_goes_away_ends_its_watch_on_the_server(
    kubernetes_api: KubernetesApi, proxy: FaultProxy
) -> None:
    if not kubernetes_api.is_own:
        pytest.skip("seen in the audit log")
    agent = f"agent-{uuid4().hex}"
    api_client = kubernetes_api.client(proxy.access(), user_agent=agent)
    stream = _watch(client.CoreV1Api(api_client), kubernetes_api.namespace)
    next(stream)
    stages = kubernetes_api.audit
    assert len([e for e in stages if e.user_agent == agent]) == 1
    stream.close()
    api_client.rest_client.pool_manager.clear()
    del stream
    # The end of a watch is an event of its own.
    eventually(lambda: len([e for e in stages if e.user_agent == agent]) == 2)


def test_a_dead_server_is_a_broken_connection(
    kubernetes_api: KubernetesApi, proxy: FaultProxy, core: client.CoreV1Api
) -> None:
    kubernetes_api.kill_apiserver()
    with pytest.raises(HTTPError):
        core.list_namespaced_config_map(kubernetes_api.namespace)
    assert proxy.exchanges[-1].status is None
    kubernetes_api.start_apiserver()
    core.list_namespaced_config_map(kubernetes_api.namespace)


def test_many_clients_at_once(kubernetes_api: KubernetesApi, proxy: FaultProxy) -> None:
    access = proxy.access()
    failed = []

    def work(number: int) -> None:
        try:
            core = client.CoreV1Api(kubernetes_api.client(access))
            for turn in range(5):
                name = f"c{number}-{turn}"
                core.create_namespaced_config_map(kubernetes_api.namespace, _body(name))
                assert core.read_namespaced_config_map(name, kubernetes_api.namespace)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    assert [e.status for e in proxy.exchanges].count(201) == 40


def test_a_watch_over_a_web_socket_passes(kubernetes_api: KubernetesApi, proxy: FaultProxy) -> None:
    access = proxy.access()
    address = urlsplit(access.server)
    path = f"/api/v1/namespaces/{kubernetes_api.namespace}/configmaps?watch=1&resourceVersion=0"
    head = "\r\n".join(
        [
            f"GET {path} HTTP/1.1",
            f"Host: {address.netloc}",
            f"Authorization: Bearer {access.token}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(b'0123456789abcdef').decode()}",
            # What browsers send; the server takes no socket without it.
            f"Origin: https://{address.netloc}",
            "\r\n",
        ]
    )
    with socket.create_connection((address.hostname, address.port), timeout=20) as plain:
        context = client_context(access.authority)
        with context.wrap_socket(plain, server_hostname=address.hostname) as connection:
            connection.sendall(head.encode())
            received = b""
            while b"kube-root-ca.crt" not in received:
                part = connection.recv(65536)
                assert part, received
                received += part
    assert received.startswith(b"HTTP/1.1 101")
    assert proxy.exchanges[-1].status == 101


def test_the_small_client_goes_through_as_well(
    kubernetes_api: KubernetesApi, proxy: FaultProxy
) -> None:
    answer = Api(proxy.access()).request("GET", "/version")
    assert answer["major"] == "1"
    assert Api(proxy.access()).request("GET", "/healthz") == "ok"
    assert len(proxy.exchanges) == 2
