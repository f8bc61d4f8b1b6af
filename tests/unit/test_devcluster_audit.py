"""Audit events are read as the API server writes them."""

from __future__ import annotations

import json
from pathlib import Path

from devcluster.api import Api
from devcluster.audit import AuditEvent, AuditLog
from devcluster.kubeconfig import Access

_EVENT = {
    "kind": "Event",
    "auditID": "1",
    "stage": "ResponseComplete",
    "requestURI": "/api/v1/namespaces/a/pods/p/status",
    "verb": "patch",
    "user": {"username": "alice", "groups": ["team"]},
    "userAgent": "program/1.0",
    "objectRef": {"resource": "pods", "subresource": "status", "namespace": "a", "name": "p"},
    "responseStatus": {"metadata": {}, "code": 200},
}


def test_an_event_says_who_did_what_to_what() -> None:
    assert AuditEvent.parse(json.dumps(_EVENT)) == AuditEvent(
        user="alice",
        user_agent="program/1.0",
        verb="patch",
        uri="/api/v1/namespaces/a/pods/p/status",
        resource="pods/status",
        namespace="a",
        name="p",
        code=200,
        id="1",
    )


def test_a_request_that_is_about_no_object_is_an_event_as_well() -> None:
    bare = {"auditID": "2", "requestURI": "/version", "verb": "get", "user": {}, "stage": "Panic"}
    event = AuditEvent.parse(json.dumps(bare))
    assert (event.resource, event.namespace, event.name, event.code) == ("", "", "", 0)


def test_only_whole_lines_since_the_beginning_are_read(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    line = json.dumps(_EVENT) + "\n"
    path.write_text(line)
    log = AuditLog(path, Api(Access("https://127.0.0.1:1", None)))
    assert list(log) == []
    with path.open("a") as file:
        file.write(line + line[:50])
        file.flush()
        assert len(list(log)) == 1
        file.write(line[50:])
    assert len(list(log)) == 2
