"""Users who may do exactly what a test says, on any cluster.

They are service accounts with a token: for a user with a certificate one needs the key of the
cluster's authority, which only a cluster of this tool gives away (`Cluster.user`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from devcluster.api import Api
from devcluster.errors import DevclusterError
from devcluster.kubeconfig import Access

Rule = Mapping[str, Sequence[str]]
"""A rule of a Role: apiGroups, resources, verbs, and perhaps resourceNames or nonResourceURLs."""

_RBAC = "rbac.authorization.k8s.io"
# What the API server allows at least.
_TOKEN_SECONDS = 3600
_EFFECTIVE_SECONDS = 10.0
_LOOK_AGAIN = 0.02


def service_account(
    api: Api,
    namespace: str,
    name: str,
    rules: Iterable[Rule] = (),
    *,
    cluster_rules: Iterable[Rule] = (),
) -> Access:
    """Make a service account that may do what rules say, and nothing else.

    Everything goes away with the namespace; the token ends after an hour.

    Args:
        api: The server, as somebody who may give these rights.
        namespace: Where it lives, and where the rules hold.
        name: Its name; also that of its roles.
        rules: What it may do in its namespace.
        cluster_rules: What it may do everywhere.

    Returns:
        How it reaches the server. The rules are in force.

    Raises:
        ApiError: The server refuses something.
    """
    rules, cluster_rules = list(rules), list(cluster_rules)
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    api.request("POST", accounts, {"metadata": {"name": name}})
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    bind(api, namespace, name, subject, rules)
    bind_everywhere(api, namespace, f"{namespace}-{name}", subject, cluster_rules)
    answer = api.request(
        "POST", f"{accounts}/{name}/token", {"spec": {"expirationSeconds": _TOKEN_SECONDS}}
    )
    token: str = answer["status"]["token"]
    access = replace(api.access, pair=None, token=token, namespace=namespace)
    _await_effect(Api(access), rules, namespace)
    _await_effect(Api(access), cluster_rules, "")
    return access


def bind(
    api: Api, namespace: str, name: str, subject: Mapping[str, str], rules: Iterable[Rule]
) -> None:
    """Give a subject rights in a namespace: a Role and a RoleBinding of one name."""
    path = f"/apis/{_RBAC}/v1/namespaces/{namespace}"
    api.request("POST", f"{path}/roles", {"metadata": {"name": name}, "rules": list(rules)})
    api.request("POST", f"{path}/rolebindings", _binding("Role", {"name": name}, subject))


def bind_everywhere(
    api: Api, namespace: str, name: str, subject: Mapping[str, str], rules: Sequence[Rule]
) -> None:
    """Give a subject rights in the whole cluster, for as long as a namespace exists.

    A ClusterRole and a ClusterRoleBinding, which belong to the namespace: the garbage collection
    takes them away after it. No rules make nothing.
    """
    if not rules:
        return
    owner = api.request("GET", f"/api/v1/namespaces/{namespace}")["metadata"]
    reference = {"apiVersion": "v1", "kind": "Namespace", "name": namespace, "uid": owner["uid"]}
    metadata = {"name": name, "ownerReferences": [reference]}
    path = f"/apis/{_RBAC}/v1"
    api.request("POST", f"{path}/clusterroles", {"metadata": metadata, "rules": list(rules)})
    binding = _binding("ClusterRole", metadata, subject)
    api.request("POST", f"{path}/clusterrolebindings", binding)


def _binding(
    kind: str, metadata: Mapping[str, Any], subject: Mapping[str, str]
) -> dict[str, object]:
    return {
        "metadata": metadata,
        "roleRef": {"apiGroup": _RBAC, "kind": kind, "name": metadata["name"]},
        "subjects": [subject],
    }


def _await_effect(api: Api, rules: Sequence[Rule], namespace: str) -> None:
    """Wait until the API server has taken notice of roles, as the user whom they are for."""
    deadline = time.monotonic() + _EFFECTIVE_SECONDS
    for spec in [_question(rule, namespace) for rule in rules]:
        while not _allowed(api, spec):
            if time.monotonic() > deadline:
                raise DevclusterError(
                    f"The API server does not allow {spec}, though a role says so, for "
                    f"{_EFFECTIVE_SECONDS:g} s."
                )
            # Its authorizer hears of roles through a watch of its own, which nobody can see.
            time.sleep(_LOOK_AGAIN)


def _question(rule: Rule, namespace: str) -> dict[str, object]:
    """A question to which the answer is yes when a rule is in force."""
    verb = rule["verbs"][0]
    if urls := rule.get("nonResourceURLs"):
        return {"nonResourceAttributes": {"path": urls[0], "verb": verb}}
    resource, _, subresource = rule["resources"][0].partition("/")
    return {
        "resourceAttributes": {
            "namespace": namespace,
            "verb": verb,
            "group": rule["apiGroups"][0],
            "resource": resource,
            "subresource": subresource,
            "name": next(iter(rule.get("resourceNames", [])), ""),
        }
    }


def _allowed(api: Api, spec: Mapping[str, object]) -> bool:
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    return bool(api.request("POST", path, {"spec": spec})["status"]["allowed"])
