"""The control plane is a real one: versions, roles, audit, custom resources, garbage collection."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from devcluster.access import bind
from devcluster.api import Api
from devcluster.cluster import Cluster
from devcluster.components.kubernetes import MODULE
from devcluster.errors import ApiError
from kubernetes import client, watch
from kubernetes.client import ApiException
from tests.kubernetes_api import KubernetesApi
from tests.processes import eventually
from urllib3.exceptions import HTTPError

_READ_CONFIG = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}


def _config_map(name: str, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **metadata}, "data": {"key": name}}


def _reference(owner: Any) -> dict[str, str]:
    named = {"name": owner.metadata.name, "uid": owner.metadata.uid}
    return {"apiVersion": "v1", "kind": "ConfigMap", **named}


def _names(core: client.CoreV1Api, namespace: str) -> set[str]:
    found = {item.metadata.name for item in core.list_namespaced_config_map(namespace).items}
    return found - {"kube-root-ca.crt"}


def test_the_server_knows_its_version(kubernetes_api: KubernetesApi) -> None:
    version = client.VersionApi(kubernetes_api.client()).get_code()
    assert version.git_version == MODULE.version("k8s.io/kubernetes")
    assert (version.major, version.minor) == ("1", version.git_version.split(".")[1])


def test_a_user_may_do_what_its_rules_say_and_nothing_else(kubernetes_api: KubernetesApi) -> None:
    namespace = kubernetes_api.namespace
    access = kubernetes_api.access_for([_READ_CONFIG])
    core = client.CoreV1Api(kubernetes_api.client(access))
    core.list_namespaced_config_map(namespace)
    refused = [
        lambda: core.create_namespaced_config_map(namespace, _config_map("a")),
        lambda: core.list_namespaced_secret(namespace),
        lambda: core.list_namespaced_config_map("kube-system"),
        core.list_node,
    ]
    for request in refused:
        with pytest.raises(ApiException) as caught:
            request()
        assert caught.value.status == 403


def test_cluster_rules_hold_everywhere_and_go_away_with_the_namespace(
    kubernetes_api: KubernetesApi,
) -> None:
    access = kubernetes_api.access_for([], cluster_rules=[_READ_CONFIG])
    core = client.CoreV1Api(kubernetes_api.client(access))
    core.list_namespaced_config_map("kube-system")
    with pytest.raises(ApiException):
        core.list_namespaced_secret("kube-system")
    admin = kubernetes_api.client()
    roles = client.RbacAuthorizationV1Api(admin)
    client.CoreV1Api(admin).delete_namespace(kubernetes_api.namespace)

    def left() -> list[str]:
        kinds = [*roles.list_cluster_role().items, *roles.list_cluster_role_binding().items]
        names = [kind.metadata.name for kind in kinds]
        return [name for name in names if name.startswith(kubernetes_api.namespace)]

    assert len(left()) == 2
    eventually(lambda: not left(), seconds=60)


def test_a_user_with_a_certificate_has_the_rights_of_its_name_and_groups(
    kubernetes_api: KubernetesApi, kubernetes_cluster: Cluster | None
) -> None:
    if kubernetes_cluster is None:
        pytest.skip("an external cluster gives nobody a certificate")
    namespace = kubernetes_api.namespace
    team = {"kind": "Group", "name": "team", "apiGroup": "rbac.authorization.k8s.io"}
    bind(Api(kubernetes_api.admin), namespace, "readers", team, [_READ_CONFIG])
    alice = kubernetes_api.client(kubernetes_cluster.user("alice", ("team",)))
    user = client.AuthenticationV1Api(alice).create_self_subject_review({}).status.user_info
    assert user.username == "alice"
    core = client.CoreV1Api(alice)
    eventually(lambda: _may_list(core, namespace))
    with pytest.raises(ApiException) as caught:
        core.list_namespaced_secret(namespace)
    assert caught.value.status == 403


def test_nobody_gets_in_without_being_known(kubernetes_api: KubernetesApi) -> None:
    for token, status in ((None, 403), ("guessed", 401)):
        stranger = replace(kubernetes_api.admin, pair=None, token=token)
        with pytest.raises(ApiException) as caught:
            client.CoreV1Api(kubernetes_api.client(stranger)).list_namespace()
        assert caught.value.status == status


def test_the_audit_log_counts_requests_by_program(kubernetes_api: KubernetesApi) -> None:
    namespace, agent = kubernetes_api.namespace, f"agent-{uuid4().hex}"
    core = client.CoreV1Api(kubernetes_api.client(user_agent=agent))
    core.create_namespaced_config_map(namespace, _config_map("a"))
    for _ in range(3):
        core.read_namespaced_config_map("a", namespace)
    with pytest.raises(ApiException):
        core.read_namespaced_config_map("b", namespace)
    for event in watch.Watch().stream(core.list_namespaced_config_map, namespace):
        assert event["type"] == "ADDED"
        break
    requests = kubernetes_api.audit.requests(agent)
    assert [(r.verb, r.name, r.code) for r in requests] == [
        ("create", "a", 201),
        *[("get", "a", 200)] * 3,
        ("get", "b", 404),
        ("watch", "", 200),
    ]
    assert {(r.resource, r.namespace) for r in requests} == {("configmaps", namespace)}


def test_a_custom_resource_is_stored_and_validated(kubernetes_api: KubernetesApi) -> None:
    group = f"g{uuid4().hex[:8]}.example.com"
    schema = {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "required": ["size"],
                "properties": {"size": {"type": "integer", "minimum": 1}},
            }
        },
    }
    api_client = kubernetes_api.client()
    definitions = client.ApiextensionsV1Api(api_client)
    name = f"things.{group}"
    definitions.create_custom_resource_definition(
        {
            "metadata": {"name": name},
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {"plural": "things", "kind": "Thing"},
                "versions": [
                    {
                        "name": "v1",
                        "served": True,
                        "storage": True,
                        "schema": {"openAPIV3Schema": schema},
                    }
                ],
            },
        }
    )
    try:
        things = client.CustomObjectsApi(api_client)
        where = (group, "v1", kubernetes_api.namespace, "things")

        def thing(name: str, size: int) -> dict[str, Any]:
            body = {"apiVersion": f"{group}/v1", "kind": "Thing", "spec": {"size": size}}
            return body | {"metadata": {"name": name}}

        def served() -> bool:
            try:
                return things.list_namespaced_custom_object(*where)["items"] == []
            except ApiException as error:
                if error.status != 404:
                    raise
                return False

        eventually(served)
        things.create_namespaced_custom_object(*where, thing("good", 1))
        with pytest.raises(ApiException) as caught:
            things.create_namespaced_custom_object(*where, thing("bad", 0))
        assert caught.value.status == 422
        stored = things.list_namespaced_custom_object(*where)["items"]
        assert [item["metadata"]["name"] for item in stored] == ["good"]
    finally:
        definitions.delete_custom_resource_definition(name)


def test_what_belongs_to_a_deleted_object_is_deleted(kubernetes_api: KubernetesApi) -> None:
    namespace = kubernetes_api.namespace
    core = client.CoreV1Api(kubernetes_api.client())
    owner = core.create_namespaced_config_map(namespace, _config_map("owner"))
    reference = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": "owner",
        "uid": owner.metadata.uid,
    }
    core.create_namespaced_config_map(namespace, _config_map("own", ownerReferences=[reference]))
    core.create_namespaced_config_map(namespace, _config_map("free"))
    core.delete_namespaced_config_map("owner", namespace)
    eventually(lambda: "own" not in _names(core, namespace), seconds=60)
    assert _names(core, namespace) == {"free"}


def test_a_deleted_namespace_goes_away_with_what_is_in_it(kubernetes_api: KubernetesApi) -> None:
    core = client.CoreV1Api(kubernetes_api.client())
    core.create_namespaced_config_map(kubernetes_api.namespace, _config_map("a"))
    core.delete_namespace(kubernetes_api.namespace)

    def gone() -> bool:
        found = core.list_namespace(field_selector=f"metadata.name={kubernetes_api.namespace}")
        return not found.items

    eventually(gone, seconds=60)
    assert not _names(core, kubernetes_api.namespace)


def test_a_killed_server_comes_back_with_everything(kubernetes_api: KubernetesApi) -> None:
    namespace = kubernetes_api.namespace
    core = client.CoreV1Api(kubernetes_api.client())
    before = core.create_namespaced_config_map(namespace, _config_map("a"))
    token = kubernetes_api.access_for([_READ_CONFIG])
    kubernetes_api.kill_apiserver()
    with pytest.raises(HTTPError):
        core.read_namespaced_config_map("a", namespace, _request_timeout=2)
    kubernetes_api.start_apiserver()
    after = core.read_namespaced_config_map("a", namespace)
    assert (after.metadata.uid, after.data) == (before.metadata.uid, before.data)
    # Tokens and roles hold as well, and the controllers find the server again.
    as_user = client.CoreV1Api(kubernetes_api.client(token))
    eventually(lambda: _may_list(as_user, namespace))
    own = _config_map("own", ownerReferences=[_reference(after)])
    core.create_namespaced_config_map(namespace, own)
    core.delete_namespaced_config_map("a", namespace)
    eventually(lambda: not _names(core, namespace), seconds=60)


def _may_list(core: client.CoreV1Api, namespace: str) -> bool:
    try:
        core.list_namespaced_config_map(namespace)
    except ApiException as error:
        if error.status not in {401, 403}:
            raise
        return False
    return True


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "restarted"])
def test_a_watch_goes_on_where_it_was_after_the_server_was_away(
    kubernetes_api: KubernetesApi, killed: bool
) -> None:
    namespace = kubernetes_api.namespace
    core = client.CoreV1Api(kubernetes_api.client())
    start = core.list_namespaced_config_map(namespace).metadata.resource_version
    first = core.create_namespaced_config_map(namespace, _config_map("a"))
    broken = threading.Event()
    seen: list[str] = []

    def follow() -> None:
        arguments = {"resource_version": start, "_request_timeout": 60}
        events = watch.Watch().stream(core.list_namespaced_config_map, namespace, **arguments)
        try:
            seen.extend(event["object"].metadata.name for event in events)
        except Exception:
            broken.set()

    thread = threading.Thread(target=follow)
    thread.start()
    eventually(lambda: "a" in seen)
    if killed:
        kubernetes_api.kill_apiserver()
        assert broken.wait(20)
        kubernetes_api.start_apiserver()
    else:
        kubernetes_api.restart_apiserver()
        assert broken.wait(20)
    thread.join(20)
    core.create_namespaced_config_map(namespace, _config_map("b"))
    version = first.metadata.resource_version
    for event in watch.Watch().stream(
        core.list_namespaced_config_map, namespace, resource_version=version, _request_timeout=20
    ):
        name = event["object"].metadata.name
        if name != "kube-root-ca.crt":
            assert (event["type"], name) == ("ADDED", "b")
            break


def test_every_test_has_a_namespace_of_its_own(kubernetes_api: KubernetesApi) -> None:
    core = client.CoreV1Api(kubernetes_api.client())
    assert core.read_namespace(kubernetes_api.namespace).status.phase == "Active"
    assert not _names(core, kubernetes_api.namespace)


def test_a_refusal_of_the_small_client_says_why(kubernetes_api: KubernetesApi) -> None:
    with pytest.raises(ApiError, match='404: configmaps "none" not found'):
        Api(kubernetes_api.admin).request("GET", "/api/v1/namespaces/default/configmaps/none")
